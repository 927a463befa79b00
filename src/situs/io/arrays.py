"""Arrays as files store them: a piece of the file, its numbers, and where they lie. World frame RAS+ in mm.

As many bytes are read as the header promises. Small integers that need no rescaling are used where they were
read; everything else is converted piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import InputError
from situs.geometry import Geometry, axial_order
from situs.io.nifti_header import HeaderError, check_affine
from situs.io.stream import ByteStream

__all__ = [
    "NO_DIRECTIONS",
    "ArrayHeader",
    "Convert",
    "FileGrid",
    "NamedSegment",
    "StoredArray",
    "check_axes",
    "check_data_file",
    "check_place",
    "file_grid",
    "read_values",
]

# What a reader says that knows no directions of a file's axes.
NO_DIRECTIONS = (
    "The header has no orientation: i was taken to grow to the patient's left, j to the back, k to the top."
)

Convert = Callable[[NDArray[Any], float], NDArray[Any]]

_PIECE = 2**20  # numbers that are converted together
_LARGEST_WHOLE = 2.0**53  # beyond it a product of whole numbers may not be exact


@dataclass(frozen=True, eq=False)
class StoredArray:
    """How a file stores an array.

    Attributes:
        shape: Sizes of the axes, the first of them running fastest.
        dtype: How a number is stored.
        offset: Bytes before the first number, unpacked if the file is packed.
        slope: A stored number times `slope` plus `inter` is the value.
        inter: See `slope`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    slope: float = 1.0
    inter: float = 0.0

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class NamedSegment:
    """What a file calls a label: the label `value` of channel `layer`."""

    layer: int
    value: int
    name: str


@dataclass(frozen=True, eq=False)
class ArrayHeader:
    """A text header, as NRRD and MetaImage have.

    Attributes:
        stored: How the voxels are stored, with three axes of space and perhaps one of channels.
        affine: (4, 4) where they lie, RAS+ mm.
        oriented: Whether the header says so.
        start: Bytes of the file before the voxels, from where on it may be packed.
        packed: Whether it is.
        data_file: The name of the file with the voxels; None for the same file.
        channel_axis: The stored axis of channels, if there are four axes.
        segments: What the labels are called.
        notes: One sentence for everything that was assumed.
    """

    stored: StoredArray
    affine: NDArray[np.float64]
    oriented: bool
    start: int
    packed: bool
    data_file: str | None = None
    channel_axis: int = 3
    segments: tuple[NamedSegment, ...] = ()
    notes: tuple[str, ...] = ()


def check_data_file(name: str) -> None:
    """Refuse a text header whose voxels lie in several files.

    Args:
        name: The file or files with the voxels, as the header gives them.

    Raises:
        HeaderError: They are a list or a pattern.
    """
    if name.startswith("LIST") or "%" in name:
        raise HeaderError("its voxels are in several files: save it as one file")


def check_place(affine: NDArray[np.float64], sizes: Sequence[int], what: str) -> None:
    """Refuse voxels that cannot lie where a text header puts them.

    Args:
        affine: (4, 4) to RAS+ mm.
        sizes: Of the three axes of space.
        what: What of the header says so, for the error text.

    Raises:
        HeaderError: As for `situs.io.nifti_header.check_affine`.
    """
    try:
        check_affine(affine, tuple(sizes))
    except ValueError as problem:
        raise HeaderError(f"{what} cannot be used ({problem}): export it again") from problem


