"""Structure sets, written with pydicom on series that `dicom_slices` made."""

import numpy as np
import pydicom
import pytest
from phantoms.dicom_rois import write_rtstruct
from phantoms.io_cases import assert_one_line, dicom_slices, write_dicom
from pydicom.uid import generate_uid

from situs.errors import RoiError
from situs.io import read_rois, read_volume
from situs.volume import OutsideRoi

HEIGHTS = tuple(range(-72, 73, 8))
CLOSED = "CLOSED_PLANAR"


def outline(ds, low, high):
    """The outline of the pixels low..high (column, row), both included, of an image; LPS mm."""
    (c0, r0), (c1, r1) = np.subtract(low, 0.5), np.add(high, 0.5)
    row, column = np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3))
    down, right = (float(v) for v in ds.PixelSpacing)
    corners = np.array([(c0, r0), (c1, r0), (c1, r1), (c0, r1)])
    origin = np.array([float(v) for v in ds.ImagePositionPatient])
    return origin + corners[:, :1] * right * row + corners[:, 1:] * down * column


def case(tmp_path, structures, slices=None, scan_slices=None, **options):
    slices = slices or dicom_slices(HEIGHTS, tilt_deg=15, turn_deg=12)
    structures = structures(slices) if callable(structures) else structures
    write_rtstruct(tmp_path / "rs.dcm", slices, structures, **options)
    scan = read_volume(write_dicom(tmp_path / "ct", scan_slices or slices))
    return scan, tmp_path / "rs.dcm"


def whole(roi):
    full = np.zeros(roi.geometry.shape, bool)
    full[roi.box] = roi.mask
    return full


def test_contours_are_filled_on_their_slices_with_holes_and_several_parts(tmp_path):
    def structures(slices):
        ring = [(CLOSED, outline(slices[5], *box)) for box in (((5, 5), (20, 25)), ((9, 10), (15, 12)))]
        apart = [(CLOSED, outline(slices[6], *box)) for box in (((5, 5), (8, 9)), ((30, 40), (33, 41)))]
        return {4: ("haematoma", ring + apart), 2: ("oedema", [(CLOSED, outline(slices[9], (7, 8), (9, 9)))])}

    scan, path = case(tmp_path, structures)
    oedema, haematoma = read_rois(path, scan)
    assert [(r.value, r.name) for r in (oedema, haematoma)] == [(2, "oedema"), (4, "haematoma")]
    expected = np.zeros(scan.hu.shape, bool)
    expected[5:21, 5:26, 5] = True
    expected[9:16, 10:13, 5] = False
    expected[5:9, 5:10, 6] = expected[30:34, 40:42, 6] = True
    np.testing.assert_array_equal(whole(haematoma), expected)
    assert np.argwhere(whole(oedema)).tolist() == [[i, j, 9] for i in (7, 8, 9) for j in (8, 9)]
    assert all((r.notes, r.doubts) == ((), ()) for r in (oedema, haematoma))


def test_contours_of_another_series_stand_for_the_slices_near_them(tmp_path):
    """Drawn every 8 mm, on a scan with slices every 2 mm: each plane fills 4 mm to both sides of it."""
    shared = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    drawn_on = dicom_slices(HEIGHTS, **shared)
    contours = [(CLOSED, outline(drawn_on[n], (5, 5), (8, 9))) for n in (8, 9, 10)]  # -8, 0 and 8 mm
    scan, path = case(
        tmp_path, {1: ("a", contours)}, drawn_on, dicom_slices(np.arange(-71, 72, 2.0), **shared)
    )
    (roi,) = read_rois(path, scan)
    heights = [float(scan.geometry.heights_mm[k]) for k in roi.areas_px]
    assert heights == [h for h in np.arange(-71, 72, 2.0) if abs(h) <= 12]
    assert set(roi.areas_px.values()) == {4 * 5}
    assert "other images of the scan's frame of reference" in roi.notes[0]


