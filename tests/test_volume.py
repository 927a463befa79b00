import numpy as np
import pytest

from situs.geometry import Geometry
from situs.volume import (
    Roi,
    Volume,
    bounding_box,
    choose_slices,
    largest_part,
    split_lesions,
    union_mask,
)

GEOMETRY = Geometry.from_affine((6, 5, 4), np.diag([2.0, 3.0, 5.0, 1.0]))
UNEVEN = Geometry((6, 5, 4), (2, 0, 0), (0, 3, 0), [[0, 0, 0], [0, 0, 4], [0, 0, 5], [0, 0, 12]])


def mask_of(*voxels):
    mask = np.zeros(GEOMETRY.shape, dtype=bool)
    mask[tuple(np.array(voxels).T)] = True
    return mask


@pytest.mark.parametrize(
    "hu", [np.zeros((6, 5, 3)), np.zeros((6, 5)), np.zeros((6, 5, 4), bool), np.zeros((6, 5, 4), complex)]
)
def test_a_volume_is_numbers_of_the_geometrys_shape(hu):
    with pytest.raises(ValueError, match="hu"):
        Volume(hu, GEOMETRY)


def test_a_region_keeps_its_box_only():
    roi = Roi.from_mask(mask_of((1, 2, 1), (3, 4, 2)), GEOMETRY, value=7, name="blood")
    assert roi.start == (1, 2, 1) and roi.mask.shape == (3, 3, 2)
    assert (roi.value, roi.name, roi.component) == (7, "blood", 0)
    full = np.zeros(GEOMETRY.shape, dtype=bool)
    full[roi.box] = roi.mask
    assert np.array_equal(full, mask_of((1, 2, 1), (3, 4, 2)))


def test_areas_and_slices():
    mask = mask_of((1, 2, 1), (2, 2, 1), (3, 4, 3))
    roi = Roi.from_mask(mask, GEOMETRY)
    assert roi.areas_px == {1: 2, 3: 1}
    for k in range(4):
        assert np.array_equal(roi.slice_mask(k), mask[:, :, k])


def test_volume_by_hand():
    assert Roi.from_mask(mask_of((0, 0, 0), (1, 0, 0)), GEOMETRY).volume_ml == pytest.approx(
        2 * 2 * 3 * 5 / 1000
    )


def test_on_uneven_slices_each_stands_for_half_the_way_to_its_neighbours():
    # distances 4, 1, 7: thicknesses 4, 2.5, 4, 7; a pixel has 6 mm2
    roi = Roi.from_mask(mask_of((0, 0, 1), (0, 0, 2), (0, 0, 3)), UNEVEN)
    assert roi.volume_ml == pytest.approx(6 * (2.5 + 4 + 7) / 1000)


def test_lesions_hang_together_through_corners_and_come_by_size():
    corner = [(0, 0, 0), (1, 1, 1)]
    apart = [(4, 4, 3), (4, 3, 3), (5, 4, 3)]
    lesions = split_lesions(Roi.from_mask(mask_of(*corner, *apart), GEOMETRY, value=3))
    assert [int(x.mask.sum()) for x in lesions] == [3, 2]
    assert [x.component for x in lesions] == [1, 2] and {x.value for x in lesions} == {3}
    assert all(split_lesions(lesion) == [lesion] for lesion in lesions)
    assert np.array_equal(union_mask(lesions, GEOMETRY), mask_of(*corner, *apart))
    assert np.array_equal(union_mask(lesions[1:], GEOMETRY), mask_of(*corner))


@pytest.mark.parametrize(
    ("mask", "start", "text"),
    [
        (np.zeros((1, 1, 1), bool), (0, 0, 0), "non-empty"),
        (np.ones((1, 1, 1), np.uint8), (0, 0, 0), "boolean"),
        (np.ones((1, 1), bool), (0, 0, 0), "3-D"),
        (np.ones((2, 2, 2), bool), (5, 0, 0), "leaves"),
        (np.ones((2, 2, 2), bool), (-1, 0, 0), "leaves"),
    ],
)
def test_impossible_regions_are_refused(mask, start, text):
    with pytest.raises(ValueError, match=text):
        Roi(mask, start, GEOMETRY)


