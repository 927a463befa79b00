"""The patient's midsagittal plane: where a whole head is most like its own mirror image.

One slice says little about how a head lies, the more so near its top and under a lesion; all of its slices
together say it to about a degree. BaseNet's painted midlines say where to look, and which way is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from situs.side import Midline
from situs.views import Place, resample_slice, to_gray
from situs.volume import Volume

__all__ = ["find_midplane"]

# What is compared with its mirror image: slices at least so far apart, as pictures of so many pixels of so
# many mm, at about so many points of the head.
_GAP_MM, _SIZE_PX, _PIXEL_MM, _POINTS = 4.0, 64, 4.0, 6000
_BLUR_PX = 0.7
# Gray values in the brain window count as no farther apart than this: so much may a lesion say.
_MOST_APART = 0.5
_REACH_MM = 40.0  # what lies farther from the plane counts less
_LEAST_SEEN = 0.25  # of the points, weighted, that have a mirror image in the scan
# The search starts in the given direction and in these from there; what those find is taken if it is much
# better, as the part of what is apart.
_TURNS_DEG = (-45.0, -30.0, -15.0, 15.0, 30.0, 45.0)
_MUCH_BETTER = 0.7
# The search moves by degrees of turn, mm, and degrees of roll, and repeats a step while it helps.
_STEPS = ((6.0, 6.0, 4.0), (3.0, 3.0, 3.0), (1.5, 1.5, 1.5), (0.75, 0.75, 0.75), (0.5, 0.5, 0.5))
_REPEATS = 3
# What it costs, as a difference of gray values, to be 5 degrees or mm away from where it started.
_MOVING = np.array([0.003, 0.01, 0.0])

Array = NDArray[np.float64]


def find_midplane(volume: Volume, near: Midline | None = None) -> Midline | None:
    """The plane over which the slices of a scan are most like their mirror images.

    Args:
        near: where the search starts; it says which way is left. Half a head or a few slices are like many a
            mirror image, so it costs a little to move from there, and other starts, turned against it, must
            lead to a much better likeness. None: through the head's centre, upright in the picture

    Returns:
        signed distances in mm to the plane, world; None where no head is seen, or too little of it on both
        sides
    """
    head = _Head.of(volume)
    if head is None:
        return None
    start = np.zeros(3)
    if near is not None:
        start[:2] = volume.geometry.turn_deg(near.left), near.distances_mm(head.centre_mm)
    others = [np.array([start[0] + by, 0.0, 0.0]) for by in _TURNS_DEG]
    other = min(others, key=lambda plane: head.apart(plane, plane))
    found, apart = _search(head, start)
    if head.apart(other, other) < head.apart(start, start):
        from_other = _search(head, other)
        if from_other[1] < _MUCH_BETTER * apart:
            found, apart = from_other
    if not np.isfinite(apart):
        return None
    return Midline(head.centre_mm, _normal(found) @ head.axes, float(found[1]))


def _search(head: _Head, start: Array) -> tuple[Array, float]:
    """The plane found from a start on, by steps that become smaller, and how far apart its sides are."""
    best, least = start, head.apart(start, start)
    for steps in _STEPS:
        for _ in range(_REPEATS):
            before = least
            for axis, step in enumerate(steps):
                for sign in (-1, 1):
                    moved = best.copy()
                    moved[axis] += sign * step
                    if (apart := head.apart(moved, start)) < least:
                        best, least = moved, apart
            if least == before:
                break
    return best, least


@dataclass(frozen=True, eq=False)
class _Head:
    """A head in coarse pictures of its slices, and some of its points.

    Attributes:
        pictures: (k, s, s) gray values in [0, 1]
        first_mm: (2,) where the first pixel of a picture lies along its right and down, from `centre_mm`
        heights_mm: (k,) of the slices, ascending, from `centre_mm`
        points_mm: (n, 3) along `axes`, from `centre_mm`
        gray: (n,) there
        centre_mm: (3,) the mean of the points, world
        axes: (3, 3) rows: right and down in the pictures, and up; world
    """

    pictures: NDArray[np.float32]
    first_mm: Array
    heights_mm: Array
    points_mm: Array
    gray: NDArray[np.float32]
    centre_mm: Array
    axes: Array

    @classmethod
    def of(cls, volume: Volume) -> _Head | None:
        """The largest piece above 0 HU, once bridges to table and head holder are cut."""
        from scipy import ndimage

        geometry = volume.geometry
        axes = np.stack([*geometry.display_axes(), geometry.normal])
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
        labels, count = ndimage.label(ndimage.binary_erosion(hu > 0, in_slices))
        if count == 0:
            return None
        found = np.argwhere(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
        k, row, column = found[:: max(1, len(found) // _POINTS)].T
        pictures = ndimage.gaussian_filter(to_gray(hu, "brain"), (0, _BLUR_PX, _BLUR_PX))
        first = -(_SIZE_PX - 1) / 2 * _PIXEL_MM
        points = np.stack([first + column * _PIXEL_MM, first + row * _PIXEL_MM, heights[k]], axis=1)
        centre = points.mean(axis=0)
        return cls(
            pictures,
            first - centre[:2],
            heights - centre[2],
            points - centre,
            pictures[k, row, column],
            origin + centre @ axes,
            axes,
        )

    def apart(self, plane: Array, start: Array) -> float:
        """How different the head is from its mirror image over a plane, and how far that is from where the
        search starts; infinite if too little of it is seen on both sides.

        Args:
            plane: (3,) turn in degrees, the centre's distance in mm, roll in degrees
            start: See `plane`.
        """
        from scipy import ndimage

        normal = _normal(plane)
        distance = self.points_mm @ normal + plane[1]
        mirrored = self.points_mm - 2 * distance[:, None] * normal
        column, row = ((mirrored[:, :2] - self.first_mm) / _PIXEL_MM).T
        k = np.interp(mirrored[:, 2], self.heights_mm, np.arange(len(self.heights_mm)), left=-1, right=-1)
        weights = np.exp(-((distance / _REACH_MM) ** 2))
        seen = weights * (k >= 0)
        if seen.sum() < _LEAST_SEEN * weights.sum():
            return np.inf
        other = ndimage.map_coordinates(self.pictures, [k, row, column], order=1, cval=0.0)
        apart = np.minimum(np.abs(self.gray - other), _MOST_APART)
        return float(np.average(apart, weights=seen) + _MOVING @ ((plane - start) / 5) ** 2)


def _thin_out(heights_mm: Array) -> list[int]:
    """The slices, from bottom to top, without those that are too near to the one before."""
    chosen: list[int] = []
    for k in np.argsort(heights_mm).tolist():
        if not chosen or heights_mm[k] - heights_mm[chosen[-1]] >= _GAP_MM:
            chosen.append(k)
    return chosen


def _normal(plane: Array) -> Array:
    """(3,) the unit normal, along `_Head.axes`, of a plane of this turn and roll."""
    turn, roll = np.radians(plane[0]), np.radians(plane[2])
    return np.array([np.cos(turn) * np.cos(roll), np.sin(turn) * np.cos(roll), np.sin(roll)])
