"""NIfTI files: a scan in any axis order and orientation, as a `Volume`. World frame RAS+ in mm.

The file is decompressed in one go, which checks its checksum, and its numbers are used where they lie:
integers that need no rescaling are never copied.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import InputError, ScanError
from situs.geometry import Geometry, axial_order
from situs.io.values import to_hu
from situs.volume import Volume

__all__ = ["NiftiGrid", "read_nifti", "read_nifti_grid"]

_VOXEL_MM = (0.02, 200.0)  # beyond these a header is wrong, or not in mm
_FARTHEST_MM = 1e6


@dataclass(frozen=True, eq=False)
class NiftiGrid:
    """The numbers of a NIfTI file, the slice axis (nearest to feet-head) brought to the end.

    Attributes:
        values: (ni, nj, nk) integers or floats, the header's scaling applied; may be read-only
        affine: (4, 4) where they lie, RAS+ mm
        geometry: the same
        order: the file's axes in the order of ``values``
        oriented: False if the header has no orientation code, so that its affine is a guess
        notes: one sentence for everything assumed about the grid
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    geometry: Geometry
    order: tuple[int, int, int]
    oriented: bool
    notes: tuple[str, ...]


def read_nifti(path: Path) -> Volume:
    """A head CT from a NIfTI file.

    Raises:
        ScanError: see `situs.io.read_volume`
    """
    grid = read_nifti_grid(path, ScanError)
    hu, value_notes = to_hu(grid.values, str(path))
    return Volume(hu, grid.geometry, path.name, grid.notes + _slice_notes(grid) + value_notes)


def read_nifti_grid(path: Path, error: type[InputError]) -> NiftiGrid:
    """The numbers of a NIfTI file and where they lie; `error` is what a file that cannot be read raises."""
    payload = _read_bytes(path, error)
    with _quiet_nibabel():
        header = _read_header(payload, path, error)
        values = _read_values(header, payload, path, error)
        affine, oriented, notes = _best_affine(header, path, error)
    if values.ndim < len(header.get_data_shape()):
        notes.append("Further axes of the file, all of length 1, were left out.")
    try:
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
            raise ValueError("not finite, or flat")
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if sizes.min() < _VOXEL_MM[0] or sizes.max() > _VOXEL_MM[1]:
            raise ValueError(f"voxels of {' x '.join(f'{s:.3g}' for s in sizes)} mm")
        if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
            raise ValueError("the first voxel lies kilometres away")
        order = axial_order(affine)
        affine, values = affine[:, [*order, 3]], values.transpose(order)
        geometry = Geometry.from_affine(values.shape, affine)
    except ValueError as problem:
        raise error(f"{path}: its affine cannot be used ({problem}): export it again") from problem
    return NiftiGrid(values, affine, geometry, order, oriented, tuple(notes))


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """nibabel logs and warns about headers; what matters of that is checked here and said once."""
    from nibabel import imageglobals

    logger, before = imageglobals.logger, imageglobals.logger.disabled
    logger.disabled = True  # without a handler, logging would still print to standard error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _read_bytes(path: Path, error: type[InputError]) -> bytes:
    if not path.is_file():
        kind = "a folder, expected a NIfTI file" if path.is_dir() else "no such file"
        raise error(f"{path}: {kind}")
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise error(f"{path}: truncated or corrupt gzip file: copy or export it again") from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    if not data:
        raise error(f"{path}: the file is empty")
    return data


def _read_header(payload: bytes, path: Path, error: type[InputError]) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if payload[344:348] == b"n+1\0":
        kind = Nifti1Header
    elif payload[4:8] == b"n+2\0":
        kind = Nifti2Header
    else:
        raise error(f"{path}: neither a NIfTI file (.nii, .nii.gz) nor DICOM: convert it to one of them")
    try:
        return kind.from_fileobj(io.BytesIO(payload))
    except Exception as problem:  # whatever a damaged header sets off inside nibabel
        raise error(f"{path}: damaged NIfTI header ({_first_line(problem)}): export it again") from problem


def _read_values(header: Any, payload: bytes, path: Path, error: type[InputError]) -> NDArray[Any]:
    try:
        dtype, shape, start = header.get_data_dtype(), header.get_data_shape(), int(header.get_data_offset())
        slope, inter = header.get_slope_inter()
    except Exception as problem:
        raise error(f"{path}: damaged NIfTI header ({_first_line(problem)}): export it again") from problem
    if dtype.kind not in "iuf":
        what = {"V": "RGB colours", "c": "complex numbers"}.get(dtype.kind, str(dtype))
        raise error(f"{path}: holds {what}, expected one number per voxel: export gray values")
    kept = tuple(shape[:3]) + tuple(n for n in shape[3:] if n != 1)
    kept += (1,) * (3 - len(kept))
    if len(kept) != 3:
        raise error(f"{path}: has shape {'x'.join(map(str, shape))}, expected three axes: extract one volume")
    count = int(np.prod(kept, dtype=np.int64))
    missing = start + count * dtype.itemsize - len(payload)
    if count < 1 or missing > 0:
        raise error(f"{path}: truncated: {max(missing, 0)} of its bytes are missing: copy or export it again")
    values = np.frombuffer(payload, dtype, count, start).reshape(kept, order="F")
    if not dtype.isnative:
        values = values.astype(dtype.newbyteorder("="))
    return _scale(values, 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))


def _scale(values: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    if slope == 1 and inter == 0:
        return values
    ends = [float(v) * slope + inter for v in (values.min(), values.max())]
    whole = values.dtype.kind in "iu" and slope.is_integer() and inter.is_integer()
    if whole and min(ends) >= -(2**15) and max(ends) < 2**15:
        return (values.astype(np.int32) * int(slope) + int(inter)).astype(np.int16)
    return np.asarray(values * np.float32(slope) + np.float32(inter), dtype=np.float32)


def _best_affine(
    header: Any, path: Path, error: type[InputError]
) -> tuple[NDArray[np.float64], bool, list[str]]:
    """The sform where it is coded, else the qform, else what the voxel sizes alone suggest."""
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except Exception as problem:  # an impossible quaternion
        raise error(f"{path}: damaged NIfTI header ({_first_line(problem)}): export it again") from problem
    if sform is None and qform is None:
        note = (
            "The header has no orientation (sform and qform codes are 0): i was taken to grow to the "
            "patient's left, j to the front, k to the top; left and right cannot be trusted."
        )
        return np.asarray(header.get_base_affine(), dtype=np.float64), False, [note]
    if sform is None:
        return np.asarray(qform, dtype=np.float64), True, []
    notes = []
    if qform is not None:
        shape = (*header.get_data_shape()[:3], 1, 1)[:3]
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
        off = float(np.linalg.norm((sform - qform)[:3, :3] @ corners + (sform - qform)[:3, 3:], axis=0).max())
        if off > 1:
            notes.append(f"sform and qform of the header differ by up to {off:.0f} mm; the sform was used.")
    return np.asarray(sform, dtype=np.float64), True, notes


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
    if gap and max(g.spacing_mm) > 1.5 * gap:
        notes.append(
            f"The scan was taken in slices that are not axial, {max(g.spacing_mm):.1f} mm apart; "
            "axial slices were cut across them."
        )
    oblique = float(np.degrees(np.arccos(min(1.0, g.normal[2]))))
    if oblique > 30:
        notes.append(f"The slices are turned by {oblique:.0f} degrees from the patient's axial plane.")
    return tuple(notes)


def _first_line(problem: Exception) -> str:
    lines = str(problem).splitlines()
    return lines[0] if lines else type(problem).__name__
