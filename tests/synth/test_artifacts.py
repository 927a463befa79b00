"""Artifacts: each does what it is named for, where it should, and the rest of the scan stays."""

import numpy as np
import pytest

from situs.synth import artifacts
from situs.synth.artifacts import add_artifacts, open_skull

SHAPE = (6, 64, 64)


def plain():
    """Air, a head of 30 HU, two dense blocks left and right of its middle on slice 2."""
    y, x = np.indices(SHAPE[1:]) - 31.5
    scan = np.full(SHAPE, -1000, dtype=np.float32)
    scan[:, np.hypot(x, y) < 28] = 30
    scan[2, 26:38, 8:22] = scan[2, 26:38, 42:56] = 1200
    return scan


def test_none_one_or_more_at_random(monkeypatch):
    scans = [add_artifacts(plain(), 1.0, np.random.default_rng(seed)) for seed in range(40)]
    changed = np.array([(scan != plain()).any() for scan in scans])
    assert 0.2 < changed.mean() < 0.8
    same = add_artifacts(plain(), 1.0, np.random.default_rng(3))
    np.testing.assert_array_equal(same, scans[3])
    for name in ("_P_HARDENING", "_P_METAL", "_P_MOTION"):
        monkeypatch.setattr(artifacts, name, 0.0)
    np.testing.assert_array_equal(add_artifacts(plain(), 1.0, np.random.default_rng(0)), plain())


def test_it_is_darker_between_dense_bones_and_nowhere_else():
    change = artifacts._harden(plain(), 1.0, np.random.default_rng(0)) - plain()
    assert change[2, 30:34, 28:36].mean() < -1
    assert (change <= 0).all()
    assert np.abs(change[[0, 1, 3, 4, 5]]).max() == 0
    assert np.abs(change[2, :12]).max() < 0.1  # in front of them
    assert np.abs(change[plain() < -500]).max() == 0


def test_metal_streaks_fade_with_distance_and_spare_the_air():
    scan = artifacts._streak(plain(), 1.0, np.random.default_rng(5))
    k, j, i = np.unravel_index(scan.argmax(), SHAPE)
    assert scan.max() == 3000
    y, x = np.indices(SHAPE[1:])
    away = np.hypot(y - j, x - i)
    change = np.abs(scan - plain())[k]
    head = plain()[k] > -500
    assert change[head & (away > 4) & (away < 15)].mean() > change[head & (away > 30)].mean()
    assert (scan[plain() < -500] == -1000).mean() > 0.99
    others = [n for n in range(SHAPE[0]) if abs(n - k) > 1]
    np.testing.assert_array_equal(scan[others], plain()[others])


def test_motion_shows_some_slices_twice():
    scan = artifacts._move(plain(), 1.0, np.random.default_rng(1))
    moved = (scan != plain()).any(axis=(1, 2))
    assert moved.any() and not moved.all()
    first, last = np.flatnonzero(moved)[[0, -1]]
    assert moved[first : last + 1].all()
    assert scan.mean() == pytest.approx(plain().mean(), abs=5)


def test_a_gap_in_the_vault_is_filled_with_soft_tissue():
    x, y, z = (a - 31.5 for a in np.indices((64, 64, 64)))
    radius = np.sqrt(x**2 + y**2 + z**2)
    labels = np.where(radius < 24, 41, np.where(radius < 28, 515, 0))
    hu = np.where(labels == 515, 900, np.where(labels == 41, 30, -1000)).astype(np.float32)
    before = hu.copy()
    open_skull(hu, labels, np.random.default_rng(0))
    gap = hu != before
    assert gap.any() and (labels[gap] == 515).all()
    assert ((hu[gap] >= 10) & (hu[gap] <= 45)).all()
    assert gap.sum() < 0.6 * (labels == 515).sum()
    assert np.argwhere(gap)[:, 2].mean() > 32  # above

    without = np.zeros_like(labels)
    untouched = hu.copy()
    open_skull(hu, without, np.random.default_rng(0))
    np.testing.assert_array_equal(hu, untouched)
