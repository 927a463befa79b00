"""What a DICOM segmentation (SEG) holds: frames and where they lie, segments, what it was drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.dicom.elements import items, look, numbers, text_of
from situs.io.dicom.headers import MOST_PIXELS
from situs.io.dicom.rois import References, open_dataset
from situs.io.dicom.stacks import LPS_TO_RAS, in_plane_steps

__all__ = [
    "SegmentFrame",
    "Segmentation",
    "parse_segmentation",
    "references_of",
    "segment_positions",
    "segment_references",
]

_DEFAULT_THRESHOLD = 0.5
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_MOST_FRAMES = 200_000
_POSITIONS_OF_A_FRAME = 200


@dataclass(frozen=True, eq=False)
class SegmentFrame:
    """One frame: its number, the segment that it shows (0: all), and where it lies."""

    index: int
    segment: int
    place: Geometry


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A SEG file, its pixels not yet unpacked."""

    dataset: Any
    frames: list[SegmentFrame]
    names: dict[int, str]
    least: float  # a pixel with at least this value belongs to the segment
    packed: NDArray[np.uint8] | None  # the pixels, if eight are in a byte

    def pixels(self, frame: SegmentFrame) -> NDArray[Any]:
        """(columns, rows) what a frame shows: 0 and 1, or in a label map the numbers of segments."""
        columns, rows, _ = frame.place.shape
        if self.packed is not None:
            return (
                _unpacked(self.packed, frame.index * rows * columns, rows * columns).reshape(rows, columns).T
            )
        from pydicom.pixels import pixel_array

        stored = pixel_array(self.dataset, index=frame.index)
        return (stored if frame.segment == 0 else (stored >= self.least).astype(np.uint8)).T

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Of the numbers of its segments."""
        return np.uint8 if int(self.dataset.BitsAllocated) <= 8 else np.uint16

    @property
    def thickness_mm(self) -> float:
        """Of its frames; 1 if it is not known."""
        group = (items(self.dataset, "SharedFunctionalGroupsSequence") or [{}])[0]
        own = items(self.dataset, "PerFrameFunctionalGroupsSequence")[0]
        for tag in ("SpacingBetweenSlices", "SliceThickness"):
            found = numbers(look((own, group), "PixelMeasuresSequence", tag), 1)
            if found and found[0] > 0:
                return found[0]
        return 1.0


def _unpacked(packed: NDArray[np.uint8], first: int, count: int) -> NDArray[np.uint8]:
    """(count,) the bits from number `first` on, the lowest of a byte first; most bytes are 0."""
    start, stop = first // 8, -(-(first + count) // 8)
    marked = np.flatnonzero(packed[start:stop])
    bits = np.zeros(8 * (stop - start), dtype=np.uint8)
    if marked.size:
        low, high = int(marked[0]), int(marked[-1]) + 1
        bits[8 * low : 8 * high] = np.unpackbits(packed[start + low : start + high], bitorder="little")
    return bits[first % 8 : first % 8 + count]


def segment_references(path: Path) -> References:
    """What images a segmentation names.

    Raises:
        RoiError: It is damaged.
    """
    with open_dataset(path, "SEG") as dataset:
        return references_of(dataset)


def segment_positions(path: Path) -> NDArray[np.float64]:
    """(n, 3) where the segments lie, RAS+ mm: some pixels of each frame.

    Raises:
        RoiError: It is damaged.
    """
    positions = [np.empty((0, 3))]
    with open_dataset(path, "SEG") as dataset:
        seg, _ = parse_segmentation(dataset, path, None)
        for frame in seg.frames:
            ij = np.argwhere(seg.pixels(frame))
            ij = ij[:: max(1, len(ij) // _POSITIONS_OF_A_FRAME)]
            positions.append(frame.place.to_world(np.column_stack([ij, np.zeros(len(ij))])))
    return np.concatenate(positions)


def references_of(dataset: Any) -> References:
    """The images and the study that a segmentation names."""
    named = items(dataset, "ReferencedSeriesSequence", "ReferencedInstanceSequence")
    if not named:  # each frame may name its own, which takes long to look up
        groups = (
            *items(dataset, "PerFrameFunctionalGroupsSequence"),
            *items(dataset, "SharedFunctionalGroupsSequence"),
        )
        derived = ("DerivationImageSequence", "SourceImageSequence")
        named = [image for group in groups for image in items(group, *derived)]
    return References(
        text_of(dataset, "StudyInstanceUID"),
        text_of(dataset, "FrameOfReferenceUID"),
        frozenset(text_of(s, "SeriesInstanceUID") for s in items(dataset, "ReferencedSeriesSequence")),
        frozenset(text_of(image, "ReferencedSOPInstanceUID") for image in named),
    )


def parse_segmentation(ds: Any, path: Path, threshold: float | None) -> tuple[Segmentation, tuple[str, ...]]:
    """The frames of a segmentation, and what was assumed."""
    kind = str(ds.SegmentationType).strip()
    if kind not in _TYPES:
        raise RoiError(
            f"{path}: its SegmentationType is none of {', '.join(_TYPES)}: export it as a BINARY segmentation"
        )
    rows, columns, count = int(ds.Rows), int(ds.Columns), int(ds.NumberOfFrames)
    groups = items(ds, "PerFrameFunctionalGroupsSequence")
    if not (1 <= rows <= MOST_PIXELS and 1 <= columns <= MOST_PIXELS and 1 <= count <= _MOST_FRAMES):
        raise RoiError(
            f"{path}: its header says {count} frames of {rows} x {columns} pixels, expected at most "
            f"{_MOST_FRAMES} of {MOST_PIXELS} each way: export it again"
        )
    bits = count * rows * columns * int(ds.BitsAllocated)
    compressed = ds.file_meta.TransferSyntaxUID.is_compressed
    if len(groups) != count or (not compressed and len(ds.PixelData) * 8 < bits):
        what = "pixels" if len(groups) == count else "frames"
        raise RoiError(
            f"{path}: frames are missing: it has fewer {what} than the {count} frames of its header: "
            "export it again"
        )
    shared = (items(ds, "SharedFunctionalGroupsSequence") or [{}])[0]
    places: dict[tuple[float, ...], Geometry] = {}
    # A functional group is shared or each frame's own. The shared ones are the quicker to look up.
    frames = [_frame(n, (shared, own), ds, kind, places, path) for n, own in enumerate(groups)]
    names = {int(s.SegmentNumber): _name(s) for s in items(ds, "SegmentSequence")}
    notes: tuple[str, ...] = ()
    least = 1.0
    if kind == "FRACTIONAL":
        share = _DEFAULT_THRESHOLD if threshold is None else threshold
        least = share * float(ds.MaximumFractionalValue)
        what = "occupancy" if text_of(ds, "SegmentationFractionalType") == "OCCUPANCY" else "probability"
        notes = (f"The segmentation is fractional; pixels with a {what} of at least {share:g} were taken.",)
    elif threshold is not None:
        notes = ("The segmentation is not fractional; the threshold was not used.",)
    in_bits = int(ds.BitsAllocated) == 1 and not compressed
    packed = np.frombuffer(ds.PixelData, np.uint8) if in_bits else None
    return Segmentation(ds, frames, names, least, packed), notes


def _frame(
    index: int,
    group: tuple[Any, ...],
    ds: Any,
    kind: str,
    places: dict[tuple[float, ...], Geometry],
    path: Path,
) -> SegmentFrame:
    """One frame, by the shared functional groups and its own; `places` are those of other frames."""
    position = numbers(look(group, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = numbers(look(group, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = numbers(look(group, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if not (position and orientation and spacing):
        raise RoiError(
            f"{path}: frame {index + 1} has no place in the patient (ImagePositionPatient, "
            "ImageOrientationPatient, PixelSpacing): export it again"
        )
    segment = 0
    if kind != "LABELMAP":
        segment = int(look(group, "SegmentIdentificationSequence", "ReferencedSegmentNumber"))
        if segment < 1:
            raise RoiError(
                f"{path}: frame {index + 1} is of segment {segment}, expected 1, 2, ...: export it again"
            )
    key = (*position, *orientation, *spacing)
    if key not in places:
        step_i, step_j = in_plane_steps(orientation, spacing)
        origin = np.array([position]) * LPS_TO_RAS
        places[key] = Geometry((int(ds.Columns), int(ds.Rows), 1), step_i, step_j, origin)
    return SegmentFrame(index, segment, places[key])


def _name(segment: Any) -> str:
    """What a segment is called: its label, else the meaning of its type."""
    types = items(segment, "SegmentedPropertyTypeCodeSequence")
    return text_of(segment, "SegmentLabel") or (text_of(types[0], "CodeMeaning") if types else "")
