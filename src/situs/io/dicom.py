"""DICOM CT: a series as a `Volume`, every slice where its own header puts it.

Positions are LPS in mm here and nowhere else; what leaves this file is RAS+. Slices are ordered along
their normal by position, never by instance number; uneven distances and gantry tilt stay as they are.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import ScanError
from situs.geometry import Geometry
from situs.io.series import Frame, choose_series, open_sources, read_frames
from situs.io.values import AIR_HU, to_hu
from situs.volume import Volume

__all__ = ["read_dicom"]

_SAME_PLACE_MM = 0.01
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_dicom(path: Path, series: str | None = None) -> Volume:
    """The axial head CT of a DICOM folder, a zip of one, or a single file.

    Args:
        path: folder, zip, or file
        series: SeriesNumber or SeriesInstanceUID; by default see `situs.io.series.choose_series`

    Raises:
        ScanError: see `situs.io.read_volume`
    """
    name = str(path)
    with warnings.catch_warnings(), open_sources(path) as sources:
        warnings.simplefilter("ignore")  # pydicom's, about values that break the standard
        frames, unreadable = read_frames(sources)
        one_file = path.is_file() and len(sources) == 1
        frames, notes = choose_series(frames, series, name, fewest=1 if one_file else 3)
        if unreadable:
            files = "file was" if unreadable == 1 else "files were"
            notes += (f"{unreadable} damaged DICOM {files} skipped.",)
        _check_consistent(frames, name)
        frames = _in_order(frames)
        stored, doubles = _read_stack(frames, name)
    if doubles:
        notes += (f"{len(doubles)} further copies of slices were left out.",)
        frames = [f for n, f in enumerate(frames) if n not in doubles]
    hu, value_notes = to_hu(stored, name)
    geometry = _geometry(frames)
    return Volume(hu, geometry, path.resolve().name, notes + _slice_notes(geometry) + value_notes)


def _check_consistent(frames: list[Frame], name: str) -> None:
    """Refuse a series that is not one stack of parallel slices of one size."""
    where = f"{name}: series {frames[0].number}"
    first = _steps(frames[0])
    lengths = np.linalg.norm(np.reshape(frames[0].orientation, (2, 3)), axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(first[0] @ first[1])) > 0.01 * np.prod(_norms(first)):
        raise ScanError(f"{where}: ImageOrientationPatient is no pair of perpendicular directions")
    for frame in frames[1:]:
        if frame.shape != frames[0].shape:
            what = f"sizes {frames[0].shape} and {frame.shape}"
        elif np.abs(_norms(_steps(frame)) - _norms(first)).max() > 1e-3 * _norms(first).max():
            what = f"pixel spacings {frames[0].spacing} and {frame.spacing} mm"
        elif np.abs(np.subtract(frame.orientation, frames[0].orientation)).max() > 2e-3:
            what = "directions"
        else:
            continue
        raise ScanError(f"{where}: its slices have different {what}: choose another series")


def _steps(frame: Frame) -> NDArray[np.float64]:
    """(2, 3) steps to the next column (i) and to the next row (j), RAS mm; PixelSpacing is row first."""
    along_row, along_column = np.reshape(frame.orientation, (2, 3)) * _LPS_TO_RAS
    row_mm, column_mm = frame.spacing
    return np.stack([along_row * column_mm, along_column * row_mm])


def _norms(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(steps, axis=1))


def _origins(frames: list[Frame]) -> NDArray[np.float64]:
    return np.array([frame.position for frame in frames]) * _LPS_TO_RAS


def _geometry(frames: list[Frame]) -> Geometry:
    step_i, step_j = _steps(frames[0])
    rows, columns = frames[0].shape
    return Geometry((columns, rows, len(frames)), step_i, step_j, _origins(frames))


def _in_order(frames: list[Frame]) -> list[Frame]:
    """From feet to head along the normal."""
    heights = _geometry(frames).heights_mm
    return [frames[n] for n in np.argsort(heights, kind="stable")]


def _read_stack(frames: list[Frame], name: str) -> tuple[NDArray[Any], set[int]]:
    """Values (ni, nj, nk) in HU as the headers say, doubles left out; and the numbers of the doubles."""
    heights = _geometry(frames).heights_mm
    rows, columns = frames[0].shape
    whole = all(f.slope.is_integer() and f.intercept.is_integer() for f in frames)
    stack = np.empty((len(frames), rows, columns), dtype=np.int16 if whole else np.float32)
    doubles: set[int] = set()
    reader = _PixelReader(name)
    kept = 0
    for n, frame in enumerate(frames):
        image = _rescale(reader.read(frame), frame, reader.padding)
        if whole and not -(2**15) <= image.min() <= image.max() < 2**15:
            stack, whole = stack.astype(np.float32), False
        stack[kept] = image
        if n and heights[n] - heights[n - 1] < _SAME_PLACE_MM:
            if not np.array_equal(stack[kept], stack[kept - 1]):
                raise ScanError(
                    f"{name}: series {frame.number} holds different slices at the same position "
                    "(several phases?): split it, or choose another series"
                )
            doubles.add(n)
        else:
            kept += 1
    return stack[:kept].transpose(2, 1, 0), doubles


class _PixelReader:
    """Decodes one image after the other; keeps the last file open for the frames of a multi-frame one.

    Attributes:
        padding: the stored value that means "no picture here" in the last image read, or None
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._source: Any = None
        self._dataset: Any = None
        self.padding: int | None = None

    def read(self, frame: Frame) -> NDArray[Any]:
        """(rows, columns) stored values."""
        from pydicom import dcmread
        from pydicom.pixels import pixel_array

        where = f"{self._name}: {frame.source.name}"
        try:
            if frame.source is not self._source:
                with frame.source.open() as file:
                    self._dataset = dcmread(file, force=True)
                self._source = frame.source
            dataset = self._dataset
            _check_pixels(dataset, where)
            padding = dataset.get("PixelPaddingValue")
            self.padding = int(padding) if isinstance(padding, int) else None
            image = pixel_array(dataset, index=frame.index)
        except ScanError:
            raise
        except Exception as problem:  # damaged pixel data can set off anything inside the decoders
            raise ScanError(f"{where}: truncated or corrupt pixels: copy or export it again") from problem
        if image.shape != frame.shape:
            raise ScanError(
                f"{where}: holds {image.shape} pixels, its header says {frame.shape}: export it again"
            )
        return image


