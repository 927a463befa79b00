"""A scan and its regions of interest, as validated arrays with their place in the patient.

Array axes are (i, j, k): k runs over the slices, i and j lie in the plane; `Geometry` says where they
point. HU are Hounsfield units as stored in the file, or the window of them that the file kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.sentences import Sentence

__all__ = [
    "DicomImage",
    "DicomSource",
    "OutsideRoi",
    "Roi",
    "StoredGrid",
    "Volume",
    "bounding_box",
    "choose_slices",
    "largest_part",
    "split_lesions",
    "split_regions",
    "union_mask",
]


@dataclass(frozen=True, eq=False)
class StoredGrid:
    """How one file stores a scan's array. A mask whose header is in doubt is bound by it.

    Args:
        order: The axes of the file in the order of the scan's array.
        oriented: False if the header has no orientation, so that the scan's geometry is a guess.
        others: Further geometries that the header gives the same array, such as its qform.
    """

    order: tuple[int, int, int]
    oriented: bool
    others: tuple[Geometry, ...]


@dataclass(frozen=True)
class DicomImage:
    """One DICOM image, or another object, by its UIDs. A UID that a header lacks or spoils is empty.

    Args:
        sop_class: SOPClassUID.
        instance: SOPInstanceUID.
        series: SeriesInstanceUID.
        frame: The number of the frame within a multi-frame file, from 1; 0 for a file of one image.
        study: StudyInstanceUID. Empty for that of the scan.
    """

    sop_class: str
    instance: str
    series: str
    frame: int = 0
    study: str = ""


@dataclass(frozen=True)
class DicomSource:
    """The DICOM images that a scan was read from. None of it names the patient.

    Args:
        study: StudyInstanceUID, empty if the header lacks it.
        frame_of_reference: FrameOfReferenceUID, empty if the header lacks it.
        images: The images, in the order of the slices.
        are_slices: Whether each image is a slice of the scan. If not, the slices were cut across the images.
    """

    study: str
    frame_of_reference: str
    images: tuple[DicomImage, ...]
    are_slices: bool = True


@dataclass(frozen=True, eq=False)
class Volume:
    """A head CT.

    Args:
        hu: (ni, nj, nk) integers or floats, Hounsfield units
        geometry: where the voxels lie; same shape
        name: what to call the scan in the output; holds nothing that identifies the patient
        assumptions: one sentence for everything that was corrected or assumed while reading
        doubts: Why no finding on this scan is sure, one sentence each.
        stored: How the file stores the array. None if the slices come from several files, or from none.
        source: The DICOM images. None if the scan comes from no DICOM.

    Raises:
        ValueError: if `hu` is not 3-D numbers of the geometry's shape
    """

    hu: NDArray[np.generic]
    geometry: Geometry
    name: str = "scan"
    assumptions: tuple[str, ...] = ()
    doubts: tuple[Sentence, ...] = ()
    stored: StoredGrid | None = None
    source: DicomSource | None = None

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape or self.hu.dtype.kind not in "iuf":
            raise ValueError(
                f"hu: expected numbers of shape {self.geometry.shape}, got {self.hu.dtype} {self.hu.shape}"
            )


@dataclass(frozen=True, eq=False)
class Roi:
    """A region of interest on a scan's grid: one value or segment of a mask, or one lesion of it.

    Args:
        mask: (mi, mj, mk) bool, the bounding box of the region, not empty
        start: (3,) index in the scan of ``mask[0, 0, 0]``
        geometry: the scan's
        value: the value of the mask, or the number of the segment
        name: what the segment is called, if anything
        component: 0 for the whole region; 1, 2, ... for its lesions, 1 the largest
        notes: what was corrected or assumed while binding the region to the scan
        doubts: Why it is doubtful where the region lies, one sentence each. No finding on it is sure.

    Raises:
        ValueError: if the mask is not boolean, is empty, or does not lie within the scan
    """

    mask: NDArray[np.bool_]
    start: tuple[int, int, int]
    geometry: Geometry
    value: int = 1
    name: str = ""
    component: int = 0
    notes: tuple[str, ...] = field(default=())
    doubts: tuple[Sentence, ...] = ()

    def __post_init__(self) -> None:
        if self.mask.ndim != 3 or self.mask.dtype != np.bool_ or not self.mask.any():
            raise ValueError(
                f"mask: expected a non-empty 3-D boolean array, got {self.mask.dtype} {self.mask.shape}"
            )
        ends = [a + n for a, n in zip(self.start, self.mask.shape, strict=True)]
        if min(self.start) < 0 or any(e > n for e, n in zip(ends, self.geometry.shape, strict=True)):
            raise ValueError(
                f"start: the box {self.start} + {self.mask.shape} leaves the scan {self.geometry.shape}"
            )

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], geometry: Geometry, value: int = 1, name: str = "") -> Roi:
        """A region from a whole-scan mask (ni, nj, nk) of bool; ValueError if it is empty."""
        if mask.shape != geometry.shape:
            raise ValueError(f"mask: expected shape {geometry.shape}, got {mask.shape}")
        i, j, k = box = bounding_box(mask)
        return cls(np.ascontiguousarray(mask[box]), (i.start, j.start, k.start), geometry, value, name)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the scan's grid that `mask` covers."""
        i, j, k = (slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))
        return i, j, k

    @cached_property
    def areas_px(self) -> dict[int, int]:
        """Pixels on every slice that the region meets: {k: count}."""
        counts = self.mask.sum(axis=(0, 1))
        return {self.start[2] + int(k): int(counts[k]) for k in np.flatnonzero(counts)}

    @property
    def largest_slice(self) -> int:
        """The slice with most of its pixels; of equals the first."""
        return max(self.areas_px, key=lambda k: self.areas_px[k])

    @property
    def volume_ml(self) -> float:
        """Volume; each slice stands for half the way to its neighbours."""
        g = self.geometry
        pixel_mm2 = np.linalg.norm(np.cross(g.step_i, g.step_j))
        thickness = g.slice_thickness_mm
        return float(sum(n * thickness[k] for k, n in self.areas_px.items()) * pixel_mm2 / 1000)

    def slice_mask(self, k: int) -> NDArray[np.bool_]:
        """(ni, nj) bool, the region on slice k of the scan (all False where it does not reach)."""
        full = np.zeros(self.geometry.shape[:2], dtype=bool, order="F")
        inside = k - self.start[2]
        if 0 <= inside < self.mask.shape[2]:
            full[self.box[:2]] = self.mask[:, :, inside]
        return full

    def pixels(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) i and (n,) j of its pixels on slice k of the scan, which it meets."""
        i, j = np.nonzero(self.mask[:, :, k - self.start[2]])
        return i + self.start[0], j + self.start[1]


def choose_slices(roi: Roi, most: int | None) -> dict[int, float]:
    """The slices of a region to look at, and the area that each stands for.

    A region of more than `most` slices is cut into `most` parts of equal area, from the bottom of the patient
    to the top. No slice counts for more than one part. The slice in the middle of each part is chosen. So the
    chosen slices are dense where the region is large, and its small ends are not left out. A very large slice
    is chosen once, because another slice tells more than the same one again.

    Args:
        roi: The region.
        most: How many slices at most, at least 1; None for all of them.

    Returns:
        Slice to weight (pixels), ascending by slice: all slices of the region, or exactly `most`. Each slice
        of the region adds its area to the weight of the nearest chosen slice, counted in slices; of two as
        near, to that of the lower one. So the weights sum to the whole area. The voxel order plays no part.
    """
    areas, heights = roi.areas_px, roi.geometry.heights_mm
    if most is None or len(areas) <= most:
        return {k: float(area) for k, area in areas.items()}
    upward = sorted(areas, key=lambda k: heights[k])
    sizes = np.array([areas[k] for k in upward])
    # The largest slices take a part each, as long as that is less than they are; the others share the rest.
    ordered = np.sort(sizes)[::-1][:most]
    rest = sizes.sum() - np.cumsum(ordered) + ordered
    n_whole = int(np.argmax(ordered * (most - np.arange(most)) <= rest))
    scale, part = most - n_whole, rest[n_whole]  # a part has part / scale pixels; whole numbers are exact
    below = np.cumsum(np.minimum(sizes * scale, part))
    chosen = np.searchsorted(2 * below, part * np.arange(1, 2 * most, 2))
    starts = np.concatenate([[0], (chosen[:-1] + chosen[1:]) // 2 + 1])  # the lowest slice for each
    weights = np.add.reduceat(sizes, starts)
    return dict(sorted((upward[n], float(weight)) for n, weight in zip(chosen, weights, strict=True)))


@dataclass(frozen=True)
class OutsideRoi:
    """The lesions of one value of a mask that lie wholly outside the scan.

    Args:
        volumes_ml: The volume of each such lesion, the largest first.
        value: The value of the mask, or the number of the segment.
        name: What the segment is called. Empty without a name.
        notes: What was corrected or assumed while binding the mask to the scan.
        doubts: Why it is doubtful where the mask lies, one sentence each.
    """

    volumes_ml: tuple[float, ...]
    value: int
    name: str = ""
    notes: tuple[str, ...] = ()
    doubts: tuple[Sentence, ...] = ()


def split_lesions(roi: Roi) -> list[Roi]:
    """The lesions of a region: its parts connected through faces, edges or corners, the largest first.

    A region that is a lesion already is returned as it is.
    """
    if roi.component:
        return [roi]
    from scipy import ndimage  # here, because reading a scan does not need it

    labels, count = ndimage.label(roi.mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    lesions = []
    for rank, index in enumerate(np.argsort(-sizes, kind="stable"), start=1):
        box = boxes[index]
        start = tuple(a + s.start for a, s in zip(roi.start, box, strict=True))
        lesions.append(replace(roi, mask=labels[box] == index + 1, start=start, component=rank))
    return lesions


def split_regions(regions: Sequence[Roi | OutsideRoi]) -> tuple[list[Roi], list[OutsideRoi]]:
    """The lesions of all regions, in the order of the regions and then by size, and what lies outside."""
    inside = [lesion for region in regions if isinstance(region, Roi) for lesion in split_lesions(region)]
    return inside, [region for region in regions if isinstance(region, OutsideRoi)]


def union_mask(rois: Iterable[Roi], geometry: Geometry) -> NDArray[np.bool_]:
    """(ni, nj, nk) bool, every voxel that is in any of the regions."""
    union = np.zeros(geometry.shape, dtype=bool, order="F")  # a slice is read as a whole
    for roi in rois:
        union[roi.box] |= roi.mask
    return union


def bounding_box(mask: NDArray[Any], margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds all that is not 0 in an array of any number of axes.

    Args:
        mask: (n, m, ...) bool or numbers
        margin: how many voxels are added on every side, as far as the array goes

    Raises:
        ValueError: if there is nothing in it
    """
    box = [slice(None)] * mask.ndim
    for axis in reversed(range(mask.ndim)):  # slices first: what they leave is small
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not hit.size:
            raise ValueError("mask: it is empty")
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
    return tuple(
        slice(max(0, b.start - margin), min(n, b.stop + margin)) for b, n in zip(box, mask.shape, strict=True)
    )


def largest_part(mask: NDArray[np.bool_], structure: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """The largest connected part of a mask, of equals the first; the mask itself if it is empty.

    Args:
        mask: bool, of any number of axes
        structure: what counts as connected, see `scipy.ndimage.label`; by default through faces alone
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
