"""A mask from its own grid to the scan's slices, through patient space. World frame RAS+ in mm.

Each voxel centre of the scan takes the value of the mask voxel it lies in, so slices may be uneven or
tilted against the mask. A connected part of the mask that lies between two slices would vanish that way:
it goes to the slice nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.io.grids import is_inside
from situs.volume import bounding_box

__all__ = ["Regridded", "iter_values", "regrid"]

# A part farther from every slice than this many usual slice distances lies where slices are missing.
_REACH_GAPS = 0.75

_MOST_POINTS = 10_000_000  # bounds the memory for masks much coarser than the scan
_MANY = 1_000_000  # voxels that are looked at together
_MAX_DIRECT_VALUE = 2**12  # beyond this, values are numbered afresh before their boxes are looked for

Array = NDArray[np.float64]
Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Regridded:
    """A mask on a scan's grid.

    Attributes:
        labels: (ni, nj, nk) the mask's values at the scan's voxel centres
        between: {value: (n, 3) voxel indices} of parts that lie between slices, placed on the nearest;
            they may share voxels with another value
        beyond: {value: share in [0, 1]} of its parts that meet the scan, the share that lies outside.
        outside_ml: {value: volumes} of its parts that do not meet the scan, the largest first.
    """

    labels: Labels
    between: dict[int, NDArray[np.int64]]
    beyond: dict[int, float]
    outside_ml: dict[int, tuple[float, ...]]


def regrid(labels: Labels, affine: Array, geometry: Geometry) -> Regridded:
    """Bring a mask to a scan's grid.

    Args:
        labels: (mi, mj, mk) whole numbers, not all 0
        affine: (4, 4) voxel-to-world of the mask, RAS+ mm
        geometry: the scan's
    """
    labels, affine = _crop(labels, affine)
    parts, value_of = _connected_parts(labels)
    found = np.zeros(geometry.shape, dtype=labels.dtype, order="F")
    met = np.zeros(value_of.size, dtype=bool)
    met[0] = True
    for k, (box, ids) in _iter_lookups(parts, affine, geometry):
        met[ids.ravel()] = True
        found[(*box, k)] = value_of[ids]
    between: dict[int, NDArray[np.int64]] = {}
    if not met.all():
        voxels = np.argwhere(~met[parts])
        values = labels[tuple(voxels.T)]
        points, index, cover = _nearest_slice_voxels(voxels, affine, geometry)
        met[parts[tuple(voxels[index].T)]] = True
        for value in np.unique(values[index]):
            pixels, counts = np.unique(points[values[index] == value], axis=0, return_counts=True)
            half = (
                counts * cover >= 0.5 - 1e-6
            )  # of the pixel; a region smaller than that keeps what it touches
            between[int(value)] = pixels[half] if half.any() else pixels
    beyond, outside_ml = _outside(parts, value_of, met, affine, geometry)
    return Regridded(found, between, beyond, outside_ml)


def iter_values(labels: Labels) -> Iterator[tuple[int, tuple[slice, slice, slice]]]:
    """(value, box) for every value of a mask (mi, mj, mk) that is not 0, ascending."""
    from scipy import ndimage

    high = int(labels.max(initial=0))
    if high == 0:
        return
    outer = bounding_box(labels)
    labels = labels[outer]
    if high < _MAX_DIRECT_VALUE:
        values, numbers = np.arange(high + 1), labels
    else:
        inside = labels > 0
        values = np.concatenate([[0], np.unique(labels[inside])])
        numbers = np.zeros(labels.shape, dtype=np.int32, order="F")
        numbers[inside] = np.searchsorted(values, labels[inside])
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is not None:
            i, j, k = (slice(o.start + b.start, o.start + b.stop) for o, b in zip(outer, box, strict=True))
            yield int(values[number]), (i, j, k)


def _crop(labels: Labels, affine: Array) -> tuple[Labels, Array]:
    """The mask within the box of what is not 0."""
    box = bounding_box(labels)
    moved = np.array(affine)
    moved[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return labels[box], moved


def _connected_parts(labels: Labels) -> tuple[NDArray[np.int32], Labels]:
    """Every connected part of every value under its own number; and the value of each number."""
    from scipy import ndimage

    parts = np.zeros(labels.shape, dtype=np.int32, order="F")
    values, count = [0], 0
    for value, box in iter_values(labels):
        own, n = ndimage.label(labels[box] == value, structure=np.ones((3, 3, 3)))
        parts[box] += np.where(own > 0, own + count, 0).astype(np.int32)
        values += [value] * n
        count += n
    return parts, np.array(values, dtype=labels.dtype)


def _iter_lookups(parts: Labels, affine: Array, geometry: Geometry) -> Any:
    """(k, (box, ids)) for every slice that meets the mask's box: what the mask holds at its pixel centres."""
    inverse = np.linalg.inv(affine)
    corners = _corners(parts.shape, affine)
    heights = corners @ geometry.normal
    u, v = inverse[:3, :3] @ geometry.step_i, inverse[:3, :3] @ geometry.step_j
    for k, height in enumerate(geometry.heights_mm):
        if not heights.min() <= height <= heights.max():
            continue
        pixels = geometry.to_pixels(corners, k)
        low = np.maximum(np.floor(pixels.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(axis=0)) + 1, geometry.shape[:2]).astype(int)
        if (low >= high).any():
            continue
        i, j = np.arange(low[0], high[0])[:, None], np.arange(low[1], high[1])
        first = inverse[:3, :3] @ geometry.origins[k] + inverse[:3, 3]
        # The millionth keeps rounding errors from splitting a slice that lies midway between two of the mask.
        at = [np.floor(first[a] + i * u[a] + j * v[a] + 0.5 + 1e-6).astype(np.int64) for a in range(3)]
        inside = np.logical_and.reduce([(x >= 0) & (x < n) for x, n in zip(at, parts.shape, strict=True)])
        ids = np.zeros(inside.shape, dtype=parts.dtype)
        ids[inside] = parts[tuple(x[inside] for x in at)]
        yield k, ((slice(low[0], high[0]), slice(low[1], high[1])), ids)


