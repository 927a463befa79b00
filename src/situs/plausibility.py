"""Is this a head, and does the lesion lie in it: doubts about a scan or a lesion that can be read.

Simple measurements on a thinned scan, in HU and mm, quick enough to run every time. They warn and never
refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.resample import fold_blocks
from situs.sentences import Sentence
from situs.volume import Roi, Volume, largest_part

__all__ = ["GrayLevels", "gray_levels", "lesion_doubts", "scan_doubts"]

_PIXEL_MM = 2.0  # blocks of pixels; their highest value keeps a thin skull's ring closed
_RING_CM2 = (30.0, 330.0)  # what a skull encloses on its widest slice; 88 to 222 in 41 real scans
_BRAIN_SHARE = 0.7  # of what it encloses, between -10 and 90 HU; at least 0.94 in those
# A lesion that covers this share of the head on a slice, or is as large, lies in several sites. The largest
# of 91 real bleeds and infarcts covers 0.22 of a slice, and that of 36 whole bleeds has 68 ml.
_LESION_SHARE, _LESION_ML = 0.25, 200.0
_HEAD_SHARE = 0.3  # the same of skull and inside together; at least 0.49 in those
# Where a scan is clipped, bone is what lies within this share of its range below the top.
_BONE_BELOW_TOP = 0.08
_BLOOD_HU = 90.0  # at most; where the least bone is below, dense blood cannot be told from bone
# Face and neck lie below the brain, by their mean heights; above it where the header is upside down. In those
# scans they lie 1 to 43 mm below; of 100 rendered ones, parts of heads too, at most 11 mm above.
_UPSIDE_DOWN_MM = 14.0

# Blood that goes on beyond a mask: brighter than this once smoothed, within so many mm, and so many times the
# mask's area.
_BRIGHT_HU, _SMOOTH_MM, _AROUND_MM, _BEYOND = 48.0, 1.0, 20.0, 2.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class GrayLevels:
    """What a scan's values mean.

    Attributes:
        low: lowest value, HU
        high: highest value, HU
        air: the most that air has; more than usual where the scan was clipped
        bone: the least that bone has; less than usual where the scan was clipped
    """

    low: float
    high: float
    air: float
    bone: float


def gray_levels(volume: Volume) -> GrayLevels:
    """The gray levels of a scan, from its range of values."""
    sample = volume.hu[::4, ::4] if min(volume.hu.shape[:2]) >= 128 else volume.hu
    low, high = float(sample.min()), float(sample.max())
    air = -300.0 if low < -500 else low + 0.1 * (min(high, 300.0) - low)
    bone = 300.0
    if high <= 400:  # cut off within the range of bone, which is then all of one value, give or take noise
        top = float(np.quantile(np.asarray(sample, dtype=np.float32), 0.99))
        bone = top - _BONE_BELOW_TOP * (top - low)
    return GrayLevels(low, high, air, bone)


def scan_doubts(volume: Volume, levels: GrayLevels) -> tuple[Sentence, ...]:
    """What is doubtful about a scan, however many slices it has.

    Args:
        volume: the scan, (ni, nj, nk) HU
        levels: its gray levels

    Returns:
        One sentence each; empty for an ordinary head CT, whole or clipped at a brain window
    """
    doubts = []
    steps = _steps(volume, _PIXEL_MM)
    thin = _block_centres(volume.hu, steps)
    highest = _block_max(volume.hu, steps)
    closed = ~_outside(highest < levels.bone)  # the skull and what it encloses
    inside = closed & (thin < levels.bone)
    ring_cm2 = (
        float(inside.sum(axis=(0, 1)).max()) * np.prod(steps) * np.prod(volume.geometry.spacing_mm) / 100
    )
    if ring_cm2 < _RING_CM2[0]:
        doubts.append(Sentence("doubt.no_skull"))
        inside = thin > levels.air
    else:
        heights = volume.geometry.heights_mm
        above = _mean_height((highest > levels.air) & ~closed, heights) - _mean_height(inside, heights)
        if above > _UPSIDE_DOWN_MM:
            doubts.append(Sentence("doubt.upside_down"))
    if ring_cm2 > _RING_CM2[1]:
        doubts.append(Sentence("doubt.large_skull", area=f"{ring_cm2:.0f}"))
    share, brain = _brain_share(thin, inside)
    if share < _BRAIN_SHARE:  # thin slices and sharp kernels are noisy: the mean of 3 x 3 pixels tells
        share, brain = _brain_share(_local_mean(thin, inside), inside)
    if share < _BRAIN_SHARE:
        doubts.append(Sentence("doubt.no_brain", percent=f"{100 * share:.0f}"))
    whole_range = levels.low > -200 and levels.high > 400  # not cut off above, and yet no air
    if whole_range and brain <= _HEAD_SHARE * np.count_nonzero(closed):
        doubts.append(Sentence("doubt.mr"))
    return tuple(doubts)


def lesion_doubts(volume: Volume, lesions: Sequence[Roi], levels: GrayLevels) -> list[tuple[Sentence, ...]]:
    """What is doubtful about where lesions were drawn, judged on the largest slice of each.

    Args:
        volume: the scan, (ni, nj, nk) HU
        lesions: regions on its grid
        levels: the scan's gray levels

    Returns:
        For each lesion one sentence each; empty for a lesion in the head, air in a sinus included
    """
    head_on = cache(lambda k: _head_on_slice(volume, k, levels))  # many lesions lie on one slice
    return [_lesion_doubts(volume, lesion, levels, head_on(lesion.largest_slice)) for lesion in lesions]


def _lesion_doubts(volume: Volume, lesion: Roi, levels: GrayLevels, head: Mask) -> tuple[Sentence, ...]:
    """The doubts about one lesion; head: see `_head_on_slice`, of its largest slice."""
    i, j = lesion.pixels(lesion.largest_slice)
    a, b = _steps(volume, _PIXEL_MM / 2)
    whole = (i // a < head.shape[0]) & (j // b < head.shape[1])
    blocks = np.unique((i // a * head.shape[1] + j // b)[whole])
    in_head = np.count_nonzero(head.ravel()[blocks])
    doubts = []
    if in_head < 0.5 * blocks.size:
        doubts.append(Sentence("doubt.outside_head"))
    elif (
        levels.bone > _BLOOD_HU
        and np.count_nonzero(volume.hu[i, j, lesion.largest_slice] >= levels.bone) > 0.9 * i.size
    ):
        doubts.append(Sentence("doubt.in_bone"))
    if in_head > 0.5 * np.count_nonzero(head):
        doubts.append(Sentence("doubt.half_head"))
    elif in_head > _LESION_SHARE * np.count_nonzero(head) or lesion.volume_ml > _LESION_ML:
        doubts.append(Sentence("doubt.too_large"))
    elif not doubts and _bright_beyond(volume, lesion, levels) >= _BEYOND * i.size:
        doubts.append(Sentence("doubt.small_part"))
    return tuple(doubts)


def _head_on_slice(volume: Volume, k: int, levels: GrayLevels) -> Mask:
    """Where the head is on a slice, in blocks of pixels."""
    hu = np.asarray(volume.hu[:, :, k], dtype=np.float32)
    tissue = _block_max(hu[..., None], _steps(volume, _PIXEL_MM / 2))[..., 0] > levels.air
    return _surrounded(largest_part(tissue, np.ones((3, 3), dtype=bool)))


def _bright_beyond(volume: Volume, lesion: Roi, levels: GrayLevels) -> int:
    """Pixels that look like blood, hang together with a lesion on its largest slice and lie outside it.

    What touches bone does not count: it may be bone that is seen in part.
    """
    from scipy import ndimage

    k, spacing = lesion.largest_slice, volume.geometry.spacing_mm
    at = lesion.pixels(k)
    near = tuple(
        slice(max(0, int(n.min()) - reach), int(n.max()) + reach + 1)
        for n, reach in zip(at, (int(np.ceil(_AROUND_MM / mm)) for mm in spacing), strict=True)
    )
    hu = np.asarray(volume.hu[near[0], near[1], k], dtype=np.float32)
    own = np.zeros(hu.shape, dtype=bool)
    own[at[0] - near[0].start, at[1] - near[1].start] = True
    bone = ndimage.binary_dilation(hu >= levels.bone, iterations=2)
    bright = ndimage.gaussian_filter(hu, [_SMOOTH_MM / mm for mm in spacing]) > _BRIGHT_HU
    parts, _ = ndimage.label(bright & ~bone)
    outside = np.bincount(parts[~own], minlength=int(parts.max()) + 1)
    outside[parts[ndimage.binary_dilation(bone)]] = 0
    touching = np.unique(parts[own])
    return int(outside[touching[touching > 0]].sum())


def _brain_share(hu: NDArray[Any], inside: Mask) -> tuple[float, int]:
    """The share of what is inside that lies between -10 and 90 HU, and how many pixels that are."""
    brain = int(np.count_nonzero(inside & (hu > -10) & (hu < 90)))
    return brain / (int(np.count_nonzero(inside)) + 1e-9), brain


def _local_mean(hu: NDArray[Any], inside: Mask) -> NDArray[np.float32]:
    """(ni, nj, nk) the mean of the pixels inside among 3 x 3 on the slice; 0 elsewhere."""
    from scipy import ndimage

    total = ndimage.uniform_filter(np.where(inside, hu, 0).astype(np.float32), (3, 3, 1))
    count = ndimage.uniform_filter(inside.astype(np.float32), (3, 3, 1))
    return np.where(inside, total / np.maximum(count, 1 / 9), 0)


def _mean_height(mask: Mask, heights_mm: NDArray[np.float64]) -> float:
    areas = mask.sum(axis=(0, 1))
    return float((areas * heights_mm).sum() / max(areas.sum(), 1))


def _steps(volume: Volume, pixel_mm: float) -> tuple[int, int]:
    i, j = (
        max(1, min(round(pixel_mm / mm), n // 8))
        for mm, n in zip(volume.geometry.spacing_mm, volume.hu.shape, strict=False)
    )
    return i, j


def _block_max(values: NDArray[Any], steps: tuple[int, int]) -> NDArray[Any]:
    """(ni / a, nj / b, nk) the highest value of every block of a x b pixels."""
    ni, nj = _whole_blocks(values, steps)
    return fold_blocks(np.maximum, values[:ni, :nj], steps)


def _block_centres(values: NDArray[Any], steps: tuple[int, int]) -> NDArray[Any]:
    """(ni / a, nj / b, nk) the middle pixel of the same blocks."""
    (a, b), (ni, nj) = steps, _whole_blocks(values, steps)
    return values[a // 2 : ni : a, b // 2 : nj : b]


def _whole_blocks(values: NDArray[Any], steps: tuple[int, int]) -> tuple[int, int]:
    return values.shape[0] // steps[0] * steps[0], values.shape[1] // steps[1] * steps[1]


def _outside(open_space: Mask) -> Mask:
    """What hangs together, slice by slice, with the edge of the picture, through open space."""
    from scipy import ndimage

    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1, :, 1] = in_plane[:, 1, 1] = True
    parts, count = ndimage.label(open_space, structure=in_plane)
    at_edge = np.zeros(count + 1, dtype=bool)
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        at_edge[edge.ravel()] = True
    at_edge[0] = False
    return np.asarray(at_edge[parts])


def _surrounded(tissue: Mask) -> Mask:
    """Tissue, and what has it on three of four sides: sinuses too, open or cut off in front."""
    sides = np.zeros(tissue.shape, dtype=np.uint8)
    for axis in (0, 1):
        sides += np.logical_or.accumulate(tissue, axis=axis)
        sides += np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis=axis), axis)
    return np.asarray(tissue | (sides >= 3))
