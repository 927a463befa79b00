import csv
import gzip

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import (
    CT,
    all_orientations,
    assert_one_line,
    dicom_slices,
    head_affine,
    head_scan,
    save,
    write_dicom,
)
from scipy import ndimage

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io import read_rois, read_volume
from situs.volume import OutsideRoi, Volume


@pytest.fixture(scope="module")
def head():
    return head_scan()


@pytest.fixture(scope="module")
def scan(head, tmp_path_factory):
    return read_volume(save(tmp_path_factory.mktemp("scan") / "scan.nii", *head))


def two_balls(shape, affine, centres=((30, 40, 10), (-25, -30, -20)), radius=14.0, values=(3, 7)):
    """A mask of balls at world positions (mm)."""
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    mask = np.zeros(shape, np.uint8)
    for centre, value in zip(centres, values, strict=True):
        mask[np.linalg.norm(world - centre, axis=-1) < radius] = value
    return mask


def centre_of(roi):
    """World position (3,) of the middle of a region, each slice weighted by its thickness."""
    ijk = np.argwhere(roi.mask) + roi.start
    weight = roi.geometry.slice_thickness_mm[ijk[:, 2]]
    return np.average(roi.geometry.to_world(ijk), axis=0, weights=weight)


def whole(roi):
    full = np.zeros(roi.geometry.shape, bool)
    full[roi.box] = roi.mask
    return full


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_on_the_scans_grid_every_voxel_is_taken_and_nothing_is_said(head, scan, tmp_path, dtype):
    mask = two_balls(head[0].shape, head[1])
    rois = read_rois(save(tmp_path / "m.nii.gz", mask.astype(dtype), head[1]), scan)
    assert [r.value for r in rois] == [3, 7]
    for roi in rois:
        assert np.array_equal(whole(roi), mask == roi.value)
        assert roi.notes == ()


@pytest.mark.parametrize("values", [(1, 255), (300, 5000), (70000, 2000000000)])
def test_values_may_be_large(head, scan, tmp_path, values):
    mask = two_balls(head[0].shape, head[1]).astype(np.int32)
    large = np.where(mask == 3, values[0], np.where(mask == 7, values[1], 0)).astype(np.int32)
    rois = read_rois(save(tmp_path / "m.nii", large, head[1]), scan)
    assert [r.value for r in rois] == list(values)
    assert np.array_equal(whole(rois[1]), mask == 7)


@pytest.mark.parametrize("orientation", all_orientations(), ids=lambda o: "".join(map(str, o.ravel())))
def test_scan_and_mask_in_any_axis_order_are_one_grid(head, tmp_path, orientation):
    mask = two_balls(head[0].shape, head[1])
    for name, data in (("scan", head[0]), ("m", mask)):
        nibabel.save(nibabel.Nifti1Image(data, head[1]).as_reoriented(orientation), tmp_path / f"{name}.nii")
    scan = read_volume(tmp_path / "scan.nii")
    rois = read_rois(tmp_path / "m.nii", scan)
    for roi, value, centre in zip(rois, (3, 7), ((30, 40, 10), (-25, -30, -20)), strict=True):
        assert roi.notes == () and int(roi.mask.sum()) == int((mask == value).sum())
        np.testing.assert_allclose(centre_of(roi), centre, atol=3)


@pytest.mark.parametrize("orientation", all_orientations()[::5], ids=lambda o: "".join(map(str, o.ravel())))
def test_a_reoriented_mask_is_the_same_mask_on_the_scan(head, scan, tmp_path, orientation):
    mask = two_balls(head[0].shape, head[1])
    nibabel.save(nibabel.Nifti1Image(mask, head[1]).as_reoriented(orientation), tmp_path / "m.nii")
    for roi in read_rois(tmp_path / "m.nii", scan):
        assert np.array_equal(whole(roi), mask == roi.value)


def test_rounding_of_the_affine_is_the_same_grid(head, scan, tmp_path):
    affine = head[1] + np.random.default_rng(0).uniform(-1e-5, 1e-5, (4, 4)) * [[1], [1], [1], [0]]
    mask = two_balls(head[0].shape, head[1])
    rois = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert all(r.notes == () for r in rois)


