"""DICOM structure sets (RTSTRUCT): each structure is a region, filled from its closed contours.

The contours of a slice are filled together by the even-odd rule at pixel centres, so that one within another
is a hole. A contour is planar if its points lie within half the thickness of a slice along the scan's normal.
It is on a slice if it lies within a quarter of the thickness from it. If contours inside the scan are on no
slice, each stands for half the way to its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.dicom.elements import items, text_of
from situs.io.dicom.polygons import crosses_itself, fill
from situs.io.dicom.rois import References, check_belongs, open_dataset
from situs.io.dicom.stacks import LPS_TO_RAS
from situs.io.grids import SAME_VOXEL
from situs.io.rois import BETWEEN_NOTE, label_regions, with_outside_share
from situs.sentences import Sentence
from situs.volume import OutsideRoi, Roi, Volume

__all__ = ["contour_positions", "contour_references", "read_contours"]

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CONTOUR_DATA = 0x30060050
_CROSSING_PX = 0.5  # less changes no more than single pixels
_SAME_PLANE_MM = 0.05
_REACH = 0.75  # of a slice's thickness, from a plane to the slice that takes it
_MOST_STRUCTURES = 10_000
_POSITIONS_OF_A_CONTOUR = 20

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Structure:
    """One structure: its number and name, its closed contours (n, 3) in RAS mm, and how many are open."""

    number: int
    name: str
    contours: list[Array]
    n_open: int


def read_contours(path: Path, volume: Volume, by_place: bool = False) -> list[Roi | OutsideRoi]:
    """The structures of a structure set, ascending by number, and then those that lie outside the scan.

    Args:
        path: The file.
        volume: The scan.
        by_place: Whether coordinates are to be believed, whatever the UIDs say.

    Raises:
        RoiError: It is damaged, holds no closed contour, does not belong to the scan, or does not meet it.
    """
    with open_dataset(path, "RTSTRUCT") as dataset:
        notes, doubts = check_belongs(_references(dataset, volume), volume, str(path), by_place)
        structures = _structures(dataset, path)
    rois: list[Roi] = []
    outside: list[OutsideRoi] = []
    left_out = []
    for structure in structures:
        region = _rasterise(structure, volume.geometry, notes, doubts)
        if isinstance(region, Roi):
            rois.append(region)
        elif region is not None:
            outside.append(region)
        else:
            left_out.append(structure.number)
    if not rois:
        why = (
            "no structure meets the scan"
            if outside
            else "no structure has closed contours on the scan's slices"
        )
        raise RoiError(f"{path}: {why}: give the structure set of this scan")
    found: list[Roi | OutsideRoi] = [*rois, *outside]
    if left_out:
        listed = ", ".join(map(str, left_out[:10])) + (", ..." if len(left_out) > 10 else "")
        note = f"Structures without closed contours on the scan's slices were left out ({listed})."
        found = [replace(region, notes=(*region.notes, note)) for region in found]
    return found


def contour_references(path: Path, volume: Volume | None = None) -> References:
    """What images a structure set names.

    Raises:
        RoiError: It is damaged.
    """
    with open_dataset(path, "RTSTRUCT") as dataset:
        return _references(dataset, volume)


def contour_positions(path: Path) -> Array:
    """(n, 3) where the contours lie, RAS+ mm: some points of each.

    Raises:
        RoiError: It is damaged.
    """
    with open_dataset(path, "RTSTRUCT") as dataset:
        contours = [c for structure in _structures(dataset, path) for c in structure.contours]
    some = [c[:: max(1, len(c) // _POSITIONS_OF_A_CONTOUR)] for c in contours]
    return np.concatenate([np.empty((0, 3)), *some])


def _references(ds: Any, volume: Volume | None) -> References:
    frames = items(ds, "ReferencedFrameOfReferenceSequence")
    series = [s for f in frames for s in items(f, "RTReferencedStudySequence", "RTReferencedSeriesSequence")]
    images = [i for s in series for i in items(s, "ContourImageSequence")]
    uids = [text_of(f, "FrameOfReferenceUID") for f in frames] or [text_of(ds, "FrameOfReferenceUID")]
    of_scan = volume.source.frame_of_reference if volume is not None and volume.source is not None else ""
    return References(
        text_of(ds, "StudyInstanceUID"),
        of_scan if of_scan in uids else uids[0],
        frozenset(text_of(s, "SeriesInstanceUID") for s in series),
        frozenset(text_of(i, "ReferencedSOPInstanceUID") for i in images),
    )


def _structures(ds: Any, path: Path) -> list[_Structure]:
    """All structures, ascending by number."""
    names = {int(s.ROINumber): text_of(s, "ROIName") for s in items(ds, "StructureSetROISequence")}
    drawn = items(ds, "ROIContourSequence")
    if len(drawn) > _MOST_STRUCTURES:
        raise RoiError(
            f"{path}: holds {len(drawn)} structures, expected at most {_MOST_STRUCTURES}: remove some"
        )
    structures = []
    for roi in drawn:
        number = int(roi.ReferencedROINumber)
        contours = items(roi, "ContourSequence")
        closed = [c for c in contours if text_of(c, "ContourGeometricType") in _CLOSED]
        points = {p.tobytes(): p for c in closed if len(p := _points(c)) >= 3}  # each contour once
        name = names.get(number, "")
        structures.append(_Structure(number, name, [*points.values()], len(contours) - len(closed)))
    return sorted(structures, key=lambda s: s.number)


def _points(contour: Any) -> Array:
    """(n, 3) the points of a contour, RAS mm.

    Raises:
        ValueError: They are no triples of finite numbers.
    """
    raw = contour.get_item(_CONTOUR_DATA)
    value = raw.value if raw is not None else b""
    # Read as bytes, which is many times faster than number by number.
    numbers = np.array(value.split(b"\\") if isinstance(value, bytes) else list(value), dtype=np.float64)
    points = numbers.reshape(-1, 3) * LPS_TO_RAS
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
        raise ValueError("points that are no place in a patient")
    return points


def _rasterise(
    structure: _Structure, geometry: Geometry, notes: tuple[str, ...], doubts: tuple[Sentence, ...]
) -> Roi | OutsideRoi | None:
    """A structure on the scan's slices; None if it has no contour that can lie on one."""
    planar = [c for c in structure.contours if _is_planar(c, geometry)]
    if not planar:
        return None
    doubts += tuple(_left_out(structure.n_open, "open"))
    doubts += tuple(_left_out(len(structure.contours) - len(planar), "not_planar"))
    crossing = sum(crosses_itself(geometry.to_pixels(c, 0), _CROSSING_PX) for c in planar)
    if crossing:
        doubts += (Sentence("doubt.contours_crossing", count=str(crossing)),)
    planes = _planes(planar, geometry)
    slices, moved, beyond = _by_slice(planes, geometry)
    first = min((k for k, _ in slices), default=0)
    span = max((k for k, _ in slices), default=0) - first + 1
    labels = np.zeros((*geometry.shape[:2], span), dtype=np.uint8, order="F")
    for k, contours in slices:
        labels[:, :, k - first] |= _fill_slice(contours, geometry, k)
    found = label_regions(labels, geometry, (0, 0, first))
    if not found:
        return OutsideRoi(_volumes_ml(planes), structure.number, structure.name, notes, doubts)
    if moved:
        notes += (BETWEEN_NOTE,)
    roi = replace(found[0], value=structure.number, name=structure.name, notes=notes, doubts=doubts)
    return with_outside_share(roi, beyond)