def _check_pixels(dataset: Any, where: str) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import ImplicitVRLittleEndian

    if dataset.get("PhotometricInterpretation") != "MONOCHROME2":
        kind = dataset.get("PhotometricInterpretation", "no PhotometricInterpretation")
        raise ScanError(f"{where}: is {kind}, expected MONOCHROME2 as CT is: export the original CT")
    if dataset.get("ModalityLUTSequence"):
        raise ScanError(
            f"{where}: maps values by a look-up table, expected RescaleSlope: export the original CT"
        )
    if "PixelData" not in dataset:
        raise ScanError(f"{where}: holds no pixels: export it again")
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # DICOM's default
    if syntax is None or not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise ScanError(f"{where}: {syntax.name} cannot be read: export it uncompressed") from None
    if not available:
        raise ScanError(f"{where}: the decoder for {syntax.name} is absent: pip install 'situs[codecs]'")


def _rescale(image: NDArray[Any], frame: Frame, padding: int | None) -> NDArray[Any]:
    """Stored values to HU, padding to air."""
    slope, intercept = frame.slope, frame.intercept
    hu: NDArray[Any]
    if slope.is_integer() and intercept.is_integer():
        hu = image.astype(np.int32) * int(slope) + int(intercept)
    else:
        hu = image.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    # Padding that reads as air already is left to `to_hu`; some files call a value of tissue padding, so
    # only what hangs together with a corner of the picture is taken for it.
    if padding is not None and padding * slope + intercept > AIR_HU + 124:
        from scipy import ndimage

        labels, _ = ndimage.label(image == padding)
        corners = {int(labels[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
        if corners:
            hu[np.isin(labels, list(corners))] = AIR_HU
    return hu


def _slice_notes(geometry: Geometry) -> tuple[str, ...]:
    """What is unusual about the way the slices lie."""
    notes = []
    if geometry.tilt_deg > 0.5:
        notes.append(f"Gantry tilt of {geometry.tilt_deg:.1f} degrees, taken from the slice positions.")
    gaps = geometry.slice_gaps_mm
    if gaps.size < 2 or gaps.max() - gaps.min() < 0.02 * np.median(gaps) + 0.02:
        return tuple(notes)
    usual = float(np.median(gaps))
    multiples = np.round(gaps / usual)
    if multiples.min() >= 1 and np.abs(gaps - multiples * usual).max() < 0.05 * usual:
        holes = np.flatnonzero(multiples > 1)
        where = ", ".join(f"{k + 1} and {k + 2}" for k in holes[:5]) + (", ..." if holes.size > 5 else "")
        count = int((multiples - 1).sum())
        notes.append(f"{count} slices are missing (distance {usual:.2f} mm), between slices {where}.")
    else:
        listed = ", ".join(f"{gap:g}" for gap in np.unique(np.round(gaps, 1))[:6])
        notes.append(f"Slice distances are uneven ({listed} mm); every slice was kept at its position.")
    return tuple(notes)
