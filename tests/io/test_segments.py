"""DICOM segmentations: written by highdicom, drawn on series that `dicom_slices` made."""

import nibabel
import numpy as np
import pydicom
import pytest
from phantoms.dicom_rois import write_seg
from phantoms.io_cases import assert_one_line, dicom_slices, write_dicom
from pydicom.uid import generate_uid

from situs.errors import RoiError
from situs.io import read_rois, read_volume
from situs.volume import OutsideRoi

UNEVEN = (-72, -68, -64, -57, -50, -43, -36, -20, 0, 3, 10, 40)


def drawn(n_slices, shape=(56, 48)):
    """(2, slices, rows, columns) two boxes that overlap on one slice."""
    masks = np.zeros((2, n_slices, *shape), bool)
    masks[0, 2:5, 10:20, 5:30] = True
    masks[1, 4:7, 15:40, 8:12] = True
    return masks


def case(tmp_path, kind="BINARY", masks=None, slices=None, **options):
    """A series, its scan, and the path of a SEG of it."""
    slices = slices or dicom_slices(UNEVEN, tilt_deg=15, turn_deg=12)
    scan = read_volume(write_dicom(tmp_path / "ct", slices))
    masks = drawn(len(slices)) if masks is None else masks
    write_seg(tmp_path / "seg.dcm", slices, masks, kind, **options)
    return scan, masks, tmp_path / "seg.dcm"


def whole(roi):
    full = np.zeros(roi.geometry.shape, bool)
    full[roi.box] = roi.mask
    return full


def on_scan(mask):
    """A mask (slices, rows, columns) with the axes of the scan."""
    return mask.transpose(2, 1, 0)


@pytest.mark.parametrize("omit", [True, False])
def test_segments_lie_on_the_slices_of_a_tilted_uneven_scan_and_may_overlap(tmp_path, omit):
    scan, masks, path = case(tmp_path, names={1: "haematoma", 2: "oedema"}, omit_empty_frames=omit)
    first, second = read_rois(path, scan)
    assert (first.value, first.name, second.value, second.name) == (1, "haematoma", 2, "oedema")
    for roi, mask in zip((first, second), masks, strict=True):
        np.testing.assert_array_equal(whole(roi), on_scan(mask))
        assert (roi.notes, roi.doubts) == ((), ())
    assert (whole(first) & whole(second)).any()


def test_a_label_map_is_read_by_its_numbers(tmp_path):
    scan, masks, path = case(tmp_path, "LABELMAP", names={2: "oedema"})
    first, second = read_rois(path, scan)
    assert (first.value, second.value, second.name) == (1, 2, "oedema")
    np.testing.assert_array_equal(whole(second), on_scan(masks[1]))
    np.testing.assert_array_equal(whole(first), on_scan(masks[0] & ~masks[1]))


@pytest.mark.parametrize(("threshold", "least"), [(None, 0.5), (0.25, 0.25), (0.8, 0.8)])
def test_a_fractional_segmentation_is_cut_at_the_threshold_that_the_notes_name(tmp_path, threshold, least):
    slices = dicom_slices(UNEVEN)
    shares = np.zeros((1, len(slices), 56, 48))
    shares[0, 3, 10:20, 5:15] = np.linspace(0.1, 1.0, 10)  # 0.1, 0.2, ... 1.0 along the rows
    scan, _, path = case(tmp_path, "FRACTIONAL", shares, slices, max_fractional_value=100)
    (roi,) = read_rois(path, scan, threshold=threshold)
    stored = np.around(shares[0] * 100)
    np.testing.assert_array_equal(whole(roi), on_scan(stored >= 100 * least))
    assert f"a probability of at least {least:g} were taken" in roi.notes[0]


def test_a_threshold_for_a_binary_segmentation_is_said_to_be_unused(tmp_path):
    scan, masks, path = case(tmp_path)
    roi = read_rois(path, scan, threshold=0.9)[0]
    np.testing.assert_array_equal(whole(roi), on_scan(masks[0]))
    assert "threshold was not used" in roi.notes[0]


def edited(path, **tags):
    ds = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.save_as(path)


