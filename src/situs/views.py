"""What the networks see of one slice: a global view (the whole slice) and a local view (a crop around the
region of interest). The one preprocessing, for training and for use.

Both views are square pictures in one orientation (row 0 anterior, column 0 the patient's right), with
isotropic pixels of a fixed size in mm, as unsigned bytes (channel, row, column). Orientation and pixel
size come from the geometry; the global view is centred on the head, the local one on the region.

Some channels may show a slice below and one above, in the same place: how high in the head a slice lies, and
what its region belongs to, is often only seen there. One may show the other hemisphere, mirrored over the
midplane: what a lesion hides is often seen there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.volume import Roi, Volume, largest_part

__all__ = [
    "BRAIN_WINDOW_HU",
    "CHANNELS",
    "LEAST_TURN_DEG",
    "MIRRORED",
    "OTHER_SLICES",
    "Place",
    "ViewSpec",
    "Views",
    "extract_views",
    "head_centre_mm",
    "resample_slice",
    "sample_slice",
    "to_gray",
]

# Hounsfield windows (lowest, highest). The brain window is the paper's: width 80, level 40. "wide" keeps air,
# fat, soft tissue and bone apart, and still says something where a scan was clipped at a brain window.
BRAIN_WINDOW_HU = (0.0, 80.0)
_WINDOWS_HU = {"brain": BRAIN_WINDOW_HU, "wide": (-160.0, 240.0)}
_SOURCES = (*_WINDOWS_HU, "roi")
OTHER_SLICES = ("below", "above")  # that may be shown beside the slice itself
MIRRORED = "brain_mirrored"
CHANNELS = (*_SOURCES, *(f"{source}_{where}" for where in OTHER_SLICES for source in _SOURCES), MIRRORED)

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
            ``_above``, of another, or `MIRRORED` (see `CHANNELS`); ``roi`` can only be the last
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
class Place:
    """Where a view lies.

    Attributes:
        centre_mm: (3,) its middle in world coordinates
        pixel_mm: side of its pixels
        turn_deg: see `extract_views`
        mirror: (4, 4) reflection of the world; the view shows what lies at the mirror images of its pixels,
            seen straight down or up onto the slice; None for the pixels themselves
    """

    centre_mm: NDArray[np.float64]
    pixel_mm: float
    turn_deg: float = 0.0
    mirror: NDArray[np.float64] | None = None

    def axes(self, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unit vectors (3,) and (3,) in the slice's plane: the view's right and down."""
        right, down = geometry.display_axes
        c, s = np.cos(np.radians(self.turn_deg)), np.sin(np.radians(self.turn_deg))
        return c * right + s * down, c * down - s * right


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

    Raises:
        ValueError: if a target does not meet the slice
    """
    geometry, size = volume.geometry, (spec.size_px, spec.size_px)
    centre = head_centre_mm(_slice_hu(volume, k), geometry, k)
    global_place = Place(centre, spec.global_mm / spec.size_px, turn_deg)
    local_places = [
        Place(_middle_mm(target, k), spec.local_mm / spec.size_px, turn_deg) for target in targets
    ]
    views = np.zeros((len(targets), 2, len(spec.channels), *size), dtype=np.uint8)
    for where, n in zip(("", *OTHER_SLICES), (k, *_slices_around(geometry, k, spec.away_mm)), strict=True):
        named = (name.partition("_") for name in spec.channels)
        shown = [(c, source) for c, (source, _, at) in enumerate(named) if at == where]
        if n is None or not shown:
            continue
        hu = np.where(fill_mask[:, :, n], np.float32(spec.fill_hu), _slice_hu(volume, n))
        whole = _Sampling.of(geometry, n, global_place, size)
        crops = [_Sampling.of(geometry, n, place, size) for place in local_places]
        for c, source in shown:
            if source == "roi":
                for view, target, crop in zip(views, targets, crops, strict=True):
                    if n in target.areas_px:
                        region = target.slice_mask(n).astype(np.float32)
                        view[0, c], view[1, c] = whole.picture(region), crop.picture(region)
            else:
                gray = to_gray(hu, source)
                views[:, 0, c] = whole.picture(gray)
                for view, crop in zip(views, crops, strict=True):
                    view[1, c] = crop.picture(gray)
    if MIRRORED in spec.channels and mirror is not None:
        c = spec.channels.index(MIRRORED)
        gray = to_gray(np.where(fill_mask[:, :, k], np.float32(spec.fill_hu), _slice_hu(volume, k)), "brain")
        views[:, 0, c] = _Sampling.of(geometry, k, replace(global_place, mirror=mirror), size).picture(gray)
        for view, place in zip(views, local_places, strict=True):
            view[1, c] = _Sampling.of(geometry, k, replace(place, mirror=mirror), size).picture(gray)
    return [
        Views(view[0], view[1], (global_place, place))
        for view, place in zip(views, local_places, strict=True)
    ]


def head_centre_mm(hu: NDArray[np.float32], geometry: Geometry, k: int) -> NDArray[np.float64]:
    """World position (3,) of the centre of the head on a slice (ni, nj): the centroid of its largest piece
    above 0 HU once bridges to table and head holder are cut; the middle of the slice if there is none."""
    from scipy import ndimage

    coarse, first, factors = _block_mean(hu, geometry, _HEAD_PIXEL_MM)
    solid = coarse > 0
    cut = ndimage.binary_erosion(solid)
    head = largest_part(cut if cut.any() else solid)
    if not head.any():
        centre = (np.array(hu.shape) - 1) / 2
    else:
        centre = first + np.argwhere(head).mean(axis=0) * factors
    return np.asarray(geometry.to_world([[*centre, k]])[0])


def resample_slice(
    image: NDArray[np.float32],
    geometry: Geometry,
    k: int,
    place: Place,
    size_px: tuple[int, int],
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """A slice (ni, nj) as a picture (rows, columns) of `place`: anterior up, the patient's left on the right.

    Finer input is averaged in blocks before linear interpolation, so that nothing aliases; `outside` is the
    value beyond the slice.
    """
    return _Sampling.of(geometry, k, place, size_px).read(image, outside)


@dataclass(frozen=True, eq=False)
class _Sampling:
    """Where the pixels of one picture lie in a slice: worked out once, read from several images of the slice.

    Attributes:
        geometry: the scan's
        pixel_mm: of the picture; finer images are averaged in blocks first
        first: (rows, columns) flat index of the block before each pixel of the picture, along both axes
        steps: flat steps to the next block along i and j
        along_i: (rows, columns) how far it lies on the way to the next block along i, in [0, 1]
        along_j: the same along j
        inside: (rows, columns) whether it lies in the slice
    """

    geometry: Geometry
    pixel_mm: float
    first: NDArray[np.intp]
    steps: tuple[int, int]
    along_i: NDArray[np.float32]
    along_j: NDArray[np.float32]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, geometry: Geometry, k: int, place: Place, size_px: tuple[int, int]) -> _Sampling:
        """The sampling of a place on slice k by a picture of (rows, columns)."""
        factors, before, missing = _blocks(geometry, place.pixel_mm)
        matrix, corner = _pixel_grid(geometry, k, place, size_px)
        rows, columns = np.arange(size_px[0])[:, None], np.arange(size_px[1])
        shape = (np.array(geometry.shape[:2]) + missing) // factors
        inside, whole, along = True, [], []
        for axis in (0, 1):
            at = corner[axis] + matrix[axis, 0] * rows + matrix[axis, 1] * columns
            at = (at - ((factors[axis] - 1) / 2 - before[axis])) / factors[axis]
            inside = inside & (at >= 0) & (at <= shape[axis] - 1)
            whole.append(np.clip(at.astype(np.intp), 0, max(shape[axis] - 2, 0)))
            along.append((at - whole[axis]).astype(np.float32))
        steps = (int(shape[1]) * min(1, int(shape[0]) - 1), min(1, int(shape[1]) - 1))
        first = whole[0] * int(shape[1]) + whole[1]
        return cls(geometry, place.pixel_mm, first, steps, along[0], along[1], np.asarray(inside))

    def read(self, image: NDArray[np.float32], outside: float = 0.0) -> NDArray[np.float32]:
        """The picture (rows, columns) of an image (ni, nj) of the slice, interpolated linearly."""
        flat, (di, dj) = _block_mean(image, self.geometry, self.pixel_mm)[0].ravel(), self.steps
        near, far = (
            flat.take(start) * (1 - self.along_j) + flat.take(start + dj) * self.along_j
            for start in (self.first, self.first + di)
        )
        return np.where(self.inside, near * (1 - self.along_i) + far * self.along_i, np.float32(outside))

    def picture(self, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gray values (ni, nj) in [0, 1] as a picture of whole numbers from 0 to 255."""
        return np.rint(self.read(gray) * 255)


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
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1))


