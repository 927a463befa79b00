"""Virtual lesions: random regions grown from one site of a head, on the head's own 1 mm grid.

Only a region's outline matters for training, since everything inside is painted gray before a network
sees it. So the outlines follow what a lesion does: bleeding into fluid follows the fluid and is thin and
branching; a lesion in tissue is compact and crosses small sulci; a subdural or extradural collection is a
crescent along the inner table; fluid in a sinus fills it from below. Some are normal structures, as people
mark them to point at a site. All sizes are in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.synth.heads import BONE, Head
from situs.synth.shapes import (
    Box,
    Voxel,
    Window,
    box_around,
    draw_voxel,
    in_window,
    log_uniform,
    offsets,
    part_around,
    rough_ellipsoid,
)
from situs.volume import bounding_box

__all__ = ["DEEP_SITES", "LESION_KINDS", "Lesion", "LesionGrower", "LesionKind"]

LesionKind = Literal["tissue", "crescent", "fluid", "sheet", "sinus", "structure"]
LESION_KINDS: tuple[LesionKind, ...] = get_args(LesionKind)

Mask = NDArray[np.bool_]

_GROUP = {site.key: site.group for site in SITES}
# Radii (mm) of compact lesions before they swell, log-uniform between these, as large as the site allows.
_RADII_MM = {"brainstem": (3.5, 13.0), "cerebellum": (3.0, 22.0)}
_LOBAR_RADII_MM = (4.0, 28.0)
# Deep bleeds are named by their origin, however far they dissect: radii (mm), uniform; those longer than the
# third number need not have most of themselves there, only more than anywhere else.
_DEEP_RADII_MM = {"gangliocapsular_region": (5.0, 30.0, 10.0), "thalamus": (3.5, 15.0, 8.0)}
DEEP_SITES = tuple(_DEEP_RADII_MM)
# By how much a lesion's volume grows by pushing tissue aside, log-uniform, at most.
_SWELLING = {"gangliocapsular_region": 6.0, "thalamus": 4.0, "brainstem": 2.0}
_LOBAR_SWELLING = 2.5
_LARGEST_MM3 = 100_000  # none swells beyond this
# Regions that follow the fluid reach this far from where they start.
_FLUID_RADII_MM = {
    "ventricular_system": (4.0, 45.0),
    "basal_cisterns": (4.0, 24.0),
    "sulcal_spaces": (8.0, 30.0),
}
# Normal structures are marked as far as this from where they start.
_STRUCTURE_MM = {
    "ventricular_system": (6.0, 90.0),
    "basal_cisterns": (6.0, 30.0),
    "sulcal_spaces": (8.0, 25.0),
}
_LARGE_STRUCTURE_MM = (5.0, 22.0)
# A lobe is pointed at by a round region with hardly a sulcus: how often, radii, and least share of tissue.
_P_ROUND, _ROUND_MM, _ROUND_TISSUE = 0.6, (6.0, 13.0), 0.75
# How many of the lesions are normal structures. Sulci are marked where they are wide as often as where they
# bleed.
_P_STRUCTURE, _P_STRUCTURE_OF = 0.2, {"sulcal_spaces": 0.4}
# Cerebral white matter and, from 1000, cortex are as large as a hemisphere: never marked whole.
_WHITE, _CORTEX = (2, 41), 1000
# Sites that have a convexity for a crescent to lie on.
_CONVEXITY = ("cerebellum", "frontal_region", "occipital_region", "parietal_region", "temporal_region")
_WIDE_MM = 2.0  # so far from tissue, at its middle, lies the fluid of a wide sulcus
# Fluid along the inner table is no sulcus: a reader sees a crescent. So much of a sulcal region is deeper.
_SULCUS_MM, _IN_SULCI = 4.0, 0.4
_TRIES = 10
_MIN_VOXELS = 12
_MIN_VOXELS_OF = {"sulcal_spaces": 100}  # scraps of a sulcus are nothing that is asked about


@dataclass(frozen=True, eq=False)
class Lesion:
    """A region on a head's grid.

    Attributes:
        mask: (mx, my, mz) bool, the bounding box of the region.
        start: (3,) voxel of ``mask[0, 0, 0]``.
        site: The key of the site that it was grown from, where most of it lies.
        kind: How it was grown. Tissue and crescents are named by `Head.extra_axial`, the others by
            `Head.sites`.
        swell: Its volume after it has pushed the tissue around it aside, over that of `mask`.
    """

    mask: Mask
    start: tuple[int, int, int]
    site: str
    kind: LesionKind
    swell: float = 1.0

    @property
    def box(self) -> Box:
        """The part of the head's grid that `mask` covers."""
        x, y, z = (slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))
        return x, y, z