def without_images(path, **tags):
    """The segmentation names other images than the scan's."""
    ds = pydicom.dcmread(path)
    ds.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    for image in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        image.ReferencedSOPInstanceUID = generate_uid()
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = generate_uid()
    ds.save_as(path)
    edited(path, **tags)


def test_of_another_study_or_frame_of_reference_it_is_refused_unless_asked_for(tmp_path):
    scan, masks, path = case(tmp_path)
    for tag, words in (
        ("StudyInstanceUID", "another study"),
        ("FrameOfReferenceUID", "another frame of ref"),
    ):
        write_seg(path, dicom_slices(UNEVEN, tilt_deg=15, turn_deg=12), masks)
        own = {"StudyInstanceUID": scan.source.study, "FrameOfReferenceUID": scan.source.frame_of_reference}
        edited(path, **{**own, tag: generate_uid()})
        with pytest.raises(RoiError) as error:
            read_rois(path, scan)
        assert_one_line(error, "seg.dcm", words, "--mask-space world")
        roi = read_rois(path, scan, "world")[0]
        np.testing.assert_array_equal(whole(roi), on_scan(masks[0]))
        assert roi.notes == ("The regions were placed by their coordinates, as asked for.",)


def test_drawn_on_other_images_of_the_frame_of_reference_it_is_placed_by_coordinates(tmp_path):
    scan, masks, path = case(tmp_path)
    without_images(path)
    roi = read_rois(path, scan)[0]
    np.testing.assert_array_equal(whole(roi), on_scan(masks[0]))
    assert "other images of the scan's frame of reference" in roi.notes[0] and roi.doubts == ()


def test_images_of_the_scan_in_another_frame_of_reference_are_a_doubt(tmp_path):
    scan, _, path = case(tmp_path)
    edited(path, FrameOfReferenceUID=generate_uid(), StudyInstanceUID=generate_uid())
    assert "frame of reference (FrameOfReferenceUID) is not the scan's" in read_rois(path, scan)[0].doubts[0]


def test_the_series_that_a_segmentation_names_is_read(tmp_path):
    """Two series at the same place: by default the one with more slices is read."""
    frame, study = generate_uid(), generate_uid()
    shared = {"FrameOfReferenceUID": frame, "StudyInstanceUID": study}
    many = dicom_slices(range(-72, 73, 6), SeriesNumber=2, **shared)
    few = dicom_slices(range(-72, 73, 8), SeriesNumber=3, **shared)
    write_dicom(write_dicom(tmp_path / "ct", many), few, "b")
    write_seg(tmp_path / "seg.dcm", few, drawn(len(few)))
    assert read_volume(tmp_path / "ct").hu.shape[2] == len(many)
    scan = read_volume(tmp_path / "ct", roi=tmp_path / "seg.dcm")
    assert scan.hu.shape[2] == len(few)
    assert read_rois(tmp_path / "seg.dcm", scan)[0].notes == ()


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1)])
def test_on_a_nifti_scan_its_positions_place_it(tmp_path, flip):
    """The series as NIfTI with axes reversed, as dcm2niix does with the rows."""
    slices = dicom_slices(range(-72, 73, 8))
    dicom = read_volume(write_dicom(tmp_path / "ct", slices))
    masks = drawn(len(slices))
    write_seg(tmp_path / "seg.dcm", slices, masks)
    image = nibabel.Nifti1Image(dicom.hu, dicom.geometry.affine)
    turned = image.as_reoriented(np.array([[0, flip[0]], [1, flip[1]], [2, 1]]))
    nibabel.save(turned, tmp_path / "scan.nii")
    roi = read_rois(tmp_path / "seg.dcm", read_volume(tmp_path / "scan.nii"))[0]
    expected = on_scan(masks[0])[:: flip[0], :: flip[1]]
    np.testing.assert_array_equal(whole(roi), expected)
    assert roi.notes == ("The scan has no DICOM UIDs; the regions were placed by their coordinates alone.",)
    nibabel.save(nibabel.Nifti1Image(dicom.hu, None), tmp_path / "lost.nii")
    with pytest.raises(RoiError, match="header has no orientation"):
        read_rois(tmp_path / "seg.dcm", read_volume(tmp_path / "lost.nii"))


