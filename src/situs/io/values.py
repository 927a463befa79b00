"""Are these numbers Hounsfield units, or a window of them? What values are taken for is decided here.

Values that cannot be HU are refused; those that can be brought to HU are, and the assumption is said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import ScanError
from situs.views import BRAIN_WINDOW_HU
from situs.volume import bounding_box

__all__ = ["AIR_HU", "to_hu"]

AIR_HU = -1024  # the lowest value that scanners store for air; anything below is padding

_BRAIN_HU = 35.0  # where gray and white matter peak together (30 to 40)
_PADDING_GAP = 100.0  # from padding to the lowest value that was measured


def to_hu(values: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Take a scan's values for Hounsfield units, or refuse them.

    Args:
        values: (ni, nj, nk) integers or floats as the file means them (its own rescaling applied). They may
            be changed in place.
        name: The scan's file, for the error text.

    Returns:
        (ni, nj, nk) int16 or float32 HU, at least `AIR_HU`; and one sentence per assumption.

    Raises:
        ScanError: For infinite values, a constant, values normalised to 0..1, or no tissue at all.
    """
    hu, notes = _compact(values), []
    no_picture = np.isnan(hu) if hu.dtype.kind == "f" and np.isnan(hu.min()) else None
    if no_picture is not None:
        if no_picture.all():
            raise ScanError(f"{name}: all voxels are NaN: export the scan again")
        hu[no_picture] = np.nanmin(hu)
        notes.append(
            f"{_percent_text(no_picture)} of the voxels are NaN (padding) and were set to {AIR_HU} HU."
        )
    low, high = float(hu.min()), float(hu.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ScanError(f"{name}: some voxels are infinite, expected HU: export the scan again")
    _refuse_impossible(low, high, hu.dtype.kind != "f", name)
    hu, scale_notes = _rescaled(hu, low, high)
    notes += scale_notes
    if no_picture is not None:
        hu[no_picture] = AIR_HU
    low, high = float(hu.min()), float(hu.max())
    if low < AIR_HU:
        np.maximum(hu, hu.dtype.type(AIR_HU), out=hu)
        notes.append(f"Values under {AIR_HU} HU (padding, down to {low:g}) were set to {AIR_HU} HU.")
    sample = _sample(hu)
    if np.count_nonzero((sample > -20) & (sample < 100)) < 1e-3 * sample.size:
        raise ScanError(
            f"{name}: values from {low:g} to {high:g} with next to none between -20 and 100 cannot be "
            "HU of a head: export the CT in Hounsfield units"
        )
    if (low > -500 or high < 500) and not notes:
        notes.append(f"The values are limited to {low:g}..{high:g} HU; what lies beyond was cut off before.")
    return hu, tuple(notes)


def _percent_text(mask: NDArray[np.bool_]) -> str:
    percent = 100 * np.count_nonzero(mask) / mask.size
    return f"{percent:.0f} %" if percent >= 1 else "Less than 1 %"


def _refuse_impossible(low: float, high: float, whole: bool, name: str) -> None:
    found = f"{name}: the values run from {low:g} to {high:g}"
    advice = "export the CT in Hounsfield units"
    if low == high:
        raise ScanError(f"{name}: all voxels hold the same value, {low:g}: this is not a scan")
    if low >= -1 and high <= 1 and not whole:
        raise ScanError(f"{found}, so they were normalised and are no HU nor a window of them: {advice}")
    if high - low < 30:
        mask = " (is this the mask? It belongs after --roi)" if whole else ""
        raise ScanError(f"{found}, too few to be HU or a window of them{mask}: {advice}")
    if low < -100_000 or high > 70_000:
        raise ScanError(f"{found}, more than HU can: {advice}")


def _rescaled(values: NDArray[Any], low: float, high: float) -> tuple[NDArray[Any], list[str]]:
    """HU from HU with an offset, or from an 8-bit picture of a window; anything else stays as it is."""
    sample = _sample(values)
    if (brain := _offset_brain(sample)) is not None:
        offset = 1024 if brain > _BRAIN_HU + 1012 else 1000
        np.maximum(values, values.dtype.type(AIR_HU + offset), out=values)  # padding, which could wrap
        values -= values.dtype.type(offset)
        return values, [f"The values are HU + {offset} (brain at {brain:.0f}): corrected."]
    if low < 0 or high > 255:
        return values, []
    peak = _mode(sample[(sample > 0) & (sample < high)])
    if peak <= 55:  # brain is where HU have it
        return values, []
    if np.count_nonzero(sample >= 250) > 0.01 * np.count_nonzero(sample):  # bone is cut off: narrow
        low_hu, slope = BRAIN_WINDOW_HU[0], (BRAIN_WINDOW_HU[1] - BRAIN_WINDOW_HU[0]) / 255
        note = "as the brain window (level 40, width 80): 0 is 0 HU, 255 is 80 HU"
    else:
        low_hu, slope = -1000.0, (_BRAIN_HU + 1000) / peak
        note = f"in a wide window: 0 as air (-1000 HU), {peak:.0f} as brain ({_BRAIN_HU:g} HU)"
    hu = values.astype(np.float32) * np.float32(slope) + np.float32(low_hu)
    return hu, [f"The scan is an 8-bit picture and was taken {note}."]


def _offset_brain(sample: NDArray[Any]) -> float | None:
    """Where brain lies in values (ni, nj, nk) that are HU with an offset of about 1000; None if they are not.

    Padding is set apart: the lowest value, if none follows within `_PADDING_GAP`. Of the others, hardly any
    may lie where air is without an offset. In the middle of what is above 700 (bone, or with an offset all
    tissue) there must be more brain of the one kind than of the other, near 35.
    """
    low = sample.min()
    body = sample[sample > low]
    if not body.size or float(body.min()) - float(low) < _PADDING_GAP:
        body = sample.ravel()
    brain = _mode(body[(body > 700) & (body < 1400)], least_share=0.4)
    if not 990 <= brain <= 1110 or np.count_nonzero(body < -200) > 1e-3 * body.size:
        return None
    if np.count_nonzero(sample < 200) < 0.05 * sample.size:  # air, or padding
        return None
    middle = sample[
        tuple(
            slice(s.start + (s.stop - s.start) // 3, s.stop - (s.stop - s.start) // 3)
            for s in bounding_box(sample > 700)
        )
    ]
    with_offset = np.count_nonzero(np.abs(middle - brain) < 100)
    return brain if with_offset > np.count_nonzero((middle > -100) & (middle < 200)) else None


def _mode(values: NDArray[Any], least_share: float = 0.0) -> float:
    """The most frequent value, the histogram smoothed over some 9 steps; 0 if too few values are near it."""
    if values.size == 0:
        return 0.0
    counts = np.bincount(np.round(values).astype(np.int64)).astype(np.float64)
    mode = int(np.argmax(np.convolve(counts, np.hanning(11), mode="same")))
    near = counts[max(0, mode - 40) : mode + 41].sum()
    return float(mode) if near >= least_share * values.size else 0.0


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """About a 16th of the voxels or fewer: enough for histograms, quick on large scans."""
    step_k = max(1, values.shape[2] // 32)
    step = 4 if min(values.shape[:2]) >= 128 else 1
    return values[::step, ::step, ::step_k]


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if values.dtype == np.int16 and values.dtype.isnative:
        return values
    limits = np.iinfo(np.int16)
    fits = limits.min <= values.min() and values.max() <= limits.max
    return values.astype(np.int16 if fits else np.float32)