class LesionGrower:
    """Grows lesions in one head.

    Args:
        head: The head, with its site maps.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self._shape = head.labels.shape
        # Where a lesion of a site may start, and whether the head has the site at all.
        self._voxels = {
            key: np.flatnonzero(head.sites.ravel() == SITE_INDEX[key] + 1).astype(np.int32)
            for key in SITE_KEYS
        }

    @cached_property
    def _crescent_voxels(self) -> dict[str, NDArray[np.int32]]:
        depth = self.head.depth_mm
        near = np.flatnonzero(((depth > 0) & (depth < 3)).ravel()).astype(np.int32)
        under = self.head.extra_axial.ravel()[near]
        return {key: near[under == SITE_INDEX[key] + 1] for key in _CONVEXITY}

    def sites(self) -> tuple[str, ...]:
        """The sites that this head has enough of to grow a lesion in."""
        return tuple(key for key in SITE_KEYS if self._voxels[key].size >= 4 * _MIN_VOXELS)

    def grow(
        self,
        site: str,
        rng: np.random.Generator,
        narrowing_mm: float = 0.0,
        window: Window | None = None,
    ) -> Lesion | None:
        """A random lesion of a site.

        Args:
            site: The key of the site.
            rng: Draws everything.
            narrowing_mm: How far cortex or tissue grows into the fluid when the head is rendered. Blood in
                the fluid keeps clear of it.
            window: What the scan shows. Lesions start on one of its slices; None for anywhere.

        Returns:
            The lesion; None if the head has too little of the site in the window, or `_TRIES` random lesions
            missed the site.
        """
        starts = in_window(self._voxels[site], self._shape, window)
        if site == "sulcal_spaces" and rng.random() < 0.4:  # the wide ones, the Sylvian fissure above all
            wide = starts[self.head.csf_depth_mm.ravel()[starts] >= _WIDE_MM * 10]
            starts = wide if wide.size >= _MIN_VOXELS else starts
        if starts.size < _MIN_VOXELS:
            return None
        structure = rng.random() < _P_STRUCTURE_OF.get(site, _P_STRUCTURE)
        for attempt in range(_TRIES):
            shrink = 0.8 ** (attempt / 2)  # a lesion that left its site is tried again, smaller
            group = _GROUP[site]
            if structure:
                lesion = self._structure(site, draw_voxel(starts, self._shape, rng), rng, narrowing_mm)
            elif group == "sinus":
                lesion = self._sinus(site, draw_voxel(starts, self._shape, rng), rng, shrink)
            elif group == "csf":
                lesion = self._fluid(site, draw_voxel(starts, self._shape, rng), rng, narrowing_mm, shrink)
            elif group == "extra-axial":
                lesion = self._sheet(site, draw_voxel(starts, self._shape, rng), rng, shrink)
            elif site in _CONVEXITY and rng.random() < 0.21:
                lesion = self._crescent(site, window, rng, shrink)
            else:
                lesion = self._tissue(site, draw_voxel(starts, self._shape, rng), rng, shrink)
            if lesion is not None and (site != "sulcal_spaces" or self._in_sulci(lesion)):
                return lesion
        return None

    def _in_sulci(self, lesion: Lesion) -> bool:
        depth = self.head.depth_mm[lesion.box][lesion.mask]
        return bool((depth > _SULCUS_MM).mean() >= _IN_SULCI)

    def _tissue(self, site: str, seed: Voxel, rng: np.random.Generator, shrink: float) -> Lesion | None:
        least_share = 0.7
        if site in _DEEP_RADII_MM:
            low, high, large = _DEEP_RADII_MM[site]
            radius = rng.uniform(low, high) * shrink
            least_share = 0.42 if radius > large else 0.7
        else:
            radius = log_uniform(_RADII_MM.get(site, _LOBAR_RADII_MM), rng) * shrink
        long = site == "gangliocapsular_region" and rng.random() < 0.8
        level, box = rough_ellipsoid(
            self._shape, seed, radius, rng, roughness=rng.uniform(0.05, 0.35), long=long
        )
        labels, sites = self.head.labels[box], self.head.extra_axial[box]
        mask = (level < 1) & (sites > 0)
        if rng.random() < 0.8:  # the ependyma stops most bleeds
            mask &= sites != SITE_INDEX["ventricular_system"] + 1
        if rng.random() < 0.8:  # and the falx all that are not huge
            mask &= _same_half(self.head.lateral_mm[box], self.head.lateral_mm[seed])
        mask &= ~np.isin(labels, BONE)
        if (
            site in _CONVEXITY
            and (self.head.sites[box][mask] == SITE_INDEX["sulcal_spaces"] + 1).mean() > 0.35
        ):
            return None  # a reader would call it sulcal
        if rng.random() < 0.12:  # an infarct keeps to the tissue: cut at the sulci
            mask &= self.head.sites[box] == self.head.sites[seed]
        limit = _SWELLING.get(site, _LOBAR_SWELLING)
        swell = log_uniform((1.1, limit), rng) if rng.random() < 0.7 else 1.0
        return self._finish(mask, box, site, "tissue", sites, least_share, swell=swell)

    def _crescent(
        self, site: str, window: Window | None, rng: np.random.Generator, shrink: float
    ) -> Lesion | None:
        starts = in_window(self._crescent_voxels[site], self._shape, window)
        if starts.size < _MIN_VOXELS:
            return None
        seed = draw_voxel(starts, self._shape, rng)
        thin = rng.random() < 0.45  # along much of a hemisphere; the others are shorter, the thickest lenses
        radius = rng.uniform(*((30, 60) if thin else (10, 40))) * shrink
        thick_mm = rng.uniform(*((2, 6) if thin else (4, 18)))
        rest_mm = min(thick_mm, rng.uniform(2, 4))  # as much as lies there before the brain is pushed away
        level, box = rough_ellipsoid(self._shape, seed, radius, rng, roughness=0.2, flatness=1.0)
        distance = self.head.depth_mm[box]
        # Thick in the middle, thin at the edge.
        mask = (distance < rest_mm * np.sqrt(np.clip(1 - level, 0, 1)) + 0.5) & (level < 1)
        mask &= (self.head.extra_axial[box] > 0) & (distance > 0)
        mask &= _same_half(self.head.lateral_mm[box], self.head.lateral_mm[seed])
        sites, share, swell = self.head.extra_axial[box], 0.45 if thin else 0.7, thick_mm / rest_mm
        return self._finish(mask, box, site, "crescent", sites, share, swell=swell)

    def _fluid(
        self, site: str, seed: Voxel, rng: np.random.Generator, narrowing_mm: float, shrink: float
    ) -> Lesion | None:
        radius = log_uniform(_FLUID_RADII_MM[site], rng) * shrink
        level, box = rough_ellipsoid(self._shape, seed, radius, rng, roughness=0.3)
        sites = self.head.sites[box]
        inside = (sites == SITE_INDEX[site] + 1) & self._open(box, narrowing_mm)
        if site == "sulcal_spaces" and rng.random() < 0.5:  # single sulci, not what joins them at the surface
            inside &= self.head.depth_mm[box] > rng.uniform(3, 8)
        style = rng.random()
        if style < 0.07 and site != "sulcal_spaces":  # a compact clot that distends the space
            mask = (level < 0.5) & (sites > 0)
        else:
            mask = (level < 1) & inside
            if style < 0.22:  # drawn generously
                mask = ndimage.binary_dilation(mask) & (sites > 0)
            if site == "ventricular_system" and style > 0.75:  # layered in the supine patient
                y = np.indices(mask.shape)[1]
                if mask.any():
                    mask &= y < np.quantile(y[mask], rng.uniform(0.2, 0.8))
        return self._finish(mask, box, site, "fluid", sites, 0.5, keep=seed)

    def _open(self, box: Box, narrowing_mm: float) -> Mask:
        """Where the cortex that was let grow left the fluid; all true within the ventricles and in tissue."""
        depth = self.head.csf_depth_mm[box]
        return np.asarray((depth >= 10 * narrowing_mm) | (depth == 0))

    def _sheet(self, site: str, seed: Voxel, rng: np.random.Generator, shrink: float) -> Lesion | None:
        radius = rng.uniform(8, 45) * shrink
        level, box = rough_ellipsoid(self._shape, seed, radius, rng, roughness=0.3, flatness=1.0)
        inside = self.head.sites[box] == SITE_INDEX[site] + 1
        lateral = self.head.lateral_mm[box].astype(np.int16)
        reach = rng.integers(1, 5)
        if abs(int(self.head.lateral_mm[seed])) <= 5:
            if rng.random() < 0.5:  # on one side of the falx, or around it
                sign = 1 if self.head.lateral_mm[seed] >= 0 else -1
                inside &= (sign * lateral >= 0) & (sign * lateral <= reach + 1)
            else:
                inside &= np.abs(lateral) <= reach
        elif rng.random() < 0.4:
            inside = ndimage.binary_erosion(inside)
        return self._finish((level < 1) & inside, box, site, "sheet", self.head.sites[box], 0.8, keep=seed)

    def _sinus(self, site: str, seed: Voxel, rng: np.random.Generator, shrink: float) -> Lesion | None:
        radius = rng.uniform(6, 40) * shrink
        level, box = rough_ellipsoid(self._shape, seed, radius, rng, roughness=0.2)
        inside = self.head.sites[box] == SITE_INDEX[site] + 1
        mask = (level < 1) & inside
        style = rng.random()
        if style < 0.3 and mask.any():  # a fluid level in the supine patient
            y = np.indices(mask.shape)[1]
            mask &= y < np.quantile(y[mask], rng.uniform(0.3, 0.9))
        elif style < 0.6:  # the lumen without its wall
            mask &= ndimage.binary_erosion(inside)
        return self._finish(mask, box, site, "sinus", self.head.sites[box], 0.8, keep=seed)

    def _structure(
        self, site: str, seed: Voxel, rng: np.random.Generator, narrowing_mm: float
    ) -> Lesion | None:
        """Normal anatomy, as people mark it to point at a site.

        A whole nucleus, ventricle, cistern or sinus, or what of a site lies within reach; gyri without the
        sulci between them, or a round region of a lobe.
        """
        if site in _CONVEXITY and rng.random() < _P_ROUND:
            level, box = rough_ellipsoid(
                self._shape, seed, rng.uniform(*_ROUND_MM), rng, roughness=0.1, flatness=0.75
            )
            sites = self.head.sites[box]
            inside = (level < 1) & (sites > 0) & ~np.isin(self.head.labels[box], BONE)
            return self._finish(inside, box, site, "structure", sites, _ROUND_TISSUE)
        reach = log_uniform(_STRUCTURE_MM.get(site, _LARGE_STRUCTURE_MM), rng)
        box = box_around(seed, int(reach) + 1, self._shape)
        x, y, z = np.ix_(*offsets(box, seed))
        sites, labels = self.head.sites[box], self.head.labels[box]
        mask = (
            (sites == SITE_INDEX[site] + 1) & (x**2 + y**2 + z**2 < reach**2) & self._open(box, narrowing_mm)
        )
        label = self.head.labels[seed]
        if label < _CORTEX and label not in _WHITE and rng.random() < 0.5:
            mask &= labels == label
        thin = _GROUP[site] in ("csf", "extra-axial")
        soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
        mask = (soft > (0.4 if thin else 0.5)) & (sites > 0) & ~np.isin(labels, BONE)
        return self._finish(mask, box, site, "structure", sites, 0.6, keep=seed)

    def _finish(
        self,
        mask: Mask,
        box: Box,
        site: str,
        kind: LesionKind,
        sites: NDArray[np.uint8],
        least_share: float,
        keep: Voxel | None = None,
        swell: float = 1.0,
    ) -> Lesion | None:
        """The lesion, cut to one piece and its bounding box.

        The piece is the one at the voxel `keep`, since fluid comes in pockets, or the largest. None if it is
        too small, or less than `least_share` of it lies in its site by the codes `sites`.
        """
        part = part_around(mask, keep and tuple(s - b.start for s, b in zip(keep, box, strict=True)))
        if part.sum() < _MIN_VOXELS_OF.get(site, _MIN_VOXELS):
            return None
        under = np.bincount(sites[part], minlength=len(SITE_KEYS) + 1)[1:]
        if under[SITE_INDEX[site]] < least_share * under.sum() or under.argmax() != SITE_INDEX[site]:
            return None
        swell = max(1.0, min(swell, _LARGEST_MM3 / int(under.sum())))
        tight = bounding_box(part)
        x, y, z = (b.start + t.start for b, t in zip(box, tight, strict=True))
        return Lesion(part[tight].copy(), (x, y, z), site, kind, swell)


def _same_half(lateral_mm: NDArray[np.int8], seed_mm: np.int8) -> Mask:
    """Where a lesion that starts at `seed_mm` from the midline can be without crossing the falx."""
    if abs(int(seed_mm)) <= 3:
        return np.ones(lateral_mm.shape, dtype=bool)
    return np.asarray(lateral_mm >= 0 if seed_mm > 0 else lateral_mm <= 0)