def sample_slice(
    image: NDArray[np.generic],
    geometry: Geometry,
    k: int,
    place: Place,
    size_px: tuple[int, int],
    outside: float = 0.0,
) -> NDArray[np.generic]:
    """As `resample_slice`, but every pixel takes the value of the nearest pixel of the slice: for codes."""
    matrix, corner = _pixel_grid(geometry, k, place, size_px)
    rows, columns = np.arange(size_px[0])[:, None], np.arange(size_px[1])
    i, j = (
        np.floor(corner[axis] + matrix[axis, 0] * rows + matrix[axis, 1] * columns + 0.5).astype(np.intp)
        for axis in (0, 1)
    )
    inside = (i >= 0) & (i < image.shape[0]) & (j >= 0) & (j < image.shape[1])
    return np.where(inside, image[np.where(inside, i, 0), np.where(inside, j, 0)], image.dtype.type(outside))


def _pixel_grid(
    geometry: Geometry, k: int, place: Place, size_px: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The slice's (i, j) at a picture's (row, column): matrix (2, 2) and the value (2,) at (0, 0)."""
    right, down = (place.pixel_mm * axis for axis in place.axes(geometry))
    rows, columns = size_px
    corner = place.centre_mm - ((rows - 1) / 2 * down + (columns - 1) / 2 * right)
    world = np.stack([corner, corner + down, corner + right])
    if place.mirror is not None:
        world = world @ place.mirror[:3, :3].T + place.mirror[:3, 3]
    p = geometry.to_pixels(world, k)
    return np.stack([p[1] - p[0], p[2] - p[0]], axis=1), p[0]


def _slices_around(geometry: Geometry, k: int, away_mm: float) -> tuple[int | None, int | None]:
    """The slices whose heights are nearest to `away_mm` below and above slice `k`; None if there is none."""
    heights = geometry.heights_mm - geometry.heights_mm[k]
    found: list[int | None] = []
    for sign in (-1, 1):
        off = np.abs(sign * heights - away_mm)
        off[(sign * heights <= 0) | (sign * heights > _MAX_AWAY * away_mm)] = np.inf
        found.append(int(off.argmin()) if np.isfinite(off).any() else None)
    return found[0], found[1]


def _block_mean(
    image: NDArray[np.float32], geometry: Geometry, pixel_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """The image averaged in the largest whole blocks that are no larger than a pixel of `pixel_mm`.

    Returns the blocks, where the middle of the first one lies (2,), and their sizes (2,), in pixels of the
    image.
    """
    factors, before, missing = _blocks(geometry, pixel_mm)
    if (factors == 1).all():
        return image, np.zeros(2), factors
    if missing.any():
        image = np.pad(image, list(zip(before, missing - before, strict=True)), mode="edge")
    fi, fj = factors.tolist()
    # Strided sums: far quicker than a mean over the axes of a reshaped picture.
    blocks = sum(image[i::fi, j::fj] for i in range(fi) for j in range(fj)) / np.float32(fi * fj)
    return np.asarray(blocks), (factors - 1) / 2 - before, factors


def _blocks(
    geometry: Geometry, pixel_mm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The blocks of a slice along i and j (2,): sizes, pixels missing before the first, and missing in all.

    Pixels that fill no block are repeated, not dropped. The blocks are counted from the same end of the
    patient, whichever way the axis runs, so that the voxel order plays no part.
    """
    factors = np.array([max(1, int(pixel_mm / s + 0.01)) for s in geometry.spacing_mm])
    missing = -np.array(geometry.shape[:2]) % factors
    right, down = geometry.display_axes
    forward = [step @ (right + 0.7 * down) > 0 for step in (geometry.step_i, geometry.step_j)]
    return factors, np.where(forward, 0, missing), missing
