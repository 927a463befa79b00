"""Where voxels land in the views: by hand for single pixels, and what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from situs.geometry import Geometry
from situs.midplane import Midplane
from situs.resample import Place, fold_blocks, resample_slice, sample_slice
from situs.views import ViewSpec, extract_views, head_centre_mm
from situs.volume import Roi, Volume

SPEC = ViewSpec()
RIGHT_UP = np.diag([1.0, 1.0, 5.0, 1.0])  # i to the patient's right, j to the front


def lying(shape, step=(1.0, 1.0), turn_deg=0.0, middle=(0.0, 0.0)):
    """Axial slices around `middle` (x, y), turned in the plane."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    affine = np.eye(4)
    affine[:2, 0] = np.array([c, s]) * step[0]
    affine[:2, 1] = np.array([-s, c]) * step[1]
    affine[2, 2] = 5
    centre = affine[:3, :2] @ ((np.array(shape[:2]) - 1) / 2)
    affine[:2, 3] = np.array(middle) - centre[:2]
    return Geometry.from_affine(shape, affine)


def phantom(geometry, k=0):
    """HU of an uneven head by world position, so that any grid shows the same patient; ROI likewise."""
    i, j = np.indices(geometry.shape[:2])
    p = geometry.to_world(np.stack([i.ravel(), j.ravel(), np.full(i.size, k)], axis=1))
    x, y = p[:, 0].reshape(i.shape), p[:, 1].reshape(i.shape)
    hu = np.full(x.shape, -1000.0)
    hu[(x / 70) ** 2 + (y / 90) ** 2 < 1] = 900
    brain = (x / 64) ** 2 + (y / 84) ** 2 < 1
    hu[brain] = (35 + 15 * np.sin(x / 25) + 10 * np.cos(y / 18))[brain]
    roi = ((x - 22) / 14) ** 2 + ((y - 31) / 9) ** 2 < 1
    return hu, roi


def views_of(geometry, hu=None, roi=None, spec=SPEC):
    whole, region = phantom(geometry)
    hu, roi = whole if hu is None else hu, region if roi is None else roi
    volume = Volume(hu.astype(np.float32)[:, :, None], geometry)
    return extract_views(volume, 0, [Roi.from_mask(roi[:, :, None], geometry)], roi[:, :, None], spec)[0]


# --- single pixels by hand ---


