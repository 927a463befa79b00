"""The patient's midline on a slice, and the side of a region.

BaseNet paints, over both views, how far every pixel lies from the midline (mm, positive on the patient's
left). One straight line is fitted to all of it, so that the answer under a region, where the views are
gray, rests on the whole head on that slice; `situs.midplane` finds that of all slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from situs.finding import Side
from situs.geometry import Geometry
from situs.views import Place

# A lesion whose mean lies so near to the midline lies on it, as one of which this share is on either side.
MIDLINE_MM = 1.5
MIDLINE_SHARE = 0.2
# A bilateral lesion has this share on its smaller side and is wider than what the midline structures are: the
# widest of 22 landmark regions that readers called midline, a cistern, measures 40 mm.
BILATERAL_SHARE = 0.25
BILATERAL_MM = 45.0

_LEAST_SLOPE = 0.1  # of the painted distance, mm per mm; less says that nothing was recognised
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Midline:
    """The midline on one slice, or the midsagittal plane of a head, as a signed distance.

    Attributes:
        origin_mm: (3,) a point, world
        left: (3,) unit vector across it to the patient's left; of one slice's midline, in its plane
        offset_mm: signed distance of the origin
    """

    origin_mm: Array
    left: Array
    offset_mm: float

    def distances_mm(self, world: Array) -> Array:
        """(...) signed distances, positive on the patient's left, of positions (..., 3)."""
        return np.asarray((world - self.origin_mm) @ self.left + self.offset_mm)


def fit_midline(
    painted: NDArray[np.float32] | None, places: Sequence[Place], geometry: Geometry, size_px: int
) -> Midline:
    """The line that fits what was painted over the views of one slice best (weighted least squares).

    Args:
        painted: (views, 2, h, w) distance to the midline in mm, and how much of each pixel is head, in [0,
            1]; None if the network does not paint
        places: where the views lie, turned alike; every view counts the same
        size_px: rows and columns of a view

    Note:
        Where the painting has no slope, no head was recognised; the midline is then the global view's middle,
        as it is without a painting.
    """
    right, down = places[0].axes(geometry)
    origin = places[0].centre_mm
    if painted is None:
        return Midline(origin, right, 0.0)
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
    length = float(np.hypot(to_left, to_back))
    if length < _LEAST_SLOPE:
        return Midline(origin, right, 0.0)
    return Midline(origin, (to_left * right + to_back * down) / length, float(offset) / length)


def median_line(lines: Sequence[Midline], geometry: Geometry) -> Midline:
    """The median, in direction and place, of midlines of some slices of a scan, one at least."""
    turns = np.radians([geometry.turn_deg(line.left) for line in lines])
    mean = np.angle(np.exp(1j * turns).sum())  # the median around it: 179 and -179 degrees are alike
    turn = mean + np.median(np.angle(np.exp(1j * (turns - mean))))
    right, down = geometry.display_axes()
    origin = lines[0].origin_mm
    offset = np.median([line.distances_mm(origin) for line in lines])
    return Midline(origin, np.cos(turn) * right + np.sin(turn) * down, float(offset))


def side_of(mean_mm: float, left_share: float, width_mm: float) -> Side:
    """The side of a lesion.

    *bilateral* if a good part of it (`BILATERAL_SHARE`) lies on either side and it is wider than a midline
    structure (`BILATERAL_MM`); else *midline* if it is centred on the midline (`MIDLINE_MM`), or crosses it
    (`MIDLINE_SHARE`) and is no wider; else the side where most of it lies.

    Args:
        mean_mm: mean signed distance to the midline, positive on the patient's left
        left_share: share of the lesion on the left, in [0, 1]
        width_mm: its extent from side to side

        >>> side_of(20.0, 1.0, 15.0), side_of(-1.0, 0.45, 12.0), side_of(-1.0, 0.45, 60.0)
        ('left', 'midline', 'bilateral')
    """
    smaller = min(left_share, 1 - left_share)
    if smaller >= BILATERAL_SHARE and width_mm >= BILATERAL_MM:
        return "bilateral"
    if abs(mean_mm) <= MIDLINE_MM or (smaller >= MIDLINE_SHARE and width_mm < BILATERAL_MM):
        return "midline"
    return "left" if left_share > 0.5 else "right"


def side_of_distances(distances_mm: Array, weights: Array) -> Side:
    """`side_of` for a lesion's pixels: their signed distances (n,) and weights (n,).

    The width is that of an even bar that spreads as much from side to side.
    """
    mean = float(np.average(distances_mm, weights=weights))
    on_left = (distances_mm > 0) + 0.5 * (distances_mm == 0)  # whole mm: 0 is on neither side
    share = float(np.average(on_left, weights=weights))
    spread = float(np.average((distances_mm - mean) ** 2, weights=weights))
    return side_of(mean, share, float(np.sqrt(12 * spread)))
