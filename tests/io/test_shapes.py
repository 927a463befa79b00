"""Boxes and points: the voxels that they stand for, counted by formulas over the whole scan."""

import json

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import assert_one_line, dicom_slices, head_scan, save, write_dicom

from situs.errors import RoiError
from situs.io import read_rois, read_volume
from situs.io.shapes import DEFAULT_RADIUS_MM
from situs.volume import OutsideRoi

SHAPE = (48, 56, 20)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return read_volume(save(tmp_path_factory.mktemp("scan") / "scan.nii", *head_scan(SHAPE)))


@pytest.fixture(scope="module")
def tilted(tmp_path_factory):
    slices = dicom_slices((-72, -64, -50, -43, -36, -20, 0, 3, 10, 40), tilt_deg=18, turn_deg=25)
    return read_volume(write_dicom(tmp_path_factory.mktemp("scan") / "ct", slices))


def as_json(path, space, *shapes, **fields):
    path.write_text(json.dumps({"schema": "situs.shapes/1", "space": space, "shapes": shapes, **fields}))
    return path


def whole(roi):
    full = np.zeros(roi.geometry.shape, bool)
    full[roi.box] = roi.mask
    return full


def world_of(scan):
    """(ni, nj, nk, 3) RAS mm of all voxels."""
    ijk = np.moveaxis(np.indices(scan.hu.shape), 0, -1)
    return scan.geometry.to_world(ijk.reshape(-1, 3)).reshape(ijk.shape)


@pytest.mark.parametrize("space", ["ras", "lps"])
@pytest.mark.parametrize("which", ["scan", "tilted"])
def test_a_point_is_the_ball_around_it_and_a_box_the_ellipsoid_in_it(request, tmp_path, space, which):
    volume = request.getfixturevalue(which)
    sign = np.array([-1, -1, 1]) if space == "lps" else np.ones(3)
    centre, low, high = np.array([12.0, -20, 5]), np.array([-30.0, -10, -55]), np.array([10.0, 25, -12])
    point = {"point": (centre * sign).tolist(), "radius_mm": 14, "name": "clot"}
    box = {"box": [(low * sign).tolist(), (high * sign).tolist()], "value": 7}
    ball, ellipsoid = read_rois(as_json(tmp_path / "s.json", space, point, box), volume)
    world = world_of(volume)
    np.testing.assert_array_equal(whole(ball), np.linalg.norm(world - centre, axis=-1) <= 14)
    unit = (world - (low + high) / 2) / ((high - low) / 2)
    np.testing.assert_array_equal(whole(ellipsoid), np.linalg.norm(unit, axis=-1) <= 1)
    assert (ball.value, ball.name, ellipsoid.value, ellipsoid.name) == (1, "clot", 7, "")
    assert ball.notes == ("The point was taken for a ball with a radius of 14 mm.",)
    assert ellipsoid.notes == ("The box was taken for the ellipsoid within it.",)
    assert ball.doubts == ellipsoid.doubts == ()


@pytest.mark.parametrize("which", ["scan", "tilted"])
def test_a_brush_stroke_is_the_balls_around_its_points(request, tmp_path, which):
    """They overlap, and none takes away what another holds."""
    volume = request.getfixturevalue(which)
    points = [[-10 + 3 * n, -20, 5 - n] for n in range(6)]
    stroke = {"brush": {"points": points, "radius_mm": 9}, "name": "clot"}
    (roi,) = read_rois(as_json(tmp_path / "s.json", "ras", stroke), volume)
    away = np.linalg.norm(world_of(volume)[..., None, :] - np.array(points), axis=-1).min(axis=-1)
    np.testing.assert_array_equal(whole(roi), away <= 9)
    assert roi.name == "clot"
    assert roi.notes == ("The brush stroke was taken for balls with a radius of 9 mm.",)


def test_a_brush_stroke_between_two_slices_is_moved_to_the_nearest(scan, tmp_path):
    middle = scan.geometry.to_world([[20, 30, 7]])[0] + [0, 0, 3]
    points = [(middle + np.array([x, 0, 0])).tolist() for x in (0, 4.5, 9)]
    (roi,) = read_rois(
        as_json(tmp_path / "s.json", "ras", {"brush": {"points": points, "radius_mm": 1}}), scan
    )
    assert np.argwhere(whole(roi)).tolist() == [[20, 30, 7], [21, 30, 7], [22, 30, 7]]
    assert any("between two slices" in note for note in roi.notes)


