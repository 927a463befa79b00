"""From a head label map to a virtual head CT: random pose, shape, tissue values, slices and noise.

Every voxel is looked up in the head through one smooth map, so that HU, site map, distance to the midline and
lesions stay together. Needs torch for the look-up (one `grid_sample`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.artifacts import add_artifacts
from situs.synth.drawing import DRAWN_BEYOND, draw_mask
from situs.synth.heads import Head
from situs.synth.lesion import Lesion
from situs.synth.noise import blur_slices, smooth_noise, stretch
from situs.synth.pose import ScanPlan, map_to_head, nearest_voxels
from situs.synth.shapes import Box, embed
from situs.synth.tissue import AIR_HU, paint_lesions, tissue_hu

__all__ = ["RenderedScan", "render_scan"]

# What archives keep of the HU, and how often.
_ARCHIVES_HU = ((-1024, 3071), (-20, 100), (0, 80), (-100, 200), (0, 255))
_P_ARCHIVES = (0.42, 0.3, 0.08, 0.08, 0.12)
_P_TABLE = 0.7
_UNKNOWN_LATERAL = 127  # outside the label map


@dataclass(frozen=True, eq=False)
class RenderedScan:
    """A virtual scan on the plan's grid.

    Attributes:
        hu: (ni, nj, nk) int16, HU.
        drawn: Per lesion a box of the scan and its mask there, of bool, as a reader would have drawn it; may
            be empty.
        sites: (ni, nj, nk) uint8, 0 for none of the listed sites, else `Head.code`.
        lateral_mm: (ni, nj, nk) int8, distance to the midline, positive on the patient's left.
    """

    hu: NDArray[np.int16]
    drawn: list[tuple[Box, NDArray[np.bool_]]]
    sites: NDArray[np.uint8]
    lateral_mm: NDArray[np.int8]

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """One mask (ni, nj, nk) of bool per lesion."""
        return [embed(mask, box, self.hu.shape) for box, mask in self.drawn]


def render_scan(
    head: Head, lesions: Sequence[Lesion], plan: ScanPlan, rng: np.random.Generator
) -> RenderedScan:
    """Render `head` with its lesions as planned."""
    hu = tissue_hu(head, plan, rng)
    paint_lesions(hu, head, lesions, rng)
    shown = _look_up(head, lesions, hu, map_to_head(head, lesions, plan, rng), plan)
    numbers = shown.numbers.T
    by_lobe = np.array([False, *(lesion.in_tissue for lesion in lesions)])
    sites = np.where(by_lobe[numbers], shown.extra_axial.T, shown.sites.T)
    scan = _acquire(shown.hu, plan, rng)
    drawn = []
    boxes = ndimage.find_objects(shown.numbers, max_label=len(lesions))
    for n, (lesion, found) in enumerate(zip(lesions, boxes, strict=True), start=1):
        box = _with_margin((found or _NOWHERE)[::-1], numbers.shape)
        in_site = sites[box] == head.code(lesion.site)
        drawn.append((box, draw_mask(numbers[box] == n, lesion, in_site, rng)))
    return RenderedScan(scan.T, drawn, sites, shown.lateral_mm.T)


_NOWHERE = (slice(0, 1),) * 3


def _with_margin(box: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    """A box of a scan and `DRAWN_BEYOND` pixels around it in the plane, as far as the scan goes."""
    i, j = (
        slice(max(0, b.start - DRAWN_BEYOND), min(n, b.stop + DRAWN_BEYOND))
        for b, n in zip(box[:2], shape[:2], strict=True)
    )
    return i, j, box[2]


class _Shown(NamedTuple):
    """What the voxels (nk, nj, ni) of a scan show of a head."""

    hu: NDArray[np.float32]
    numbers: NDArray[np.uint8]  # of the lesion, from 1
    sites: NDArray[np.uint8]
    extra_axial: NDArray[np.uint8]
    lateral_mm: NDArray[np.int8]


def _look_up(
    head: Head,
    lesions: Sequence[Lesion],
    hu: NDArray[np.float32],
    coordinates: NDArray[np.float32],
    plan: ScanPlan,
) -> _Shown:
    """Look every voxel of a scan up in its head, slice by slice.

    HU are averaged through a slice's thickness. Most voxels show air and are not sampled: those that are so
    far from the head that no sample can reach it.

    Args:
        head: The head.
        lesions: Its lesions.
        hu: (nx, ny, nz) its HU, x fastest; it is not needed any more and changed.
        coordinates: (nk, 3, nj, ni) in the head's voxels.
        plan: The scan's.
    """
    packed = _pack(head)
    number = np.zeros(packed.shape, dtype=np.uint8)
    inside = number[_PAD:, _PAD:, _PAD:].T
    for n, lesion in enumerate(lesions, start=1):
        inside[lesion.box][lesion.mask] = n
    count = int(np.clip(round(plan.gap_mm / 2), 1, 3))
    step = plan.to_head[:3, 2]  # voxels of the head per mm through slices
    offsets = [
        (offset * step).astype(np.float32)
        for offset in (np.arange(count) - (count - 1) / 2) * plan.gap_mm / count
    ]
    far = int(1.5 + np.abs(offsets).max())  # voxels from the nearest one that a sample may reach
    most = (far + 1) // 2 if far <= _PAD else _FARTHEST
    hu -= np.float32(AIR_HU)  # so that "outside" is air
    volume = torch.from_numpy(hu.T)[None, None]
    nk, _, nj, ni = coordinates.shape
    values = np.full((nk, nj * ni), AIR_HU, dtype=np.float32)
    maps, numbers = np.empty((nk, nj * ni), dtype=np.uint32), np.zeros((nk, nj * ni), dtype=np.uint8)
    for k, place in enumerate(coordinates.reshape(nk, 3, -1)):
        index, _ = nearest_voxels(place, packed.shape[::-1], _PAD)
        maps[k] = packed.ravel()[index]
        near = np.flatnonzero(maps[k] < (most + 1) << 24)
        numbers[k, near] = number.ravel()[index[near]]
        values[k, near] += _sample(volume, place[:, near], offsets)
    sites, extra_axial, lateral, _ = np.moveaxis(maps.view(np.uint8).reshape(nk, nj, ni, 4), -1, 0).copy()
    return _Shown(
        values.reshape(nk, nj, ni), numbers.reshape(nk, nj, ni), sites, extra_axial, lateral.view(np.int8)
    )


_PAD = 8  # voxels around a head in `_pack`, an even number
_FARTHEST = 255


@lru_cache(maxsize=1)
def _pack(head: Head) -> NDArray[np.uint32]:
    """The maps of a head in one array (nz, ny, nx), to be looked up at once.

    It has `_PAD` voxels more on every side, or one more still, and voxel 0 is what lies outside. The bytes of
    a voxel, the lowest first: the site, the site for lesions in tissue, the distance to the midline, and how
    far anything but air is, in blocks of two voxels, diagonals included.
    """
    full = [n + n % 2 + 2 * _PAD for n in head.labels.T.shape]
    whole = tuple(slice(_PAD, _PAD + n) for n in head.labels.T.shape)
    maps = head.lateral_mm.view(np.uint8).astype(np.uint32)
    maps <<= 8
    maps |= head.extra_axial
    maps <<= 8
    maps |= head.sites
    solid = np.zeros(full, dtype=bool)
    solid[whole] = ((head.labels != 0) | head.inside(())).T
    halves = solid[::2] | solid[1::2]
    halves = halves[:, ::2] | halves[:, 1::2]
    halves = halves[:, :, ::2] | halves[:, :, 1::2]
    air = np.minimum(ndimage.distance_transform_cdt(~halves, "chessboard"), _FARTHEST).astype(np.uint32) << 24
    packed = air.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    beyond = np.full(full, _UNKNOWN_LATERAL << 16, dtype=np.uint32)
    beyond[whole] = maps.T
    packed |= beyond
    return packed


def _sample(
    volume: torch.Tensor, places: NDArray[np.float32], offsets: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """(n,) the mean HU above air at places and their offsets, trilinear; air outside the volume.

    Args:
        volume: (1, 1, nz, ny, nx) HU above air.
        places: (3, n) x, y and z in voxels.
        offsets: Each (3,), in voxels.
    """
    to_unit = 2 / (np.array(volume.shape[:1:-1], dtype=np.float32) - 1)
    units = np.empty(places.shape[::-1], dtype=np.float32)
    for axis, values in enumerate(places):
        units[:, axis] = values * to_unit[axis] - 1
    total = torch.zeros(len(units))
    for offset in offsets:
        grid = torch.from_numpy(units + offset * to_unit)[None, None, None]
        total += torch.nn.functional.grid_sample(volume, grid, align_corners=True)[0, 0, 0, 0]
    return np.asarray((total / len(offsets)).numpy())


def _acquire(scan: NDArray[np.float32], plan: ScanPlan, rng: np.random.Generator) -> NDArray[np.int16]:
    """The scanner: sharpness, uneven brightness, noise, the table, and what the archive cut off."""
    blur = rng.uniform(0.0, 0.8)
    scan = blur_slices(scan, blur, blur)
    scan = add_artifacts(scan, plan.pixel_mm, rng)
    shading = smooth_noise((scan.shape[0], 9, 9), 3.0, rng)
    shading = stretch(shading, scan.shape)
    noise = rng.standard_normal(scan.shape, dtype=np.float32)
    grain = rng.uniform(0.3, 1.0)
    noise = blur_slices(noise, grain, grain)
    noise_hu, shading_hu = rng.uniform(1.5, 7.0) / noise.std(), np.float32(rng.uniform(0, 2.0))
    for plane, grains, shade in zip(scan, noise, shading, strict=True):  # slices fit the processor's cache
        plane += noise_hu * grains
        plane += shading_hu * shade
    if rng.random() < _P_TABLE:
        table = _table(scan.shape[1:], plan.pixel_mm, rng)
        behind = scan[:, table]
        behind[behind < -300] = rng.uniform(50, 400)
        scan[:, table] = behind
    low, high = _ARCHIVES_HU[rng.choice(len(_ARCHIVES_HU), p=_P_ARCHIVES)]
    kept = np.empty(scan.shape, dtype=np.int16)
    for stored, plane in zip(kept, scan, strict=True):
        stored[:] = np.clip(np.rint(plane), low, high)
    return kept


def _table(shape: tuple[int, int], pixel_mm: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(nj, ni) bool, the arc of a table or head holder behind the head."""
    y, x = np.indices(shape, dtype=np.float32) * pixel_mm
    middle = shape[0] * pixel_mm / 2
    radius = rng.uniform(100, 260)
    back = middle + rng.uniform(95, 120)
    distance = np.hypot(x - middle, y - (back - radius))
    thick = rng.uniform(1.5, 5)
    return np.asarray(
        (np.abs(distance - radius) < thick / 2)
        & (np.abs(x - middle) < rng.uniform(50, 130))
        & (y > middle - 40)
    )