@pytest.mark.parametrize(
    ("shape", "spacing", "tolerance"),
    [
        ((150, 170, 120), (1.5, 1.5, 1.5), 0.1),
        ((40, 50, 30), (5, 5, 6), 0.1),
        ((96, 112, 9), (2, 2, 18), 0.25),
    ],
)
def test_another_grid_comes_through_patient_space(head, scan, tmp_path, shape, spacing, tolerance):
    """A ball keeps its centre and its volume (slices of 18 mm become two or three of 8)."""
    affine = head_affine(shape, spacing)
    mask = two_balls(shape, affine, radius=26)
    rois = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert [r.value for r in rois] == [3, 7]
    for roi, centre in zip(rois, ((30, 40, 10), (-25, -30, -20)), strict=True):
        np.testing.assert_allclose(
            centre_of(roi), centre, atol=max(8.0, *spacing) / 4
        )  # of the coarser slices
        drawn = int((mask == roi.value).sum()) * np.prod(spacing) / 1000
        assert roi.volume_ml == pytest.approx(drawn, rel=tolerance)
        assert "another grid" in roi.notes[0] and "patient space" in roi.notes[0]


def test_resampling_takes_the_nearest_voxel(head, scan, tmp_path):
    """scipy's nearest-neighbour resampling as the oracle; the mask's voxels are off the scan's on purpose."""
    affine = head_affine((61, 67, 53), (3.7, 3.9, 3.1)) @ np.array(
        [[0.98, -0.17, 0, 0.4], [0.17, 0.98, 0.05, 0.3], [0, -0.05, 1, 0.2], [0, 0, 0, 1]]
    )
    mask = two_balls((61, 67, 53), affine, radius=24)
    inverse = np.linalg.inv(affine) @ scan.geometry.affine
    oracle = ndimage.affine_transform(mask, inverse[:3, :3], inverse[:3, 3], scan.hu.shape, order=0)
    for roi in read_rois(save(tmp_path / "m.nii", mask, affine), scan):
        assert np.array_equal(whole(roi), oracle == roi.value)


def thin_case(tmp_path, heights, **kwargs):
    """A DICOM scan with gaps, and a 1 mm grid on which to draw thin regions."""
    scan = read_volume(write_dicom(tmp_path / "ct", dicom_slices(heights, **kwargs)))
    affine = head_affine((181, 201, 161), (1.0, 1.0, 1.0))  # its middle voxel lies at 0, 0, 0
    return scan, np.zeros((181, 201, 161), np.uint8), affine


@pytest.mark.parametrize("tilt", [0, 15])
def test_a_thin_region_between_two_slices_goes_to_the_nearest(tmp_path, tilt):
    scan, mask, affine = thin_case(tmp_path, range(-72, 73, 8), tilt_deg=tilt)
    inverse = np.linalg.inv(affine)
    i, j = np.meshgrid(np.arange(-20, 21), np.arange(-20, 21), indexing="ij")
    drawn = {}
    for value, height in ((1, 3.0), (2, 6.0), (3, 8.0), (4, -3.0)):  # slices at 0 and 8
        g = scan.geometry
        middle = np.array([10.0, -15.0, 0])
        middle[2] = height + np.tan(np.radians(tilt)) * middle[1]
        across, along = g.step_i / np.linalg.norm(g.step_i), g.step_j / np.linalg.norm(g.step_j)
        points = middle + i.reshape(-1, 1) * across + j.reshape(-1, 1) * along
        at = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        mask[tuple(at.T)] = value
        drawn[value] = (middle, {1: 0.0, 2: 8.0, 3: 8.0, 4: 0.0}[value])
    rois = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert [r.value for r in rois] == [1, 2, 3, 4]
    for roi in rois:
        middle, table = drawn[roi.value]
        found = centre_of(roi)
        np.testing.assert_allclose(found[:2], middle[:2], atol=3.5)
        if tilt == 0:
            assert found[2] == pytest.approx(table)
            assert list(roi.areas_px.values()) == [pytest.approx(41 * 41 / (4.5 * 4.0), rel=0.12)]
            assert any("between two slices" in n for n in roi.notes) == (roi.value != 3)


