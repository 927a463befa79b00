"""Augmentation: what moves moves together, and the region's gray is not what changes."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms.small_cohort import draw_cohort

from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import Batch, open_slices
from situs.learn import augment as module
from situs.learn.augment import augment
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=32)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    slices = open_slices(draw_cohort(tmp_path_factory.mktemp("cohort"), patients=2, scans=1), SPEC)
    return slices.batch(np.arange(12))


def arrays(batch: Batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


def test_mirror_twice_is_identity(batch):
    everyone = np.ones(12, dtype=bool)
    once = module._mirror(batch, everyone)
    for name, value in arrays(module._mirror(once, everyone)).items():
        np.testing.assert_array_equal(value, getattr(batch, name))
    np.testing.assert_array_equal(once.global_view, batch.global_view[..., ::-1])
    np.testing.assert_array_equal(once.local_sites, batch.local_sites[..., ::-1])
    known = batch.global_lateral != LATERAL_UNKNOWN
    assert known.any() and not known.all()
    mirrored = np.where(known, -batch.global_lateral, LATERAL_UNKNOWN)[..., ::-1]
    np.testing.assert_array_equal(once.global_lateral, mirrored)
    nobody = module._mirror(batch, ~everyone)
    np.testing.assert_array_equal(nobody.local_view, batch.local_view)


def test_shift_moves_view_and_targets_together(batch):
    moved = module._shift_local(batch, np.tile([2, -1], (12, 1)))
    np.testing.assert_array_equal(moved.local_view[:, :, 4:, :-2], batch.local_view[:, :, :-4, 2:])
    assert not moved.local_view[:, :, :4].any() and not moved.local_view[..., -2:].any()
    np.testing.assert_array_equal(moved.local_sites[:, 2:, :-1], batch.local_sites[:, :-2, 1:])
    assert (moved.local_sites[:, :2] == SITE_UNKNOWN).all()
    assert (moved.local_lateral[:, :, -1:] == LATERAL_UNKNOWN).all()
    assert moved.global_view is batch.global_view


def test_augment_changes_gray_but_not_the_region(batch):
    before = {name: value.copy() for name, value in arrays(batch).items()}
    changed = augment(batch, SPEC, np.random.default_rng(3))
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(batch, name), value)  # the input is left alone
        assert getattr(changed, name).shape == value.shape and getattr(changed, name).dtype == value.dtype
    flips = [np.array_equal(a[2], b[2]) for a, b in zip(changed.global_view, batch.global_view, strict=True)]
    mirrors = [
        np.array_equal(a[2], b[2, :, ::-1])
        for a, b in zip(changed.global_view, batch.global_view, strict=True)
    ]
    assert all(a or b for a, b in zip(flips, mirrors, strict=True)) and any(flips) and any(mirrors)
    assert not np.array_equal(changed.global_view[:, :2], batch.global_view[:, :2])
    np.testing.assert_array_equal(changed.site, batch.site)
    again = augment(batch, SPEC, np.random.default_rng(3))
    np.testing.assert_array_equal(again.local_view, changed.local_view)


def test_augment_without_targets(batch):
    bare = replace(batch, global_sites=None, local_sites=None, global_lateral=None, local_lateral=None)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(
        augment(bare, SPEC, rng).local_view, augment(batch, SPEC, np.random.default_rng(3)).local_view
    )


def test_channels_are_hidden_as_a_scan_may_lack_them():
    channels = ("brain_below", "brain_above", "brain_mirrored", "brain_unfilled", "brain", "roi")
    n = 2000
    views = np.broadcast_to(np.arange(1, 7, dtype=np.uint8)[:, None, None], (n, 6, 2, 2))
    hidden = module._hide(
        Batch(views, views, np.zeros(n, np.int64)), ViewSpec(2, channels=channels), np.random.default_rng(5)
    )
    below, above, mirrored, unfilled, brain, roi = hidden.global_view[:, :, 0, 0].T
    np.testing.assert_array_equal(hidden.local_view, hidden.global_view)
    assert (brain == 5).all() and (roi == 6).all()
    assert set(below) == {0, 1} and set(above) == {0, 2} and set(mirrored) == {0, 3}
    assert set(unfilled) == {4, 5}  # 5: the filled picture in its place
    off = 4 * np.sqrt(0.25 / n)  # four standard errors
    for share, expected in (
        (((below == 0) & (above == 0)).mean(), 0.3),
        (((below == 0) != (above == 0)).mean(), 0.1),
        ((mirrored == 0).mean(), 0.1),
        ((unfilled == 5).mean(), 0.15),
    ):
        assert share == pytest.approx(expected, abs=off)


def test_blur_keeps_uniform_and_spreads_a_point():
    assert (module._blur(np.full((1, 5, 5), 200, np.uint8)) == 200).all()
    point = np.zeros((1, 5, 5), np.uint8)
    point[0, 2, 2] = 160
    kernel = np.outer([1, 2, 1], [1, 2, 1]) * 10
    np.testing.assert_array_equal(module._blur(point)[0, 1:4, 1:4], kernel)
