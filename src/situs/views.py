"""What the networks see of one slice: a global view (the whole slice) and a local view (a crop around the
region of interest). The one preprocessing, for training and for use.

Both views are square pictures in one orientation (row 0 anterior, column 0 the patient's right), with
isotropic pixels of a fixed size in mm, as unsigned bytes (channel, row, column). Orientation and pixel
size come from the geometry; the global view is centred on the head, the local one on the region.

Some channels may show a slice below and one above, in the same place: how high in the head a slice lies, and
what its region belongs to, is often only seen there. One may show the other hemisphere, mirrored over the
midplane: what a lesion hides is often seen there. One may show what is under the gray of the regions: fluid
above the blood in a ventricle, or normal tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.resample import Blocks, Place, Sampling
from situs.volume import Roi, Volume, largest_part

__all__ = [
    "BRAIN_WINDOW_HU",
    "CHANNELS",
    "LEAST_TURN_DEG",
    "MIRRORED",
    "OTHER_SLICES",
    "UNFILLED",
    "ViewSpec",
    "Views",
    "extract_views",
    "head_centre_mm",
    "to_gray",
]

# Hounsfield windows (lowest, highest). The brain window is the paper's: width 80, level 40. "wide" keeps air,
# fat, soft tissue and bone apart, and still says something where a scan was clipped at a brain window.
BRAIN_WINDOW_HU = (0.0, 80.0)
_WINDOWS_HU = {"brain": BRAIN_WINDOW_HU, "wide": (-160.0, 240.0)}
_SOURCES = (*_WINDOWS_HU, "roi")
OTHER_SLICES = ("below", "above")  # that may be shown beside the slice itself
MIRRORED, UNFILLED = "brain_mirrored", "brain_unfilled"
_OF_OTHER_SLICES = tuple(f"{source}_{where}" for where in OTHER_SLICES for source in _SOURCES)
CHANNELS = (*_SOURCES, *_OF_OTHER_SLICES, MIRRORED, UNFILLED)

# A slice below or above that is farther away than this many times what was asked for is not shown.
_MAX_AWAY = 2.5
# A head that is turned less is looked at as it lies.
LEAST_TURN_DEG = 4.0
_HEAD_PIXEL_MM = 4.0  # the head's centre is looked for at this coarse pixel size


@dataclass(frozen=True)
class ViewSpec:
    """How a slice becomes two views; travels in the bundle.

    Attributes:
        size_px: rows and columns of each view
        global_mm: side of the square field of view of the global and of the local view
        local_mm: See `global_mm`.
        channels: per channel ``brain``, ``wide`` or ``roi``, of the slice itself or, with ``_below`` or
            ``_above``, of another, or `MIRRORED`, or `UNFILLED`, which shows the slice without `fill_hu` (see
            `CHANNELS`); ``roi`` can only be the last
        fill_hu: the uniform value given to every pixel of every mask (paper, section 3.2; 40 HU is
            mid-window)
        upright: whether a turned head is looked at upright: in use by its midplane (`situs.midplane`), in
            training and testing by what the cohort knows, if it does
        away_mm: how far below and above the slice the other slices should lie; the nearest to that is taken

    Raises:
        ValueError: for a channel that does not exist, channels after ``roi`` or a size that is not positive
    """

    size_px: int = 112
    global_mm: float = 240.0
    local_mm: float = 96.0
    channels: tuple[str, ...] = ("brain", "wide", "roi")
    fill_hu: float = 40.0
    away_mm: float = 6.0
    upright: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if unknown := set(self.channels) - set(CHANNELS):
            raise ValueError(f"channels: expected some of {CHANNELS}, got {sorted(unknown)}")
        if "roi" in self.channels[:-1]:
            raise ValueError(f"channels: expected 'roi' as the last one, got {self.channels}")
        if min(self.size_px, self.global_mm, self.local_mm, self.away_mm) <= 0:
            raise ValueError(f"size_px, global_mm, local_mm, away_mm: expected positive numbers, got {self}")

    @property
    def roi_channel(self) -> int | None:
        """The index of the channel that shows the region of interest; None if no channel does."""
        return len(self.channels) - 1 if self.channels[-1:] == ("roi",) else None

    def channels_of(self, where: str) -> list[int]:
        """The indices of the channels that show the slice ``below`` or ``above``."""
        return [c for c, name in enumerate(self.channels) if name.endswith(f"_{where}")]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `from_dict` reads it."""
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ViewSpec:
        """The spec that `to_dict` wrote; TypeError for unknown fields."""
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class Views:
    """The two views of one ROI on one slice, each (n_channels, size_px, size_px) uint8, and their places."""

    global_view: NDArray[np.uint8]
    local_view: NDArray[np.uint8]
    places: tuple[Place, Place]