def test_regions_between_the_same_slices_do_not_hide_each_other(tmp_path):
    scan, mask, affine = thin_case(tmp_path, range(-72, 73, 8))
    for value, z in ((1, 82), (2, 83), (5, 81)):  # z 2, 3 and 1 mm: all nearest to the slice at 0
        mask[80:100, 90:110, z] = value
    rois = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert [r.value for r in rois] == [1, 2, 5]
    assert len({tuple(map(tuple, np.argwhere(whole(r)))) for r in rois}) == 1


def test_a_part_of_a_region_between_slices_is_kept_too(tmp_path):
    scan, mask, affine = thin_case(tmp_path, range(-72, 73, 8))
    mask[40:60, 90:110, 70:90] = 1
    mask[110:130, 90:110, 83] = 1
    (roi,) = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert ndimage.label(roi.mask)[1] == 2
    assert any("between two slices" in n for n in roi.notes)


def test_a_coarse_mask_leaves_no_holes(tmp_path):
    scan = read_volume(write_dicom(tmp_path / "ct", dicom_slices(range(-72, 73, 12), spacing=(4.0, 4.0))))
    affine = head_affine((18, 18, 80), (10.0, 10.0, 2.0))
    mask = np.zeros((18, 18, 80), np.uint8)
    mask[7:11, 7:11, 42] = 1  # 5 mm above the slice at 0: on none
    (roi,) = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert roi.mask.all() and roi.mask.shape == (10, 10, 1)  # 40 mm square in 4 mm pixels


def test_where_slices_are_missing_nothing_is_made_up(tmp_path):
    heights = [h for h in range(-72, 73, 8) if not -30 < h < 30]
    scan, mask, affine = thin_case(tmp_path, heights)
    mask[80:100, 90:110, 80] = 1  # in the middle of the hole
    mask[80:100, 90:110, 20:40] = 2
    roi, outside = read_rois(save(tmp_path / "m.nii", mask, affine), scan)
    assert (outside.value, roi.value) == (1, 2) and isinstance(outside, OutsideRoi)
    assert outside.volumes_ml == (pytest.approx(20 * 20 / 1000),)


def test_what_lies_outside_the_scan_is_a_region_of_its_own(head, scan, tmp_path):
    """Value 1 reaches beyond the scan, one part of value 2 lies there, value 3 is all inside."""
    shape = (60, *head[0].shape[1:])
    mask = np.zeros(shape, np.uint8)
    mask[20:50, 20:30, 5:9] = 1  # 28 of its 30 columns are on the scan
    mask[54:58, 0:5, 2:5] = mask[55:57, 40:44, 2:4] = mask[5:9, 5:9, 5:9] = 2
    mask[30:34, 5:9, 5:9] = 3
    one, two, three, beyond = read_rois(save(tmp_path / "m.nii", mask, head[1]), scan)
    assert [r.value for r in (one, two, three, beyond)] == [1, 2, 3, 2]
    assert isinstance(beyond, OutsideRoi)
    voxel_ml = 4.5 * 4.5 * 8 / 1000
    assert beyond.volumes_ml == (pytest.approx(4 * 5 * 3 * voxel_ml), pytest.approx(2 * 4 * 2 * voxel_ml))
    assert any("7 % of the region lies outside" in n for n in one.notes) and one.doubts == ()
    assert not any("outside" in n for r in (two, three) for n in (*r.notes, *r.doubts))
    assert int(two.mask.sum()) == int(three.mask.sum()) == 64


def test_a_region_of_which_much_lies_outside_is_in_doubt(head, scan, tmp_path):
    mask = np.zeros((60, *head[0].shape[1:]), np.uint8)
    mask[30:55, 20:30, 5:9] = 1
    (roi,) = read_rois(save(tmp_path / "m.nii", mask, head[1]), scan)
    assert any("28 % of the region lies outside" in d for d in roi.doubts)


