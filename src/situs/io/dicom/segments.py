"""DICOM segmentations (SEG): each segment is a region, bound to the scan by its frames' own positions.

A frame that lies on a slice of the scan is taken voxel by voxel. Frames on another grid are resampled through
patient space. A slice without a frame is empty. Segments may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.binding import resampled_note
from situs.io.dicom.elements import items, look, numbers, text_of
from situs.io.dicom.headers import MOST_PIXELS
from situs.io.dicom.rois import References, check_belongs, open_dataset
from situs.io.dicom.series import UID
from situs.io.dicom.stacks import LPS_TO_RAS, in_plane_steps
from situs.io.grids import SAME_VOXEL, SliceMatch, match_slices
from situs.io.kinds import roi_kind
from situs.io.labels import refuse_noise
from situs.io.rois import label_regions, resampled_regions
from situs.volume import DicomImage, OutsideRoi, Roi, Volume, bounding_box

__all__ = ["read_segments", "segment_positions", "segment_references", "segmentation_image"]

DEFAULT_THRESHOLD = 0.5

_KIND = "DICOM segmentation (SEG)"
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_MOST_FRAMES = 200_000
_MOST_SLICES = 10_000
_SAME_STEP_MM = 1e-4
_POSITIONS_OF_A_FRAME = 200


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame: its number, the segment that it shows (0: all), and where it lies."""

    index: int
    segment: int
    place: Geometry


@dataclass(frozen=True, eq=False)
class _Segmentation:
    """A SEG file, its pixels not yet unpacked."""

    dataset: Any
    frames: list[_Frame]
    names: dict[int, str]
    least: float  # a pixel with at least this value belongs to the segment
    packed: NDArray[np.uint8] | None  # the pixels, if eight are in a byte

    def pixels(self, frame: _Frame) -> NDArray[Any]:
        """(columns, rows) what a frame shows: 0 and 1, or in a label map the numbers of segments."""
        columns, rows, _ = frame.place.shape
        if self.packed is not None:
            return (
                _unpacked(self.packed, frame.index * rows * columns, rows * columns).reshape(rows, columns).T
            )
        from pydicom.pixels import pixel_array

        stored = pixel_array(self.dataset, index=frame.index)
        return (stored if frame.segment == 0 else (stored >= self.least).astype(np.uint8)).T


def _unpacked(packed: NDArray[np.uint8], first: int, count: int) -> NDArray[np.uint8]:
    """(count,) the bits from number `first` on, the lowest of a byte first; most bytes are 0."""
    start, stop = first // 8, -(-(first + count) // 8)
    marked = np.flatnonzero(packed[start:stop])
    bits = np.zeros(8 * (stop - start), dtype=np.uint8)
    if marked.size:
        low, high = int(marked[0]), int(marked[-1]) + 1
        bits[8 * low : 8 * high] = np.unpackbits(packed[start + low : start + high], bitorder="little")
    return bits[first % 8 : first % 8 + count]


def read_segments(
    path: Path, volume: Volume, by_place: bool = False, threshold: float | None = None
) -> list[Roi | OutsideRoi]:
    """The segments of a DICOM segmentation, ascending by number, and then what lies outside the scan.

    Args:
        path: The file.
        volume: The scan.
        by_place: Whether positions are to be believed, whatever the UIDs say.
        threshold: For a fractional segmentation: the part of its largest value from which on a pixel belongs
            to the segment. None for 0.5.

    Raises:
        RoiError: It is damaged or empty, does not belong to the scan, or does not meet it.
    """
    with open_dataset(path, _KIND) as dataset:
        references = _references(dataset)
        notes, doubts = check_belongs(references, volume, str(path), by_place)
        seg, own_notes = _parse(dataset, path, threshold)
        regions, empty = _regions(seg, volume, path)
    if not any(isinstance(region, Roi) for region in regions):
        why = "no segment meets the scan" if regions else "all segments are empty"
        raise RoiError(f"{path}: {why}: give the segmentation of this scan")
    if empty:
        listed = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
        own_notes += (f"Segments without a pixel were left out ({listed}).",)
    return [
        replace(
            region,
            name=seg.names.get(region.value, ""),
            notes=(*notes, *own_notes, *region.notes),
            doubts=(*doubts, *region.doubts),
        )
        for region in sorted(regions, key=lambda r: (isinstance(r, OutsideRoi), r.value))
    ]


