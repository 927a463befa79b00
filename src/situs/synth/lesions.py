"""Virtual lesions: random regions grown from one site of a head, on the head's own 1 mm grid.

Only a region's outline matters for training, since everything inside is painted gray before a network
sees it. So the outlines follow what a lesion does: bleeding into fluid follows the fluid and is thin and
branching, or fills a ventricle to its wall; a lesion in tissue is compact and crosses small sulci, or is a
ribbon of cortex; a subdural or extradural collection is a crescent along the inner table; fluid in a sinus
fills it from below. Some are normal structures, as people mark them to point at a site.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.anatomy import SITES
from situs.synth.heads import BONE, Head
from situs.synth.lesion import MIN_VOXELS, Lesion, finish_lesion
from situs.synth.masses import CONVEXITY, grow_crescent, grow_in_cortex, grow_in_labels, grow_in_tissue
from situs.synth.shapes import (
    Voxel,
    Window,
    box_around,
    draw_voxel,
    in_window,
    log_uniform,
    offsets,
    rough_ellipsoid,
)
from situs.synth.spaces import grow_cast, grow_in_fluid, grow_in_sinus, grow_on_sheet, open_fluid
from situs.volume import bounding_box

__all__ = ["LesionGrower"]

_COMPARTMENT = {site.key: site.groups["compartment"] for site in SITES}
_FLUID = ("subarachnoid", "ventricular")
# Normal structures are marked as far as this (mm) from where they start.
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
# Of the other lesions of a convexity so many are crescents and ribbons of cortex, of ventricles casts.
_P_CRESCENT, _P_CORTEX, _P_CAST = 0.21, 0.12, 0.6
# So many lobar lesions start beside the falx, and so many deep in the white matter: within or beyond (mm).
_P_MEDIAL, _MEDIAL_MM, _P_DEEP, _DEEP_MM = 0.12, 10, 0.12, 28.0
# Cerebral white matter and, from 1000, cortex are as large as a hemisphere: never marked whole.
_WHITE, _CORTEX = (2, 41), 1000
_WIDE_MM = 2.0  # so far from tissue, at its middle, lies the fluid of a wide sulcus
# Fluid along the inner table is no sulcus: a reader sees a crescent. So much of a sulcal region is deeper.
_SULCUS_MM, _IN_SULCI = 4.0, 0.4
_TRIES = 10

Starts = NDArray[np.int32]


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
            key: np.flatnonzero(head.sites.ravel() == head.code(key)).astype(np.int32)
            for key in head.listed.keys
        }

    @cached_property
    def _surface_voxels(self) -> dict[str, Starts]:
        """Where the inner table is near, by the listed lobe beneath."""
        depth = self.head.depth_mm
        near = np.flatnonzero(((depth > 0) & (depth < 3)).ravel()).astype(np.int32)
        under = self.head.extra_axial.ravel()[near]
        return {
            site: near[under == self.head.code(site)] for site in self.head.listed.keys if site in CONVEXITY
        }

    def sites(self) -> tuple[str, ...]:
        """The sites that this head has enough of to grow a lesion in."""
        return tuple(key for key, voxels in self._voxels.items() if voxels.size >= 4 * MIN_VOXELS)

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
        starts = self._starts(site, window, rng)
        if starts.size < MIN_VOXELS:
            return None
        structure = rng.random() < _P_STRUCTURE_OF.get(site, _P_STRUCTURE)
        for attempt in range(_TRIES):
            shrink = 0.8 ** (attempt / 2)
            if structure:
                lesion = self._structure(site, draw_voxel(starts, self._shape, rng), rng, narrowing_mm)
            else:
                lesion = self._grow_once(site, starts, window, rng, narrowing_mm, shrink)
            if lesion is not None and (site != "sulcal_spaces" or self._in_sulci(lesion)):
                return lesion
        return None

    def _starts(self, site: str, window: Window | None, rng: np.random.Generator) -> Starts:
        """Where a lesion of a site may start: anywhere, or where few voxels are and many lesions."""
        starts = in_window(self._voxels[site], self._shape, window)
        draw = rng.random()
        if site == "sulcal_spaces" and draw < 0.4:  # the wide ones, the Sylvian fissure above all
            special = self.head.csf_depth_mm.ravel()[starts] >= _WIDE_MM * 10
        elif site in CONVEXITY and draw < _P_MEDIAL:
            special = np.abs(self.head.lateral_mm.ravel()[starts]) <= _MEDIAL_MM
        elif site in CONVEXITY and draw < _P_MEDIAL + _P_DEEP:
            special = self.head.depth_mm.ravel()[starts] >= _DEEP_MM
        else:
            return starts
        return starts[special] if np.count_nonzero(special) >= MIN_VOXELS else starts

    def _grow_once(
        self,
        site: str,
        starts: Starts,
        window: Window | None,
        rng: np.random.Generator,
        narrowing_mm: float,
        shrink: float,
    ) -> Lesion | None:
        """One try; see `grow`."""
        head, rule, draw = self.head, self.head.rule_of[site], rng.random()
        labelled = bool(head.listed.site(site).labels)
        compartment = _COMPARTMENT.get(rule, "")
        if site in CONVEXITY and not labelled and draw < _P_CRESCENT + _P_CORTEX:
            near = in_window(self._surface_voxels[site], self._shape, window)
            if near.size < MIN_VOXELS:
                return None
            grow = grow_crescent if draw < _P_CRESCENT else grow_in_cortex
            return grow(head, site, draw_voxel(near, self._shape, rng), rng, shrink)
        seed = draw_voxel(starts, self._shape, rng)
        if rule == "ventricular_system" and draw < _P_CAST:
            return grow_cast(head, site, seed, rng)
        if compartment in _FLUID:
            return grow_in_fluid(head, site, seed, rng, narrowing_mm, shrink)
        if labelled:
            return grow_in_labels(head, site, seed, rng, shrink)
        if compartment == "sinus":
            return grow_in_sinus(head, site, seed, rng, shrink)
        if compartment == "dural":
            return grow_on_sheet(head, site, seed, rng, shrink)
        return grow_in_tissue(head, site, seed, rng, shrink)

    def _in_sulci(self, lesion: Lesion) -> bool:
        depth = self.head.depth_mm[lesion.box][lesion.mask]
        return bool((depth > _SULCUS_MM).mean() >= _IN_SULCI)

    def _structure(
        self, site: str, seed: Voxel, rng: np.random.Generator, narrowing_mm: float
    ) -> Lesion | None:
        """Normal anatomy, as people mark it to point at a site.

        A whole nucleus, ventricle, cistern or sinus, or what of a site lies within reach; gyri without the
        sulci between them, or a round region of a lobe.
        """
        head = self.head
        rule = head.rule_of[site]
        if site in CONVEXITY and rng.random() < _P_ROUND:
            level, box = rough_ellipsoid(
                self._shape, seed, rng.uniform(*_ROUND_MM), rng, roughness=0.1, flatness=0.75
            )
            inside = (level < 1) & head.inside(box) & ~np.isin(head.labels[box], BONE)
            return finish_lesion(head, inside, box, site, "structure", _ROUND_TISSUE)
        reach = log_uniform(_STRUCTURE_MM.get(rule, _LARGE_STRUCTURE_MM), rng)
        box = box_around(seed, int(reach) + 1, self._shape)
        x, y, z = np.ix_(*offsets(box, seed))
        labels = head.labels[box]
        mask = (head.sites[box] == head.code(site)) & (x**2 + y**2 + z**2 < reach**2)
        mask &= open_fluid(head, box, narrowing_mm)
        label = head.labels[seed]
        if label < _CORTEX and label not in _WHITE and rng.random() < 0.5:
            mask &= labels == label
        thin = _COMPARTMENT.get(rule) in (*_FLUID, "dural")
        if not mask.any():
            return None
        tight = bounding_box(mask, 3)  # the blur reaches no farther
        soft = ndimage.gaussian_filter(mask[tight].astype(np.float32), 0.7)
        mask[tight] = soft > (0.4 if thin else 0.5)
        mask &= head.inside(box) & ~np.isin(labels, BONE)
        return finish_lesion(head, mask, box, site, "structure", 0.6, keep=seed)