needs_ge = pytest.mark.skipif(not CT.is_dir(), reason="the real scans are not here")


@needs_ge
def test_all_42_regions_of_the_ge_scan_bind_to_its_dicom_series():
    scan = read_volume(CT / "ge")
    path = CT / "landmarks" / "ge_tilt_corrected_rois.nii.gz"
    image = nibabel.load(path)
    mask = np.asanyarray(image.dataobj)
    with (CT / "landmarks.csv").open() as file:
        wanted = {int(r["value"]) for r in csv.DictReader(file) if r["roi"].endswith(path.name)}
    rois = read_rois(path, scan)
    assert wanted and wanted <= {r.value for r in rois} == set(np.unique(mask)) - {0}
    boxes = ndimage.find_objects(mask)
    gap = np.linalg.norm(image.affine[:3, 2])
    for roi in rois:
        voxels = np.argwhere(mask[boxes[roi.value - 1]] == roi.value)
        voxels += [s.start for s in boxes[roi.value - 1]]
        centre = voxels.mean(axis=0) @ image.affine[:3, :3].T + image.affine[:3, 3]
        off = centre_of(roi) - centre
        assert (
            np.linalg.norm(off - (off @ scan.geometry.normal) * scan.geometry.normal) < 0.6
        )  # mm in the plane
        assert abs(off @ scan.geometry.normal) < 3.5 / 2 + gap / 2  # half a slice of either
        # Regions are one or two slices thick, so compare their mean cross-section, pixel sizes being equal.
        mean_area = len(voxels) / len(np.unique(voxels[:, 2]))
        assert np.mean(list(roi.areas_px.values())) == pytest.approx(mean_area, rel=0.05)


def test_many_values_take_no_more_memory_than_the_mask(tmp_path):
    """100 whole-scan masks of 256x256x32 would be 200 MB."""
    import tracemalloc

    shape = (256, 256, 32)
    affine = head_affine(shape, (0.8, 0.8, 5.0))
    scan = Volume(np.zeros(shape, np.int16), Geometry.from_affine(shape, affine))
    mask = np.zeros(shape, np.uint8)
    for n in range(100):
        mask[20 + n : 24 + n, 20 + 2 * n % 200 : 30 + 2 * n % 200, n % 30 : n % 30 + 2] = n + 1
    path = save(tmp_path / "m.nii.gz", mask, affine)
    tracemalloc.start()
    rois = read_rois(path, scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r.value for r in rois] == sorted(set(np.unique(mask)) - {0})
    assert sum(r.mask.nbytes for r in rois) < mask.nbytes / 10
    assert peak < 8 * mask.nbytes


# What is refused


