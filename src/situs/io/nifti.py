"""NIfTI files: a scan in any axis order and orientation, as a `Volume`. World frame RAS+ in mm.

The header is judged before a voxel is read, then as many bytes are read as it promises. Small integers that
need no rescaling are used where they were read; everything else is converted piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import InputError, RoiError, ScanError
from situs.geometry import Geometry, axial_order
from situs.io.kinds import dicom_kind, file_kind
from situs.io.nifti_header import HEADER_BYTES, HeaderError, NiftiHeader, is_nifti, parse_header
from situs.io.stream import ByteStream
from situs.io.values import to_hu
from situs.volume import StoredGrid, Volume

__all__ = ["NiftiGrid", "read_nifti", "read_nifti_grid"]

Convert = Callable[[NDArray[Any], float], NDArray[Any]]

_PIECE = 2**20  # numbers that are converted together
_LARGEST_WHOLE = 2.0**53  # beyond it a product of whole numbers may not be exact
_NO_ORIENTATION = "Left and right cannot be trusted: the scan's header has no orientation."


@dataclass(frozen=True, eq=False)
class NiftiGrid:
    """The numbers of a NIfTI file, the slice axis (nearest to feet-head) brought to the third place.

    Attributes:
        values: (ni, nj, nk) integers or floats, the header's scaling applied; (ni, nj, nk, nc) if there are
            channels.
        affine: (4, 4) where they lie, RAS+ mm.
        geometry: The same.
        order: The file's axes in the order of ``values``.
        oriented: False if the header has no orientation code, so that its affine is a guess.
        others: (4, 4) each; further affines that the header gives the same voxels.
        notes: One sentence for everything assumed about the grid.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    geometry: Geometry
    order: tuple[int, int, int]
    oriented: bool
    others: tuple[NDArray[np.float64], ...]
    notes: tuple[str, ...]


def read_nifti(path: Path) -> Volume:
    """A head CT from a NIfTI file.

    Raises:
        ScanError: see `situs.io.read_volume`
    """
    grid = read_nifti_grid(path, ScanError)
    hu, value_notes = to_hu(grid.values, str(path))
    others = tuple(Geometry.from_affine(grid.geometry.shape, affine) for affine in grid.others)
    return Volume(
        hu,
        grid.geometry,
        path.name,
        grid.notes + _slice_notes(grid) + value_notes,
        () if grid.oriented else (_NO_ORIENTATION,),
        StoredGrid(grid.order, grid.oriented, others),
    )


def read_nifti_grid(path: Path, error: type[InputError], to_labels: Convert | None = None) -> NiftiGrid:
    """The numbers of a NIfTI file and where they lie.

    Args:
        path: A single file (.nii, .nii.gz), or either file of a pair (.hdr and .img).
        error: What a file that cannot be read raises.
        to_labels: For a mask, which may have a fourth axis of channels: makes labels of a piece of its
            numbers, given the distance between neighbouring values that the file can hold.

    Raises:
        InputError: The class given.
    """
    header_path = _header_path(path, error)
    with ByteStream(header_path, error) as stream:
        start = stream.peek(HEADER_BYTES)
        if not is_nifti(start):
            raise error(f"{path}: {_other_kind(path, start, error)}")
        try:
            header = parse_header(start)
        except HeaderError as problem:
            raise error(f"{path}: {problem}") from problem
        shape = header.shape
        if len(shape) > 3 + (to_labels is not None):
            expected = "three axes" + " and one of channels" * (to_labels is not None)
            text = "x".join(map(str, shape))
            raise error(f"{path}: has shape {text}, expected {expected}: extract one volume")
        if not header.paired:
            values = _read_values(stream, header, to_labels)
    if header.paired:
        with ByteStream(_image_path(header_path, error), error) as stream:
            values = _read_values(stream, header, to_labels)
    order = axial_order(header.affine)
    axes = [*order, 3]
    affine = header.affine[:, axes]
    values = values.transpose(order if values.ndim == 3 else axes)
    return NiftiGrid(
        values,
        affine,
        Geometry.from_affine(values.shape[:3], affine),
        order,
        header.oriented,
        tuple(other[:, axes] for other in header.others),
        header.notes,
    )


def _other_kind(path: Path, start: bytes, error: type[InputError]) -> str:
    """What is wrong with a file that is not NIfTI."""
    kind, expected = file_kind(start), "NIfTI (.nii, .nii.gz)"
    if kind == "a DICOM file":
        kind = dicom_kind(path)
    if issubclass(error, RoiError):
        expected += " or DICOM (SEG, RTSTRUCT)"
        return f"is {kind or 'no NIfTI file'}, but masks must be {expected}: save the mask as .nii.gz"
    if issubclass(error, ScanError):
        expected += " or DICOM"
    return f"is {kind or 'of an unknown kind'}, expected {expected}: save it as .nii.gz"


