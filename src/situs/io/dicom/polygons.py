"""Filling of polygons on a grid of pixels, by the even-odd rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["crosses_itself", "fill"]

_MOST_EDGES = 1000  # that are looked at together
_MOST_CHECKED = 5000  # corners; in outlines of more, crossings are not looked for

Array = NDArray[np.float64]


def fill(polygons: Sequence[Array], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside polygons by the even-odd rule.

    So a polygon in another is a hole. A centre on an edge belongs to one of the two polygons that share the
    edge, never to both.

    Args:
        polygons: (n, 2) each; corners in pixels, pixel (i, j) having its centre at (i, j). They may reach
            beyond the grid. The last corner is joined to the first.
        shape: (ni, nj) of the grid.

    Returns:
        (ni, nj) bool.
    """
    ni, nj = shape
    crossings = np.zeros((ni + 1) * nj, dtype=np.int64)
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    for n in range(0, len(starts), _MOST_EDGES):
        (x0, y0), (x1, y1) = starts[n : n + _MOST_EDGES].T, ends[n : n + _MOST_EDGES].T
        # An edge crosses the lines j whose number is in [lower end, upper end).
        low, high = (np.clip(np.ceil(end(y0, y1)), 0, nj).astype(int) for end in (np.minimum, np.maximum))
        count = high - low
        edge = np.repeat(np.arange(len(x0)), count)
        j = np.arange(len(edge)) + np.repeat(low - np.cumsum(count) + count, count)
        x = x0[edge] + (j - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
        i = np.clip(np.ceil(x), 0, ni).astype(int)
        crossings += np.bincount(i * nj + j, minlength=crossings.size)
    return np.asarray(np.cumsum(crossings.reshape(ni + 1, nj), axis=0)[:ni] % 2 == 1)


def crosses_itself(corners: Array, depth: float) -> bool:
    """Whether two edges of a polygon (n, 2) cross, each end at least `depth` beyond the other edge.

    Edges that touch, or run along each other as in an outline that is joined to its hole, do not cross.
    """
    if len(corners) > _MOST_CHECKED:
        return False
    way = np.roll(corners, -1, axis=0) - corners
    length = np.linalg.norm(way, axis=1)
    kept = length > 0
    start, way = corners[kept], (way / np.maximum(length, 1e-12)[:, None])[kept]
    end = start + way * length[kept][:, None]

    def beside(point: Array) -> Array:
        """(edges, points) the distance of points from the edges' lines, positive on their left."""
        off = point[None] - start[:, None]
        return np.asarray(way[:, None, 0] * off[..., 1] - way[:, None, 1] * off[..., 0])

    a, b = beside(start), beside(end)
    apart = (np.minimum(a, b) < -depth) & (np.maximum(a, b) > depth)
    return bool((apart & apart.T).any())
