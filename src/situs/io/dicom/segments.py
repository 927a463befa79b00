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
from situs.io.dicom.rois import check_belongs, open_dataset
from situs.io.dicom.segmentation import (
    Segmentation,
    SegmentFrame,
    parse_segmentation,
    references_of,
)
from situs.io.grids import SAME_VOXEL, SliceMatch, match_slices
from situs.io.labels import refuse_noise
from situs.io.rois import label_regions, resampled_regions
from situs.volume import OutsideRoi, Roi, Volume, bounding_box

__all__ = ["read_segments"]

_MOST_SLICES = 10_000
_SAME_STEP_MM = 1e-4


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
    with open_dataset(path, "SEG") as dataset:
        references = references_of(dataset)
        notes, doubts = check_belongs(references, volume, str(path), by_place)
        seg, own_notes = parse_segmentation(dataset, path, threshold)
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


def _regions(seg: Segmentation, volume: Volume, path: Path) -> tuple[list[Roi | OutsideRoi], list[int]]:
    """The regions of all segments, and the numbers of segments without a pixel."""
    places = dict.fromkeys(frame.place for frame in seg.frames)
    matches = match_slices(places, volume.geometry)
    grid = None if all(matches.values()) else _even_grid([*places], seg.thickness_mm, path)
    regions: list[Roi | OutsideRoi] = []
    segments: dict[int, list[SegmentFrame]] = {}
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


def _on_slices(
    seg: Segmentation,
    frames: list[SegmentFrame],
    matches: dict[Geometry, SliceMatch | None],
    geometry: Geometry,
) -> tuple[NDArray[Any], int]:
    """Labels (ni, nj, n) on the slices of the scan that the frames lie on, and the first slice."""
    placed = [(match, frame) for frame in frames if (match := matches[frame.place]) is not None]
    first, last = (end(match.k for match, _ in placed) for end in (min, max))
    labels = np.zeros((*geometry.shape[:2], last - first + 1), seg.dtype, order="F")
    for match, frame in placed:
        np.maximum(slot := labels[:, :, match.k - first], match.to_slice(seg.pixels(frame)), out=slot)
    return labels, first


@dataclass(frozen=True, eq=False)
class _EvenGrid:
    """An even stack that frames lie on, with the slice of each place."""

    geometry: Geometry
    slices: dict[Geometry, int]

    def labels(self, seg: Segmentation, frames: list[SegmentFrame]) -> NDArray[Any]:
        labels = np.zeros(self.geometry.shape, seg.dtype, order="F")
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
