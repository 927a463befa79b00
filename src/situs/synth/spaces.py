"""Outlines of what fills a space: blood in ventricles, cisterns and sulci, along the dura, fluid in sinuses.

Each function grows one lesion from a voxel of its site and returns None where what was grown is not of that
site. `shrink` scales radii: a lesion that left its site is tried again, smaller. All sizes are in mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.heads import Head
from situs.synth.lesion import Lesion, finish_lesion
from situs.synth.shapes import Box, Voxel, log_uniform, rough_ellipsoid

__all__ = ["grow_cast", "grow_in_fluid", "grow_in_sinus", "grow_on_sheet", "open_fluid"]

Mask = NDArray[np.bool_]

# Regions that follow the fluid reach this far from where they start.
_FLUID_RADII_MM = {
    "ventricular_system": (4.0, 45.0),
    "basal_cisterns": (4.0, 24.0),
    "sulcal_spaces": (8.0, 30.0),
}
# The lateral ventricle of a side lies beyond this from the midline, the third and fourth nearer.
_LATERAL_MM = 3


def open_fluid(head: Head, box: Box, narrowing_mm: float) -> Mask:
    """Where cortex that was let grow by `narrowing_mm` left fluid; true within ventricles and in tissue."""
    depth = head.csf_depth_mm[box]
    return np.asarray((depth >= 10 * narrowing_mm) | (depth == 0))


def grow_in_fluid(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, narrowing_mm: float, shrink: float
) -> Lesion | None:
    """Blood that follows the fluid from where it starts, thin and branching, or a compact clot."""
    rule = head.rule_of[site]
    radius = log_uniform(_FLUID_RADII_MM[rule], rng) * shrink
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=0.3)
    rules = head.rules[box]
    inside = (head.sites[box] == head.code(site)) & open_fluid(head, box, narrowing_mm)
    if rule == "sulcal_spaces" and rng.random() < 0.5:  # single sulci, not what joins them at the surface
        inside &= head.depth_mm[box] > rng.uniform(3, 8)
    style = rng.random()
    if style < 0.07 and rule != "sulcal_spaces":  # a compact clot that distends the space
        mask = (level < 0.5) & (rules > 0)
    else:
        mask = (level < 1) & inside
        if style < 0.22:  # drawn generously
            mask = ndimage.binary_dilation(mask) & (rules > 0)
        if rule == "ventricular_system" and style > 0.75:
            mask = _layered(mask, rng, 0.2, 0.8)
    return finish_lesion(head, mask, box, site, "fluid", 0.5, keep=seed)


def grow_cast(head: Head, site: str, seed: Voxel, rng: np.random.Generator) -> Lesion | None:
    """A ventricle, a part of one or all of them full of blood, marked to the wall or over it.

    What the mask covers shows no fluid any more, so only its place and shape tell what it is. A cast distends
    what it fills.
    """
    extent = rng.choice(["part", "ventricle", "system"], p=[0.6, 0.3, 0.1])
    reach = rng.uniform(8, 28) if extent == "part" else 90.0
    x, y, z = (
        slice(max(0, int(s - reach)), min(n, int(s + reach) + 1))
        for s, n in zip(seed, head.labels.shape, strict=True)
    )
    if extent == "part":  # a horn or an atrium is cut off in front or behind, not at its sides
        x = slice(0, head.labels.shape[0])
    box = (x, y, z)
    mask = head.sites[box] == head.code(site)
    lateral, own = head.lateral_mm[box], int(head.lateral_mm[seed])
    if extent != "system" and abs(own) > _LATERAL_MM:
        mask &= lateral >= 1 if own > 0 else lateral <= -1
    elif extent != "system":
        mask &= np.abs(lateral) <= 2 * _LATERAL_MM
    if rng.random() < 0.25:
        mask = _layered(mask, rng, 0.2, 0.8)
    over_mm = int(rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15]))
    if over_mm:
        mask = ndimage.binary_dilation(mask, iterations=over_mm) & (head.rules[box] > 0)
    swell = log_uniform((1.1, 3.0), rng) if rng.random() < 0.5 else 1.0
    return finish_lesion(head, mask, box, site, "cast", 0.35, keep=seed, swell=swell)


def grow_on_sheet(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """Blood along falx or tentorium, on one side of the falx or around it."""
    radius = rng.uniform(8, 45) * shrink
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=0.3, flatness=1.0)
    inside = head.sites[box] == head.code(site)
    lateral = head.lateral_mm[box].astype(np.int16)
    reach = rng.integers(1, 5)
    if abs(int(head.lateral_mm[seed])) <= 5:
        if rng.random() < 0.5:
            sign = 1 if head.lateral_mm[seed] >= 0 else -1
            inside &= (sign * lateral >= 0) & (sign * lateral <= reach + 1)
        else:
            inside &= np.abs(lateral) <= reach
    elif rng.random() < 0.4:
        inside = ndimage.binary_erosion(inside)
    return finish_lesion(head, (level < 1) & inside, box, site, "sheet", 0.8, keep=seed)


def grow_in_sinus(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """Fluid or mucosa in a sinus: whole, with a fluid level, or the lumen without its wall."""
    radius = rng.uniform(6, 40) * shrink
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=0.2)
    inside = head.sites[box] == head.code(site)
    mask = (level < 1) & inside
    style = rng.random()
    if style < 0.3:
        mask = _layered(mask, rng, 0.3, 0.9)
    elif style < 0.6:
        mask &= ndimage.binary_erosion(inside)
    return finish_lesion(head, mask, box, site, "sinus", 0.8, keep=seed)


def _layered(mask: Mask, rng: np.random.Generator, least: float, most: float) -> Mask:
    """The back of a mask (mx, my, mz), where fluid sinks in the supine patient.

    Its share of the mask is drawn between `least` and `most`.
    """
    if not mask.any():
        return mask
    y = np.indices(mask.shape)[1]
    return np.asarray(mask & (y < np.quantile(y[mask], rng.uniform(least, most))))
