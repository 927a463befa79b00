"""Outlines of lesions in tissue: bleeds and infarcts, cortical ribbons, and crescents along the inner table.

Each function grows one lesion from a voxel of its site and returns None where what was grown is not of that
site. `shrink` scales radii: a lesion that left its site is tried again, smaller. All sizes are in mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX
from situs.synth.head_frame import distance_mm
from situs.synth.heads import BONE, Head
from situs.synth.lesion import Lesion, finish_lesion
from situs.synth.shapes import Voxel, log_uniform, rough_ellipsoid

__all__ = [
    "CONVEXITY",
    "DEEP_SITES",
    "grow_crescent",
    "grow_in_cortex",
    "grow_in_labels",
    "grow_in_tissue",
]

Mask = NDArray[np.bool_]

# Radii (mm) of compact lesions before they swell, log-uniform between these, as large as the site allows.
_RADII_MM = {"brainstem": (3.5, 13.0), "cerebellum": (3.0, 22.0)}
_LOBAR_RADII_MM = (4.0, 28.0)
_LABELLED_RADII_MM = (2.5, 16.0)  # in sites that labels define; most are smaller than that
# Deep bleeds are named by their origin, however far they dissect: radii (mm), uniform; those longer than the
# third number need not have most of themselves there, only more than anywhere else.
_DEEP_RADII_MM = {"gangliocapsular_region": (5.0, 30.0, 10.0), "thalamus": (3.5, 15.0, 8.0)}
DEEP_SITES = tuple(_DEEP_RADII_MM)
# By how much a lesion's volume grows by pushing tissue aside, log-uniform, at most.
_SWELLING = {"gangliocapsular_region": 6.0, "thalamus": 4.0, "brainstem": 2.0}
_LOBAR_SWELLING = 2.5
# Sites that have a convexity for a crescent to lie on.
CONVEXITY = ("cerebellum", "frontal_region", "occipital_region", "parietal_region", "temporal_region")
_VENTRICLE, _SULCUS = SITE_INDEX["ventricular_system"] + 1, SITE_INDEX["sulcal_spaces"] + 1
_MOST_SULCAL = 0.35  # of a lesion in a lobe; a reader would call the others sulcal
_CSF = 24


def grow_in_tissue(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """A compact lesion that crosses small sulci, and mostly stops at the ependyma and at the falx."""
    least_share = 0.7
    if site in _DEEP_RADII_MM:
        low, high, large = _DEEP_RADII_MM[site]
        radius = rng.uniform(low, high) * shrink
        least_share = 0.42 if radius > large else 0.7
    else:
        radius = log_uniform(_RADII_MM.get(site, _LOBAR_RADII_MM), rng) * shrink
    long = site == "gangliocapsular_region" and rng.random() < 0.8
    level, box = rough_ellipsoid(
        head.labels.shape, seed, radius, rng, roughness=rng.uniform(0.05, 0.35), long=long
    )
    labels, rules = head.labels[box], head.rules[box]
    mask = (level < 1) & (rules > 0)
    if rng.random() < 0.8:  # the ependyma stops most bleeds
        mask &= rules != _VENTRICLE
    if rng.random() < 0.8:  # and the falx all that are not huge
        mask &= _same_half(head.lateral_mm[box], head.lateral_mm[seed])
    mask &= ~np.isin(labels, BONE)
    if site in CONVEXITY and (rules[mask] == _SULCUS).mean() > _MOST_SULCAL:
        return None
    if rng.random() < 0.12:  # an infarct keeps to the tissue: cut at the sulci
        mask &= head.sites[box] == head.sites[seed]
    limit = _SWELLING.get(site, _LOBAR_SWELLING)
    swell = log_uniform((1.1, limit), rng) if rng.random() < 0.7 else 1.0
    return finish_lesion(head, mask, box, site, "tissue", least_share, swell=swell)


def grow_in_labels(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """A compact lesion of a site that labels define, such as a nucleus or a gyrus.

    It follows the site's outline, or goes some mm beyond it.
    """
    radius = log_uniform(_LABELLED_RADII_MM, rng) * shrink
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=rng.uniform(0.05, 0.3))
    over_mm = rng.choice([0.0, 1.0, 2.0, 3.0], p=[0.3, 0.35, 0.2, 0.15])
    mask = (level < 1) & (distance_mm(head.sites[box] == head.code(site)) <= over_mm)
    mask &= head.inside(box) & ~np.isin(head.labels[box], BONE)
    if rng.random() < 0.8:
        mask &= _same_half(head.lateral_mm[box], head.lateral_mm[seed])
    swell = log_uniform((1.1, _LOBAR_SWELLING), rng) if head.rule_of[site] and rng.random() < 0.5 else 1.0
    return finish_lesion(head, mask, box, site, "tissue", 0.5, keep=seed, swell=swell)


def grow_in_cortex(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """A ribbon along the surface of the brain, as cortical infarcts and contusions are, or a wedge."""
    radius = rng.uniform(8, 32) * shrink
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=0.25, flatness=0.5)
    depth, labels, rules = head.depth_mm[box], head.labels[box], head.rules[box]
    if rng.random() < 0.3:  # a wedge: deepest in its middle
        reach = rng.uniform(12, 30) * np.sqrt(np.clip(1 - level, 0, 1))
    else:
        reach = np.full(level.shape, rng.uniform(5, 14))
    mask = (level < 1) & (depth > rng.uniform(1, 3)) & (depth < reach) & (rules > 0)
    mask &= _same_half(head.lateral_mm[box], head.lateral_mm[seed]) & ~np.isin(labels, BONE)
    if rng.random() < 0.5:  # the sulci within it are left out
        mask &= labels != _CSF
    if not mask.any() or (rules[mask] == _SULCUS).mean() > _MOST_SULCAL:
        return None
    return finish_lesion(head, mask, box, site, "cortex", 0.7)


def grow_crescent(
    head: Head, site: str, seed: Voxel, rng: np.random.Generator, shrink: float
) -> Lesion | None:
    """A collection between inner table and brain, thick in the middle and thin at the edge."""
    thin = rng.random() < 0.45  # along much of a hemisphere; the others are shorter, the thickest lenses
    radius = rng.uniform(*((30, 60) if thin else (10, 40))) * shrink
    thick_mm = rng.uniform(*((2, 6) if thin else (4, 18)))
    rest_mm = min(thick_mm, rng.uniform(2, 4))  # as much as lies there before the brain is pushed away
    level, box = rough_ellipsoid(head.labels.shape, seed, radius, rng, roughness=0.2, flatness=1.0)
    distance = head.depth_mm[box]
    mask = (distance < rest_mm * np.sqrt(np.clip(1 - level, 0, 1)) + 0.5) & (level < 1)
    mask &= (head.rules[box] > 0) & (distance > 0)
    mask &= _same_half(head.lateral_mm[box], head.lateral_mm[seed])
    share, swell = 0.45 if thin else 0.7, thick_mm / rest_mm
    return finish_lesion(head, mask, box, site, "crescent", share, swell=swell)


def _same_half(lateral_mm: NDArray[np.int8], seed_mm: np.int8) -> Mask:
    """Where a lesion that starts at `seed_mm` from the midline can be without crossing the falx."""
    if abs(int(seed_mm)) <= 3:
        return np.ones(lateral_mm.shape, dtype=bool)
    return np.asarray(lateral_mm >= 0 if seed_mm > 0 else lateral_mm <= 0)