def _header_path(path: Path, error: type[InputError]) -> Path:
    """The file that holds the header: the .hdr file of a pair that is given by its .img file."""
    name = path.name.removesuffix(".gz")
    if not name.lower().endswith(".img"):
        return path
    with ByteStream(path, error) as stream:
        if is_nifti(stream.peek(HEADER_BYTES)):
            return path
    for other in _siblings(path.with_name(name), ".hdr"):
        return other
    raise error(f"{path}: its header file (.hdr) is missing: put it into the same folder")


def _image_path(path: Path, error: type[InputError]) -> Path:
    for other in _siblings(path.with_name(path.name.removesuffix(".gz")), ".img"):
        return other
    raise error(f"{path}: the file with its voxels (.img) is missing: put it into the same folder")


def _siblings(path: Path, suffix: str) -> list[Path]:
    names = [path.with_suffix(ending) for ending in (suffix, suffix.upper())]
    return [p for name in names for p in (name, name.with_name(name.name + ".gz")) if p.is_file()]


def _read_values(stream: ByteStream, header: NiftiHeader, convert: Convert | None) -> NDArray[Any]:
    """The numbers (ni, nj, nk, ...) from the file that holds them, as the header means them."""
    dtype = header.dtype
    _check_length(stream, header, stream.most_bytes)
    stream.skip(header.offset)
    if header.slope == 1 and header.inter == 0 and dtype.kind in "iu" and dtype.itemsize <= 2:
        values = np.empty(header.count, dtype=dtype)
        _fill(values, stream, header, 0)
        if not dtype.isnative:
            values = values.byteswap(inplace=True).view(dtype.newbyteorder("="))
    else:
        values = _read_converted(stream, header, convert)
    stream.check()
    return values.reshape(header.shape, order="F")


def _fill(values: NDArray[Any], stream: ByteStream, header: NiftiHeader, start: int) -> None:
    """Read the numbers from number `start` on, as they are stored."""
    got = stream.read_into(values.view(np.uint8).data)
    if got < values.nbytes:
        _check_length(stream, header, header.offset + start * values.itemsize + got)


def _check_length(stream: ByteStream, header: NiftiHeader, there: int) -> None:
    missing = header.offset + header.count * header.dtype.itemsize - there
    if missing > 0:
        raise stream.failure(f"truncated: {missing} of its bytes are missing: copy or export it again")


def _read_converted(stream: ByteStream, header: NiftiHeader, convert: Convert | None) -> NDArray[Any]:
    """The numbers (n,), scaled and converted piece by piece, in the smallest kind that holds all pieces."""
    step = abs(header.slope) if header.dtype.kind in "iu" else 0.0
    values = np.empty(0, dtype=np.uint8)
    buffer = np.empty(min(_PIECE, header.count), dtype=header.dtype)
    for start in range(0, header.count, _PIECE):
        stored = buffer[: header.count - start]
        _fill(stored, stream, header, start)
        piece = _scale(stored, header.slope, header.inter)
        if convert is not None:
            piece = convert(piece, step)
        floats = "f" in values.dtype.kind + piece.dtype.kind
        kind = np.dtype(np.float32) if floats else np.result_type(values, piece)
        if not start or kind != values.dtype:
            grown = np.empty(header.count, dtype=kind)
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


def _slice_notes(grid: NiftiGrid) -> tuple[str, ...]:
    """What is unusual about the way the slices lie."""
    g, notes = grid.geometry, []
    if grid.order != (0, 1, 2):
        notes.append(f"The slices were found along axis {grid.order[2] + 1} of the file, not the third.")
    if g.tilt_deg > 0.5:
        notes.append(f"The slices are sheared by {g.tilt_deg:.1f} degrees (gantry tilt); kept as they are.")
    skew = abs(float(g.step_i @ g.step_j)) / (g.spacing_mm[0] * g.spacing_mm[1])
    if skew > 0.01:
        notes.append("The affine skews the pixels within the slices; it was used as it is.")
    gap = float(g.slice_gaps_mm.mean()) if g.shape[2] > 1 else 0.0
    # Slices are taken with square pixels: axial ones may be thinner than these, others are not square here.
    if gap and max(g.spacing_mm) > 1.5 * gap and max(g.spacing_mm) > 1.5 * min(g.spacing_mm):
        notes.append(
            f"The scan was taken in slices that are not axial, {max(g.spacing_mm):.1f} mm apart; "
            "axial slices were cut across them."
        )
    oblique = float(np.degrees(np.arccos(min(1.0, g.normal[2]))))
    if oblique > 30:
        notes.append(f"The slices are turned by {oblique:.0f} degrees from the patient's axial plane.")
    return tuple(notes)