def test_voxel_boxes_hold_both_corners(scan, tmp_path):
    low, high = np.array([10, 20, 5]), np.array([18, 24, 5])
    (roi,) = read_rois(as_json(tmp_path / "s.json", "voxel", {"box": [low.tolist(), high.tolist()]}), scan)
    unit = (np.moveaxis(np.indices(SHAPE), 0, -1) - (low + high) / 2) / ((high - low + 1) / 2)
    np.testing.assert_array_equal(whole(roi), np.linalg.norm(unit, axis=-1) <= 1)
    assert roi.start == (10, 20, 5) and roi.mask.shape == (9, 5, 1)
    (one,) = read_rois(as_json(tmp_path / "s.json", "voxel", {"box": [[3, 4, 5], [3, 4, 5]]}), scan)
    assert np.argwhere(whole(one)).tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_voxel_indices_are_those_of_the_file(tmp_path, order):
    """The same voxel of the patient, in files whose axes are stored in another order."""
    hu, affine = head_scan(SHAPE)
    image = nibabel.Nifti1Image(hu.transpose(order), affine[:, [*order, 3]])
    nibabel.save(image, tmp_path / "scan.nii")
    scan = read_volume(tmp_path / "scan.nii")
    at = np.array([12, 30, 7])
    shapes = {"point": at[list(order)].tolist(), "radius_mm": 9}, {"box": [at[list(order)].tolist()] * 2}
    ball, box = read_rois(as_json(tmp_path / "s.json", "voxel", *shapes), scan)
    expected = np.linalg.norm(world_of(scan) - (affine[:3, :3] @ at + affine[:3, 3]), axis=-1) <= 9
    np.testing.assert_array_equal(whole(ball), expected)
    np.testing.assert_allclose(scan.geometry.to_world([box.start])[0], affine[:3, :3] @ at + affine[:3, 3])


def test_the_corners_of_a_box_may_be_swapped(scan, tmp_path):
    corners = ([10, 20, 5], [18, 24, 9]), ([18, 20, 9], [10, 24, 5])
    first, second = (
        read_rois(as_json(tmp_path / "s.json", "voxel", {"box": c}), scan)[0] for c in map(list, corners)
    )
    np.testing.assert_array_equal(whole(first), whole(second))


def test_csv_is_read_as_json_is(scan, tmp_path):
    shapes = (
        {"point": [12, -20, 5], "name": "clot, old", "value": 3},
        {"box": [[-30, -10, -55], [10, 25, -12]]},
    )
    expected = read_rois(as_json(tmp_path / "s.json", "lps", *shapes, scan="scan.nii"), scan)
    (tmp_path / "s.csv").write_bytes(
        b"\xef\xbb\xbfshape,space,x,y,z,x2,y2,z2,radius_mm,name,value,scan\r\n"
        b'point,lps,12,-20,5,,,,,"clot, old",3,scan.nii\r\n'
        b"box,lps,-30,-10,-55,10,25,-12,,,,scan.nii\r\n"
    )
    found = read_rois(tmp_path / "s.csv", scan)
    assert [(r.value, r.name) for r in found] == [(2, ""), (3, "clot, old")]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(whole(one), whole(other))
    assert found[1].notes == (f"The point was taken for a ball with a radius of {DEFAULT_RADIUS_MM:g} mm.",)


def test_between_two_slices_a_ball_goes_to_the_nearer_one(tilted, tmp_path):
    g = tilted.geometry
    k = 4
    centre = g.to_world([[24, 28, k]])[0] + 5 * g.normal
    (roi,) = read_rois(as_json(tmp_path / "s.json", "ras", {"point": list(centre), "radius_mm": 4.5}), tilted)
    # The next slices are 7 mm below and 16 mm above, along the table.
    world = world_of(tilted)[:, :, k] + 5 * g.normal
    expected = np.zeros(tilted.hu.shape, bool)
    expected[:, :, k] = np.linalg.norm(world - centre, axis=-1) <= 4.5
    np.testing.assert_array_equal(whole(roi), expected)
    assert any("between two slices" in note for note in roi.notes)


def test_what_lies_outside_the_scan(scan, tmp_path):
    """x runs from -108 to 108 mm in the scan's box."""
    shapes = (
        {"point": [300, 0, 0], "radius_mm": 10, "name": "far"},
        {"point": [108, 0, 0], "radius_mm": 30},
        {"point": [0, 0, 0], "radius_mm": 10},
        {"box": [[200, 0, 0], [220, 30, 40]]},
    )
    half, inside, far, box = read_rois(as_json(tmp_path / "s.json", "ras", *shapes), scan)
    assert [r.value for r in (half, inside, far, box)] == [2, 3, 1, 4]
    assert half.doubts == ("50 % of the region lies outside the scan.",) and inside.doubts == ()
    assert isinstance(far, OutsideRoi) and far.name == "far"
    assert far.volumes_ml == (pytest.approx(4 / 3 * np.pi),)
    assert box.volumes_ml == (pytest.approx(np.pi / 6 * 20 * 30 * 40 / 1000),)
    with pytest.raises(RoiError) as error:
        read_rois(as_json(tmp_path / "s.json", "voxel", {"box": [[-9, -9, -9], [-5, -5, -5]]}), scan)
    assert_one_line(error, "s.json", "none of its shapes meets the scan", "voxel")


