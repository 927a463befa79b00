"""How two grids of voxels lie to each other, and where one lies, in words. World frame RAS+ in mm.

Grids are `Geometry`; a mask's is always even, so that an affine is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry

__all__ = [
    "SAME_VOXEL",
    "SliceMatch",
    "apart_mm",
    "apart_voxels",
    "box_text",
    "is_inside",
    "is_part",
    "match_slices",
    "misfit_mm",
    "nearest_axes",
    "place_text",
    "reordered",
    "shape_text",
    "shared_box",
    "size_text",
    "steps",
]

SAME_VOXEL = 0.25  # from half a voxel on, the nearest voxel is another one

_SAMPLES = 24  # of a box along each of its axes

Array = NDArray[np.float64]


def steps(g: Geometry) -> Array:
    """(3, 3) displacements to the next voxel along i, along j and, in the mean, along k, as columns."""
    way = g.origins[-1] - g.origins[0]
    # A lone slice leaves no way.
    way = way / (g.shape[2] - 1) if way.any() else g.normal * max(g.spacing_mm)
    return np.stack([g.step_i, g.step_j, way], axis=1)


def nearest_axes(grid: Geometry, to: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How the axes of a grid must be ordered and reversed to run as another's do, as nearly as they can.

    Returns:
        For each axis of `to`, the axis of `grid` and whether it runs the other way.
    """
    own, other = (steps(g) / np.linalg.norm(steps(g), axis=0) for g in (grid, to))
    cosines = other.T @ own
    axes = max(permutations(range(3)), key=lambda order: float(np.abs(cosines[[0, 1, 2], order]).sum()))
    return axes, tuple(bool(cosines[axis, of_grid] < 0) for axis, of_grid in enumerate(axes))


def reordered(grid: Geometry, axes: tuple[int, ...], backward: tuple[bool, ...]) -> Geometry:
    """An even grid with its axes reordered, and then reversed where `backward` says so."""
    shape = tuple(grid.shape[axis] for axis in axes)
    columns, origin = steps(grid)[:, axes], grid.origins[0].copy()
    for axis in np.flatnonzero(backward):
        origin += (shape[axis] - 1) * columns[:, axis]
        columns[:, axis] *= -1
    origins = origin + np.arange(shape[2])[:, None] * columns[:, 2]
    return Geometry((shape[0], shape[1], shape[2]), columns[:, 0], columns[:, 1], origins)


def apart_mm(a: Geometry, b: Geometry) -> Array:
    """(nk, 4, 3) the way from the corners of b's slices to those of a's; for two grids of one shape."""
    ends = np.array([[i, j] for i in (0, a.shape[0] - 1) for j in (0, a.shape[1] - 1)], dtype=np.float64)
    in_plane = ends @ np.stack([a.step_i - b.step_i, a.step_j - b.step_j])
    return np.asarray((a.origins - b.origins)[:, None] + in_plane)


def apart_voxels(a: Geometry, b: Geometry) -> Array:
    """(nk,) the largest part of `apart_mm` on each slice, along i, j or the normal, in voxels of b."""
    gap = float(np.median(b.slice_gaps_mm)) if b.shape[2] > 1 else max(b.spacing_mm)
    basis = np.stack([b.step_i, b.step_j, b.normal * max(gap, 1e-3)], axis=1)
    return np.asarray(np.abs(apart_mm(a, b) @ np.linalg.inv(basis).T).max(axis=(1, 2)))


