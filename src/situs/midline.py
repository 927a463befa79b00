"""The patient's midline on a slice, and the side of a region.

BaseNet paints, over both views, how far every pixel lies from the midline (mm, positive on the patient's
left). One straight line is fitted to all of it, so that the answer under a region, where the views are
gray, rests on the whole head. Where that is near the region, the line is moved halfway to where the slice
is most like its own mirror image.
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
MIDLINE_MM = 2.5
MIDLINE_SHARE = 0.2
# A bilateral lesion has this share on its smaller side and is wider than what the midline structures are: the
# widest of 22 landmark regions that readers called midline, a cistern, measures 40 mm.
BILATERAL_SHARE = 0.25
BILATERAL_MM = 45.0

# Symmetry is looked for so far from the line, in steps (degrees, mm) that become smaller.
_MIRROR_MM = 40.0
_STEPS = ((3.0, 4.0), (3.0, 4.0), (1.5, 2.0), (0.75, 1.0), (0.75, 0.75))
# What moving the line by 5 mm or 5 degrees costs, as a mean difference of gray values in [0, 1].
_MOVING = 0.01
_LEAST_SLOPE = 0.1  # of the painted distance, mm per mm; less says that nothing was recognised
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Midline:
    """The midline on one slice, as a signed distance.

    origin_mm : (3,) a point of the slice, world
    left : (3,) unit vector in the slice plane, across the midline to the patient's left
    offset_mm : signed distance of the origin
    """

    origin_mm: Array
    left: Array
    offset_mm: float

    def distances_mm(self, world: Array) -> Array:
        """(n,) signed distances, positive on the patient's left, of positions (n, 3) on the slice."""
        return np.asarray((world - self.origin_mm) @ self.left + self.offset_mm)


def fit_midline(
    painted: NDArray[np.float32] | None, places: Sequence[Place], geometry: Geometry, size_px: int
) -> Midline:
    """The line that fits what was painted over the views of one slice best (weighted least squares).

    Parameters
    ----------
    painted : (views, 2, h, w) distance to the midline in mm, and how much of each pixel is head, in [0, 1];
        None if the network does not paint
    places : where the views lie, turned alike; every view counts the same
    size_px : rows and columns of a view

    Notes
    -----
    Where the painting has no slope, no head was recognised; the midline is then the global view's middle, as
    it is without a painting.
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


def refine_midline(
    midline: Midline, view: NDArray[np.uint8], place: Place, geometry: Geometry, channels: Sequence[str]
) -> Midline:
    """The line halfway between a given one and that near it over which a slice is most like its mirror image.

    Either errs, by what differs between the heads, and seldom in the same way.

    Parameters
    ----------
    view : (channels, s, s) the global view; its gray values count, without the region and what is far from
        the line
    place, geometry : where it lies; the line must be one on its slice
    channels : what they show, see `situs.views.ViewSpec`
    """
    from scipy import ndimage

    right, down = place.axes(geometry)
    size = view.shape[-1]
    mm = (np.arange(size) - (size - 1) / 2) * place.pixel_mm
    y, x = np.meshgrid(mm, mm, indexing="ij")
    shown = 1 - view[channels.index("roi")] / 255.0 if "roi" in channels else np.ones((size, size))
    gray = [
        ndimage.gaussian_filter(view[channels.index(name)] / 255.0, 1.0)
        for name in ("brain", "wide")
        if name in channels
    ]
    # In the view's own axes, from its centre: the angle of the way to the left, and the centre's distance.
    angle = float(np.arctan2(midline.left @ down, midline.left @ right))
    offset = float(midline.distances_mm(place.centre_mm))

    def difference(da: float, do: float) -> float:
        c, s = np.cos(angle + np.radians(da)), np.sin(angle + np.radians(da))
        distance = c * x + s * y + offset + do
        mirror = [
            (part - 2 * distance * axis) / place.pixel_mm + (size - 1) / 2 for part, axis in ((y, s), (x, c))
        ]
        weights = shown * np.exp(-((distance / _MIRROR_MM) ** 2))
        weights = weights * ndimage.map_coordinates(shown, mirror, order=1, cval=0.0)
        apart = sum(np.abs(g - ndimage.map_coordinates(g, mirror, order=1, cval=0.0)) for g in gray)
        moved = (da / 5) ** 2 + (do / 5) ** 2
        return float((apart * weights).sum() / max(weights.sum(), 1e-9)) + _MOVING * moved

    best = (difference(0.0, 0.0), 0.0, 0.0)
    for degrees, step in _STEPS:
        _, da, do = best
        around = [(da + a * degrees, do + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        best = min([best, *((difference(*move), *move) for move in around)])
    _, da, do = best
    c, s = np.cos(angle + np.radians(da / 2)), np.sin(angle + np.radians(da / 2))
    return Midline(place.centre_mm, c * right + s * down, offset + do / 2)


def side_of(mean_mm: float, left_share: float, width_mm: float) -> Side:
    """The side of a lesion.

    *bilateral* if a good part of it (`BILATERAL_SHARE`) lies on either side and it is wider than a midline
    structure (`BILATERAL_MM`); else *midline* if it is centred on the midline (`MIDLINE_MM`), or crosses it
    (`MIDLINE_SHARE`) and is no wider; else the side where most of it lies.

    Parameters
    ----------
    mean_mm : mean signed distance to the midline, positive on the patient's left
    left_share : share of the lesion on the left, in [0, 1]
    width_mm : its extent from side to side

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
