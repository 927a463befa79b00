"""The segmentation that is written again: the same pixels, and the site of each segment."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from phantoms.dicom_case import assert_valid, case, write_scan
from phantoms.dicom_rois import write_seg

from situs.io import read_rois
from situs.io.dicom.patient import read_patient
from situs.report.dicom_seg import format_segmentation


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a scan, its volume, a finding, and the images as data sets."""
    folder = write_scan(tmp_path_factory.mktemp("seg") / "ct")
    volume, findings = case(folder)
    return folder, volume, findings[0], [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def written(made, tmp_path, findings, kind="BINARY", change=lambda seg: None):
    """The original segmentation of two segments that overlap, the one written again, and its file."""
    folder, volume, _, slices = made
    masks = np.zeros((2, len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    masks[0, 1:4, 20:30, 10:18], masks[1, 2:5, 25:40, 12:30] = 1, 1
    write_seg(tmp_path / "seg.dcm", slices, masks, kind)
    original = pydicom.dcmread(tmp_path / "seg.dcm")
    change(original)
    path = tmp_path / "again.dcm"
    path.write_bytes(format_segmentation(original, findings, read_patient(folder, volume)))
    return original, pydicom.dcmread(path), path


def regions(document):
    """{segment: (code of the site, code of the side)} of the segments that have a region."""
    found = {}
    for segment in document.SegmentSequence:
        for region in segment.get("AnatomicRegionSequence", []):
            sides = [side.CodeValue for side in region.get("AnatomicRegionModifierSequence", [])]
            found[segment.SegmentNumber] = (region.CodeValue, *sides)
    return found


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_segment_gets_site_and_side_and_keeps_its_pixels(made, tmp_path, kind):
    """Codes of SNOMED CT: 42695009 thalamus, 119238007 brain stem, 7771000 left."""
    finding = replace(made[2], doubts=(), site="thalamus", side="left")
    stem = replace(finding, roi_value=2, site="brainstem", side="midline")
    original, again, path = written(made, tmp_path, [finding, stem], kind)
    assert regions(again) == {1: ("42695009", "7771000"), 2: ("119238007",)}
    assert again.PixelData == original.PixelData
    assert again.SOPInstanceUID != original.SOPInstanceUID
    assert again.StudyInstanceUID == original.StudyInstanceUID
    one, two = (read_rois(file, made[1]) for file in (tmp_path / "seg.dcm", path))
    assert [roi.name for roi in one] == [roi.name for roi in two] == ["segment 1", "segment 2"]
    for roi, other in zip(one, two, strict=True):
        assert np.array_equal(roi.mask, other.mask) and roi.start == other.start
    assert_valid(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"component": 2}, {1: ("42695009", "7771000")}),
        ({"side": "right"}, {1: ("42695009", "51440002")}),
        ({"side": "midline"}, {1: ("42695009",)}),
        ({"site": "cerebellum"}, {}),
        ({"doubts": ("It may lie elsewhere.",)}, {}),
        ({"site": None, "side": None, "doubts": ("It is too small.",)}, {1: ("42695009", "7771000")}),
    ],
)
def test_a_segment_of_several_lesions_has_a_region_if_all_agree(made, tmp_path, change, expected):
    finding = replace(made[2], doubts=(), site="thalamus", side="left")
    _, again, _ = written(made, tmp_path, [finding, replace(finding, **change)])
    assert regions(again) == expected


def test_a_region_that_somebody_gave_is_kept(made, tmp_path):
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "12738006", "SCT", "Brain"

    def give(seg):
        seg.SegmentSequence[0].AnatomicRegionSequence = [code]

    _, again, _ = written(made, tmp_path, [replace(made[2], doubts=())], change=give)
    assert regions(again) == {1: ("12738006",)}