def test_a_contour_between_two_slices_goes_to_the_nearer_one(tmp_path):
    shared = {"FrameOfReferenceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    drawn_on = dicom_slices((3,), **shared)
    contours = [(CLOSED, outline(drawn_on[0], (5, 5), (8, 9)))]
    scan, path = case(tmp_path, {1: ("a", contours)}, drawn_on, dicom_slices(HEIGHTS, **shared))
    (roi,) = read_rois(path, scan)
    assert [float(scan.geometry.heights_mm[k]) for k in roi.areas_px] == [0.0]
    assert any("between two slices" in note for note in roi.notes)


def test_what_cannot_be_filled_is_left_out_with_a_doubt(tmp_path):
    def structures(slices):
        good = (CLOSED, outline(slices[5], (5, 5), (20, 25)))
        corners = outline(slices[6], (5, 5), (20, 25))
        upright = np.array([(0, 0, -20), (0, 30, -20), (0, 30, 20), (0, 0, 20)])
        return {
            1: ("open", [good, ("OPEN_PLANAR", corners)]),
            2: ("upright", [good, (CLOSED, upright)]),
            3: ("eight", [good, (CLOSED, corners[[0, 2, 1, 3]])]),
            4: ("isocentre", [("POINT", corners[:1])]),
            5: ("sagittal", [(CLOSED, upright)]),
        }

    scan, path = case(tmp_path, structures)
    is_open, upright, eight = read_rois(path, scan)
    assert is_open.doubts == ("1 of its contours is open and left out.",)
    assert upright.doubts == ("1 of its contours is not in the plane of the scan's slices and left out.",)
    assert eight.doubts == ("1 of its contours cross themselves; they were filled by the even-odd rule.",)
    np.testing.assert_array_equal(whole(is_open), whole(upright))
    assert list(is_open.areas_px) == [5] and list(eight.areas_px) == [5, 6]
    left_out = "Structures without closed contours on the scan's slices were left out (4, 5)."
    assert all(left_out in r.notes for r in (is_open, upright, eight))


def test_a_contour_smaller_than_a_pixel_takes_the_pixel(tmp_path):
    def structures(slices):
        corners = outline(slices[5], (11, 12), (11, 12))
        middle = corners.mean(axis=0)
        return {1: ("small", [(CLOSED, middle + 0.2 * (corners - middle) + 0.2 * (corners[1] - corners[0]))])}

    scan, path = case(tmp_path, structures)
    (roi,) = read_rois(path, scan)
    assert np.argwhere(whole(roi)).tolist() == [[11, 12, 5]]


def test_structures_outside_the_scan_have_rows_of_their_own(tmp_path):
    slices = dicom_slices(HEIGHTS)
    contours = {n: (CLOSED, outline(slices[n], (5, 5), (8, 9))) for n in range(len(slices))}
    structures = {
        1: ("low", [contours[0], contours[1]]),
        2: ("half", [contours[n] for n in (2, 3, 4, 5)]),
        3: ("all", [contours[n] for n in (6, 7)]),
    }
    scan, path = case(tmp_path, structures, slices, slices[4:])
    half, inside, low = read_rois(path, scan)
    assert half.doubts == ("50 % of the region lies outside the scan.",) and inside.doubts == ()
    assert isinstance(low, OutsideRoi) and (low.value, low.name) == (1, "low")
    assert low.volumes_ml == (pytest.approx(2 * 4 * 5 * 4.5 * 4 * 8 / 1000),)


def test_of_another_examination_it_is_refused_unless_asked_for(tmp_path):
    slices = dicom_slices(HEIGHTS)
    structures = {1: ("a", [(CLOSED, outline(slices[5], (5, 5), (8, 9)))])}
    other = dicom_slices(HEIGHTS)
    scan, path = case(tmp_path, structures, other, slices)
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(error, "rs.dcm", "another study")
    write_rtstruct(path, other, structures, StudyID="x")
    ds = pydicom.dcmread(path)
    ds.StudyInstanceUID = scan.source.study
    ds.save_as(path)
    with pytest.raises(RoiError, match="another frame of reference"):
        read_rois(path, scan)
    assert list(read_rois(path, scan, "world")[0].areas_px) == [5]


def no_contours(ds):
    del ds.ROIContourSequence


def pairs(ds):
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]


def far_away(ds):
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1e30", "2", "3"] * 4


def only_open(ds):
    ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_NONPLANAR"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_contours, "no structure has closed contours"),
        (only_open, "no structure has closed contours"),
        (pairs, "the DICOM structure set (RTSTRUCT) is damaged"),
        (far_away, "the DICOM structure set (RTSTRUCT) is damaged"),
    ],
)
def test_damaged_structure_sets_are_refused_in_one_line(tmp_path, spoil, words):
    slices = dicom_slices(HEIGHTS)
    scan, path = case(tmp_path, {1: ("a", [(CLOSED, outline(slices[5], (5, 5), (8, 9)))])}, slices)
    ds = pydicom.dcmread(path)
    spoil(ds)
    ds.save_as(path)
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(error, "rs.dcm", words)