@dataclass(frozen=True, eq=False)
class FileGrid:
    """The numbers of a file, the slice axis (nearest to feet-head) brought to the third place.

    Attributes:
        values: (ni, nj, nk) integers or floats, the header's scaling applied; (ni, nj, nk, nc) if there are
            channels.
        affine: (4, 4) where they lie, RAS+ mm.
        geometry: The same.
        order: The file's axes in the order of ``values``.
        oriented: False if the header has no orientation, so that its affine is a guess.
        others: (4, 4) each; further affines that the header gives the same voxels.
        notes: One sentence for everything assumed about the grid.
        segments: What the file calls its labels, if it does.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    geometry: Geometry
    order: tuple[int, int, int]
    oriented: bool
    others: tuple[NDArray[np.float64], ...]
    notes: tuple[str, ...]
    segments: tuple[NamedSegment, ...] = ()


def file_grid(
    values: NDArray[Any],
    affine: NDArray[np.float64],
    oriented: bool,
    others: tuple[NDArray[np.float64], ...],
    notes: tuple[str, ...],
    segments: tuple[NamedSegment, ...] = (),
) -> FileGrid:
    """The grid of a file's numbers.

    Args:
        values: (n, m, o) or, with channels, (n, m, o, nc), with the axes of the file.
        affine: (4, 4) where they lie, RAS+ mm.
        oriented: See `FileGrid`.
        others: Further affines of the same axes.
        notes: See `FileGrid`.
        segments: See `FileGrid`.
    """
    order = axial_order(affine)
    axes = [*order, 3]
    values = values.transpose(order if values.ndim == 3 else axes)
    affine = affine[:, axes]
    return FileGrid(
        values,
        affine,
        Geometry.from_affine(values.shape[:3], affine),
        order,
        oriented,
        tuple(other[:, axes] for other in others),
        notes,
        segments,
    )


def check_axes(
    shape: tuple[int, ...], path: Path, error: type[InputError], to_labels: Convert | None
) -> None:
    """Refuse an array with more axes than a scan, or a mask with channels, has."""
    if len(shape) > 3 + (to_labels is not None):
        expected = "three axes" + " and one of channels" * (to_labels is not None)
        text = "x".join(map(str, shape))
        raise error(f"{path}: has shape {text}, expected {expected}: extract one volume")


def read_values(stream: ByteStream, stored: StoredArray, convert: Convert | None = None) -> NDArray[Any]:
    """The numbers of an array, with the axes of its shape, as the header means them.

    Args:
        stream: The file that holds them, from its beginning.
        stored: How they are stored.
        convert: For a mask: makes labels of a piece of its numbers, given the distance between neighbouring
            values that the file can hold.

    Raises:
        InputError: Some of the bytes are missing.
    """
    dtype = stored.dtype
    _check_length(stream, stored, stream.most_bytes)
    stream.skip(stored.offset)
    if stored.slope == 1 and stored.inter == 0 and dtype.kind in "iu" and dtype.itemsize <= 2:
        values = np.empty(stored.count, dtype=dtype)
        _fill(values, stream, stored, 0)
        if not dtype.isnative:
            values = values.byteswap(inplace=True).view(dtype.newbyteorder("="))
    else:
        values = _read_converted(stream, stored, convert)
    stream.check()
    return values.reshape(stored.shape, order="F")


def _fill(values: NDArray[Any], stream: ByteStream, stored: StoredArray, start: int) -> None:
    """Read the numbers from number `start` on, as they are stored."""
    got = stream.read_into(values.view(np.uint8).data)
    if got < values.nbytes:
        _check_length(stream, stored, stored.offset + start * values.itemsize + got)


def _check_length(stream: ByteStream, stored: StoredArray, there: int) -> None:
    missing = stored.offset + stored.count * stored.dtype.itemsize - there
    if missing > 0:
        raise stream.failure(f"truncated: {missing} of its bytes are missing: copy or export it again")


def _read_converted(stream: ByteStream, stored: StoredArray, convert: Convert | None) -> NDArray[Any]:
    """The numbers (n,), scaled and converted piece by piece, in the smallest kind that holds all pieces."""
    step = abs(stored.slope) if stored.dtype.kind in "iu" else 0.0
    values = np.empty(0, dtype=np.uint8)
    buffer = np.empty(min(_PIECE, stored.count), dtype=stored.dtype)
    for start in range(0, stored.count, _PIECE):
        numbers = buffer[: stored.count - start]
        _fill(numbers, stream, stored, start)
        piece = _scale(numbers, stored.slope, stored.inter)
        if convert is not None:
            piece = convert(piece, step)
        floats = "f" in values.dtype.kind + piece.dtype.kind
        kind = np.dtype(np.float32) if floats else np.result_type(values, piece)
        if not start or kind != values.dtype:
            grown = np.empty(stored.count, dtype=kind)
            grown[:start] = values[:start]
            values = grown
        values[start : start + piece.size] = piece
    return values


def _scale(stored: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    """Numbers (n,) times `slope` plus `inter`: the smallest signed integers from 16 bits on, or float32.

    Floats that are whole are kept as integers, which need half the memory.
    """
    whole = stored.dtype.kind in "iu" or (
        slope == 1 and inter == 0 and np.array_equal(stored, np.rint(stored))
    )
    if whole and slope.is_integer() and inter.is_integer():
        ends = [float(end) for end in (stored.min(), stored.max())]
        largest = max(abs(number) for end in ends for number in (end, end * slope, end * slope + inter))
        if max(largest, abs(inter)) < _LARGEST_WHOLE:
            values = stored.astype(np.int64) * int(slope) + int(inter)
            kinds = (kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
            return values.astype(next(kinds))
    with np.errstate(over="ignore", invalid="ignore"):
        floats = stored.astype(np.float32)
        if slope != 1 or inter != 0:
            floats *= np.float32(slope)
            floats += np.float32(inter)
    return floats