def test_a_whole_scan_mask_must_fit_and_not_be_empty():
    with pytest.raises(ValueError, match="shape"):
        Roi.from_mask(np.ones((2, 2, 2), bool), GEOMETRY)
    with pytest.raises(ValueError, match="empty"):
        Roi.from_mask(np.zeros(GEOMETRY.shape, bool), GEOMETRY)


def test_a_box_holds_all_and_its_margin_ends_at_the_array():
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 3, 4] = mask[5, 3, 6] = True
    assert bounding_box(mask) == (slice(2, 6), slice(3, 4), slice(4, 7))
    assert bounding_box(mask, 3) == (slice(0, 9), slice(0, 7), slice(1, 7))
    assert bounding_box(mask[:, 3]) == (slice(2, 6), slice(4, 7))


def test_the_largest_part_alone_stays_and_corners_connect_if_asked():
    mask = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]], bool)
    left, right = mask.copy(), mask.copy()
    left[:, 2:] = False
    right[:, :2] = False
    assert np.array_equal(largest_part(mask), left)  # of equals the first
    assert np.array_equal(largest_part(mask, np.ones((3, 3), bool)), right)
    assert not largest_part(np.zeros((2, 2), bool)).any()


# --- which slices of a region are looked at ---


def roi_of(areas, affine=(1, 1, 5, 1)):
    """A region with these numbers of pixels on the slices of a stack."""
    mask = np.arange(max(areas))[:, None, None] < np.array(areas)[None, None, :]
    return Roi.from_mask(mask, Geometry.from_affine(mask.shape, np.diag(affine)))


def test_few_slices_are_all_looked_at():
    areas = {0: 3, 1: 9, 3: 4}
    assert choose_slices(roi_of([3, 9, 0, 4]), 3) == choose_slices(roi_of([3, 9, 0, 4]), None) == areas


def test_equal_slices_are_thinned_evenly():
    chosen = choose_slices(roi_of([7] * 60), 12)
    assert chosen == {5 * n + 2: 5 * 7 for n in range(12)}  # the middle of every five


def test_slices_are_spread_over_the_area():
    # Parts of 10 pixels, whose middles are 5, 15, 25 and 35; slice 3 is as near to 2 as to 4.
    chosen = choose_slices(roi_of([4, 8, 4, 6, 10, 4, 4]), 4)
    assert chosen == {1: 4 + 8, 2: 4 + 6, 4: 10, 5: 4 + 4} and list(chosen) == [1, 2, 4, 5]


def test_a_very_large_slice_is_chosen_once():
    # It takes one part; the 40 others share 11 parts of 40 / 11 pixels, of which two and a bit lie below it.
    areas = [40 if k == 4 else 1 for k in range(41)]
    chosen = choose_slices(roi_of(areas), 12)
    assert list(chosen) == [1, 4, 6, 10, 13, 17, 20, 24, 28, 31, 35, 39]
    assert chosen[1] == 3 and chosen[4] == 1 + 40 + 1 and chosen[6] == 3  # slices 0-2, 3-5 and 6-8


def test_slices_and_weights_of_any_region():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, most = int(rng.integers(1, 60)), int(rng.integers(1, 20))
        areas = (rng.integers(1, 5, n) ** rng.integers(1, 5, n)).tolist()
        chosen = choose_slices(roi_of(areas), most)
        assert len(chosen) == min(n, most) and sum(chosen.values()) == sum(areas)
        assert list(chosen) == sorted(chosen)
        # The same scan, stored the other way round.
        again = choose_slices(roi_of(areas[::-1], (1, 1, -5, 1)), most)
        assert {n - 1 - k: weight for k, weight in again.items()} == chosen
