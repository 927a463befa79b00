"""From a head label map to a virtual head CT: random pose, shape, tissue values, slices and noise.

Every voxel is looked up in the head through one smooth map, so that HU, site map, distance to the midline and
lesions stay together. Needs torch for the look-up (one `grid_sample`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.artifacts import add_artifacts
from situs.synth.drawing import draw_mask
from situs.synth.heads import Head
from situs.synth.lesion import Lesion
from situs.synth.noise import smooth_noise, stretch
from situs.synth.pose import ScanPlan, map_to_head, nearest_voxels
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
        masks: One mask (ni, nj, nk) of bool per lesion, as a reader would have drawn it; may be empty.
        sites: (ni, nj, nk) uint8, 0 for none of the listed sites, else `Head.code`.
        lateral_mm: (ni, nj, nk) int8, distance to the midline, positive on the patient's left.
    """

    hu: NDArray[np.int16]
    masks: list[NDArray[np.bool_]]
    sites: NDArray[np.uint8]
    lateral_mm: NDArray[np.int8]


def render_scan(
    head: Head, lesions: Sequence[Lesion], plan: ScanPlan, rng: np.random.Generator
) -> RenderedScan:
    """Render `head` with its lesions as planned."""
    number = np.zeros(head.labels.shape, dtype=np.uint8)
    for n, lesion in enumerate(lesions, start=1):
        number[lesion.box][lesion.mask] = n
    hu = tissue_hu(head, plan, rng)
    paint_lesions(hu, head, lesions, rng)
    coordinates = map_to_head(head, lesions, plan, rng)
    nearest = nearest_voxels(coordinates, head.labels.shape)
    scan = _acquire(_sample(hu, coordinates, plan), plan, rng)

    def take(volume: NDArray[np.generic], outside: int) -> NDArray[np.generic]:
        values = np.where(nearest >= 0, volume.ravel()[np.maximum(nearest, 0)], outside).astype(volume.dtype)
        return np.ascontiguousarray(values.transpose(2, 1, 0))

    numbers = take(number, 0)
    sites, extra_axial = take(head.sites, 0), take(head.extra_axial, 0)
    for n, lesion in enumerate(lesions, start=1):
        if lesion.in_tissue:
            sites = np.where(numbers == n, extra_axial, sites)
    masks = [
        draw_mask(numbers == n, lesion, sites == head.code(lesion.site), rng)
        for n, lesion in enumerate(lesions, start=1)
    ]
    lateral = take(head.lateral_mm, _UNKNOWN_LATERAL)
    return RenderedScan(
        np.ascontiguousarray(scan.transpose(2, 1, 0)), masks, sites.astype(np.uint8), lateral.astype(np.int8)
    )


def _sample(hu: NDArray[np.float32], coordinates: NDArray[np.float32], plan: ScanPlan) -> NDArray[np.float32]:
    """(nk, nj, ni) HU, averaged through each slice's thickness."""
    count = int(np.clip(round(plan.gap_mm / 2), 1, 3))
    volume = torch.from_numpy(hu - np.float32(AIR_HU))[None, None]  # so that "outside" is air
    size = torch.tensor(hu.shape[::-1], dtype=torch.float32)
    total = torch.zeros(coordinates.shape[:3])
    points = torch.from_numpy(coordinates)
    step = torch.tensor(plan.to_head[:3, 2], dtype=torch.float32)  # voxels of the head per mm through slices
    for offset in (np.arange(count) - (count - 1) / 2) * plan.gap_mm / count:
        grid = (points + float(offset) * step).flip(-1) * (2 / (size - 1)) - 1
        total += torch.nn.functional.grid_sample(volume, grid[None], align_corners=True)[0, 0]
    return np.asarray((total / count + AIR_HU).numpy())


def _acquire(scan: NDArray[np.float32], plan: ScanPlan, rng: np.random.Generator) -> NDArray[np.int16]:
    """The scanner: sharpness, uneven brightness, noise, the table, and what the archive cut off."""
    blur = rng.uniform(0.0, 0.8)
    scan = ndimage.gaussian_filter(scan, (0, blur, blur))
    scan = add_artifacts(scan, plan.pixel_mm, rng)
    shading = smooth_noise((scan.shape[0], 9, 9), 3.0, rng)
    shading = stretch(shading, scan.shape)
    noise = rng.standard_normal(scan.shape, dtype=np.float32)
    grain = rng.uniform(0.3, 1.0)
    noise = ndimage.gaussian_filter(noise, (0, grain, grain))
    scan = scan + (rng.uniform(1.5, 7.0) / noise.std()) * noise + rng.uniform(0, 2.0) * shading
    if rng.random() < _P_TABLE:
        table = _table(scan.shape[1:], plan.pixel_mm, rng)
        scan = np.where(table & (scan < -300), np.float32(rng.uniform(50, 400)), scan)
    low, high = _ARCHIVES_HU[rng.choice(len(_ARCHIVES_HU), p=_P_ARCHIVES)]
    return np.clip(np.rint(scan), low, high).astype(np.int16)


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
