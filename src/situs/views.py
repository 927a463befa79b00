"""What the networks see of one slice: a global view (the whole slice) and a local view (a crop around the
region of interest). The one preprocessing, for training and for use.

Both views are square pictures in one orientation (row 0 anterior, column 0 the patient's right), with
isotropic pixels of a fixed size in mm, as unsigned bytes (channel, row, column). Orientation and pixel
size come from the geometry; the global view is centred on the head, the local one on the region.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.volume import Volume

__all__ = ["CHANNELS", "ViewSpec", "Views", "extract_views", "head_centre_mm", "resample_slice"]

# Hounsfield windows (lowest, highest): "brain" is the paper's (width 80, level 40); "wide" keeps apart air,
# fat, soft tissue and bone, and still says something where a scan was clipped at a brain window.
_WINDOWS_HU = {"brain": (0.0, 80.0), "wide": (-160.0, 240.0)}
CHANNELS = (*_WINDOWS_HU, "roi")

_HEAD_PIXEL_MM = 4.0  # the head's centre is looked for at this coarse pixel size


@dataclass(frozen=True)
class ViewSpec:
    """How a slice becomes two views; travels in the bundle.

    size_px : rows and columns of each view
    global_mm, local_mm : side of the square field of view of the global and of the local view
    channels : per channel ``brain``, ``wide`` or ``roi`` (see `CHANNELS`)
    fill_hu : the uniform value given to every pixel of every mask (paper, section 3.2; 40 HU is mid-window)

    Raises
    ------
    ValueError : for a channel that does not exist or a size that is not positive
    """

    size_px: int = 112
    global_mm: float = 240.0
    local_mm: float = 96.0
    channels: tuple[str, ...] = ("brain", "wide", "roi")
    fill_hu: float = 40.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if unknown := set(self.channels) - set(CHANNELS):
            raise ValueError(f"channels: expected some of {CHANNELS}, got {sorted(unknown)}")
        if min(self.size_px, self.global_mm, self.local_mm) <= 0:
            raise ValueError(f"size_px, global_mm, local_mm: expected positive numbers, got {self}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `from_dict` reads it."""
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ViewSpec:
        """The spec that `to_dict` wrote; TypeError for unknown fields."""
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class Views:
    """The two views of one ROI on one slice, each (n_channels, size_px, size_px) uint8."""

    global_view: NDArray[np.uint8]
    local_view: NDArray[np.uint8]


def extract_views(
    volume: Volume,
    k: int,
    target_mask: NDArray[np.bool_],
    fill_mask: NDArray[np.bool_],
    spec: ViewSpec,
) -> Views:
    """The views of the region `target_mask` on slice `k`.

    Parameters
    ----------
    target_mask : (ni, nj) bool, the region asked about, on this slice; not empty
    fill_mask : (ni, nj) bool, all regions given on this slice; they are painted gray, so that texture
        inside says nothing. The target is filled whether it is in it or not

    Raises
    ------
    ValueError : if `target_mask` is empty
    """
    if not target_mask.any():
        raise ValueError("target_mask: it is empty on this slice")
    raw = np.asarray(volume.hu[:, :, k], dtype=np.float32)
    geometry = volume.geometry
    rows, columns = np.nonzero(target_mask)
    middle = [(rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2, k]
    places = (
        (spec.global_mm, head_centre_mm(raw, geometry, k)),
        (spec.local_mm, geometry.to_world([middle])[0]),
    )
    filled = np.where(fill_mask | target_mask, np.float32(spec.fill_hu), raw)
    sources = {name: _window(filled, name) for name in set(spec.channels) & set(_WINDOWS_HU)}
    sources["roi"] = target_mask.astype(np.float32)
    global_view, local_view = (
        _picture(sources, geometry, k, centre, field_mm, spec) for field_mm, centre in places
    )
    return Views(global_view, local_view)


def head_centre_mm(hu: NDArray[np.float32], geometry: Geometry, k: int) -> NDArray[np.float64]:
    """World position (3,) of the centre of the head on a slice (ni, nj): the centroid of its largest piece
    above 0 HU once bridges to table and head holder are cut; the middle of the slice if there is none."""
    from scipy import ndimage

    coarse, factors = _block_mean(hu, geometry.spacing_mm, _HEAD_PIXEL_MM)
    solid = coarse > 0
    labels, count = ndimage.label(ndimage.binary_erosion(solid))
    if count == 0:
        labels, count = ndimage.label(solid)
    if count == 0:
        centre = (np.array(hu.shape) - 1) / 2
    else:
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        where = np.array(np.nonzero(labels == largest)).mean(axis=1)
        centre = where * factors + (np.array(factors) - 1) / 2
    return np.asarray(geometry.to_world([[*centre, k]])[0])


def resample_slice(
    image: NDArray[np.float32],
    geometry: Geometry,
    k: int,
    centre_mm: NDArray[np.float64],
    pixel_mm: float,
    size_px: tuple[int, int],
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """A slice (ni, nj) as a picture (rows, columns): anterior up, the patient's left on the right.

    Finer input is averaged in blocks before linear interpolation, so that nothing aliases; `centre_mm`
    (3,) in world coordinates comes to lie in the middle; `outside` is the value beyond the slice.
    """
    from scipy import ndimage

    coarse, factors = _block_mean(image, geometry.spacing_mm, pixel_mm)
    right, down = geometry.display_axes()
    rows, columns = size_px
    corner = centre_mm - pixel_mm * ((rows - 1) / 2 * down + (columns - 1) / 2 * right)
    world = np.stack([corner, corner + pixel_mm * down, corner + pixel_mm * right])
    p = (geometry.to_pixels(world, k) - (np.array(factors) - 1) / 2) / factors
    matrix = np.stack([p[1] - p[0], p[2] - p[0]], axis=1)
    picture = ndimage.affine_transform(
        coarse, matrix, p[0], output_shape=size_px, order=1, mode="constant", cval=outside
    )
    return np.asarray(picture)


def _picture(
    sources: dict[str, NDArray[np.float32]],
    geometry: Geometry,
    k: int,
    centre_mm: NDArray[np.float64],
    field_mm: float,
    spec: ViewSpec,
) -> NDArray[np.uint8]:
    size = (spec.size_px, spec.size_px)
    planes = {
        name: resample_slice(image, geometry, k, centre_mm, field_mm / spec.size_px, size)
        for name, image in sources.items()
        if name in spec.channels
    }
    stack = np.stack([planes[name] for name in spec.channels])
    return np.asarray(np.rint(stack * 255), dtype=np.uint8)


def _window(hu: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    low, high = _WINDOWS_HU[name]
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1))


def _block_mean(
    image: NDArray[np.float32], spacing_mm: tuple[float, float], pixel_mm: float
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The image averaged in the largest whole blocks that are no larger than a pixel of `pixel_mm`.

    The last rows and columns that fill no block are repeated, not dropped.
    """
    fi, fj = (max(1, int(pixel_mm / s + 0.01)) for s in spacing_mm)
    if fi == fj == 1:
        return image, (1, 1)
    ni, nj = image.shape
    padded = np.pad(image, ((0, -ni % fi), (0, -nj % fj)), mode="edge") if ni % fi or nj % fj else image
    blocks = padded.reshape(padded.shape[0] // fi, fi, padded.shape[1] // fj, fj)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32)), (fi, fj)
