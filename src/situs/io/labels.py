"""A mask's numbers as whole labels, 0 where there is no lesion; refuses what is no mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.io.regrid import iter_values

__all__ = ["Labels", "Layer", "Threshold", "WholeNumbers", "refuse_noise", "to_layers"]

_LEAST_TOLERANCE, _MOST_TOLERANCE = 0.05, 0.25  # from a whole number
_MOST_NEGATIVE = 8  # different negative labels; a scan has hundreds
_LOWEST = -(2**20)
_MOST_REGIONS = 10_000
_MOST_LESIONS = 10_000
_NOISE_RUNS = 50_000  # as many runs of equal labels along a row, and as many of the marked voxels begin one
_NOISE_SHARE = 0.4
_PROBABILITY_ROUNDING = 1e-3
_EXACT_FLOAT = 2**24  # single precision holds all whole numbers up to here

Labels = NDArray[Any]
Layer = tuple[int | None, Labels]


class WholeNumbers:
    """Makes whole numbers of a mask's, piece by piece, so that a mask of floats needs little memory.

    Args:
        name: The mask's file, for the error text.
    """

    def __init__(self, name: str) -> None:
        self._name, self._had_nan, self._farthest = name, False, 0.0

    def __call__(self, values: NDArray[Any], step: float) -> Labels:
        """Whole numbers of the smallest kind.

        Args:
            values: Numbers. They may be changed in place.
            step: The distance between neighbouring values that the file can hold; 0 for floats.

        Raises:
            RoiError: They are infinite, too large, or not whole up to rounding.
        """
        is_float = values.dtype.kind == "f"
        if is_float and np.isnan(values.max()):
            values[np.isnan(values)] = 0
            self._had_nan = True
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RoiError(
                f"{self._name}: holds infinite values, expected whole numbers: save it as integers"
            )
        most = _EXACT_FLOAT if is_float else 2**31
        if high >= most or low < _LOWEST:
            raise RoiError(
                f"{self._name}: holds values from {low:g} to {high:g}, expected labels below {most}: "
                "renumber them and save it as integers"
            )
        whole = self._rounded(values, step) if is_float else values
        ends = (int(np.floor(low)), int(np.ceil(high)))
        return whole.astype(np.result_type(*(np.min_scalar_type(end) for end in ends)), copy=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each assumption about the numbers so far."""
        notes = []
        if self._had_nan:
            notes.append("Voxels of the mask that are NaN were taken for 0.")
        if self._farthest > 0:
            notes.append(f"Labels of the mask were rounded to whole numbers (by up to {self._farthest:.2g}).")
        return tuple(notes)

    def _rounded(self, values: NDArray[Any], step: float) -> NDArray[Any]:
        nearest = np.rint(values)
        off = np.abs(values - nearest)
        tolerance = min(max(_LEAST_TOLERANCE, 0.51 * step), _MOST_TOLERANCE)
        if (largest := float(off.max())) > tolerance:
            example = float(values.flat[off.argmax()])
            raise RoiError(
                f"{self._name}: holds values that are not whole (such as {example:.3g}), expected 0, 1, ...: "
                "save labels as integers; for probabilities add --threshold 0.5"
            )
        self._farthest = max(self._farthest, largest)
        return nearest


class Threshold:
    """Makes labels of probabilities, piece by piece: 1 where they reach a threshold, else 0.

    Args:
        name: The mask's file, for the error text.
        least: The threshold, in (0, 1].
    """

    def __init__(self, name: str, least: float) -> None:
        self._name, self._least = name, least

    def __call__(self, values: NDArray[Any], step: float) -> Labels:
        """1 and 0 for probabilities; NaN is 0.

        Raises:
            RoiError: They are no probabilities.
        """
        values = np.nan_to_num(values, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
        low, high = float(values.min()), float(values.max())
        if low < -_PROBABILITY_ROUNDING or high > 1 + _PROBABILITY_ROUNDING:
            raise RoiError(
                f"{self._name}: holds values from {low:g} to {high:g}, expected probabilities from 0 to 1: "
                "divide them by the largest, or leave --threshold out if they are labels"
            )
        # 0.7 in single precision is less than 0.7, and reaches it all the same.
        least = values.dtype.type(self._least) if values.dtype.kind == "f" else self._least
        return (values >= least).astype(np.uint8)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""
        return (f"Voxels of the mask with a probability of at least {self._least:g} were taken.",)


def to_layers(labels: Labels, name: str, named: bool = False) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers of a mask.

    Args:
        labels: (ni, nj, nk) or, with channels, (ni, nj, nk, nc) whole numbers. They may be changed in place.
        name: The mask's file, for the error text.
        named: Whether the file names its labels, which may be several in a channel.

    Returns:
        The layers, and one sentence per assumption. Without channels there is one layer, (None, labels),
        whose labels are the values of the regions; with channels whose labels are named, there is one
        such layer for each. With other channels there is a layer for each that is not
        empty, (value, labels), in which all that is not 0 is the region of that value.

    Raises:
        RoiError: It is empty, or no mask.
    """
    notes = []
    if labels.min() < 0:
        _check_negative(labels, name)
        np.maximum(labels, 0, out=labels)
        notes.append("Negative labels of the mask are no lesion and were left out.")
    high = int(labels.max())
    if high == 0:
        raise RoiError(f"{name}: the mask is empty (no voxel is above 0): draw a region")
    labels = labels.astype(np.min_scalar_type(high), copy=False)
    if labels.ndim == 3:
        layers: list[Layer] = [(None, labels)]
    elif named:
        layers = [(None, labels[..., channel]) for channel in range(labels.shape[3])]
    else:
        layers, channel_notes = _channels(labels, name)
        notes += channel_notes
    for _, layer in layers:
        refuse_noise(layer, name)
    return layers, tuple(notes)


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
    values = [int(labels[..., c].max()) for c in range(labels.shape[3])]
    background = True
    for k in range(labels.shape[2]):  # a slice at a time, which takes no memory
        planes = labels[:, :, k]
        several = ((planes != 0) & (planes != values)).any(axis=(0, 1))
        if several.any():
            raise RoiError(
                f"{name}: channel {several.argmax() + 1} of {labels.shape[3]} holds several labels, expected "
                "one region a channel: save a mask with three axes"
            )
        background = background and not np.any((planes[..., 0] > 0) == (planes[..., 1:] > 0).any(axis=2))
    first = 1 if background else 0
    notes = [f"The mask has {labels.shape[3]} channels; each that is not empty was taken for a region."]
    if background:
        notes.append("The first channel of the mask is all that the others leave; it is no region.")
    chosen = [c for c in range(first, labels.shape[3]) if values[c]]
    if not chosen:
        raise RoiError(f"{name}: the mask is empty (no voxel of a region): draw a region")
    return [(c + 1 - first, labels[..., c]) for c in chosen], notes


def refuse_noise(labels: Labels, name: str) -> None:
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