def test_the_scan_that_is_named_must_be_the_scan(scan, tilted, tmp_path):
    point = {"point": [0, 0, 0], "radius_mm": 10}
    uid = tilted.source.images[0].series
    for volume, name, words in ((scan, "scan.nii", "file name"), (tilted, uid, "SeriesInstanceUID")):
        assert len(read_rois(as_json(tmp_path / "s.json", "ras", point, scan=name), volume)) == 1
        with pytest.raises(RoiError) as error:
            read_rois(as_json(tmp_path / "s.json", "ras", point, scan="1.2.3"), volume)
        assert_one_line(error, "s.json", words)


def test_the_series_that_a_file_names_is_read(tmp_path):
    many, few = dicom_slices(range(-72, 73, 6)), dicom_slices(range(-72, 73, 8))
    write_dicom(write_dicom(tmp_path / "ct", many), few, "b")
    uid = few[0].SeriesInstanceUID
    path = as_json(tmp_path / "s.json", "ras", {"point": [0, 0, 0]}, scan=str(uid))
    assert read_volume(tmp_path / "ct", roi=path).source.images[0].series == uid


def test_without_orientation_only_voxels_can_be_placed(tmp_path):
    nibabel.save(nibabel.Nifti1Image(head_scan(SHAPE)[0], None), tmp_path / "scan.nii")
    scan = read_volume(tmp_path / "scan.nii")
    with pytest.raises(RoiError, match="whose header has no orientation: give voxel indices"):
        read_rois(as_json(tmp_path / "s.json", "ras", {"point": [0, 0, 0]}), scan)
    (roi,) = read_rois(as_json(tmp_path / "s.json", "voxel", {"point": [20, 20, 9]}), scan)
    assert whole(roi)[20, 20, 9]


POINT = {"point": [0, 0, 0]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "truncated"),
        (json.dumps({"space": "ras", "shapes": [POINT]}), "`schema`"),
        (json.dumps({"schema": "situs.shapes/1", "shapes": [POINT]}), "`space`"),
        (json.dumps({"schema": "situs.shapes/1", "space": "mm", "shapes": [POINT]}), "space"),
        (json.dumps({"schema": "situs.shapes/1", "space": "ras", "shapes": []}), "shapes"),
        ("shape,space,x,y,z\n", "shapes"),
        ("shape,space,x,y,z\nball,ras,1,2,3\n", "expected box or point, got 'ball'"),
        ("shape,space,x,y,z\nbox,ras,1,2,3\n", "shapes[0].box[1]"),
        ("shape,space,x,y,z\npoint,ras,1,2,nan\n", "shapes[0].point"),
        ("shape,space,x,y,z\npoint,ras,1,2,1e9\n", "shapes[0].point"),
        ("shape,space,x,y,z\npoint,ras,1,2,3\npoint,lps,1,2,3\n", "the same in each row"),
        ("shape,space,x,y,z,x2\npoint,ras,1,2,3,4\n", "a point has x2"),
    ],
)
def test_what_is_not_as_the_schema_says_is_refused_in_one_line(scan, tmp_path, text, words):
    (tmp_path / "s.x").write_text(text)
    with pytest.raises(RoiError) as error:
        read_rois(tmp_path / "s.x", scan)
    assert_one_line(error, "s.x", "is not as situs.shapes/1 says", words)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([{}], "shape 1 is neither a box nor a point"),
        ([{**POINT, "box": [[0, 0, 0], [9, 9, 9]]}], "shape 1 is neither a box nor a point"),
        ([{"box": [[0, 0, 0], [9, 9, 9]], "radius_mm": 5}], "shape 1 is neither a box nor a point"),
        ([{"box": [[0, 0, 0], [9, 0, 9]]}], "box 1 has no extent"),
        ([{**POINT, "value": 2}, POINT], "two shapes have the same value"),
        ([{**POINT, "radius_mm": -1}], "radius_mm"),
        ([{**POINT, "value": 0}], "value"),
        ([{**POINT, "colour": "red"}], "colour"),
    ],
)
def test_impossible_shapes_are_refused_in_one_line(scan, tmp_path, shapes, words):
    with pytest.raises(RoiError) as error:
        read_rois(as_json(tmp_path / "s.json", "ras", *shapes), scan)
    assert_one_line(error, "s.json", words)


def test_options_for_masks_are_refused(scan, tmp_path):
    path = as_json(tmp_path / "s.json", "ras", POINT)
    with pytest.raises(RoiError, match="--threshold is for probabilities"):
        read_rois(path, scan, threshold=0.5)
    for space in ("index", "world"):
        with pytest.raises(RoiError, match=f"--mask-space {space} is for masks"):
            read_rois(path, scan, space)