def refused(kind, head, path):
    data, affine = head
    mask = two_balls(data.shape, affine)
    if kind == "fractions":
        mask = mask * np.float32(0.1)
    elif kind == "a scan":
        mask = data - np.arange(20).astype(np.int16)
    elif kind == "only negative":
        mask = -mask.astype(np.int16)
    elif kind == "infinite":
        mask = np.where(mask, np.inf, 0).astype(np.float32)
    elif kind == "nan":
        mask = np.where(mask, np.nan, 0).astype(np.float32)
    elif kind == "empty":
        mask[:] = 0
    elif kind == "4-D":
        mask = np.stack([mask, mask], axis=3)
    elif kind == "elsewhere":
        affine, mask = affine.copy(), mask[1:]
        affine[2, 3] += 1000
    elif kind == "rgb":
        mask = np.zeros(mask.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    elif kind == "unoriented":
        image = nibabel.Nifti1Image(mask[1:], affine)
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        nibabel.save(image, path)
        return
    save(path, mask, affine)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "text":
        path.write_text("1 2 3")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fractions", "not whole"),
        ("a scan", "is this the scan?"),
        ("only negative", "the mask is empty"),
        ("nan", "the mask is empty"),
        ("infinite", "infinite"),
        ("empty", "the mask is empty"),
        ("4-D", "channel 1 of 2 holds several labels"),
        ("elsewhere", "another patient space"),
        ("rgb", "RGB"),
        ("unoriented", "no orientation"),
        ("cut", "50 of its bytes are missing"),
        ("text", "of an unknown kind, expected regions as NIfTI"),
    ],
)
def test_what_is_no_mask_of_this_scan_is_refused_in_one_line(head, scan, tmp_path, kind, words):
    path = tmp_path / "m.nii"
    refused(kind, head, path)
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(error, "m.nii", words)


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_no_mask_at_all(scan, tmp_path, kind):
    path = tmp_path / "m.nii"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(
        error, "m.nii", "no such file" if kind == "absent" else "a folder, expected one file of regions"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.mgz", gzip.compress(bytes.fromhex("00000001") + bytes(400), mtime=0), "an MGH file (.mgh, .mgz)"),
        (
            "m.zip",
            b"PK\x03\x04" + bytes(400),
            "unpack it and give the mask, segmentation (SEG) or structure set",
        ),
        ("m.dcm", bytes(128) + b"DICM" + bytes(400), "a DICOM file, expected regions as NIfTI"),
    ],
)
def test_files_of_other_kinds_say_what_they_are(scan, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RoiError) as error:
        read_rois(tmp_path / name, scan)
    assert_one_line(error, name, words)


def test_scan_and_mask_both_without_orientation_fit_if_their_grids_do(head, tmp_path):
    for name, data in (("scan", head[0]), ("m", two_balls(head[0].shape, head[1]))):
        image = nibabel.Nifti1Image(data, head[1])
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        nibabel.save(image, tmp_path / f"{name}.nii")
    rois = read_rois(tmp_path / "m.nii", read_volume(tmp_path / "scan.nii"))
    assert [r.value for r in rois] == [3, 7]


# Probabilities


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("least", [0.5, 0.3, 0.7, 1.0])
def test_a_map_of_probabilities_is_cut_at_the_threshold(head, scan, tmp_path, dtype, least):
    steps = np.arange(11) / 10
    chances = np.zeros(head[0].shape, dtype)
    chances[10:21, 20:30, 5:9] = steps[:, None, None]
    chances[0, 0, 0] = np.nan
    path = save(tmp_path / "m.nii.gz", chances, head[1])
    (roi,) = read_rois(path, scan, threshold=least)
    expected = np.zeros(head[0].shape, bool)
    expected[10:21, 20:30, 5:9] = (np.arange(11) >= round(10 * least))[:, None, None]
    assert np.array_equal(whole(roi), expected) and roi.value == 1
    assert roi.notes == (f"Voxels of the mask with a probability of at least {least:g} were taken.",)
    with pytest.raises(RoiError, match="for probabilities add --threshold"):
        read_rois(path, scan)


def test_probabilities_stored_as_scaled_bytes(head, scan, tmp_path):
    mask = np.zeros(head[0].shape, np.uint8)
    mask[10:14, 20:30, 5:9] = np.array([255, 128, 127, 1], np.uint8)[:, None, None]
    path = save(tmp_path / "m.nii", mask, head[1])
    raw = bytearray(path.read_bytes())
    raw[112:116] = np.float32(1 / 255).tobytes()  # scl_slope
    path.write_bytes(raw)
    (roi,) = read_rois(path, scan, threshold=0.5)
    assert np.array_equal(whole(roi), mask >= 128)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_labels_with_a_threshold_are_refused_unless_they_are_0_and_1(head, scan, tmp_path, dtype):
    mask = two_balls(head[0].shape, head[1]).astype(dtype)
    with pytest.raises(RoiError) as error:
        read_rois(save(tmp_path / "m.nii", mask, head[1]), scan, threshold=0.5)
    assert_one_line(error, "m.nii", "expected probabilities from 0 to 1", "leave --threshold out")
    (roi,) = read_rois(save(tmp_path / "m.nii", (mask > 0).astype(dtype), head[1]), scan, threshold=0.5)
    assert np.array_equal(whole(roi), mask > 0)
