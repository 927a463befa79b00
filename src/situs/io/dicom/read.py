"""DICOM CT: a series as a `Volume`, every slice where its own header puts it.

DICOM's LPS is left behind in `situs.io.dicom.stacks`; what leaves this file is RAS+. Slices are ordered along
their normal by position, never by instance number; uneven distances and gantry tilt stay as they are.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import ScanError
from situs.geometry import Geometry, axial_order
from situs.io.dicom.files import Source, open_sources
from situs.io.dicom.frames import Frame
from situs.io.dicom.headers import read_frames
from situs.io.dicom.pixels import PixelReader
from situs.io.dicom.series import UID, Meets, choose_stack
from situs.io.dicom.stacks import SAME_PLACE_MM, stack_geometry, to_stacks
from situs.io.kinds import dicom_kind, no_scan_text
from situs.io.limits import most_voxels
from situs.io.values import to_hu
from situs.sentences import Sentence
from situs.volume import DicomImage, DicomSource, Volume

__all__ = ["read_dicom"]

_MOST_LOOKED_AT = 100  # files, to say what they are
_HOLES_OF_A_PROTOCOL = 3  # so many equal ones at an end of a stack are how it was taken


def read_dicom(
    path: Path, series: str | None = None, meets: Meets | None = None, ask: bool = False
) -> Volume:
    """The axial head CT of a DICOM folder, a zip of one, or a single file.

    Args:
        path: Folder, zip, or file. A DICOMDIR stands for its folder.
        series: SeriesNumber or SeriesInstanceUID; by default see `situs.io.dicom.series.choose_stack`.
        meets: How well the mask fits a stack; it helps to choose.
        ask: See `situs.io.read_volume`.

    Raises:
        ScanError: see `situs.io.read_volume`
    """
    name = str(path)
    with warnings.catch_warnings(), open_sources(path) as sources:
        warnings.simplefilter("ignore")  # pydicom's, about values that break the standard
        frames, unreadable = read_frames(sources)
        if not frames and unreadable:
            one = unreadable == 1
            files = "the DICOM file is" if one else f"all {unreadable} DICOM files are"
            raise ScanError(f"{name}: {files} damaged: copy or export {'it' if one else 'them'} again")
        if all(frame.modality == "SEG" for frame in frames):
            raise ScanError(
                f"{name}: {no_scan_text(_kinds(sources), in_folder=len(sources) > 1 or path.is_dir())}"
            )
        fewest = 1 if path.is_file() and len(sources) == 1 else 3
        stack, notes = choose_stack(to_stacks(frames), series, name, fewest, meets, ask)
        if unreadable:
            files = "file was" if unreadable == 1 else "files were"
            notes += (f"{unreadable} damaged DICOM {files} skipped.",)
        frames = stack.frames
        where = f"{name}: series {frames[0].number}"
        stored, doubles, pixel_notes = _read_pixels(frames, name)
    if doubles:
        notes += (f"{len(doubles)} further copies of slices were left out.",)
        frames = [f for n, f in enumerate(frames) if n not in doubles]
    geometry = stack_geometry(frames)
    notes += pixel_notes + _slice_notes(geometry, frames)
    if frames[0].plane != "axial":
        stored, geometry, note = _cut_axially(stored, geometry, frames[0].plane, where)
        notes += (note,)
    hu, value_notes = to_hu(stored, name)
    doubts = (Sentence("doubt.no_positions"),) if frames[0].stacked_by else ()
    source = _source(frames)
    return Volume(hu, geometry, path.resolve().name, notes + value_notes, doubts, source=source)


def _source(frames: list[Frame]) -> DicomSource:
    """What the images of a scan are called."""
    one_file = len({frame.source for frame in frames}) < len(frames)
    images = tuple(
        DicomImage(_uid(f.sop_class), _uid(f.instance), _uid(f.uid), f.index + 1 if one_file else 0)
        for f in frames
    )
    first = frames[0]
    return DicomSource(_uid(first.study), _uid(first.reference), images, first.plane == "axial")


def _uid(text: str) -> str:
    """A UID; empty if it is none, because other text may name the patient."""
    return text if UID.fullmatch(text) else ""


def _kinds(sources: list[Source]) -> set[str]:
    """What the first of many files are, see `situs.io.kinds.dicom_kind`."""
    kinds = set()
    for source in sources[:_MOST_LOOKED_AT]:
        with source.open() as file:
            kinds.add(dicom_kind(file))
    return kinds


def _read_pixels(frames: list[Frame], name: str) -> tuple[NDArray[Any], set[int], tuple[str, ...]]:
    """Values (ni, nj, nk) in HU as the headers say, without doubles; the numbers of the doubles; notes."""
    heights = stack_geometry(frames).heights_mm
    rows, columns = frames[0].shape
    if rows * columns * len(frames) > (most := most_voxels()):
        raise ScanError(
            f"{name}: {len(frames)} slices of {rows} x {columns} pixels, expected at most {most:,} voxels: "
            "give a series with fewer"
        )
    whole = all(f.slope.is_integer() and f.intercept.is_integer() for f in frames)
    for frame in frames:
        if frame.truncated:
            raise ScanError(f"{name}: {frame.source.name}: {frame.truncated}")
    try:
        stack = np.empty((len(frames), *frames[0].shape), dtype=np.int16 if whole else np.float32)
    except MemoryError as problem:
        raise ScanError(
            f"{name}: {len(frames)} slices of {rows} x {columns} pixels do not fit into memory: give a "
            "series with fewer"
        ) from problem
    doubles: set[int] = set()
    reader = PixelReader(name)
    kept = 0
    for n, frame in enumerate(frames):
        image = reader.read(frame)
        if whole and image.dtype != np.int16 and not -(2**15) <= image.min() <= image.max() < 2**15:
            stack, whole = stack.astype(np.float32), False
        stack[kept] = image
        if kept and heights[n] - heights[n - 1] < SAME_PLACE_MM:
            if not np.array_equal(stack[kept], stack[kept - 1]):
                raise ScanError(
                    f"{name}: series {frame.number} holds different slices at the same position, and nothing "
                    "in their headers tells them apart: give one of them"
                )
            doubles.add(n)
        else:
            kept += 1
    notes: tuple[str, ...] = ()
    if reader.n_unwrapped:
        slices = f"{reader.n_unwrapped} slice{'s' if reader.n_unwrapped > 1 else ''}"
        notes = (f"On {slices} air is stored as a high value (wrapped round); it was corrected.",)
    return stack[:kept].transpose(2, 1, 0), doubles, notes


def _cut_axially(
    stored: NDArray[Any], geometry: Geometry, plane: str, where: str
) -> tuple[NDArray[Any], Geometry, str]:
    """Coronal or sagittal slices, evenly spaced, as axial ones: their rows or columns become the slices."""
    if geometry.shape[2] < 2 or not geometry.is_affine:
        raise ScanError(
            f"{where}: its {plane} slices lie at uneven distances, expected even ones or axial slices: give "
            "the axial series"
        )
    affine, distance = geometry.affine, float(geometry.slice_gaps_mm.mean())
    order = axial_order(affine)
    stored = stored.transpose(order)
    note = (
        f"The scan was taken in slices that are not axial ({plane}), {distance:.1f} mm apart; "
        "axial slices were cut across them."
    )
    return stored, Geometry.from_affine(stored.shape, affine[:, [*order, 3]]), note


def _slice_notes(geometry: Geometry, frames: list[Frame]) -> tuple[str, ...]:
    """What is unusual about the way the slices lie."""
    notes = []
    if geometry.tilt_deg > 0.5:
        notes.append(f"Gantry tilt of {geometry.tilt_deg:.1f} degrees, taken from the slice positions.")
    if frames[0].stacked_by:
        notes.append(
            f"The images of the file were stacked {geometry.slice_gaps_mm[0]:g} mm "
            f"apart, as its {frames[0].stacked_by} says."
        )
    gaps = geometry.slice_gaps_mm
    if gaps.size < 2 or gaps.max() - gaps.min() < 0.02 * np.median(gaps) + 0.02:
        return tuple(notes)
    holes = _holes(gaps, frames)
    if holes.any():
        usual = float(np.median(gaps))
        at = np.flatnonzero(holes)
        where = ", ".join(f"{k + 1} and {k + 2}" for k in at[:5]) + (", ..." if at.size > 5 else "")
        count = int(np.round(gaps / usual - 1)[at].sum())
        slices = "slice is" if count == 1 else "slices are"
        notes.append(f"{count} {slices} missing (distance {usual:.2f} mm), between slices {where}.")
    else:
        listed = ", ".join(f"{gap:g}" for gap in np.unique(np.round(gaps, 1))[:6])
        notes.append(f"Slice distances are uneven ({listed} mm); every slice was kept at its position.")
    return tuple(notes)


def _holes(gaps: NDArray[np.float64], frames: list[Frame]) -> NDArray[np.bool_]:
    """(nk - 1,) where slices are missing: distances of some times the usual that were not meant so.

    They were where the slices are as thick, or where the distance is the same up to an end of the stack.
    """
    usual = float(np.median(gaps))
    multiples = np.round(gaps / usual)
    if multiples.min() < 1 or np.abs(gaps - multiples * usual).max() > 0.05 * usual:
        return np.zeros(gaps.size, dtype=bool)
    thick = np.array([(f.thickness or (0.0,))[0] for f in frames])
    holes = (multiples > 1) & (gaps > 1.2 * np.maximum(thick[:-1], thick[1:]))
    for run in (slice(None), slice(None, None, -1)):  # views of the two ends
        ends = multiples[run]
        length = int(np.argmin(ends == ends[0])) if (ends != ends[0]).any() else ends.size
        if length >= _HOLES_OF_A_PROTOCOL:
            holes[run][:length] = False
    return holes
