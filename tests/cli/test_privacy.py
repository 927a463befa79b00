"""What names a patient in a DICOM folder is in no byte that `situs label` writes or prints."""

import base64
import io
import re
import shutil
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
from phantoms.dicom_rois import write_rtstruct, write_seg
from phantoms.io_cases import dicom_slices, write_dicom
from phantoms.small_bundle import small_bundle
from phantoms.telltale import TELLTALE, assert_silent, named_slices

from situs.cli import main
from situs.io import read_volume


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_dicom(tmp_path_factory.mktemp("whole"), named_slices(), prefix=f"{TELLTALE}-DOE-JANE-")


@pytest.fixture
def folder(tmp_path, monkeypatch, whole):
    """A folder ``ct`` whose every text tag and file name tells, and ``mask.nii.gz``; the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITUS_DEBUG", raising=False)
    shutil.copytree(whole, tmp_path / "ct")
    geometry = read_volume(tmp_path / "ct").geometry
    mask = np.zeros(geometry.shape, np.uint8)
    mask[12:18, 24:32, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, geometry.affine), tmp_path / "mask.nii.gz")
    return tmp_path


LABEL = [
    "label",
    "ct",
    "--roi",
    "mask.nii.gz",
    "--json",
    "f.json",
    "--csv",
    "f.csv",
    "--png",
    "png",
    "--html",
    "p.html",
]


def label(capfd):
    code = main([*LABEL, "--bundle", str(small_bundle())])
    return (code, *capfd.readouterr())


def png_chunks(data):
    """(type, content) of each chunk; compressed texts are unpacked."""
    at = 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        yield kind, zlib.decompress(content.split(b"\0", 2)[2]) if kind == b"zTXt" else content
        at += 12 + length


def written_files(folder):
    """The bytes of each file that `LABEL` writes, and of the pictures in the page; base64 may spell all."""
    page = (folder / "p.html").read_bytes()
    pictures = re.findall(rb"data:image/png;base64,([\w+/=]+)", page)
    assert pictures
    for picture in pictures:
        page = page.replace(picture, b"")
    files = [(folder / name).read_bytes() for name in ("f.json", "f.csv")]
    files += [path.read_bytes() for path in (folder / "png").iterdir()]
    return [*files, page, *map(base64.b64decode, pictures)]


def test_no_output_names_the_patient(folder, capfd):
    code, out, err = label(capfd)
    assert (code, err) == (0, "") and "ct: 1 lesion" in out
    assert_silent(out)
    written = written_files(folder)
    assert_silent(" ".join(path.name for path in folder.rglob("*") if not path.is_relative_to(folder / "ct")))
    for content in written:
        assert_silent(content)
        for kind, chunk in png_chunks(content) if content.startswith(b"\x89PNG") else ():
            assert kind in (b"IHDR", b"IDAT", b"IEND", b"PLTE", b"pHYs") or b"situs" in chunk
            assert_silent(chunk)


# Of the Patient and General Study modules, what is of type 1 or 2.
REQUIRED = {
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
}


def assert_only_the_required_tells(path):
    assert_silent(path.name)
    written = pydicom.dcmread(path)
    assert TELLTALE in str(written.PatientName) and TELLTALE in written.AccessionNumber
    for tag in REQUIRED:
        del written[tag]
    rest = io.BytesIO()
    written.save_as(rest, enforce_file_format=True)
    assert_silent(rest.getvalue())


def test_dicom_objects_name_the_patient_as_the_standard_requires_and_nowhere_else(folder, capfd):
    code = main([*LABEL, "--bundle", str(small_bundle()), "--sr", "sr.dcm", "--sc", "sc"])
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert_silent(out)
    objects = [folder / "sr.dcm", *(folder / "sc").iterdir()]
    assert len(objects) == 2
    for path in objects:
        assert_only_the_required_tells(path)
    for content in written_files(folder):
        assert_silent(content)


def test_the_segmentation_that_is_written_again_tells_no_more_than_that(folder, capfd):
    slices = [pydicom.dcmread(path) for path in sorted((folder / "ct").iterdir())]
    masks = np.zeros((1, len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    masks[0, 2:4, 24:32, 12:18] = 1
    write_seg(folder / "seg.dcm", slices, masks)
    seg = pydicom.dcmread(folder / "seg.dcm")
    for tag in ("OperatorsName", "InstitutionName", "SeriesDescription", "ContentDescription"):
        setattr(seg, tag, TELLTALE)
    seg.PatientAge = "091Y"
    seg.SegmentSequence[0].SegmentDescription = TELLTALE
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].FrameComments = TELLTALE
        frame.private_block(0x0009, TELLTALE, create=True).add_new(1, "LO", TELLTALE)
    seg.save_as(folder / "seg.dcm")
    command = ["label", "ct", "--roi", "seg.dcm", "--seg-out", "again.dcm", "--bundle", str(small_bundle())]
    assert main(command) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert_silent(out)
    assert_only_the_required_tells(folder / "again.dcm")


def cut(ds, path):
    path.write_bytes(path.read_bytes()[:-3000])


def without_pixels(ds, path):
    del ds.PixelData
    ds.save_as(path)


def with_an_odd_slope(ds, path):
    ds.RescaleSlope = "1e10"
    ds.save_as(path)


def without_position(ds, path):
    del ds.ImagePositionPatient
    ds.save_as(path)


def of_another_size(ds, path):
    ds.Rows = 3
    ds.save_as(path)


def of_unknown_pixels(ds, path):
    ds.PhotometricInterpretation = "TELLTALE"
    ds.save_as(path)


def no_dicom(ds, path):
    path.write_text("TELLTALE")


@pytest.mark.parametrize(
    "spoil",
    [cut, without_pixels, with_an_odd_slope, without_position, of_another_size, of_unknown_pixels, no_dicom],
)
@pytest.mark.parametrize("every", [True, False])
def test_no_error_names_the_patient(folder, capfd, spoil, every):
    files = sorted((folder / "ct").iterdir())
    for path in files if every else files[2:3]:
        spoil(pydicom.dcmread(path), path)
    _, out, err = label(capfd)
    assert err.count("\n") <= 1
    assert_silent(out)
    assert_silent(err)


def test_series_that_are_to_be_chosen_from_are_told_without_a_name(folder, capfd):
    write_dicom(folder / "ct", named_slices(), prefix=f"{TELLTALE}-AGAIN-")
    _, out, err = label(capfd)
    assert_silent(out)
    assert_silent(err)


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_of_a_dicom_roi_nothing_is_shown_but_the_names_of_its_regions(tmp_path, capfd, kind):
    slices = dicom_slices(range(-72, 73, 16))  # of the patient SECRET
    write_dicom(tmp_path / "ct", slices)
    if kind == "SEG":
        mask = np.zeros((1, len(slices), 56, 48), bool)
        mask[0, 3:6, 20:30, 20:28] = True
        write_seg(tmp_path / "roi.dcm", slices, mask, names={1: "clot"})
    else:
        corners = np.array([(-20, -20, -8), (20, -20, -8), (20, 20, -8), (-20, 20, -8)])
        write_rtstruct(tmp_path / "roi.dcm", slices, {1: ("clot", [("CLOSED_PLANAR", corners)])})
    assert b"SECRET" in (tmp_path / "roi.dcm").read_bytes()
    table, csv_file = tmp_path / "f.json", tmp_path / "f.csv"
    roi = ["--roi", str(tmp_path / "roi.dcm"), "--bundle", str(small_bundle())]
    assert main(["label", str(tmp_path / "ct"), *roi, "--json", str(table), "--csv", str(csv_file)]) == 0
    texts = [*capfd.readouterr(), table.read_text(), csv_file.read_text()]
    assert not any("SECRET" in text for text in texts)
    assert all("clot" in text for text in (texts[0], *texts[2:]))
