"""The midsagittal plane of a head, as a signed distance: where left meets right.

Two sources give it. BaseNet paints, over both views of a slice, how far every pixel lies from the midline;
one straight line is fitted to all of it (`Midplane.from_painting`), so that the answer under a region, where
the views are gray, rests on the whole head on that slice. And a head is most like its own mirror image over
its midplane (`Midplane.by_symmetry`): one slice says little about how a head lies, all of its slices together
say it to about a degree.

Distances are in mm, positive on the patient's left; positions are world, RAS+ in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.resample import Place, resample_slice
from situs.views import to_gray
from situs.volume import Volume, largest_part

__all__ = ["Midplane"]

_LEAST_SLOPE = 0.1  # of the painted distance, mm per mm; with less, nothing was recognised

# The symmetry search compares slices at least _GAP_MM apart, as pictures of _SIZE_PX pixels of _PIXEL_MM, at
# about _POINTS points of the head.
_GAP_MM, _SIZE_PX, _PIXEL_MM, _POINTS = 4.0, 64, 4.0, 6000
_BLUR_PX = 0.7
# Differences of gray values in the brain window are cut off here, so that a lesion counts only so much.
_LARGEST_DIFFERENCE = 0.5
_REACH_MM = 40.0  # points farther from the plane count less
_LEAST_SEEN = 0.25  # weighted share of the points whose mirror image lies in the scan
# Further starting directions, in degrees from the given one. Their result is used only if its asymmetry is
# below _MUCH_BETTER times that of the given start.
_STARTS_DEG = (-45.0, -30.0, -15.0, 15.0, 30.0, 45.0)
_MUCH_BETTER = 0.7
# The search moves by degrees of turn, mm, and degrees of roll, and repeats a step while it helps.
_STEPS = ((6.0, 6.0, 4.0), (3.0, 3.0, 3.0), (1.5, 1.5, 1.5), (0.75, 0.75, 0.75), (0.5, 0.5, 0.5))
_REPEATS = 3
# What it costs, as a difference of gray values, to be 5 degrees or mm away from where the search started.
_MOVING_COST = np.array([0.003, 0.01, 0.0])

Array = NDArray[np.float64]
Plane = tuple[float, float, float]  # turn in degrees, distance of the head's centre in mm, roll in degrees


@dataclass(frozen=True, eq=False)
class Midplane:
    """The midsagittal plane of a head, or the midline on one slice.

    Attributes:
        origin_mm: (3,) a point, world
        left: (3,) unit vector across the plane to the patient's left; for one slice, in the slice's plane
        offset_mm: distance of the origin
    """

    origin_mm: Array
    left: Array
    offset_mm: float

    def distances_mm(self, world: Array) -> Array:
        """Distances (...) of positions (..., 3), positive on the patient's left."""
        return np.asarray((world - self.origin_mm) @ self.left + self.offset_mm)

    @property
    def mirror(self) -> Array:
        """(4, 4) the reflection of the world over the plane."""
        matrix = np.eye(4)
        matrix[:3, :3] -= 2 * np.outer(self.left, self.left)
        matrix[:3, 3] = 2 * (self.origin_mm @ self.left - self.offset_mm) * self.left
        return matrix

    @classmethod
    def from_painting(
        cls, painted: NDArray[np.float32] | None, places: Sequence[Place], geometry: Geometry, size_px: int
    ) -> Midplane:
        """The midline on one slice that fits best what was painted over its views (weighted least squares).

        Where the painting has no slope, no head was recognised; then the midline is the global view's middle,
        as it is without a painting.

        Args:
            painted: (views, 2, h, w) distance to the midline in mm, and the share of each pixel that is
                head, in [0, 1]; None if the network does not paint
            places: where the views lie, turned alike; every view counts the same
            geometry: the scan's
            size_px: rows and columns of a view
        """
        right, down = places[0].axes(geometry)
        origin = places[0].centre_mm
        if painted is None:
            return cls(origin, right, 0.0)
        normal, target = np.zeros((3, 3)), np.zeros(3)
        for (distance, head), place in zip(painted.astype(np.float64), places, strict=True):
            h, w = distance.shape
            step_mm = place.pixel_mm * size_px / h
            shift = np.array([(place.centre_mm - origin) @ right, (place.centre_mm - origin) @ down])
            x = shift[0] + (np.arange(w) - (w - 1) / 2) * step_mm
            y = shift[1] + (np.arange(h) - (h - 1) / 2) * step_mm
            design = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1).reshape(-1, 3)
            weights = head.ravel() / max(head.sum(), 1e-6)
            normal += design.T * weights @ design
            target += design.T * weights @ distance.ravel()
        to_left, to_back, offset = np.linalg.solve(normal + 1e-6 * np.eye(3), target)
        slope = float(np.hypot(to_left, to_back))
        if slope < _LEAST_SLOPE:
            return cls(origin, right, 0.0)
        return cls(origin, (to_left * right + to_back * down) / slope, float(offset) / slope)

    @classmethod
    def median(cls, midlines: Sequence[Midplane], geometry: Geometry) -> Midplane:
        """The median, in direction and place, of midlines of a scan's slices; one midline at least."""
        turns = np.radians([geometry.turn_deg(midline.left) for midline in midlines])
        mean = np.angle(np.exp(1j * turns).sum())  # the median around it: 179 and -179 degrees are alike
        turn = mean + np.median(np.angle(np.exp(1j * (turns - mean))))
        right, down = geometry.display_axes
        origin = midlines[0].origin_mm
        offset = np.median([midline.distances_mm(origin) for midline in midlines])
        return cls(origin, np.cos(turn) * right + np.sin(turn) * down, float(offset))

    @classmethod
    def by_symmetry(cls, volume: Volume, start: Midplane | None = None) -> Midplane | None:
        """The plane over which the slices of a scan are most like their mirror images.

        Args:
            volume: the scan
            start: where the search starts; it says which way is left. Half a head or a few slices are like
                many a mirror image, so moving away from the start costs a little, and other starts, turned
                against it, must lead to a much better likeness. None: through the head's centre, upright in
                the picture

        Returns:
            the plane; None where no head is seen, or too little of it on both sides
        """
        head = _Head.of(volume)
        if head is None:
            return None
        asymmetry = cache(head.asymmetry)  # the search comes by some planes again
        first: Plane = (0.0, 0.0, 0.0)
        if start is not None:
            distance = float(start.distances_mm(head.centre_mm))
            first = (volume.geometry.turn_deg(start.left), distance, 0.0)
        other = min(((first[0] + by, 0.0, 0.0) for by in _STARTS_DEG), key=asymmetry)
        best, least = _search(asymmetry, first)
        if asymmetry(other) < asymmetry(first):
            from_other = _search(asymmetry, other)
            if from_other[1] < _MUCH_BETTER * least:
                best, least = from_other
        if not np.isfinite(least):
            return None
        return cls(head.centre_mm, _normal(best) @ head.axes, best[1])


