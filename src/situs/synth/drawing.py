"""Masks as people and detectors draw them: never exactly the lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.lesion import Lesion
from situs.synth.masses import DEEP_SITES
from situs.synth.noise import smooth_noise
from situs.volume import bounding_box, largest_part

__all__ = ["DRAWN_BEYOND", "draw_mask"]

Mask = NDArray[np.bool_]

# The least part of a mask in a slice that lies in the lesion's site. A sulcus amid as much tissue is not what
# is meant.
_LEAST_IN_SITE, _LEAST_IN_SITE_OF = 0.4, {"sulcal_spaces": 0.6}
DRAWN_BEYOND = 3  # pixels around a lesion that its mask may cover
_THIN = ("fluid", "cast", "sheet", "structure")
_PLANE = np.ones((3, 3, 1), dtype=bool)
_CORNERS = np.ones((3, 3, 3), dtype=bool)


def draw_mask(mask: Mask, lesion: Lesion, in_site: Mask, rng: np.random.Generator) -> Mask:
    """A lesion's mask as it is drawn: exact, grown, shrunk, ragged, in broad strokes or in part, by slices.

    Slices that are hardly in the lesion's site are left out, unless the lesion lies deep: a deep bleed is
    named by its origin. Only the largest piece is kept, since a lesion is connected.

    Args:
        mask: (ni, nj, nk) the lesion on the scan's grid; may be empty.
        lesion: The lesion in its head.
        in_site: (ni, nj, nk) where the scan's grid is the lesion's site.
        rng: Chooses how the mask is drawn.
    """
    style = rng.random()
    if not mask.any():
        return mask
    in_plane, along = np.asarray(mask.any(axis=2)), np.asarray(mask.any(axis=(0, 1)))
    box = (*bounding_box(in_plane, DRAWN_BEYOND), *bounding_box(along))
    part = mask[box]
    thin = lesion.kind in _THIN
    if style < (0.1 if thin else 0.25):
        part = ndimage.binary_dilation(part, _PLANE)
    elif style < 0.35 and not thin:
        part = ndimage.binary_erosion(part, _PLANE)
    elif style < 0.65:
        soft = ndimage.gaussian_filter(part.astype(np.float32), (0.8, 0.8, 0))
        edge = 4 * soft * (1 - soft)  # noise on the outline only
        rough = soft + 0.3 * edge * rng.standard_normal(soft.shape, dtype=np.float32)
        part = rough > (0.4 if thin else 0.5)
    elif style < 0.75:
        part = _broad_strokes(part, rng)
    elif style < 0.83 and lesion.in_tissue:
        part = _piece(part, rng)
    if lesion.site not in DEEP_SITES:
        own = (part & in_site[box]).sum(axis=(0, 1))
        least = _LEAST_IN_SITE_OF.get(lesion.site, _LEAST_IN_SITE)
        part = part & (own >= least * part.sum(axis=(0, 1)))
    drawn = np.zeros_like(mask)
    drawn[box] = largest_part(part, _CORNERS)
    return drawn


def _broad_strokes(mask: Mask, rng: np.random.Generator) -> Mask:
    """A box or a convex outline around each slice of a mask, one side of it alone, or holes in it."""
    style = rng.random()
    drawn = mask.copy()
    if style < 0.3:
        for k in np.flatnonzero(mask.any(axis=(0, 1))):
            drawn[:, :, k][bounding_box(mask[:, :, k])] = True
    elif style < 0.55:
        for k in np.flatnonzero(mask.any(axis=(0, 1))):
            drawn[:, :, k] = _convex_hull(mask[:, :, k])
    elif style < 0.8:  # cut along a line
        i, j = np.indices(mask.shape[:2])
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * i + np.sin(angle) * j
        rows = along[mask.any(axis=2)]
        drawn &= (along < rows.min() + rng.uniform(0.4, 0.9) * np.ptp(rows))[..., None]
    else:
        drawn &= smooth_noise(mask.shape, 6.0, rng) < 1.0
    return drawn


def _piece(mask: Mask, rng: np.random.Generator) -> Mask:
    """A part of a mask, as a detector finds it: the core, the rim, or a sliver along one edge."""
    in_plane = ndimage.distance_transform_edt(np.pad(mask, ((1, 1), (1, 1), (0, 0))), (1.0, 1.0, 100.0))
    depth = in_plane[1:-1, 1:-1]  # pixels from the outline, on the slice
    style = rng.random()
    if style < 0.4:
        return np.asarray(depth > rng.uniform(0.2, 0.6) * depth.max())
    rim = mask & (depth <= rng.uniform(2, 4))
    if style < 0.6:
        return rim
    i, j = np.indices(mask.shape[:2])
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * i + np.sin(angle) * j
    rows = along[mask.any(axis=2)]
    return np.asarray(rim & (along > rows.min() + rng.uniform(0.4, 0.8) * np.ptp(rows))[..., None])


def _convex_hull(mask: Mask) -> Mask:
    """The pixels whose centres lie in the convex hull of a mask's; the mask itself where it is a line."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(mask)
    try:
        sides = ConvexHull(points).equations
    except (QhullError, ValueError):
        return mask
    i, j = np.indices(mask.shape)
    inside = sides[:, 0, None, None] * i + sides[:, 1, None, None] * j + sides[:, 2, None, None] < 1e-6
    return np.asarray(inside.all(axis=0))
