"""A mask's numbers as whole labels, 0 where there is no lesion; refuses what is no mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.io.regrid import iter_values

__all__ = ["Labels", "Layer", "to_labels"]

_LEAST_TOLERANCE, _MOST_TOLERANCE = 0.05, 0.25  # from a whole number
_MOST_NEGATIVE = 8  # different negative labels; a scan has hundreds
_LOWEST = -(2**20)
_MOST_REGIONS = 10_000
_MOST_LESIONS = 10_000
_NOISE_RUNS = 50_000  # as many runs of equal labels along a row, and as many of the marked voxels begin one
_NOISE_SHARE = 0.4
_EXACT_FLOAT = 2**24  # single precision holds all whole numbers up to here

Labels = NDArray[Any]
Layer = tuple[int | None, Labels]


def to_labels(values: NDArray[Any], step: float, name: str) -> tuple[list[Layer], tuple[str, ...]]:
    """The labels of a mask.

    Args:
        values: (ni, nj, nk) or, with channels, (ni, nj, nk, nc) numbers. They may be changed in place.
        step: The distance between neighbouring values that the file can hold; 0 for floats.
        name: The mask's file, for the error text.

    Returns:
        The layers, and one sentence per assumption. Without channels there is one layer, (None, labels),
        whose labels are the values of the regions. With channels there is a layer for each that is not
        empty, (value, labels), in which all that is not 0 is the region of that value.

    Raises:
        RoiError: It is empty, or no mask.
    """
    labels, notes = _whole_numbers(values, step, name)
    if labels.ndim == 3:
        layers: list[Layer] = [(None, labels)]
    else:
        layers, channel_notes = _channels(labels, name)
        notes += channel_notes
    for _, layer in layers:
        _refuse_noise(layer, name)
    return layers, tuple(notes)


def _whole_numbers(values: NDArray[Any], step: float, name: str) -> tuple[Labels, list[str]]:
    """Whole numbers from 0 on, of the smallest kind."""
    notes = []
    if values.dtype.kind == "f" and np.isnan(values.max()):
        for k in range(values.shape[2]):  # a slice at a time, which takes no memory
            values[:, :, k][np.isnan(values[:, :, k])] = 0
        notes.append("Voxels of the mask that are NaN were taken for 0.")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RoiError(f"{name}: holds infinite values, expected whole numbers: save it as integers")
    most = 2**31 if values.dtype.kind in "iu" else _EXACT_FLOAT
    if high >= most or low < _LOWEST:
        raise RoiError(
            f"{name}: holds values from {low:g} to {high:g}, expected labels below {most}: renumber them and "
            "save it as integers"
        )
    whole = values if values.dtype.kind in "iu" else _rounded(values, step, name, notes)
    if low < 0:
        _check_negative(whole, name)
        whole = np.maximum(whole, 0)
        notes.append("Negative labels of the mask are no lesion and were left out.")
    if whole.max() == 0:
        raise RoiError(f"{name}: the mask is empty (no voxel is above 0): draw a region")
    return whole.astype(np.min_scalar_type(int(high)), copy=False), notes


def _rounded(values: NDArray[Any], step: float, name: str, notes: list[str]) -> Labels:
    """Floats as whole numbers, where they are whole up to rounding."""
    ends = (int(np.floor(values.min())), int(np.ceil(values.max())))
    kind = np.result_type(*(np.min_scalar_type(end) for end in ends))
    whole = np.empty_like(values, dtype=kind)  # in the order of the values in memory
    tolerance = min(max(_LEAST_TOLERANCE, 0.51 * step), _MOST_TOLERANCE)
    farthest = 0.0
    for k in range(values.shape[2]):
        plane = values[:, :, k]
        nearest = np.rint(plane)
        off = np.abs(plane - nearest)
        if (largest := float(off.max())) > tolerance:
            example = float(plane[np.unravel_index(off.argmax(), off.shape)])
            raise RoiError(
                f"{name}: holds values that are not whole (such as {example:.3g}), expected 0, 1, ...: "
                "threshold it and save it as integers"
            )
        farthest = max(farthest, largest)
        whole[:, :, k] = nearest
    if farthest > 0:
        notes.append(f"Labels of the mask were rounded to whole numbers (by up to {farthest:.2g}).")
    return whole


def _check_negative(labels: Labels, name: str) -> None:
    different: set[int] = set()
    for k in range(labels.shape[2]):
        plane = labels[:, :, k]
        different.update(np.unique(plane[plane < 0]).tolist())
        if len(different) > _MOST_NEGATIVE:
            raise RoiError(
                f"{name}: holds many negative values (such as {min(different)}), expected 0, 1, ...: is this "
                "the scan?"
            )


def _channels(labels: Labels, name: str) -> tuple[list[Layer], list[str]]:
    """The layers of labels (ni, nj, nk, nc), and notes.

    A first channel that holds what no other does is the background, as in one-hot predictions.
    """
    marked = np.stack([labels[..., c].any() for c in range(labels.shape[3])])
    for channel in np.flatnonzero(marked):
        layer = labels[..., channel]
        if np.count_nonzero(layer == layer.max()) != np.count_nonzero(layer):
            raise RoiError(
                f"{name}: channel {channel + 1} of {labels.shape[3]} holds several labels, expected one "
                "region a channel: save a mask with three axes"
            )
    background = not np.any((labels[..., 0] > 0) == (labels[..., 1:] > 0).any(axis=3))
    first = 1 if background else 0
    notes = [f"The mask has {labels.shape[3]} channels; each that is not empty was taken for a region."]
    if background:
        notes.append("The first channel of the mask is all that the others leave; it is no region.")
    chosen = [c for c in range(first, labels.shape[3]) if marked[c]]
    if not chosen:
        raise RoiError(f"{name}: the mask is empty (no voxel of a region): draw a region")
    return [(c + 1 - first, labels[..., c]) for c in chosen], notes


def _refuse_noise(labels: Labels, name: str) -> None:
    """Refuse a mask of more regions or lesions than anybody drew: noise, or a scan."""
    runs, marked = 0, 0
    counts = np.zeros(int(labels.max()) + 1 if labels.max() < 2**20 else 0, dtype=np.int64)
    for k in range(labels.shape[2]):
        plane = labels[:, :, k]
        if not plane.any():
            continue
        begins = plane != 0
        marked += int(np.count_nonzero(begins))
        begins[1:] &= plane[1:] != plane[:-1]
        runs += int(np.count_nonzero(begins))
        if counts.size:
            counts += np.bincount(plane.ravel(), minlength=counts.size)
    regions = np.count_nonzero(counts[1:]) if counts.size else np.unique(labels[labels > 0]).size
    if regions > _MOST_REGIONS:
        raise RoiError(f"{name}: holds {regions} labels, expected at most {_MOST_REGIONS}: is this the scan?")
    if runs > _NOISE_RUNS and runs > _NOISE_SHARE * marked:
        raise RoiError(
            f"{name}: its labels are scattered like noise over {marked} voxels, expected lesions that hang "
            "together: is this the scan?"
        )
    if runs > _MOST_LESIONS and _count_lesions(labels) > _MOST_LESIONS:
        raise RoiError(f"{name}: holds more than {_MOST_LESIONS} separate lesions: remove the specks")


def _count_lesions(labels: Labels) -> int:
    """How many connected parts there are, or more than `_MOST_LESIONS`."""
    from scipy import ndimage

    count = 0
    for value, box in iter_values(labels):
        count += ndimage.label(labels[box] == value, structure=np.ones((3, 3, 3)))[1]
        if count > _MOST_LESIONS:
            break
    return count