def _search(asymmetry: Callable[[Plane], float], start: Plane) -> tuple[Plane, float]:
    """The plane reached from a start by steps that become smaller, and how little it is liked: the head's
    asymmetry over it, and what it costs to be away from the start."""
    best, least = start, asymmetry(start)
    for steps in _STEPS:
        for _ in range(_REPEATS):
            before = least
            for axis, step in enumerate(steps):
                for sign in (-1, 1):
                    turn, distance, roll = (x + sign * step * (n == axis) for n, x in enumerate(best))
                    moved = (turn, distance, roll)
                    cost = float(_MOVING_COST @ (np.subtract(moved, start) / 5) ** 2)
                    if (disliked := asymmetry(moved) + cost) < least:
                        best, least = moved, disliked
            if least == before:
                break
    return best, least


@dataclass(frozen=True, eq=False)
class _Head:
    """A head in coarse pictures of its slices, and a sample of its points.

    Attributes:
        pictures: (k, s, s) gray values in [0, 1]
        first_mm: (2,) place of a picture's first pixel along its right and down, from `centre_mm`
        heights_mm: (k,) of the slices, ascending, from `centre_mm`
        points_mm: (3, n) along `axes`, from `centre_mm`
        gray: (n,) gray value at each point
        centre_mm: (3,) mean of the points, world
        axes: (3, 3) rows: right and down in the pictures, and up; world
    """

    pictures: NDArray[np.float32]
    first_mm: Array
    heights_mm: Array
    points_mm: NDArray[np.float32]
    gray: NDArray[np.float32]
    centre_mm: Array
    axes: Array

    @classmethod
    def of(cls, volume: Volume) -> _Head | None:
        """The largest piece above 0 HU, once bridges to table and head holder are cut; None without any."""
        from scipy import ndimage

        geometry = volume.geometry
        axes = np.stack([*geometry.display_axes, geometry.normal])
        chosen = _thin_out(geometry.heights_mm)
        middle = [[(n - 1) / 2 for n in geometry.shape[:2]] + [chosen[len(chosen) // 2]]]
        origin = geometry.to_world(middle)[0]
        heights = geometry.heights_mm[chosen] - origin @ axes[2]
        places = [Place(origin + height * axes[2], _PIXEL_MM) for height in heights]
        size = (_SIZE_PX, _SIZE_PX)
        hu = np.stack(
            [
                resample_slice(volume.hu[:, :, k].astype(np.float32), geometry, k, place, size, outside=-1000)
                for k, place in zip(chosen, places, strict=True)
            ]
        )
        in_slices = ndimage.generate_binary_structure(2, 1)[None]
        voxels = np.argwhere(largest_part(ndimage.binary_erosion(hu > 0, in_slices)))
        if not len(voxels):
            return None
        k, row, column = voxels[:: max(1, len(voxels) // _POINTS)].T
        pictures = ndimage.gaussian_filter(to_gray(hu, "brain"), (0, _BLUR_PX, _BLUR_PX))
        first = -(_SIZE_PX - 1) / 2 * _PIXEL_MM
        points = np.stack([first + column * _PIXEL_MM, first + row * _PIXEL_MM, heights[k]], axis=1)
        centre = points.mean(axis=0)
        return cls(
            pictures,
            first - centre[:2],
            heights - centre[2],
            np.ascontiguousarray((points - centre).T, dtype=np.float32),
            pictures[k, row, column],
            origin + centre @ axes,
            axes,
        )

    def asymmetry(self, plane: Plane) -> float:
        """How much the head differs from its mirror image over a plane: a mean difference of gray values;
        infinite if too little of the head is seen on both sides."""
        normal = _normal(plane).astype(np.float32)
        distance = normal @ self.points_mm + np.float32(plane[1])
        right, down, up = self.points_mm - 2 * distance * normal[:, None]
        first = self.first_mm.astype(np.float32)
        column, row = (right - first[0]) / np.float32(_PIXEL_MM), (down - first[1]) / np.float32(_PIXEL_MM)
        k = np.interp(up, self.heights_mm, np.arange(len(self.heights_mm)), left=-1, right=-1)
        weights = np.exp(-np.square(distance / np.float32(_REACH_MM)))
        seen = weights * (k >= 0)
        if seen.sum() < _LEAST_SEEN * weights.sum():
            return np.inf
        other = _interpolated(self.pictures, k.astype(np.float32), row, column)
        difference = np.minimum(np.abs(self.gray - other), np.float32(_LARGEST_DIFFERENCE))
        return float(difference @ seen / seen.sum())


def _interpolated(image: NDArray[np.float32], *at: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values (n,) of an image (i, j, k) at places (n,) along its axes, linearly; 0 outside.

    Three times as fast as `scipy.ndimage.map_coordinates`, which takes splines of any order.
    """
    inside = np.logical_and.reduce([(x >= 0) & (x <= n - 1) for x, n in zip(at, image.shape, strict=True)])
    whole = [np.floor(x) for x in at]
    along = [x - w for x, w in zip(at, whole, strict=True)]
    _, nj, nk = image.shape
    first = ((whole[0] * nj + whole[1]) * nk + whole[2]).astype(np.intp)
    corners = [first + (i * nj + j) * nk + k for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    values = [image.take(corner, mode="clip") for corner in corners]  # clipped only where the weight is 0
    for fraction in reversed(along):
        values = [near + (far - near) * fraction for near, far in zip(values[::2], values[1::2], strict=True)]
    return np.where(inside, values[0], np.float32(0))


def _thin_out(heights_mm: Array) -> list[int]:
    """The slices, from bottom to top, without those that are too near to the one before."""
    chosen: list[int] = []
    for k in np.argsort(heights_mm).tolist():
        if not chosen or heights_mm[k] - heights_mm[chosen[-1]] >= _GAP_MM:
            chosen.append(k)
    return chosen


def _normal(plane: Plane) -> Array:
    """(3,) the unit normal, along `_Head.axes`, of a plane."""
    turn, roll = np.radians(plane[0]), np.radians(plane[2])
    return np.array([np.cos(turn) * np.cos(roll), np.sin(turn) * np.cos(roll), np.sin(roll)])