def test_on_another_grid_it_is_resampled_through_patient_space(tmp_path):
    """Drawn on slices of 4 mm, of which those of 8 mm are every second."""
    shared = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    fine, coarse = (dicom_slices(range(-72, 73, step), **shared) for step in (4, 8))
    scan = read_volume(write_dicom(tmp_path / "ct", coarse))
    masks = np.zeros((2, len(fine), 56, 48), bool)
    masks[0, 4:11, 10:20, 5:30] = True
    masks[1, 20, 10:20, 5:30] = True
    write_seg(tmp_path / "seg.dcm", fine, masks)
    first, second = read_rois(tmp_path / "seg.dcm", scan)
    np.testing.assert_array_equal(whole(first), on_scan(masks[0][::2]))
    np.testing.assert_array_equal(whole(second), on_scan(masks[1][::2]))
    assert any("on another grid" in note for note in first.notes)


def test_what_lies_outside_the_scan_has_a_row_of_its_own(tmp_path):
    shared = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    slices = dicom_slices(range(-72, 73, 8), **shared)
    scan = read_volume(write_dicom(tmp_path / "ct", slices[4:]))
    masks = drawn(len(slices))
    masks[0, :2] = masks[0, 2]
    masks[0, 2:] = False  # the first segment lies below the scan
    write_seg(tmp_path / "seg.dcm", slices, masks, names={1: "low"})
    inside, outside = read_rois(tmp_path / "seg.dcm", scan)
    assert inside.value == 2 and isinstance(outside, OutsideRoi)
    assert (outside.value, outside.name) == (1, "low")
    assert outside.volumes_ml == (pytest.approx(2 * 10 * 25 * 4.5 * 4 * 8 / 1000),)


def test_empty_segments_are_named_and_an_empty_segmentation_is_refused(tmp_path):
    slices = dicom_slices(UNEVEN)
    masks = drawn(len(slices))
    masks[1] = False
    scan, _, path = case(tmp_path, masks=masks, slices=slices, omit_empty_frames=False)
    (roi,) = read_rois(path, scan)
    assert roi.notes == ("Segments without a pixel were left out (2).",)
    write_seg(path, slices, masks & False, omit_empty_frames=False)
    with pytest.raises(RoiError, match=r"seg\.dcm: all segments are empty"):
        read_rois(path, scan)


def cut_pixels(path):
    ds = pydicom.dcmread(path)
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(path)


def cut_frames(path):
    ds = pydicom.dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[3:]
    ds.save_as(path)


def cut_file(path):
    path.write_bytes(path.read_bytes()[:1500])


def lose_places(path):
    ds = pydicom.dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    ds.save_as(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_pixels, "fewer pixels than the 6 frames"),
        (cut_frames, "fewer frames than the 6 frames"),
        (cut_file, "the DICOM segmentation (SEG) is damaged"),
        (lose_places, "frame 3 has no place in the patient"),
        (lambda path: edited(path, SegmentationType="SURFACE"), "its SegmentationType is none of BINARY"),
        (lambda path: edited(path, NumberOfFrames=2**30), "expected at most 200000"),
        (lambda path: edited(path, Rows=60000), "of 60000 x 48 pixels"),
    ],
)
def test_damaged_segmentations_are_refused_in_one_line(tmp_path, spoil, words):
    scan, _, path = case(tmp_path)
    spoil(path)
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(error, "seg.dcm", words)


def test_wrong_options_are_refused(tmp_path):
    scan, _, path = case(tmp_path)
    with pytest.raises(RoiError, match="--mask-space index is for masks"):
        read_rois(path, scan, "index")
    for threshold in (0, -1, 1.5, float("nan")):
        with pytest.raises(RoiError, match="more than 0 and at most 1"):
            read_rois(path, scan, threshold=threshold)


def test_frames_that_lie_on_no_even_stack_are_refused(tmp_path):
    shared = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    slices = dicom_slices((0, 5, 11, 18, 20.5, 33, 40), **shared)
    masks = np.ones((1, len(slices), 56, 48), bool)
    write_seg(tmp_path / "seg.dcm", slices, masks)
    scan = read_volume(write_dicom(tmp_path / "ct", dicom_slices(range(-72, 73, 7), **shared)))
    with pytest.raises(RoiError, match="neither on the scan's slices nor at even distances"):
        read_rois(tmp_path / "seg.dcm", scan)
