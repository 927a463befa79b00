"""Operations on grids of 1 mm that know no anatomy: where lesions start, their outlines, distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.head_frame import distance_mm
from situs.synth.noise import smooth_noise
from situs.volume import bounding_box, largest_part

__all__ = [
    "Box",
    "Voxel",
    "Window",
    "box_around",
    "closing",
    "draw_voxel",
    "embed",
    "in_window",
    "log_uniform",
    "nearest_value",
    "offsets",
    "part_around",
    "rough_ellipsoid",
]

Mask = NDArray[np.bool_]
Voxel = tuple[int, int, int]
Box = tuple[slice, slice, slice]
# What a scan shows of a head: (4,) the map from a voxel to its slice, and the number of slices.
Window = tuple[NDArray[np.float64], int]

_CELL = 12  # voxels; see `draw_voxel`
_CORNERS = np.ones((3, 3, 3), dtype=bool)  # voxels that touch by a corner are connected


def rough_ellipsoid(
    shape: tuple[int, ...],
    seed: Voxel,
    radius_mm: float,
    rng: np.random.Generator,
    roughness: float,
    flatness: float = 0.55,
    long: bool = False,
) -> tuple[NDArray[np.float32], Box]:
    """A level that is 0 at a voxel and 1 on a rough ellipsoid around it.

    Args:
        shape: (3,) of the grid.
        seed: The voxel in the middle.
        radius_mm: The longest half-axis, before it is roughened.
        rng: Draws half-axes, directions and roughness.
        roughness: The standard deviation of the noise that is added to the level.
        flatness: The least half-axis over the longest; 1 gives a ball.
        long: Whether it lies nearly front to back, and is narrow from side to side.

    Returns:
        The level (mx, my, mz), and the box of the grid that it covers.
    """
    axes = radius_mm * rng.uniform(flatness, 1.0, size=3) if flatness < 1 else np.full(3, radius_mm)
    if long:
        axes = radius_mm * rng.uniform((0.35, 1.0, 0.45), (0.65, 1.0, 0.9))
    turn = _random_rotation(rng, about=2.5 * np.eye(3) if long else np.zeros((3, 3)))
    box = box_around(seed, int(np.ceil(radius_mm * (1 + roughness))) + 1, shape)
    x, y, z = np.ix_(*offsets(box, seed))
    level = np.zeros((x.size, y.size, z.size), dtype=np.float32)
    for a, b, c in (turn / axes[:, None]).astype(np.float32):
        turned = (a * x + b * y) + c * z
        level += np.square(turned, out=turned)
    noise = smooth_noise(level.shape, max(3.0, radius_mm / 2), rng)
    return np.sqrt(level, out=level) + roughness * noise, box


def box_around(seed: Voxel, reach: int, shape: tuple[int, ...]) -> Box:
    """The box of a grid that reaches `reach` voxels to all sides of a voxel, as far as the grid goes."""
    x, y, z = (slice(max(0, s - reach), min(n, s + reach + 1)) for s, n in zip(seed, shape, strict=True))
    return x, y, z


def offsets(box: Box, seed: Voxel) -> list[NDArray[np.float32]]:
    """How far the voxels of a box lie from a voxel, along each axis."""
    return [np.arange(b.start, b.stop, dtype=np.float32) - s for b, s in zip(box, seed, strict=True)]


def draw_voxel(voxels: NDArray[np.int32], shape: tuple[int, ...], rng: np.random.Generator) -> Voxel:
    """One of the flat voxels (n,) of a site: any of them, or any in a random cell of the grid.

    Each cell of `_CELL` voxels that holds some is drawn as often. So horns, single cisterns and the
    tentorium's edge come up as often as what is bulky.
    """
    if rng.random() < 0.5:
        cells = np.stack(np.unravel_index(voxels, shape)) // _CELL
        number = (cells * [[1_000_000], [1_000], [1]]).sum(axis=0)
        voxels = voxels[number == rng.choice(np.unique(number))]
    x, y, z = np.unravel_index(int(rng.choice(voxels)), shape)
    return int(x), int(y), int(z)


def in_window(voxels: NDArray[np.int32], shape: tuple[int, ...], window: Window | None) -> NDArray[np.int32]:
    """Some thousand of the flat voxels (n,), evenly taken, without those on no slice of the window."""
    voxels = voxels[:: max(1, voxels.size // 4000)]
    if window is None or not voxels.size:
        return voxels
    to_slice, count = window
    k = np.stack(np.unravel_index(voxels, shape), axis=1) @ to_slice[:3] + to_slice[3]
    return voxels[(k > -0.5) & (k < count - 0.5)]


def part_around(mask: Mask, voxel: tuple[int, ...] | None) -> Mask:
    """The connected part of a mask that holds a voxel; the largest part where none does."""
    if not mask.any():
        return mask
    box = bounding_box(mask)
    if voxel is None or not mask[voxel]:
        return embed(largest_part(mask[box], _CORNERS), box, mask.shape)
    parts, _ = ndimage.label(mask[box], _CORNERS)
    here = tuple(v - b.start for v, b in zip(voxel, box, strict=True))
    return embed(parts == parts[here], box, mask.shape)


def closing(mask: Mask, radius_mm: float) -> Mask:
    """The morphological closing of a mask with a ball."""
    return np.asarray(distance_mm(distance_mm(mask) > radius_mm) >= radius_mm)


def nearest_value(where: Mask, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For each voxel the value at the nearest voxel of `where`; 0 if there is none."""
    if not where.any():
        return np.zeros(values.shape, dtype=np.uint8)
    index = ndimage.distance_transform_edt(~where, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(index)])


def log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A random number between the limits, whose logarithm is uniform."""
    low, high = np.log(limits)
    return float(np.exp(rng.uniform(low, high)))


def _random_rotation(rng: np.random.Generator, about: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any rotation about zeros, one near none about a multiple of the identity."""
    q, r = np.linalg.qr(about + rng.standard_normal((3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def embed(part: NDArray[Any], box: tuple[slice, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """A grid of a shape that is zero but for a part of it, which lies in a box."""
    whole = np.zeros(shape, dtype=part.dtype)
    whole[box] = part
    return whole
