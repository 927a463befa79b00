"""Slices that together show all lesions. Their looks are tested with pictures of one lesion."""

import numpy as np
import pytest
from phantoms import small_case

from situs.report.slices import iter_overview
from situs.volume import Roi, split_lesions

SIZE = 240  # 1 mm a pixel


@pytest.fixture(scope="module")
def volume():
    return small_case.volume()


@pytest.fixture(scope="module")
def lesions(volume):
    """Number 1 on slices 1 to 3, of which 2 is the largest, 2 on slice 5, 3 on slice 2."""
    parts = [lesion for roi in small_case.rois(volume.geometry) for lesion in split_lesions(roi)]
    return dict(enumerate(parts, start=1))


def test_the_fewest_slices_that_show_each_lesion_are_chosen(volume, lesions):
    shown = [(k, numbers) for k, numbers, _ in iter_overview(volume, lesions, 32, 24)]
    assert shown == [(2, [1, 3]), (5, [2])]
    assert [k for k, _, _ in iter_overview(volume, lesions, 32, 1)] == [2]
    assert [k for k, _, _ in iter_overview(volume, {1: lesions[1]}, 32, 24)] == [2]  # its largest
    assert not list(iter_overview(volume, {}, 32, 24))


def test_slices_are_shown_from_below_upwards_whatever_their_order(volume):
    affine, mask = small_case.AFFINE.copy(), small_case.lesion_mask()
    affine[:3, 3] += affine[:3, 2] * (small_case.SHAPE[2] - 1)
    affine[:3, 2] *= -1
    other = small_case.volume(hu=volume.hu[:, :, ::-1], affine=affine)
    parts = [r for roi in small_case.rois(other.geometry, mask[:, :, ::-1]) for r in split_lesions(roi)]
    shown = iter_overview(other, dict(enumerate(parts, start=1)), 32, 24)
    assert [(k, numbers) for k, numbers, _ in shown] == [(3, [1, 3]), (0, [2])]


def test_each_lesion_is_outlined_with_its_number_beside_it(volume):
    mask = small_case.lesion_mask()
    both = {n: Roi.from_mask(mask == value, volume.geometry, value) for n, value in ((1, 1), (8, 7))}
    with_numbers = {n: next(iter_overview(volume, {n: roi}, SIZE, 1))[2] for n, roi in both.items()}
    for n, first, last in ((1, 33, 60), (8, -48, -30)):
        pixels = np.asarray(with_numbers[n]).astype(int)
        rows, columns = np.nonzero(pixels[:, :, 0] - pixels[:, :, 2] > 60)
        # The distances of the lesion's edges from the middle in mm; the patient's left is on the right.
        middle = (SIZE - 1) / 2
        assert columns.min() == pytest.approx(middle + first, abs=4)
        assert columns.max() == pytest.approx(middle + last, abs=4)
        beside = pixels[rows.min() - 12 : rows.min() + 12, columns.max() + 3 : columns.max() + 22]
        assert beside.max() > 200 and np.ptp(beside, axis=2).max() < 20  # a number in white
    other = next(iter_overview(volume, {3: both[8]}, SIZE, 1))[2]
    assert (np.asarray(other) != np.asarray(with_numbers[8])).any()  # another number
