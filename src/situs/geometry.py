"""Where voxels lie in the patient: pure functions on arrays and one frozen dataclass.

World coordinates are RAS+ in mm: x grows to the patient's right, y to the front, z to the top of the
head. A stack of slices has two in-plane steps, shared by all slices, and one origin per slice, so that
uneven slice distances and gantry tilt are exact; an affine is the special case of equal steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Geometry", "axial_order"]

Array = NDArray[np.float64]

# Origins off a straight, even line by more than this (mm) make a stack that no affine describes.
_AFFINE_TOLERANCE_MM = 0.01
# Rounding of affines that are stored in single precision stays far below this part of a voxel.
_SAME_GRID_VOXELS = 0.01


@dataclass(frozen=True, eq=False)
class Geometry:
    """A stack of parallel slices in the patient; RAS+, mm.

    Args:
        shape: (3,) number of voxels along i, j (in the plane) and k (the slices)
        step_i: (3,) displacement from one pixel centre to the next along i and along j
        step_j: See `step_i`.
        origins: (nk, 3) centre of pixel (0, 0) of every slice, in slice order

    Raises:
        ValueError: for a wrong shape, steps that are zero or parallel, or values that are not finite
    """

    shape: tuple[int, int, int]
    step_i: Array
    step_j: Array
    origins: Array

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape: expected three positive sizes, got {self.shape}")
        object.__setattr__(self, "shape", shape)
        for name, expected in (("step_i", (3,)), ("step_j", (3,)), ("origins", (shape[2], 3))):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.shape != expected or not np.isfinite(value).all():
                raise ValueError(f"{name}: expected {expected} finite numbers, got {value.tolist()}")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        area = np.linalg.norm(np.cross(self.step_i, self.step_j))
        if area < 1e-6 * np.linalg.norm(self.step_i) * np.linalg.norm(self.step_j) or area == 0:
            raise ValueError("step_i, step_j: the in-plane steps are zero or parallel")

    @classmethod
    def from_affine(cls, shape: tuple[int, int, int], affine: ArrayLike) -> Geometry:
        """The geometry of a (4, 4) RAS+ voxel-to-world affine."""
        a = np.asarray(affine, dtype=np.float64)
        if a.shape != (4, 4):
            raise ValueError(f"affine: expected shape (4, 4), got {a.shape}")
        origins = a[:3, 3] + np.arange(shape[2])[:, None] * a[:3, 2]
        return cls(shape, a[:3, 0], a[:3, 1], origins)

    @cached_property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance between pixel centres along i and along j."""
        return float(np.linalg.norm(self.step_i)), float(np.linalg.norm(self.step_j))

    @cached_property
    def normal(self) -> Array:
        """(3,) unit normal of the slice planes, pointing up (z >= 0)."""
        n = np.cross(self.step_i, self.step_j)
        n /= np.linalg.norm(n)
        return n if n[2] >= 0 else -n

    @cached_property
    def heights_mm(self) -> Array:
        """(nk,) position of every slice along `normal`."""
        return np.asarray(self.origins @ self.normal)

    @property
    def slice_gaps_mm(self) -> Array:
        """(nk - 1,) distance between the planes of successive slices, along `normal`."""
        return np.asarray(np.abs(np.diff(self.heights_mm)))

    @property
    def slice_thickness_mm(self) -> Array:
        """(nk,) the extent that each slice stands for: half the way to both neighbours (a lone slice: 1)."""
        gaps = self.slice_gaps_mm
        if gaps.size == 0:
            return np.ones(1)
        return (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2

    @property
    def tilt_deg(self) -> float:
        """Angle between the way from slice to slice and the slice normal (0 without gantry tilt)."""
        if self.shape[2] < 2:
            return 0.0
        way = self.origins[-1] - self.origins[0]
        length = np.linalg.norm(way)
        if length == 0:
            return 0.0
        return float(np.degrees(np.arccos(np.clip(abs(way @ self.normal) / length, -1, 1))))

    @property
    def is_affine(self) -> bool:
        """Whether one affine describes all slices (equal steps from slice to slice)."""
        steps = np.diff(self.origins, axis=0)
        return bool(steps.size == 0 or np.abs(steps - steps[0]).max() < _AFFINE_TOLERANCE_MM)

    @property
    def affine(self) -> Array:
        """(4, 4) voxel-to-world affine, RAS+ mm.

        Raises:
            ValueError: if the slices are unevenly spaced, so that no affine is right
        """
        if not self.is_affine:
            raise ValueError("the slices are unevenly spaced: no affine describes them")
        a = np.eye(4)
        a[:3, 0], a[:3, 1], a[:3, 3] = self.step_i, self.step_j, self.origins[0]
        a[:3, 2] = (
            (self.origins[-1] - self.origins[0]) / (self.shape[2] - 1) if self.shape[2] > 1 else self.normal
        )
        return a

    def is_same_grid(self, other: Geometry) -> bool:
        """Whether the voxels of another geometry lie where this one's do, all within 0.01 of a voxel."""
        if self.shape != other.shape:
            return False
        tolerance = _SAME_GRID_VOXELS * min(*self.spacing_mm, self.slice_gaps_mm.min(initial=np.inf))
        ni, nj, nk = self.shape  # positions are linear in i and j, so each slice's corners tell
        corners = [[i, j, k] for k in range(nk) for i in (0, ni - 1) for j in (0, nj - 1)]
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() < tolerance)

    def to_world(self, ijk: ArrayLike) -> Array:
        """World positions (n, 3) of voxel positions (n, 3): i and j may be fractional, k must be whole.

        Raises:
            IndexError: if a k is not a slice of the stack
        """
        p = np.asarray(ijk, dtype=np.float64)
        k = p[:, 2].round().astype(int)
        if k.size and (k.min() < 0 or k.max() >= self.shape[2]):
            raise IndexError(f"k: slices run from 0 to {self.shape[2] - 1}")
        return np.asarray(self.origins[k] + p[:, :1] * self.step_i + p[:, 1:2] * self.step_j)

    def to_pixels(self, world: ArrayLike, k: int) -> Array:
        """Fractional (i, j) (n, 2) on slice k of world positions (n, 3), projected along the normal."""
        return np.asarray((np.asarray(world, dtype=np.float64) - self.origins[k]) @ self._to_plane)

    @cached_property
    def _to_plane(self) -> Array:
        """(3, 2) from a displacement in mm to pixels along i and j."""
        return np.asarray(np.linalg.pinv(np.stack([self.step_i, self.step_j], axis=1)).T)

    @cached_property
    def display_axes(self) -> tuple[Array, Array]:
        """Unit in-plane vectors (3,), (3,): the image's right (patient's left) and down (posterior).

        They come from the patient axes alone, projected into the slice plane and made orthogonal; the
        file's voxel order and in-plane rotation play no part.
        """
        n = self.normal
        down = np.array([0.0, -1.0, 0.0]) - (-n[1]) * n
        if np.linalg.norm(down) < 1e-3:  # a coronal plane: "down" is inferior
            down = np.array([0.0, 0.0, -1.0]) - (-n[2]) * n
        down /= np.linalg.norm(down)
        return np.cross(down, n), down  # n up, down to the back: their product points to the left

    def turn_deg(self, left: Array) -> float:
        """By how much a head is turned in the picture, degrees clockwise in (-180, 180], if this vector (3,),
        of any length, points to its left."""
        right, down = self.display_axes
        return float(np.degrees(np.arctan2(left @ down, left @ right)))


def axial_order(affine: ArrayLike) -> tuple[int, int, int]:
    """The order of a grid's axes that puts the slice axis (the one nearest to feet-head) last.

    Returns:
        (3,) a permutation; the two in-plane axes keep their order

        >>> axial_order([[0, 0, -1, 0], [1, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 1]])
        (0, 2, 1)
    """
    a = np.asarray(affine, dtype=np.float64)[:3, :3]
    unit = np.abs(a) / np.linalg.norm(a, axis=0)
    k = int(np.argmax(unit[2]))
    i, j = (axis for axis in range(3) if axis != k)
    return i, j, k