def _nearest_slice_voxels(
    voxels: NDArray[np.int64], affine: Array, geometry: Geometry
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Mask voxels (n, 3) moved along the normal to the nearest slice, as points.

    Returns the scan voxel of each point (m, 3), the number of its mask voxel (m,), and the part of a pixel
    that a point stands for.
    """
    normal, heights = geometry.normal, geometry.heights_mm
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    away = np.abs((world @ normal)[:, None] - heights)
    k = away.argmin(axis=1)
    usual_gap = float(np.median(geometry.slice_gaps_mm)) if heights.size > 1 else 1.0
    thickness = np.abs(affine[:3, :3].T @ normal).sum()
    reach = _REACH_GAPS * usual_gap + thickness / 2
    index = np.flatnonzero(away[np.arange(k.size), k] <= reach)
    # A mask voxel larger than a pixel covers several: fill it with points, at least one per pixel.
    basis = np.linalg.pinv(np.stack([geometry.step_i, geometry.step_j], axis=1)) @ affine[:3, :3]  # (2, 3)
    counts = np.clip(np.ceil(np.abs(basis).max(axis=0) - 1e-6), 1, 50).astype(int)
    while counts.prod() * len(voxels) > _MOST_POINTS and counts.max() > 1:
        counts = np.maximum(counts // 2, 1)
    offsets = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in counts], indexing="ij"), axis=-1
    ).reshape(-1, 3)
    pixel_mm2 = np.linalg.norm(np.cross(geometry.step_i, geometry.step_j))
    cover = float(abs(np.linalg.det(affine[:3, :3])) / thickness / pixel_mm2 / len(offsets))
    points = [np.zeros((0, 3), dtype=np.int64)]
    sources = [np.zeros(0, dtype=np.int64)]
    for slice_k in np.unique(k[index]):
        own = index[k[index] == slice_k]
        spread = (world[own][:, None] + offsets @ affine[:3, :3].T).reshape(-1, 3)
        ij = np.floor(geometry.to_pixels(spread, int(slice_k)) + 0.5 + 1e-6).astype(np.int64)
        inside = ((ij >= 0) & (ij < geometry.shape[:2])).all(axis=1)
        points.append(np.column_stack([ij, np.full(len(ij), slice_k)])[inside])
        sources.append(np.repeat(own, len(offsets))[inside])
    return np.concatenate(points), np.concatenate(sources), cover


def _outside(
    parts: Labels, value_of: Labels, met: NDArray[np.bool_], affine: Array, geometry: Geometry
) -> tuple[dict[int, float], dict[int, tuple[float, ...]]]:
    """What lies outside the scan: `Regridded.beyond` and `Regridded.outside_ml`."""
    sizes = np.bincount(parts.ravel(), minlength=value_of.size)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    outside: dict[int, list[float]] = {}
    for number in np.flatnonzero(~met):
        outside.setdefault(int(value_of[number]), []).append(float(sizes[number]) * voxel_ml)
    margin = float(np.abs(affine[:3, :3].T @ geometry.normal).sum()) / 2
    beyond: dict[int, float] = {}
    if not is_inside(_corners(parts.shape, affine, 0.0), geometry, margin).all():
        hidden = np.zeros(value_of.size, dtype=np.int64)
        voxels = np.argwhere(parts)
        for start in range(0, len(voxels), _MANY):
            some = voxels[start : start + _MANY]
            inside = is_inside(some @ affine[:3, :3].T + affine[:3, 3], geometry, margin)
            hidden += np.bincount(parts[tuple(some[~inside].T)], minlength=value_of.size)
        for value in np.unique(value_of[met][1:]):
            own = met & (value_of == value)
            beyond[int(value)] = float(hidden[own].sum() / sizes[own].sum())
    return beyond, {value: tuple(sorted(volumes, reverse=True)) for value, volumes in outside.items()}


def _corners(shape: tuple[int, ...], affine: Array, margin: float = 0.5) -> Array:
    """(8, 3) world corners of a grid, `margin` voxels beyond the outer centres."""
    ends = np.array(np.meshgrid(*[(-margin, n - 1 + margin) for n in shape], indexing="ij")).reshape(3, -1).T
    return np.asarray(ends @ affine[:3, :3].T + affine[:3, 3])