def extract_views(
    volume: Volume,
    k: int,
    targets: Sequence[Roi],
    fill_mask: NDArray[np.bool_],
    spec: ViewSpec,
    turn_deg: float = 0.0,
    mirror: NDArray[np.float64] | None = None,
    known: Sequence[Views] | None = None,
) -> list[Views]:
    """The views of regions that meet slice `k`, one for each; what they share is made once.

    Args:
        volume: the scan
        k: the slice
        targets: the regions asked about; none is empty on this slice
        fill_mask: (ni, nj, nk) bool, all regions given, the targets among them; they are painted gray, so
            that texture inside says nothing
        spec: how the views are made
        turn_deg: of the patient in the picture, clockwise; the views are turned likewise, so that the head
            stands upright in them
        mirror: (4, 4) reflection of the world over the midplane; None where it is not known, then `MIRRORED`
            is black
        known: the views of the same targets, turned likewise and without `mirror`: only what it adds is made

    Raises:
        ValueError: if a target does not meet the slice
    """
    geometry, size = volume.geometry, (spec.size_px, spec.size_px)
    below, above = _slices_around(geometry, k, spec.away_mm)
    shown_at = {"": k, "unfilled": k, "below": below, "above": above, "mirrored": k}
    if mirror is None:
        del shown_at["mirrored"]
    if known is None:
        views = np.zeros((len(targets), 2, len(spec.channels), *size), dtype=np.uint8)
        centre = head_centre_mm(_slice_hu(volume, k), geometry, k)
        places = [Place(centre, spec.global_mm / spec.size_px, turn_deg)]
        places += [Place(_middle_mm(target, k), spec.local_mm / spec.size_px, turn_deg) for target in targets]
    else:
        views = np.stack([[one.global_view, one.local_view] for one in known])
        places = [known[0].places[0], *(one.places[1] for one in known)]
        shown_at = {where: n for where, n in shown_at.items() if where == "mirrored"}

    @cache
    def samplings(n: int, mirrored: bool) -> list[Sampling]:
        """Of the global view, and of the local one of each target."""
        return [
            Sampling.of(geometry, n, replace(place, mirror=mirror) if mirrored else place, size)
            for place in places
        ]

    @cache
    def gray(n: int, source: str, filled: bool) -> NDArray[np.float32]:
        hu = _slice_hu(volume, n)
        return to_gray(np.where(fill_mask[:, :, n], np.float32(spec.fill_hu), hu) if filled else hu, source)

    for c, name in enumerate(spec.channels):
        source, _, where = name.partition("_")
        n = shown_at.get(where)
        if n is None:
            continue
        whole, *crops = samplings(n, where == "mirrored")
        if source == "roi":
            for view, target, crop in zip(views, targets, crops, strict=True):
                if n in target.areas_px:
                    region = target.slice_mask(n).astype(np.float32)
                    view[0, c], view[1, c] = whole.picture(region), crop.picture(region)
        else:
            shown = gray(n, source, where != "unfilled")
            views[:, 0, c] = whole.picture(shown)
            for view, crop in zip(views, crops, strict=True):
                view[1, c] = crop.picture(shown)
    return [
        Views(view[0], view[1], (places[0], place)) for view, place in zip(views, places[1:], strict=True)
    ]


def head_centre_mm(hu: NDArray[np.float32], geometry: Geometry, k: int) -> NDArray[np.float64]:
    """World position (3,) of the centre of the head on a slice (ni, nj): the centroid of its largest piece
    above 0 HU once bridges to table and head holder are cut; the middle of the slice if there is none."""
    from scipy import ndimage

    blocks = Blocks.of(geometry, _HEAD_PIXEL_MM)
    solid = blocks.mean(hu) > 0
    cut = ndimage.binary_erosion(solid)
    head = largest_part(cut if cut.any() else solid)
    if not head.any():
        centre = (np.array(hu.shape) - 1) / 2
    else:
        centre = blocks.first + np.argwhere(head).mean(axis=0) * blocks.sizes
    return np.asarray(geometry.to_world([[*centre, k]])[0])


def _slice_hu(volume: Volume, k: int) -> NDArray[np.float32]:
    return np.asarray(volume.hu[:, :, k], dtype=np.float32)


def _middle_mm(target: Roi, k: int) -> NDArray[np.float64]:
    """World position (3,) of the middle of a region's extent on slice k."""
    if k not in target.areas_px:
        raise ValueError(f"targets: a region does not meet slice {k}")
    i, j = target.pixels(k)
    return np.asarray(target.geometry.to_world([[(i.min() + i.max()) / 2, (j.min() + j.max()) / 2, k]])[0])


def to_gray(hu: NDArray[np.float32], window: str) -> NDArray[np.float32]:
    """HU (...) as gray values (...) in [0, 1], in the window of the channel ``brain`` or ``wide``."""
    low, high = _WINDOWS_HU[window]
    gray = hu - np.float32(low)
    gray /= np.float32(high - low)
    return np.clip(gray, 0, 1, out=gray)


def _slices_around(geometry: Geometry, k: int, away_mm: float) -> tuple[int | None, int | None]:
    """The slices whose heights are nearest to `away_mm` below and above slice `k`; None if there is none."""
    heights = geometry.heights_mm - geometry.heights_mm[k]
    found: list[int | None] = []
    for sign in (-1, 1):
        off = np.abs(sign * heights - away_mm)
        off[(sign * heights <= 0) | (sign * heights > _MAX_AWAY * away_mm)] = np.inf
        found.append(int(off.argmin()) if np.isfinite(off).any() else None)
    return found[0], found[1]
