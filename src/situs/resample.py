"""A slice as a picture: the pixels of a square that lies in the slice, read out of the slice's own grid.

In a picture row 0 is anterior and column 0 the patient's right. Positions are world, RAS+ in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry

__all__ = ["Blocks", "Place", "Sampling", "fold_blocks", "resample_slice", "sample_slice"]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a view lies.

    Attributes:
        centre_mm: (3,) its middle in world coordinates
        pixel_mm: side of its pixels
        turn_deg: see `extract_views`
        mirror: (4, 4) reflection of the world; the view shows what lies at the mirror images of its pixels,
            seen straight down or up onto the slice; None for the pixels themselves
    """

    centre_mm: NDArray[np.float64]
    pixel_mm: float
    turn_deg: float = 0.0
    mirror: NDArray[np.float64] | None = None

    def axes(self, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unit vectors (3,) and (3,) in the slice's plane: the view's right and down."""
        right, down = geometry.display_axes
        c, s = np.cos(np.radians(self.turn_deg)), np.sin(np.radians(self.turn_deg))
        return c * right + s * down, c * down - s * right


def resample_slice(
    image: NDArray[np.float32],
    geometry: Geometry,
    k: int,
    place: Place,
    size_px: tuple[int, int],
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """A slice (ni, nj) as a picture (rows, columns) of `place`: anterior up, the patient's left on the right.

    Finer input is averaged in blocks before linear interpolation, so that nothing aliases; `outside` is the
    value beyond the slice.
    """
    return Sampling.of(geometry, k, place, size_px).read(image, outside)


@dataclass(frozen=True, eq=False)
class Sampling:
    """Where the pixels of one picture lie in a slice: worked out once, read from several images of the slice.

    Attributes:
        blocks: in which finer images are averaged first
        block: (rows, columns) each, or of size 1 along an axis where all are alike: the number, along i and
            along j, of the block before each pixel of the picture
        steps: from that block to the next one along i and j: 1, or 0 where there is a single block
        along: like `block`: how far it lies on the way to the next block, in [0, 1]
        inside: (rows, columns) whether it lies in the slice
    """

    blocks: Blocks
    block: tuple[NDArray[np.intp], NDArray[np.intp]]
    steps: tuple[int, int]
    along: tuple[NDArray[np.float32], NDArray[np.float32]]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, geometry: Geometry, k: int, place: Place, size_px: tuple[int, int]) -> Sampling:
        """The sampling of a place on slice k by a picture of (rows, columns)."""
        blocks = Blocks.of(geometry, place.pixel_mm)
        matrix, corner = _pixel_grid(geometry, k, place, size_px)
        rows, columns = np.arange(size_px[0])[:, None], np.arange(size_px[1])[None]
        shape = ((np.array(geometry.shape[:2]) + blocks.missing) // blocks.sizes).tolist()
        inside, block, along = np.ones(size_px, dtype=bool), [], []
        for axis, (per_row, per_column) in enumerate(matrix):
            # Where the picture is not turned against the slice, one row or column tells all.
            at = corner[axis] + sum(step * n for step, n in ((per_row, rows), (per_column, columns)) if step)
            at = (at - blocks.first[axis]) / blocks.sizes[axis]
            inside &= (at >= 0) & (at <= shape[axis] - 1)
            block.append(np.clip(at.astype(np.intp), 0, max(shape[axis] - 2, 0)))
            along.append((at - block[axis]).astype(np.float32))
        steps = (min(1, shape[0] - 1), min(1, shape[1] - 1))
        return cls(blocks, (block[0], block[1]), steps, (along[0], along[1]), inside)

    def read(self, image: NDArray[np.float32], outside: float = 0.0) -> NDArray[np.float32]:
        """The picture (rows, columns) of an image (ni, nj) of the slice, interpolated linearly."""
        blocks = self.blocks.mean(image)
        by_columns = blocks.flags.f_contiguous
        flat = blocks.ravel(order="F" if by_columns else "C")
        to_next = (1, blocks.shape[0]) if by_columns else (blocks.shape[1], 1)
        first = self.block[0] * to_next[0] + self.block[1] * to_next[1]
        di, dj = (step * n for step, n in zip(self.steps, to_next, strict=True))
        along_i, along_j = self.along
        near, far = (
            flat.take(start) * (1 - along_j) + flat.take(start + dj) * along_j
            for start in (first, first + di)
        )
        return np.where(self.inside, near * (1 - along_i) + far * along_i, np.float32(outside))

    def picture(self, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gray values (ni, nj) in [0, 1] as a picture of whole numbers from 0 to 255."""
        return np.rint(self.read(gray) * 255)


def sample_slice(
    image: NDArray[np.generic],
    geometry: Geometry,
    k: int,
    place: Place,
    size_px: tuple[int, int],
    outside: float = 0.0,
) -> NDArray[np.generic]:
    """As `resample_slice`, but every pixel takes the value of the nearest pixel of the slice: for codes."""
    matrix, corner = _pixel_grid(geometry, k, place, size_px)
    rows, columns = np.arange(size_px[0])[:, None], np.arange(size_px[1])
    i, j = (
        np.floor(corner[axis] + matrix[axis, 0] * rows + matrix[axis, 1] * columns + 0.5).astype(np.intp)
        for axis in (0, 1)
    )
    inside = (i >= 0) & (i < image.shape[0]) & (j >= 0) & (j < image.shape[1])
    return np.where(inside, image[np.where(inside, i, 0), np.where(inside, j, 0)], image.dtype.type(outside))


def _pixel_grid(
    geometry: Geometry, k: int, place: Place, size_px: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The slice's (i, j) at a picture's (row, column): matrix (2, 2) and the value (2,) at (0, 0)."""
    right, down = (place.pixel_mm * axis for axis in place.axes(geometry))
    rows, columns = size_px
    corner = place.centre_mm - ((rows - 1) / 2 * down + (columns - 1) / 2 * right)
    world = np.stack([corner, corner + down, corner + right])
    if place.mirror is not None:
        world = world @ place.mirror[:3, :3].T + place.mirror[:3, 3]
    p = geometry.to_pixels(world, k)
    return np.stack([p[1] - p[0], p[2] - p[0]], axis=1), p[0]


def fold_blocks(fold: np.ufunc, image: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """The sum, the highest value or the like of every block of an image.

    Args:
        fold: what joins two arrays, such as `numpy.add`
        image: (ni, nj, ...) numbers
        factors: (fi, fj) pixels of a block along i and j, which divide ni and nj

    Returns:
        (ni / fi, nj / fj, ...) numbers of the kind of the image
    """
    # The axis along which the pixels lie apart comes first: whole rows are added, far quicker than pixels.
    for axis in sorted((0, 1), key=lambda axis: -abs(image.strides[axis])):
        step = factors[axis]
        parts = [image[n::step] if axis == 0 else image[:, n::step] for n in range(step)]
        if step > 1:
            image = parts[0].copy(order="K")
        for part in parts[1:]:
            fold(image, part, out=image)
    return image


@dataclass(frozen=True, eq=False)
class Blocks:
    """The largest whole blocks of a slice's pixels that are no larger than a pixel of some size.

    Pixels that fill no block are repeated, not dropped. The blocks are counted from the same end of the
    patient, whichever way the axis runs, so that the voxel order plays no part.

    Attributes:
        sizes: (2,) pixels of a block along i and j
        before: (2,) pixels that are missing before the first
        missing: (2,) pixels that are missing in all
        first: (2,) where the middle of the first block lies, in pixels
    """

    sizes: NDArray[np.int64]
    before: NDArray[np.int64]
    missing: NDArray[np.int64]
    first: NDArray[np.float64]

    @classmethod
    def of(cls, geometry: Geometry, pixel_mm: float) -> Blocks:
        """The blocks of a scan's slices for pictures with pixels of this side."""
        sizes = np.array([max(1, int(pixel_mm / s + 0.01)) for s in geometry.spacing_mm])
        missing = -np.array(geometry.shape[:2]) % sizes
        right, down = geometry.display_axes
        forward = [step @ (right + 0.7 * down) > 0 for step in (geometry.step_i, geometry.step_j)]
        before = np.where(forward, 0, missing)
        return cls(sizes, before, missing, (sizes - 1) / 2 - before)

    def mean(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image (ni, nj) averaged in the blocks."""
        if (self.sizes == 1).all():
            return image
        if self.missing.any():
            image = np.pad(image, list(zip(self.before, self.missing - self.before, strict=True)), "edge")
        return np.divide(fold_blocks(np.add, image, self.sizes.tolist()), np.float32(self.sizes.prod()))