@dataclass(frozen=True)
class SliceMatch:
    """How an image lies on a slice of a scan.

    Attributes:
        k: The slice.
        swapped: Whether the image's first axis is the scan's second.
        backward: Whether each in-plane axis of the scan runs against the image's.
    """

    k: int
    swapped: bool
    backward: tuple[bool, ...]

    def to_slice(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels of the image, as a view with the scan's axes (ni, nj)."""
        own = pixels.T if self.swapped else pixels
        return own[tuple(slice(None, None, -1 if b else 1) for b in self.backward)]


def match_slices(images: Iterable[Geometry], scan: Geometry) -> dict[Geometry, SliceMatch | None]:
    """The slice of a scan that each image (ni, nj, 1) lies on, all pixels within `SAME_VOXEL` of one."""
    alike: dict[tuple[object, ...], list[Geometry]] = {}
    for image in images:
        key = (image.shape, image.step_i.tobytes(), image.step_j.tobytes())
        alike.setdefault(key, []).append(image)
    gap = float(np.median(scan.slice_gaps_mm)) if scan.shape[2] > 1 else max(scan.spacing_mm)
    basis = np.stack([scan.step_i, scan.step_j, scan.normal * max(gap, 1e-3)], axis=1)
    heights, scan_shape = scan.heights_mm, scan.shape[:2]
    ends = np.array(
        [[i, j] for i in (0, scan_shape[0] - 1) for j in (0, scan_shape[1] - 1)], dtype=np.float64
    )
    matches: dict[Geometry, SliceMatch | None] = {}
    for group in alike.values():
        axes, backward = nearest_axes(group[0], scan)
        turned = reordered(group[0], axes, backward)
        if turned.shape[:2] != scan_shape:
            matches |= dict.fromkeys(group)
            continue
        origins = np.concatenate([image.origins for image in group]) + turned.origins[0] - group[0].origins[0]
        slices = np.abs(origins[:, None] @ scan.normal - heights).argmin(axis=1)
        in_plane = ends @ np.stack([turned.step_i - scan.step_i, turned.step_j - scan.step_j])
        apart = (origins - scan.origins[slices])[:, None] + in_plane
        near = np.abs(apart @ np.linalg.inv(basis).T).max(axis=(1, 2)) <= SAME_VOXEL
        for image, k, is_near in zip(group, slices, near, strict=True):
            matches[image] = SliceMatch(int(k), axes[0] == 1, backward[:2]) if is_near else None
    return matches


def is_inside(world: Array, g: Geometry, margin_mm: float = 0.0) -> NDArray[np.bool_]:
    """Whether positions lie in the box of a stack of slices.

    Args:
        world: (n, 3) mm.
        g: The stack. Its box ends half a pixel beyond the outer pixel centres, and half a slice distance
            beyond the outer slices.
        margin_mm: How far beyond that a position may lie along the normal.

    Returns:
        (n,) bool.
    """
    at, upward = world @ g.normal, np.argsort(g.heights_mm)
    heights = g.heights_mm[upward]
    reach = g.slice_thickness_mm[[0, -1]].max() / 2 + margin_mm
    inside = (at >= heights[0] - reach) & (at <= heights[-1] + reach)
    nearest = upward[np.searchsorted((heights[1:] + heights[:-1]) / 2, at)]
    for k in np.unique(nearest):
        own = nearest == k
        ij = g.to_pixels(world[own], int(k))
        inside[own] &= ((ij > -0.5) & (ij < np.array(g.shape[:2]) - 0.5)).all(axis=1)
    return np.asarray(inside)


def shared_box(a: Geometry, b: Geometry) -> float:
    """How much of the smaller of two boxes lies in the other, in [0, 1]."""
    at = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    ijk = np.stack(np.meshgrid(at, at, at, indexing="ij"), axis=-1).reshape(-1, 3)

    def inside(of: Geometry, other: Geometry) -> float:
        slices = (ijk[:, 2] * of.shape[2]).astype(int)
        points = of.to_world(np.column_stack([ijk[:, :2] * of.shape[:2] - 0.5, slices]))
        return float(is_inside(points, other).mean())

    return max(inside(a, b), inside(b, a))


def misfit_mm(grid: Geometry, other: Geometry) -> float:
    """How far an even grid's ends are from those of another one, at most, along its own axes."""
    own = steps(grid)
    at = (_corners(other) - grid.origins[0]) @ np.linalg.inv(own).T  # in voxels of the grid
    beyond = np.stack([at.min(axis=0), at.max(axis=0) - np.array(grid.shape) + 1])
    return float(np.abs(beyond * np.linalg.norm(own, axis=0)).max())


def is_part(a: Geometry, b: Geometry, within: float) -> bool:
    """Whether a grid is a part of another, even one, with a voxel at each of its voxels (`within` voxels)."""
    to_voxels = np.linalg.inv(steps(b))
    turn = to_voxels @ steps(a)
    first = to_voxels @ (a.origins[0] - b.origins[0])
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape])).reshape(3, -1)
    at, whole = turn @ ends + first[:, None], np.rint(turn) @ ends + np.rint(first)[:, None]
    contained = (whole >= 0).all() and (whole < np.array(b.shape)[:, None]).all()
    return bool(contained and np.abs(at - whole).max() <= within)


def shape_text(g: Geometry) -> str:
    """For example ``512 x 512 x 30``."""
    return " x ".join(map(str, g.shape))


def size_text(sizes: Array) -> str:
    """Sizes of a voxel, for example ``0.49 x 0.49 x 5.00 mm``."""
    return " x ".join(f"{size:.2f}" for size in sizes) + " mm"


def place_text(g: Geometry) -> str:
    """For example ``axes to LPS, 0.49 x 0.49 x 5.00 mm, first voxel at 125, 120, -90 mm``."""
    columns = steps(g)
    codes = "".join(
        ("LR", "PA", "IS")[axis][int(columns[axis, of] > 0)]
        for of, axis in enumerate(np.abs(columns).argmax(axis=0))
    )
    first = ", ".join(f"{x:.0f}" for x in g.origins[0] + 0.0)
    return f"axes to {codes}, {size_text(np.linalg.norm(columns, axis=0))}, first voxel at {first} mm"


def box_text(g: Geometry) -> str:
    """For example ``x -125 to 125, y -110 to 140, z -20 to 130 mm``."""
    corners = _corners(g)
    spans = zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in spans) + " mm"


def _corners(g: Geometry) -> Array:
    """(8, 3) centres of the outermost voxels."""
    i, j = g.shape[0] - 1, g.shape[1] - 1
    ends = g.origins[[0, -1]]
    return np.concatenate([ends + a * g.step_i + b * g.step_j for a in (0, i) for b in (0, j)])
