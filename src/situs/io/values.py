"""Are these numbers Hounsfield units, or a window of them? What values are taken for is decided here.

Values that cannot be HU are refused; those that can be brought to HU are, and the assumption is said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import ScanError
from situs.views import BRAIN_WINDOW_HU

__all__ = ["AIR_HU", "to_hu"]

AIR_HU = -1024  # the lowest value that scanners store for air; anything below is padding

_BRAIN_HU = 35.0  # where gray and white matter peak together (30 to 40)


def to_hu(values: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Take a scan's stored values for Hounsfield units, or refuse them.

    Args:
        values: (ni, nj, nk) integers or floats as the file means them (its own rescaling applied)
        name: the scan's file, for the error text

    Returns:
        (ni, nj, nk) int16 or float32 HU, at least `AIR_HU`; and one sentence per assumption

    Raises:
        ScanError: for NaN or infinite values, a constant, values normalised to 0..1, or no tissue at all
    """
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.count_nonzero(~np.isfinite(values))
        raise ScanError(f"{name}: {bad} voxels are NaN or infinite: set them to {AIR_HU}")
    low, high = float(low), float(high)
    _refuse_impossible(low, high, name)
    notes: list[str] = []
    if low >= 0:
        values, notes = _from_unsigned(values, high)
    hu = _compact(values)
    low, high = float(hu.min()), float(hu.max())
    if low < AIR_HU:
        hu = np.maximum(hu, hu.dtype.type(AIR_HU))
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


def _refuse_impossible(low: float, high: float, name: str) -> None:
    found = f"{name}: the values run from {low:g} to {high:g}"
    advice = "export the CT in Hounsfield units"
    if low == high:
        raise ScanError(f"{name}: all voxels hold the same value, {low:g}: this is not a scan")
    if low >= -1 and high <= 1:
        raise ScanError(f"{found}, so they were normalised and are no HU nor a window of them: {advice}")
    if high - low < 30:
        raise ScanError(f"{found}, too few to be HU or a window of them (is this a mask?): {advice}")
    if low < -100_000 or high > 70_000:
        raise ScanError(f"{found}, more than HU can: {advice}")


def _from_unsigned(values: NDArray[Any], high: float) -> tuple[NDArray[Any], list[str]]:
    """Values without a negative one: HU with an offset, HU cut at 0, or an 8-bit picture of a window."""
    sample = _sample(values).ravel()
    offset_peak = _mode(sample[(sample > 700) & (sample < 1400)], least_share=0.4)
    if 990 <= offset_peak <= 1110 and np.count_nonzero(sample < 200) > 0.05 * sample.size:
        offset = 1024 if offset_peak > _BRAIN_HU + 1012 else 1000
        note = f"The values are HU + {offset} (brain at {offset_peak:.0f}, no value below 0): corrected."
        wide = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
        return wide - wide.dtype.type(offset), [note]
    peak = _mode(sample[(sample > 0) & (sample < high)])
    if peak <= 55 or high > 255:  # brain is where HU have it: HU cut at 0. Or else nothing known (MR?)
        return values, []
    if np.count_nonzero(sample >= 250) > 0.01 * np.count_nonzero(sample):  # bone is cut off: narrow
        low_hu, slope = BRAIN_WINDOW_HU[0], (BRAIN_WINDOW_HU[1] - BRAIN_WINDOW_HU[0]) / 255
        note = "as the brain window (level 40, width 80): 0 is 0 HU, 255 is 80 HU"
    else:
        low_hu, slope = -1000.0, (_BRAIN_HU + 1000) / peak
        note = f"in a wide window: 0 as air (-1000 HU), {peak:.0f} as brain ({_BRAIN_HU:g} HU)"
    hu = values.astype(np.float32) * np.float32(slope) + np.float32(low_hu)
    return hu, [f"The scan is an 8-bit picture and was taken {note}."]


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
