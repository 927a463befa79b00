"""What spoils a head CT: dark bands between dense bones, streaks from metal, motion, an opened skull.

They are painted into the slices, not simulated from projections: they are there so that a network learns to
look past them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.heads import BONE
from situs.synth.noise import blur_slices
from situs.volume import bounding_box

__all__ = ["add_artifacts", "open_skull"]

Scan = NDArray[np.float32]

_P_HARDENING, _P_METAL, _P_MOTION = 0.4, 0.06, 0.08
_DENSE_HU = 300.0
_HARDENED_PX = 20  # beyond dense bone, the reach of what is blurred


def add_artifacts(scan: Scan, pixel_mm: float, rng: np.random.Generator) -> Scan:
    """A scan (nk, nj, ni), HU, with none, one or more of the artifacts, at random.

    Args:
        scan: (nk, nj, ni) HU; it is not changed.
        pixel_mm: Size of a pixel.
        rng: Chooses the artifacts and draws them.
    """
    if rng.random() < _P_HARDENING:
        scan = _harden(scan, pixel_mm, rng)
    if rng.random() < _P_METAL:
        scan = _streak(scan, pixel_mm, rng)
    if rng.random() < _P_MOTION:
        scan = _move(scan, pixel_mm, rng)
    return scan


def open_skull(hu: Scan, labels: NDArray[np.integer], rng: np.random.Generator) -> None:
    """Take out a burr hole or a bone flap, in place: soft tissue or fluid lies in the gap.

    Args:
        hu: (nx, ny, nz) HU of a head; changed in place.
        labels: (nx, ny, nz) CHARM numbers.
        rng: Draws the gap.
    """
    bone = np.flatnonzero(np.isin(labels, BONE))
    upper = bone[bone % labels.shape[2] > labels.shape[2] * 0.55]  # the vault
    if not upper.size:
        return
    middle = np.unravel_index(int(rng.choice(upper)), labels.shape)
    radius = rng.choice([rng.uniform(5, 9), rng.uniform(20, 45)])
    box = tuple(
        slice(max(0, int(m - radius)), min(n, int(m + radius) + 1))
        for m, n in zip(middle, labels.shape, strict=True)
    )
    lines = [np.arange(b.start, b.stop) - m for b, m in zip(box, middle, strict=True)]
    x, y, z = np.ix_(*lines)
    gap = (x**2 + y**2 + z**2 < radius**2) & np.isin(labels[box], BONE)
    hu[box][gap] = rng.uniform(10, 45)


def _harden(scan: Scan, pixel_mm: float, rng: np.random.Generator) -> Scan:
    """Dark bands where dense bone lies on both sides, as between the petrous bones."""
    deepest, bone = rng.uniform(2, 14), scan > _DENSE_HU
    if not bone.any():
        return scan
    box = (slice(None), *bounding_box(np.asarray(bone.any(axis=0)), _HARDENED_PX))  # none of it lies beyond
    dense = blur_slices(bone[box].astype(np.float32), 2, 2)
    one = np.cumsum(dense, axis=2)
    other = np.asarray(one[:, :, -1:] - one)
    between = np.minimum(one, other) * np.float32(pixel_mm)  # mm of bone on the side that has less
    dark = blur_slices(np.clip(between / 25 - 0.4, 0, 1), 3, 0)
    scan, part = scan.copy(), scan[box]
    scan[box] -= deepest * dark * (part < _DENSE_HU) * (part > -100)
    return scan


def _streak(scan: Scan, pixel_mm: float, rng: np.random.Generator) -> Scan:
    """A clip, a coil or a filling, and the star of bright and dark rays around it."""
    inside = np.argwhere(scan > -100)
    if not len(inside):
        return scan
    k, j, i = inside[rng.integers(len(inside))]
    y, x = np.indices(scan.shape[1:], dtype=np.float32)
    distance = np.hypot(y - j, x - i) * pixel_mm
    angle = np.arctan2(y - j, x - i)
    rays = sum(
        rng.uniform(0.5, 1) * np.sin(n * angle + rng.uniform(0, 2 * np.pi)) for n in rng.integers(3, 16, 4)
    )
    star = rng.uniform(15, 60) * rays * np.exp(-distance / rng.uniform(20, 60)) * (distance > 3)
    scan = scan.copy()
    for slice_, strength in ((k - 1, 0.5), (k, 1.0), (k + 1, 0.5)):
        if 0 <= slice_ < len(scan):
            scan[slice_] += (strength * star * (scan[slice_] > -500)).astype(np.float32)
    scan[k][distance < rng.uniform(1, 4)] = 3000
    return scan


def _move(scan: Scan, pixel_mm: float, rng: np.random.Generator) -> Scan:
    """Some slices in a row show the head in two places."""
    count = len(scan)
    first = int(rng.integers(count))
    last = min(count, first + int(rng.integers(1, max(2, count // 3))))
    shift = rng.normal(0, 2.5 / pixel_mm, 2)
    weight = np.float32(rng.uniform(0.2, 0.5))
    moved = ndimage.shift(scan[first:last], (0, *shift), order=1, mode="nearest")
    scan = scan.copy()
    scan[first:last] = (1 - weight) * scan[first:last] + weight * moved
    return scan
