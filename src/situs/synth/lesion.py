"""One virtual lesion: its region on a head's grid, the site that it is named by, and how it was grown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from situs.synth.heads import Head
from situs.synth.shapes import Box, Voxel, part_around
from situs.volume import bounding_box

__all__ = ["LESION_KINDS", "MIN_VOXELS", "Lesion", "LesionKind", "finish_lesion"]

LesionKind = Literal["tissue", "cortex", "crescent", "fluid", "cast", "sheet", "sinus", "structure"]
LESION_KINDS: tuple[LesionKind, ...] = get_args(LesionKind)
_IN_TISSUE: tuple[LesionKind, ...] = ("tissue", "cortex", "crescent")

Mask = NDArray[np.bool_]

MIN_VOXELS = 12
_MIN_VOXELS_OF = {"sulcal_spaces": 100}  # scraps of a sulcus are nothing that is asked about
_LARGEST_MM3 = 100_000  # none swells beyond this


@dataclass(frozen=True, eq=False)
class Lesion:
    """A region on a head's grid.

    Attributes:
        mask: (mx, my, mz) bool, the bounding box of the region.
        start: (3,) voxel of ``mask[0, 0, 0]``.
        site: The key of the site that it was grown from, where most of it lies.
        kind: How it was grown.
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

    @property
    def in_tissue(self) -> bool:
        """Whether the lobe beneath fluid names it (`Head.extra_axial`); `Head.sites` names the others."""
        return self.kind in _IN_TISSUE


def finish_lesion(
    head: Head,
    mask: Mask,
    box: Box,
    site: str,
    kind: LesionKind,
    least_share: float,
    keep: Voxel | None = None,
    swell: float = 1.0,
) -> Lesion | None:
    """A lesion, cut to one piece and its bounding box.

    The piece is the one at the voxel `keep`, since fluid comes in pockets, or the largest.

    Args:
        head: The head.
        mask: (mx, my, mz) bool, what was grown.
        box: The part of the head's grid that `mask` covers.
        site: The key of the site.
        kind: How it was grown.
        least_share: The least share of it in its site.
        keep: A voxel of the head.
        swell: See `Lesion`; less where it would grow beyond 100 ml.

    Returns:
        The lesion; None if it is too small, or too little of it lies in its site, or more in another.
    """
    part = part_around(mask, keep and tuple(s - b.start for s, b in zip(keep, box, strict=True)))
    voxels = int(part.sum())
    if voxels < _MIN_VOXELS_OF.get(site, MIN_VOXELS):
        return None
    sites = head.extra_axial if kind in _IN_TISSUE else head.sites
    under = np.bincount(sites[box][part], minlength=len(head.listed) + 1)[1:]
    number = head.listed.numbers[site]
    if under[number] < least_share * voxels or under.argmax() != number:
        return None
    swell = max(1.0, min(swell, _LARGEST_MM3 / voxels))
    tight = bounding_box(part)
    x, y, z = (b.start + t.start for b, t in zip(box, tight, strict=True))
    return Lesion(part[tight].copy(), (x, y, z), site, kind, swell)
