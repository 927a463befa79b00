"""The side of a lesion, from the distances of its pixels to the midline.

Distances are in mm, positive on the patient's left; `situs.midplane` knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from situs.finding import Side
from situs.midplane import Midplane
from situs.volume import Roi

__all__ = [
    "BILATERAL_MM",
    "BILATERAL_SHARE",
    "CROSSING_MM",
    "MIDLINE_MM",
    "MIDLINE_SHARE",
    "side_of",
    "side_of_distances",
    "side_of_lesion",
]

# A lesion is *midline* if its mean distance is at most MIDLINE_MM, or if at least MIDLINE_SHARE of it lies on
# each side.
MIDLINE_MM = 1.5
MIDLINE_SHARE = 0.2
# In a structure that crosses the midline a lesion has a side only when it clearly lies on one.
CROSSING_MM = 2.5
# A lesion is *bilateral* if at least BILATERAL_SHARE of it lies on each side and it is at least BILATERAL_MM
# wide. Structures of the midline are narrower: the widest of 22 landmark regions that readers called midline,
# a cistern, measures 40 mm.
BILATERAL_SHARE = 0.25
BILATERAL_MM = 45.0


def side_of(mean_mm: float, left_share: float, width_mm: float, crosses_midline: bool = False) -> Side:
    """The side of a lesion.

    It is *bilateral* if at least `BILATERAL_SHARE` of it lies on each side and it is at least `BILATERAL_MM`
    wide. Else it is *midline* if its mean distance is at most `MIDLINE_MM`, or if at least `MIDLINE_SHARE` of
    it lies on each side and it is narrower. Else it is on the side where most of it lies.

    In a structure that crosses the midline, a lesion on both sides is *midline*, however wide it is, and
    `CROSSING_MM` stands for `MIDLINE_MM`.

    Args:
        mean_mm: mean distance to the midline, positive on the patient's left
        left_share: share of the lesion on the left, in [0, 1]
        width_mm: extent from side to side
        crosses_midline: Whether its site does, see `situs.anatomy.Site`.

    >>> side_of(20.0, 1.0, 15.0), side_of(-1.0, 0.45, 12.0), side_of(-1.0, 0.45, 60.0)
    ('left', 'midline', 'bilateral')
    """
    smaller = min(left_share, 1 - left_share)
    if smaller >= BILATERAL_SHARE and width_mm >= BILATERAL_MM:
        return "midline" if crosses_midline else "bilateral"
    near_mm = CROSSING_MM if crosses_midline else MIDLINE_MM
    if abs(mean_mm) <= near_mm or (smaller >= MIDLINE_SHARE and width_mm < BILATERAL_MM):
        return "midline"
    return "left" if left_share > 0.5 else "right"


def side_of_distances(
    distances_mm: NDArray[np.floating], weights: NDArray[np.floating], crosses_midline: bool = False
) -> Side:
    """The side of a lesion, by `side_of`, from its pixels.

    The width is that of an even bar that spreads as much from side to side.

    Args:
        distances_mm: (n,) distance of each pixel to the midline, positive on the patient's left
        weights: (n,) how much each pixel counts
        crosses_midline: Whether its site does.
    """
    mean = float(np.average(distances_mm, weights=weights))
    on_left = (distances_mm > 0) + 0.5 * (distances_mm == 0)  # whole mm: 0 is on neither side
    share = float(np.average(on_left, weights=weights))
    spread = float(np.average((distances_mm - mean) ** 2, weights=weights))
    return side_of(mean, share, float(np.sqrt(12 * spread)), crosses_midline)


def side_of_lesion(
    lesion: Roi,
    crosses_midline: bool,
    weights: Mapping[int, float],
    planes: Mapping[int, Sequence[tuple[Midplane, float]]],
) -> Side:
    """The side of a lesion, from all its pixels on some of its slices.

    Args:
        lesion: The lesion.
        crosses_midline: Whether its site does.
        weights: Slice k to how much it counts; the lesion meets every one.
        planes: Slice k to what tells left from right on it, each with its weight; the distance of a pixel is
            the weighted mean over these.
    """
    distances, pixel_weights = [], []
    for k, weight in weights.items():
        i, j = lesion.pixels(k)
        world = lesion.geometry.to_world(np.stack([i, j, np.full_like(i, k)], axis=1))
        own = [plane.distances_mm(world) for plane, _ in planes[k]]
        distances.append(np.average(own, axis=0, weights=[share for _, share in planes[k]]))
        pixel_weights.append(np.full(i.size, weight / i.size))
    return side_of_distances(np.concatenate(distances), np.concatenate(pixel_weights), crosses_midline)