def test_pixel_lands_where_computed():
    """A bright pixel in an empty scan, 1 mm pixels, view pixels 2 mm: 20 mm left and 30 mm to the back."""
    geometry = lying((101, 101, 1))
    image = np.zeros((101, 101), np.float32)
    image[50 - 20, 50 - 30] = 8.0  # i grows to the right, j to the front
    picture = resample_slice(image, geometry, 0, Place(np.zeros(3), 1.0), (101, 101))
    assert np.argwhere(picture).tolist() == [[50 + 30, 50 + 20]]
    assert picture.max() == 8


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("factors", [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_blocks_are_those_of_a_reshaped_image(factors, order):
    image = np.asarray(np.random.default_rng(0).integers(-1000, 1000, (12, 20, 3)), order=order)
    before = image.copy()
    blocks = image.reshape(12 // factors[0], factors[0], 20 // factors[1], factors[1], 3)
    assert np.array_equal(fold_blocks(np.add, image, factors), blocks.sum(axis=(1, 3)))
    assert np.array_equal(fold_blocks(np.maximum, image, factors), blocks.max(axis=(1, 3)))
    assert np.array_equal(image, before)


def test_views_of_a_small_region():
    """The region lies in the middle of the local view, and where it belongs in the global one."""
    geometry = lying((225, 225, 1))
    hu = np.full((225, 225), -1000.0)
    hu[112 - 60 : 112 + 61, 112 - 80 : 112 + 81] = 20  # a block head around (0, 0)
    roi = np.zeros((225, 225, 1), bool)
    roi[112 + 30 - 3 : 112 + 30 + 4, 112 + 45 - 3 : 112 + 45 + 4] = True  # 7 mm around x = 30, y = 45
    spec = ViewSpec(size_px=240, global_mm=240.0, local_mm=96.0)  # global pixels of 1 mm, local of 0.4 mm
    volume = Volume(hu.astype(np.int16)[:, :, None], geometry)
    (views,) = extract_views(volume, 0, [Roi.from_mask(roi, geometry)], roi, spec)
    rows, columns = np.nonzero(views.global_view[2] > 127)
    # the view's middle is between pixels 119 and 120; right of the patient is left in the picture
    assert rows.mean() == pytest.approx(119.5 - 45, abs=0.6)
    assert columns.mean() == pytest.approx(119.5 - 30, abs=0.6)
    rows, columns = np.nonzero(views.local_view[2] > 127)
    assert (rows.mean(), columns.mean()) == (119.5, 119.5)
    assert np.ptp(rows) + 1 == pytest.approx(7 / 0.4, abs=1.5)
    # 20 HU in windows 0..80 and -160..240; the region is filled with 40 HU
    inside, head = views.local_view[:2, 119, 119], views.local_view[:2, 60, 119]
    assert inside.tolist() == [round(255 * 40 / 80), round(255 * 200 / 400)]
    assert head.tolist() == [round(255 * 20 / 80), round(255 * 180 / 400)]


def test_fill_covers_all_regions():
    geometry = lying((120, 120, 1))
    hu = np.full((120, 120), 70.0)
    target, other = np.zeros((2, 120, 120, 1), bool)
    target[30:50, 30:50] = other[70:90, 70:90] = True
    roi = Roi.from_mask(target, geometry)
    volume = Volume(hu.astype(np.float32)[:, :, None], geometry)
    gray, bright = round(255 * 0.5), round(255 * 70 / 80)
    both = extract_views(volume, 0, [roi], target | other, SPEC)[0].global_view
    alone = extract_views(volume, 0, [roi], target, SPEC)[0].global_view
    assert (both[0] == gray).sum() > 1.8 * (alone[0] == gray).sum() > 0
    assert (alone[0] == bright).any()
    np.testing.assert_array_equal(both[2], alone[2])  # the mask is the target's alone


def test_uniform_image_stays_uniform():
    for step in ((0.4, 0.4), (0.3, 1.1), (5.0, 3.0)):
        geometry = lying((700, 700, 1), step, turn_deg=20)
        picture = resample_slice(
            np.full((700, 700), 33.0, np.float32), geometry, 0, Place(np.zeros(3), 2.0), (50, 50)
        )
        np.testing.assert_allclose(picture, 33.0, rtol=1e-6)


def test_outside_value():
    geometry = lying((20, 20, 1))
    picture = resample_slice(
        np.ones((20, 20), np.float32), geometry, 0, Place(np.zeros(3), 1.0), (40, 40), outside=-5
    )
    assert picture[0, 0] == -5 and picture[20, 20] == 1


# --- what must not matter, and what must ---


@pytest.mark.parametrize("flip_i", [False, True])
@pytest.mark.parametrize("flip_j", [False, True])
@pytest.mark.parametrize("swap", [False, True])
def test_reoriented_voxels_give_the_same_views(flip_i, flip_j, swap):
    """The file's voxel order plays no part, even where the blocks that are averaged do not fit the size."""
    shape, step = (241, 255, 1), (0.9, 0.8)
    geometry = lying(shape, step, middle=(5.0, -4.0))
    hu, roi = phantom(geometry)
    expected = views_of(geometry)
    affine = np.array(geometry.affine)
    for axis, flip in ((0, flip_i), (1, flip_j)):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
            hu, roi = np.flip(hu, axis), np.flip(roi, axis)
    if swap:
        affine = affine[:, [1, 0, 2, 3]]
        hu, roi = hu.T, roi.T
    found = views_of(Geometry.from_affine((*hu.shape, 1), affine), hu, roi)
    np.testing.assert_array_equal(found.global_view, expected.global_view)
    np.testing.assert_array_equal(found.local_view, expected.local_view)


def test_mirrored_patient_gives_mirrored_views():
    geometry = lying((240, 240, 1), (0.9, 0.9))
    hu, roi = phantom(geometry)
    straight, mirrored = views_of(geometry), views_of(geometry, hu[::-1], roi[::-1])
    for name in ("global_view", "local_view"):
        a, b = (getattr(v, name).astype(int) for v in (straight, mirrored))
        assert np.abs(a[..., ::-1] - b).max() <= 1
        assert np.abs(a - b).max() > 100  # the phantom is not symmetric
    columns = np.nonzero(straight.global_view[2])[1]
    assert columns.max() < SPEC.size_px / 2  # x > 0 is the patient's right, which is left in the picture


@pytest.mark.parametrize(
    ("step", "turn"),
    [((0.5, 0.5), 0), ((0.45, 0.9), 0), ((0.9, 0.45), 0), ((0.5, 0.5), 35), ((0.5, 0.5), 180)],
)
def test_spacing_and_rotation_are_undone(step, turn):
    """The same patient on another grid: the same views, but for interpolation at edges."""
    reference = views_of(lying((240, 240, 1), (0.9, 0.9)))
    shape = (int(230 / step[0]), int(230 / step[1]), 1)
    found = views_of(lying(shape, step, turn_deg=turn))
    for name in ("global_view", "local_view"):
        a, b = (getattr(v, name).astype(float) for v in (reference, found))
        assert np.abs(a - b).mean() < 2.5, name
        for channel in range(len(SPEC.channels)):
            assert np.corrcoef(a[channel].ravel(), b[channel].ravel())[0, 1] > 0.95


def test_position_of_the_patient_is_undone():
    """The views follow head and region, wherever the origin is."""
    geometry = lying((240, 240, 1), (0.9, 0.9))
    hu, roi = phantom(geometry)
    expected = views_of(geometry)
    affine = np.array(geometry.affine)
    affine[:3, 3] += [130, -75, 400]
    found = views_of(Geometry.from_affine((240, 240, 1), affine), hu, roi)
    np.testing.assert_array_equal(found.global_view, expected.global_view)
    np.testing.assert_array_equal(found.local_view, expected.local_view)


def test_head_centre_ignores_table_and_holder():
    geometry = lying((240, 240, 1))
    hu, _ = phantom(geometry)
    alone = head_centre_mm(hu.astype(np.float32), geometry, 0)
    np.testing.assert_allclose(alone[:2], 0, atol=1.0)
    table = hu.copy()
    table[20:220, 8:16] = 300  # behind the head, apart from it
    table[118:122, 16:32] = 300  # and a thin bridge to it
    np.testing.assert_allclose(head_centre_mm(table.astype(np.float32), geometry, 0), alone, atol=1.5)


def test_head_centre_without_a_head():
    geometry = lying((100, 60, 1), middle=(7.0, 3.0))
    empty = np.full((100, 60), -1000, np.float32)
    np.testing.assert_allclose(head_centre_mm(empty, geometry, 0), [7, 3, 0], atol=1e-9)


# --- codes ---


def test_sample_slice_takes_codes_and_agrees_with_the_views():
    geometry = lying((200, 200, 1), (0.9, 1.1), turn_deg=25)
    hu, roi = phantom(geometry)
    codes = np.where(roi, 7, np.where(hu > 100, 200, 3)).astype(np.uint8)
    place = views_of(geometry).places[1]
    half = (SPEC.size_px // 2,) * 2
    found = sample_slice(codes, geometry, 0, replace(place, pixel_mm=2 * place.pixel_mm), half, 99)
    assert found.dtype == np.uint8 and set(np.unique(found)) <= {3, 7, 99, 200}
    view = views_of(geometry).local_view[2].reshape(half[0], 2, half[1], 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(
        (found == 7)[np.abs(view - 127) > 110], (view > 127)[np.abs(view - 127) > 110]
    )


def test_sample_slice_outside():
    geometry = lying((4, 4, 1))
    image = np.arange(16, dtype=np.int8).reshape(4, 4)
    found = sample_slice(image, geometry, 0, Place(np.zeros(3), 1.0), (6, 6), 127)
    np.testing.assert_array_equal(
        found[1:5, 1:5], image[::-1, ::-1].T
    )  # rows from the front, columns from the right
    assert (found[[0, 5]] == 127).all() and (found[:, [0, 5]] == 127).all()


# --- arguments ---


def test_spec_round_trip_and_refusals():
    spec = ViewSpec(size_px=48, channels=("wide", "roi"), fill_hu=30.0)
    assert ViewSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ValueError, match=r"channels: .* got \['bone'\]"):
        ViewSpec(channels=("brain", "bone"))
    with pytest.raises(ValueError, match="positive"):
        ViewSpec(local_mm=0.0)
    with pytest.raises(TypeError):
        ViewSpec.from_dict({"size": 3})


@pytest.mark.parametrize("turn_deg", [0.0, 17.0])
def test_the_other_hemisphere_is_what_lies_at_the_mirror_images(turn_deg):
    """Over a plane that stands turned, off the views' middle: as the views of a patient who was mirrored."""
    geometry = lying((181, 221, 1))
    hu, roi = phantom(geometry)
    left = np.array([-np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg)), 0.0])
    plane = Midplane(np.array([3.0, -8.0, 0.0]), left, 0.0)
    spec = replace(SPEC, channels=("brain_mirrored", "brain", "roi"))
    volume = Volume(hu.astype(np.float32)[:, :, None], geometry)
    region, fill = [Roi.from_mask(roi[:, :, None], geometry)], roi[:, :, None]
    views = extract_views(volume, 0, region, fill, spec, mirror=plane.mirror)[0]

    i, j = np.indices(geometry.shape[:2])
    world = geometry.to_world(np.stack([i.ravel(), j.ravel(), np.zeros(i.size)], axis=1))
    images = world - 2 * plane.distances_mm(world)[:, None] * left
    pixels = geometry.to_pixels(images, 0).reshape(*i.shape, 2).transpose(2, 0, 1)
    filled = np.where(roi, spec.fill_hu, hu)
    mirrored = ndimage.map_coordinates(filled, pixels, order=1, cval=0.0)
    for view, place in zip((views.global_view, views.local_view), views.places, strict=True):
        picture = resample_slice(
            mirrored.astype(np.float32), geometry, 0, place, (SPEC.size_px, SPEC.size_px)
        )
        expected = 255 * np.clip(picture / 80, 0, 1)
        off = np.abs(view[0] - expected)
        assert np.median(off) < 4 and (off > 60).mean() < 0.06  # but for edges that were interpolated twice
        assert np.abs(view[0].astype(float) - view[1]).mean() > 5

    without = extract_views(volume, 0, region, fill, spec)
    (added,) = extract_views(volume, 0, region, fill, spec, mirror=plane.mirror, known=without)
    assert np.array_equal(added.global_view, views.global_view)
    assert np.array_equal(added.local_view, views.local_view)
    assert not without[0].global_view[0].any()  # they stay as they were


def test_without_a_midplane_the_other_hemisphere_is_black():
    geometry = lying((181, 221, 1))
    spec = replace(SPEC, channels=("brain_mirrored", "brain", "roi"))
    views = views_of(geometry, spec=spec)
    assert not views.global_view[0].any() and not views.local_view[0].any() and views.global_view[1].any()


def test_what_is_under_the_regions_is_shown_beside_them():
    geometry = lying((181, 221, 1))
    hu, roi = phantom(geometry)
    volume = Volume(hu.astype(np.float32)[:, :, None], geometry)
    region, fill = [Roi.from_mask(roi[:, :, None], geometry)], roi[:, :, None]
    spec = replace(SPEC, channels=("brain_unfilled", "brain", "roi"))
    views, bare = (
        extract_views(volume, 0, region, filled, spec)[0] for filled in (fill, np.zeros_like(fill))
    )
    for view, empty in ((views.global_view, bare.global_view), (views.local_view, bare.local_view)):
        np.testing.assert_array_equal(view[0], empty[1])  # as if nothing were filled
        np.testing.assert_array_equal(empty[0], empty[1])
        assert (view[0] != view[1])[view[2] > 127].mean() > 0.5
        np.testing.assert_array_equal(view[0][view[2] == 0], view[1][view[2] == 0])


def test_channels_are_the_spec_s():
    geometry = lying((120, 120, 1), (2.0, 2.0))
    spec = ViewSpec(channels=("wide", "brain"))
    found, standard = views_of(geometry, spec=spec), views_of(geometry)
    np.testing.assert_array_equal(found.local_view, standard.local_view[[1, 0]])


def test_the_region_is_the_last_channel_or_none():
    assert ViewSpec(channels=("roi_below", "brain", "roi")).roi_channel == 2
    assert ViewSpec(channels=("brain",)).roi_channel is None
    with pytest.raises(ValueError, match="'roi' as the last one"):
        ViewSpec(channels=("roi", "brain"))


def test_region_elsewhere():
    geometry = stack([0.0, 5.0])
    mask = np.zeros(geometry.shape, bool)
    mask[5, 5, 1] = True
    volume = Volume(np.zeros(geometry.shape, np.int16), geometry)
    with pytest.raises(ValueError, match="does not meet slice 0"):
        extract_views(volume, 0, [Roi.from_mask(mask, geometry)], mask, SPEC)


# --- the slices below and above ---

AROUND = ViewSpec(
    channels=("brain_below", "roi_below", "brain_above", "roi_above", "brain", "roi"), away_mm=6
)


def stack(heights):
    """1 mm pixels, slices at `heights`, a head-sized plane."""
    plane = lying((200, 200, 1))
    origins = np.repeat(plane.origins, len(heights), axis=0)
    origins[:, 2] = heights
    return Geometry((200, 200, len(heights)), plane.step_i, plane.step_j, origins)


def shown_around(heights, k):
    """The HU shown as (below, above) of slice k, where slice n has 10 + n HU throughout."""
    geometry = stack(heights)
    hu = np.broadcast_to(10 + np.arange(len(heights)), geometry.shape).astype(np.int16)
    mask = np.zeros(geometry.shape, bool)
    mask[90:110, 90:110, k] = True
    (views,) = extract_views(Volume(hu, geometry), k, [Roi.from_mask(mask, geometry)], mask, AROUND)
    return tuple(round(float(views.local_view[c, 5, 5]) / 255 * 80) for c in (0, 2))


@pytest.mark.parametrize(
    ("heights", "k", "expected"),
    [
        (np.arange(0, 50, 5.0), 4, (13, 15)),  # 5 mm is nearer to 6 than 10
        (np.arange(0, 50, 5.0)[::-1], 4, (15, 13)),  # the head's up, not the array's
        (np.arange(0, 30, 1.0), 10, (14, 26)),
        (np.array([0.0, 10.0, 20.0]), 1, (10, 12)),  # thick slices: the next one
        (np.array([0.0, 20.0, 40.0]), 1, (0, 0)),  # too far to say anything
        (np.array([0.0, 6.0]), 0, (0, 11)),  # none below
        (np.array([0.0]), 0, (0, 0)),
    ],
)
def test_which_slices_are_shown(heights, k, expected):
    assert shown_around(heights, k) == expected


def test_regions_around_are_filled_and_shown_in_place():
    """The region moves 8 mm to the patient's right from slice to slice; its texture is never seen."""
    geometry = stack([0.0, 6.0, 12.0])
    hu = np.full(geometry.shape, 20, np.int16)
    target, other = np.zeros((2, *geometry.shape), bool)
    for k in range(3):
        target[92 + 8 * k : 108 + 8 * k, 92:108, k] = True
    other[20:40, 20:40] = True
    hu[target | other] = 70
    roi = Roi.from_mask(target, geometry)
    (views,) = extract_views(Volume(hu, geometry), 1, [roi], target | other, AROUND)
    middles = [np.nonzero(views.local_view[c] > 127)[1].mean() for c in (1, 5, 3)]
    pixel_mm = AROUND.local_mm / AROUND.size_px
    assert np.diff(middles) * pixel_mm == pytest.approx([-8, -8], abs=0.5)
    for c in (0, 2, 4):  # brain below, above, here: 20 and 40 HU, nothing of 70
        assert views.global_view[c].max() == round(255 * 0.5)
    (alone,) = extract_views(Volume(hu, geometry), 1, [roi], target, AROUND)
    assert all(alone.global_view[c].max() > 200 for c in (0, 2, 4))  # the other region is not given now


def test_regions_of_one_slice_have_the_views_that_each_has_alone():
    geometry = stack([0.0, 6.0, 12.0])
    hu = np.random.default_rng(0).integers(-50, 100, geometry.shape).astype(np.int16)
    target, other = np.zeros((2, *geometry.shape), bool)
    target[92:108, 92:108, 1:] = other[60:80, 20:50, :2] = True
    rois = [Roi.from_mask(mask, geometry) for mask in (target, other)]
    volume, fill = Volume(hu, geometry), target | other
    together = extract_views(volume, 1, rois, fill, AROUND, turn_deg=9)
    for views, roi in zip(together, rois, strict=True):
        (alone,) = extract_views(volume, 1, [roi], fill, AROUND, turn_deg=9)
        np.testing.assert_array_equal(views.global_view, alone.global_view)
        np.testing.assert_array_equal(views.local_view, alone.local_view)
