"""Files of one array on a grid: NIfTI, NRRD, MetaImage. World frame RAS+ in mm."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from situs.errors import InputError, ScanError
from situs.geometry import Geometry
from situs.io.arrays import ArrayHeader, Convert, FileGrid, check_axes, file_grid, read_values
from situs.io.kinds import METAIMAGE, NRRD, file_kind
from situs.io.metaimage import parse_metaimage
from situs.io.nifti import read_nifti_grid
from situs.io.nifti_header import HeaderError
from situs.io.nrrd import parse_nrrd
from situs.io.stream import ByteStream
from situs.io.values import to_hu
from situs.sentences import Sentence
from situs.volume import StoredGrid, Volume

__all__ = ["read_grid", "read_grid_volume"]

_MOST_HEADER_BYTES = 2**20
_PARSERS = {NRRD: parse_nrrd, METAIMAGE: parse_metaimage}


def read_grid(path: Path, error: type[InputError], to_labels: Convert | None = None) -> FileGrid:
    """The numbers of a file and where they lie.

    Args:
        path: NIfTI, NRRD or MetaImage.
        error: What a file that cannot be read raises.
        to_labels: For a mask, which may have an axis of channels, see `situs.io.arrays.read_values`.

    Raises:
        InputError: The class given.
    """
    with ByteStream(path, error) as stream:
        start = b"" if stream.packed else stream.peek(_MOST_HEADER_BYTES)
    parse = _PARSERS.get(file_kind(start[:348]) or "")
    if parse is None:
        return read_nifti_grid(path, error, to_labels)
    try:
        header = parse(start)
    except HeaderError as problem:
        raise error(f"{path}: {problem}") from problem
    except (ValueError, OverflowError) as problem:  # numbers that are none
        raise error(f"{path}: its header is damaged: export it again") from problem
    check_axes(header.stored.shape, path, error, to_labels)
    with ByteStream(_data_path(path, header, error), error, header.start, header.packed) as stream:
        values = read_values(stream, header.stored, to_labels)
    if values.ndim == 4:
        axes = [axis for axis in range(4) if axis != header.channel_axis]
        values = values.transpose([*axes, header.channel_axis])
    return file_grid(values, header.affine, header.oriented, (), header.notes, header.segments)


def _data_path(path: Path, header: ArrayHeader, error: type[InputError]) -> Path:
    """The file with the voxels, which lies beside the header if it is another one."""
    if header.data_file is None:
        return path
    other = path.parent / header.data_file
    if Path(header.data_file).name != header.data_file or not other.is_file():
        raise error(f"{path}: the file with its voxels is missing: put it into the same folder")
    return other


def read_grid_volume(path: Path) -> Volume:
    """A head CT from a file of one array.

    Raises:
        ScanError: see `situs.io.read_volume`
    """
    grid = read_grid(path, ScanError)
    hu, value_notes = to_hu(grid.values, str(path))
    others = tuple(Geometry.from_affine(grid.geometry.shape, affine) for affine in grid.others)
    return Volume(
        hu,
        grid.geometry,
        path.name,
        grid.notes + _slice_notes(grid) + value_notes,
        () if grid.oriented else (Sentence("doubt.no_orientation"),),
        StoredGrid(grid.order, grid.oriented, others),
    )


def _slice_notes(grid: FileGrid) -> tuple[str, ...]:
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