def _is_planar(contour: Array, geometry: Geometry) -> bool:
    heights = contour @ geometry.normal
    nearest = int(np.abs(geometry.heights_mm - heights.mean()).argmin())
    return bool(np.ptp(heights) <= 2 * SAME_VOXEL * geometry.slice_thickness_mm[nearest])


def _left_out(count: int, what: str) -> Iterator[Sentence]:
    """The doubt that contours were left out, which are `open` or `not_planar`."""
    if count:
        yield Sentence(f"doubt.contour{'s' if count > 1 else ''}_{what}", count=str(count))


def _planes(contours: list[Array], geometry: Geometry) -> dict[float, list[Array]]:
    """Contours by the height of their plane along the scan's normal, ascending."""
    planes: dict[float, list[Array]] = {}
    last = -np.inf
    for height, n in sorted((float((c @ geometry.normal).mean()), n) for n, c in enumerate(contours)):
        if height - last > _SAME_PLANE_MM:
            last = height
        planes.setdefault(last, []).append(contours[n])
    return planes


def _by_slice(
    planes: dict[float, list[Array]], geometry: Geometry
) -> tuple[list[tuple[int, list[Array]]], bool, float]:
    """The contours of each slice; whether some were moved to it; the share of planes beyond all slices."""
    at, heights, thickness = np.array([*planes]), geometry.heights_mm, geometry.slice_thickness_mm
    own = np.abs(at[:, None] - heights).argmin(axis=1)
    off = np.abs(at - heights[own]) / thickness[own]
    inside = off <= _REACH
    if (off[inside] <= SAME_VOXEL).all():
        on = np.flatnonzero(inside)
        return [(int(own[n]), planes[at[n]]) for n in on], False, float((~inside).mean())
    half = float(np.median(np.diff(at))) / 2 + _SAME_PLANE_MM if at.size > 1 else 0.0
    slices, used = [], np.zeros(at.size, dtype=bool)
    for k, height in enumerate(heights):
        n = int(np.abs(at - height).argmin())
        if abs(at[n] - height) <= max(half, SAME_VOXEL * thickness[k]):
            slices.append((k, planes[at[n]]))
            used[n] = True
    moved = np.flatnonzero(inside & ~used)
    slices += [(int(own[n]), planes[at[n]]) for n in moved]
    return slices, bool(moved.size), float((~inside & ~used).mean())


def _fill_slice(contours: list[Array], geometry: Geometry, k: int) -> NDArray[np.bool_]:
    """(ni, nj) the contours on a slice; those too small for a pixel centre take the nearest pixel."""
    shape = geometry.shape[:2]
    polygons = [geometry.to_pixels(contour, k) for contour in contours]
    filled = fill(polygons, shape)
    for polygon in polygons if not filled.any() else ():
        i, j = np.rint(polygon.mean(axis=0)).astype(int)
        if 0 <= i < shape[0] and 0 <= j < shape[1]:
            filled[i, j] = True
    return filled


def _volumes_ml(planes: dict[float, list[Array]]) -> tuple[float, ...]:
    """The volume within contours: their areas times the usual distance of their planes (1 mm for one)."""
    step = float(np.median(np.diff(sorted(planes)))) if len(planes) > 1 else 1.0
    # Half the summed cross product of neighbouring corners is a polygon's area.
    areas = [
        np.linalg.norm(np.cross(c - c[0], np.roll(c, -1, axis=0) - c[0]).sum(axis=0)) / 2
        for contours in planes.values()
        for c in contours
    ]
    return (float(sum(areas)) * step / 1000,)