def segment_references(path: Path) -> References:
    """What images a segmentation names.

    Raises:
        RoiError: It is damaged.
    """
    with open_dataset(path, _KIND) as dataset:
        return _references(dataset)


def segmentation_image(path: Path) -> DicomImage | None:
    """What a segmentation itself is called; None if it lacks a UID, or if the file is none.

    Raises:
        RoiError: It is damaged.
    """
    if roi_kind(path) != "SEG":
        return None
    with open_dataset(path, _KIND) as dataset:
        keys = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
        sop_class, instance, series = (text_of(dataset, key) for key in keys)
    whole = all(map(UID.fullmatch, (sop_class, instance, series)))
    return DicomImage(sop_class, instance, series) if whole else None


def segment_positions(path: Path) -> NDArray[np.float64]:
    """(n, 3) where the segments lie, RAS+ mm: some pixels of each frame.

    Raises:
        RoiError: It is damaged.
    """
    positions = [np.empty((0, 3))]
    with open_dataset(path, _KIND) as dataset:
        seg, _ = _parse(dataset, path, None)
        for frame in seg.frames:
            ij = np.argwhere(seg.pixels(frame))
            ij = ij[:: max(1, len(ij) // _POSITIONS_OF_A_FRAME)]
            positions.append(frame.place.to_world(np.column_stack([ij, np.zeros(len(ij))])))
    return np.concatenate(positions)


def _references(dataset: Any) -> References:
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


def _parse(ds: Any, path: Path, threshold: float | None) -> tuple[_Segmentation, tuple[str, ...]]:
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
        share = DEFAULT_THRESHOLD if threshold is None else threshold
        least = share * float(ds.MaximumFractionalValue)
        what = "occupancy" if text_of(ds, "SegmentationFractionalType") == "OCCUPANCY" else "probability"
        notes = (f"The segmentation is fractional; pixels with a {what} of at least {share:g} were taken.",)
    elif threshold is not None:
        notes = ("The segmentation is not fractional; the threshold was not used.",)
    in_bits = int(ds.BitsAllocated) == 1 and not compressed
    packed = np.frombuffer(ds.PixelData, np.uint8) if in_bits else None
    return _Segmentation(ds, frames, names, least, packed), notes


def _frame(
    index: int,
    group: tuple[Any, ...],
    ds: Any,
    kind: str,
    places: dict[tuple[float, ...], Geometry],
    path: Path,
) -> _Frame:
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
    return _Frame(index, segment, places[key])


def _name(segment: Any) -> str:
    """What a segment is called: its label, else the meaning of its type."""
    types = items(segment, "SegmentedPropertyTypeCodeSequence")
    return text_of(segment, "SegmentLabel") or (text_of(types[0], "CodeMeaning") if types else "")


def _regions(seg: _Segmentation, volume: Volume, path: Path) -> tuple[list[Roi | OutsideRoi], list[int]]:
    """The regions of all segments, and the numbers of segments without a pixel."""
    places = dict.fromkeys(frame.place for frame in seg.frames)
    matches = match_slices(places, volume.geometry)
    grid = None if all(matches.values()) else _even_grid([*places], _thickness(seg.dataset), path)
    regions: list[Roi | OutsideRoi] = []
    segments: dict[int, list[_Frame]] = {}
    for frame in seg.frames:
        segments.setdefault(frame.segment, []).append(frame)
    filled = set()
    for segment, frames in sorted(segments.items()):
        if grid is None:
            labels, first = _on_slices(seg, frames, matches, volume.geometry)
        else:
            labels, first = grid.labels(seg, frames), 0
        if not labels.any():
            continue
        box = bounding_box(labels)
        refuse_noise(labels[box], str(path))
        own: list[Roi | OutsideRoi]
        if grid is None:
            i, j, k = (s.start for s in box)
            start = (i, j, k + first)
            if segment:
                own = [Roi(np.ascontiguousarray(labels[box] > 0), start, volume.geometry)]
            else:
                own = [*label_regions(labels[box], volume.geometry, start)]
        else:
            note = resampled_note(grid.geometry)
            found = resampled_regions(labels, grid.geometry.affine, volume.geometry)
            own = [replace(region, notes=(note, *region.notes)) for region in found]
        regions += own if segment == 0 else [replace(region, value=segment) for region in own]
        filled |= {region.value for region in own} if segment == 0 else {segment}
    return regions, sorted({*seg.names, *segments} - filled - {0})


def _thickness(ds: Any) -> float:
    """The thickness of a segmentation's frames in mm; 1 if it is not known."""
    group = (items(ds, "SharedFunctionalGroupsSequence") or [{}])[0]
    own = items(ds, "PerFrameFunctionalGroupsSequence")[0]
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        found = numbers(look((own, group), "PixelMeasuresSequence", tag), 1)
        if found and found[0] > 0:
            return found[0]
    return 1.0


def _on_slices(
    seg: _Segmentation,
    frames: list[_Frame],
    matches: dict[Geometry, SliceMatch | None],
    geometry: Geometry,
) -> tuple[NDArray[Any], int]:
    """Labels (ni, nj, n) on the slices of the scan that the frames lie on, and the first slice."""
    placed = [(match, frame) for frame in frames if (match := matches[frame.place]) is not None]
    first, last = (end(match.k for match, _ in placed) for end in (min, max))
    labels = np.zeros((*geometry.shape[:2], last - first + 1), _dtype(seg), order="F")
    for match, frame in placed:
        np.maximum(slot := labels[:, :, match.k - first], match.to_slice(seg.pixels(frame)), out=slot)
    return labels, first


def _dtype(seg: _Segmentation) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if int(seg.dataset.BitsAllocated) <= 8 else np.uint16


@dataclass(frozen=True, eq=False)
class _EvenGrid:
    """An even stack that frames lie on, with the slice of each place."""

    geometry: Geometry
    slices: dict[Geometry, int]

    def labels(self, seg: _Segmentation, frames: list[_Frame]) -> NDArray[Any]:
        labels = np.zeros(self.geometry.shape, _dtype(seg), order="F")
        for frame in frames:
            np.maximum(slot := labels[:, :, self.slices[frame.place]], seg.pixels(frame), out=slot)
        return labels


def _even_grid(places: list[Geometry], thickness: float, path: Path) -> _EvenGrid:
    """The even stack of frames that lie on no slices of the scan; some of its slices may have no frame.

    Raises:
        RoiError: They lie on none.
    """
    first = places[0]
    origins = np.array([place.origins[0] for place in places])
    aside = max(np.abs([p.step_i - first.step_i, p.step_j - first.step_j]).max() for p in places)
    heights = origins @ first.normal
    low, high = int(heights.argmin()), int(heights.argmax())
    distances = np.diff(np.unique(np.round(heights, 3)))
    step = float(distances.min()) if distances.size else thickness
    slices = np.rint((heights - heights[low]) / step).astype(int)
    count = int(slices[high]) + 1
    up = (origins[high] - origins[low]) / (count - 1) if count > 1 else first.normal * step
    off = np.linalg.norm(origins - origins[low] - slices[:, None] * up, axis=1)
    tolerance = SAME_VOXEL * min(*first.spacing_mm, step)
    if aside > _SAME_STEP_MM or count > _MOST_SLICES or off.max() > tolerance:
        raise RoiError(
            f"{path}: its frames lie neither on the scan's slices nor at even distances: draw it on this scan"
        )
    stack = origins[low] + np.arange(count)[:, None] * up
    geometry = Geometry((*first.shape[:2], count), first.step_i, first.step_j, stack)
    return _EvenGrid(geometry, dict(zip(places, slices.tolist(), strict=True)))
