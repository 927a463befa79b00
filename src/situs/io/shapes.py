"""Boxes, points and brush strokes of a JSON or CSV file (see `docs/output.md`) as regions of a scan.

A point becomes the ball around it. A brush stroke becomes the balls around its points, joined. A box becomes
the ellipsoid that touches its six sides, because a lesion hardly ever fills the corners: its answers agree
with those of the lesion's own mask more often than the whole box's do, of the site as of the side
(`benchmarks/shapes.py`).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.dicom.rois import References
from situs.io.grids import is_inside, steps
from situs.io.rois import BETWEEN_NOTE, with_outside_share
from situs.io.stream import ByteStream
from situs.volume import OutsideRoi, Roi, Volume, bounding_box

__all__ = [
    "DEFAULT_RADIUS_MM",
    "SCHEMA",
    "Brush",
    "Shape",
    "read_shapes",
    "shape_positions",
    "shape_references",
]

# Of a point without one. Smaller balls get the site right a little more often, but fall below four pixels on
# coarse scans, which is too small to be judged.
DEFAULT_RADIUS_MM = 3.0

SCHEMA = "situs.shapes/1"
_MOST_BYTES = 2**24
_REACH = 0.75  # of a slice's thickness, from a shape between two slices to the one that takes it
_SAMPLES = 12  # along each axis of a shape, to see how much of it lies outside the scan
_MOST_SAMPLED = 64  # balls of a brush stroke that are sampled for it
_LPS = np.array([-1.0, -1.0, 1.0])

Array = NDArray[np.float64]
_Number = Annotated[float, Meta(ge=-1e5, le=1e5)]
_Point = tuple[_Number, _Number, _Number]
_Radius = Annotated[float, Meta(gt=0, le=150)]


class Brush(Struct, forbid_unknown_fields=True):
    """A brush stroke: balls of one radius around its points."""

    points: Annotated[list[_Point], Meta(min_length=1, max_length=10_000)]
    radius_mm: _Radius = DEFAULT_RADIUS_MM


class Shape(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One region: a box, by two opposite corners, a point with its radius, or a brush stroke."""

    box: tuple[_Point, _Point] | None = None
    point: _Point | None = None
    radius_mm: _Radius | None = None
    brush: Brush | None = None
    name: Annotated[str, Meta(max_length=200)] = ""
    value: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None

    @property
    def kind(self) -> str:
        """``box``, ``point`` or ``brush``; of several given, the first; empty if none is."""
        return next((kind for kind in ("box", "point", "brush") if getattr(self, kind) is not None), "")


class _File(Struct, forbid_unknown_fields=True):
    schema: Literal["situs.shapes/1"]
    space: Literal["voxel", "ras", "lps"]
    shapes: Annotated[list[Shape], Meta(min_length=1, max_length=10_000)]
    scan: Annotated[str, Meta(max_length=1000)] = ""


@dataclass(frozen=True, eq=False)
class _Ellipsoid:
    """An ellipsoid along the axes of its space: voxel indices (i, j, k) of the scan, or RAS mm."""

    centre: Array
    half: Array
    of_voxels: bool

    def holds(self, points: Array) -> NDArray[np.bool_]:
        return np.asarray((((points - self.centre) / self.half) ** 2).sum(axis=-1) <= 1)


def read_shapes(path: Path, volume: Volume) -> list[Roi | OutsideRoi]:
    """The shapes of a file as regions, ascending by value, and then those outside the scan.

    Raises:
        RoiError: It is not as the schema says, is of another scan, or does not meet the scan.
    """
    file = _read(path)
    _check_scan(file, volume, path)
    numbers = [n if s.value is None else s.value for n, s in enumerate(file.shapes, start=1)]
    if len(set(numbers)) < len(numbers):
        raise RoiError(f"{path}: two shapes have the same value, expected one each: change or leave them out")
    rois: list[Roi] = []
    outside: list[OutsideRoi] = []
    for number, shape in sorted(zip(numbers, file.shapes, strict=True), key=lambda pair: pair[0]):
        region = _region(shape, number, file, volume, path)
        (rois if isinstance(region, Roi) else outside).append(region)  # type: ignore[arg-type]
    if not rois:
        raise RoiError(f"{path}: none of its shapes meets the scan: is its space ({file.space}) right?")
    return [*rois, *outside]


def shape_references(path: Path) -> References:
    """The series that a file names.

    Raises:
        RoiError: It is not as the schema says.
    """
    return References("", "", frozenset({_read(path).scan} - {""}), frozenset())


def shape_positions(path: Path) -> Array:
    """(n, 3) the middles of the shapes, RAS+ mm; none if they are voxel indices.

    Raises:
        RoiError: It is not as the schema says.
    """
    file = _read(path)
    if file.space == "voxel":
        return np.empty((0, 3))
    points = [s.brush.points if s.brush is not None else s.box or [s.point] for s in file.shapes]
    middles = np.array([np.mean(np.array(of_shape), axis=0) for of_shape in points])
    return middles * (_LPS if file.space == "lps" else 1.0)


def _read(path: Path) -> _File:
    with ByteStream(path, RoiError) as stream:
        content = stream.peek(_MOST_BYTES)
    if len(content) == _MOST_BYTES:
        raise RoiError(f"{path}: has more than 16 MiB, expected a list of shapes")
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            file = msgspec.json.decode(text, type=_File)
        else:
            file = msgspec.convert(_from_csv(text), type=_File, strict=False)
    except (ValueError, csv.Error) as problem:  # msgspec's errors are among them
        raise RoiError(f"{path}: is not as {SCHEMA} says ({problem}): see docs/output.md") from problem
    for number, shape in enumerate(file.shapes, start=1):
        kinds = sum(kind is not None for kind in (shape.box, shape.point, shape.brush))
        if kinds != 1 or (shape.point is None and shape.radius_mm is not None):
            raise RoiError(
                f"{path}: shape {number} is neither a box nor a point (with or without radius_mm) nor a "
                "brush: give one"
            )
    return file


def _from_csv(text: str) -> dict[str, Any]:
    """A CSV file as the JSON one would be; an empty cell is one that is left out."""
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    cells = [{k: (v or "").strip() for k, v in row.items() if isinstance(v, str)} for row in rows]

    def shape(row: dict[str, str]) -> dict[str, Any]:
        first, second = ([row.get(c, "") for c in names] for names in (("x", "y", "z"), ("x2", "y2", "z2")))
        places = {"box": [first, second], "point": first}
        own = {key: row[key] for key in ("radius_mm", "name", "value") if row.get(key)}
        kind = row["shape"]
        if kind not in places:
            raise ValueError(f"shape: expected box or point, got {kind[:20]!r}")
        if kind == "point" and any(second):
            raise ValueError("a point has x2, y2 or z2")
        return {kind: places[kind], **own}

    found: dict[str, Any] = {"schema": SCHEMA, "shapes": [shape(row) for row in cells]}
    for key in ("space", "scan"):
        values = {row.get(key, "") for row in cells}
        if len(values) > 1:
            raise ValueError(f"{key}: expected the same in each row")
        if value := next(iter(values), ""):
            found[key] = value
    return found


def _check_scan(file: _File, volume: Volume, path: Path) -> None:
    source = volume.source
    names = {volume.name} if source is None else {image.series for image in source.images}
    if file.scan and file.scan not in names:
        what = "the scan's file name" if source is None else "the scan's SeriesInstanceUID"
        raise RoiError(f"{path}: its 'scan' is not {what}: give the shapes of this scan, or leave 'scan' out")
    if file.space != "voxel" and volume.stored is not None and not volume.stored.oriented:
        raise RoiError(
            f"{path}: cannot be placed on the scan, whose header has no orientation: give voxel indices"
        )


def _region(shape: Shape, number: int, file: _File, volume: Volume, path: Path) -> Roi | OutsideRoi:
    geometry = volume.geometry
    solids, note = _solids(shape, number, file, volume, path)
    mask, between = _rasterise(solids, geometry)
    notes = (note, BETWEEN_NOTE) if between else (note,)
    if not mask.any():
        # Balls of a brush stroke overlap: of several, the largest counts.
        largest = max(solids, key=lambda solid: float(solid.half.prod()))
        voxel = abs(float(np.linalg.det(steps(geometry)))) if largest.of_voxels else 1.0
        volume_ml = 4 / 3 * np.pi * float(largest.half.prod()) * voxel / 1000
        return OutsideRoi((volume_ml,), number, shape.name, notes)
    box = bounding_box(mask)
    i, j, k = (s.start for s in box)
    roi = Roi(np.ascontiguousarray(mask[box]), (i, j, k), geometry, number, shape.name, notes=notes)
    sampled = solids[:: -(-len(solids) // _MOST_SAMPLED)]
    return with_outside_share(roi, float(np.mean([_outside_share(solid, geometry) for solid in sampled])))


def _solids(
    shape: Shape, number: int, file: _File, volume: Volume, path: Path
) -> tuple[list[_Ellipsoid], str]:
    """What a shape stands for, and the sentence that says so."""
    of_voxels = file.space == "voxel"
    order = (0, 1, 2) if volume.stored is None else volume.stored.order

    def place(point: _Point) -> Array:
        if of_voxels:
            return np.array(point)[list(order)]
        return np.array(point) * (_LPS if file.space == "lps" else 1.0)

    if shape.box is not None:
        ends = np.array([place(corner) for corner in shape.box])
        low, high = ends.min(axis=0), ends.max(axis=0)
        half = (high - low + (1 if of_voxels else 0)) / 2
        if half.min() <= 0:
            raise RoiError(f"{path}: box {number} has no extent along an axis: give two opposite corners")
        solid = _Ellipsoid((low + high) / 2, half, of_voxels)
        return [solid], "The box was taken for the ellipsoid within it."

    def ball(point: _Point, radius: float) -> _Ellipsoid:
        centre = place(point)
        if of_voxels:
            # A ball of the patient needs a position there; beyond the scan its slices are thought to go on.
            k = int(np.clip(np.rint(centre[2]), 0, volume.geometry.shape[2] - 1))
            beyond = (centre[2] - k) * steps(volume.geometry)[:, 2]
            centre = volume.geometry.to_world([[centre[0], centre[1], k]])[0] + beyond
        return _Ellipsoid(centre, np.full(3, radius), False)

    if shape.brush is not None:
        radius = shape.brush.radius_mm
        note = f"The brush stroke was taken for balls with a radius of {radius:g} mm."
        return [ball(point, radius) for point in shape.brush.points], note
    assert shape.point is not None
    radius = DEFAULT_RADIUS_MM if shape.radius_mm is None else shape.radius_mm
    return [ball(shape.point, radius)], f"The point was taken for a ball with a radius of {radius:g} mm."


def _rasterise(solids: list[_Ellipsoid], geometry: Geometry) -> tuple[NDArray[np.bool_], bool]:
    """(ni, nj, nk) the voxels whose centres one of the solids holds; whether some were moved to a slice.

    They are moved only if no solid holds a voxel.
    """
    mask = np.zeros(geometry.shape, dtype=bool, order="F")
    for solid in solids:
        _fill(mask, solid, geometry)
    moved = not mask.any() and any([_fill_nearest(mask, solid, geometry) for solid in solids])
    return mask, moved


def _extent(solid: _Ellipsoid, geometry: Geometry) -> tuple[Array, Array, Array, float, Array]:
    """The corners (8, 3) of a solid's box, the heights (nk,) of the slices, those of the corners (8,) and of
    the centre, and how far (nk,) a slice reaches."""
    ends = solid.centre + solid.half * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    if solid.of_voxels:
        heights, at = np.arange(geometry.shape[2], dtype=np.float64), ends[:, 2]
        centre, reach = float(solid.centre[2]), np.full(geometry.shape[2], _REACH)
    else:
        heights, at = geometry.heights_mm, ends @ geometry.normal
        centre, reach = float(solid.centre @ geometry.normal), _REACH * geometry.slice_thickness_mm
    return ends, heights, at, centre, reach


def _fill(mask: NDArray[np.bool_], solid: _Ellipsoid, geometry: Geometry) -> None:
    """Mark the voxels whose centres a solid holds."""
    ends, heights, at, _, _ = _extent(solid, geometry)
    for k in np.flatnonzero((heights >= at.min()) & (heights <= at.max())):
        _fill_slice(mask, solid, geometry, int(k), ends, 0.0)


def _fill_nearest(mask: NDArray[np.bool_], solid: _Ellipsoid, geometry: Geometry) -> bool:
    """Mark the pixels that a solid between two slices holds on the nearest; whether it was moved there."""
    ends, heights, _, centre, reach = _extent(solid, geometry)
    nearest = int(np.abs(heights - centre).argmin())
    off = centre - heights[nearest]
    if abs(off) > reach[nearest]:
        return False
    _fill_slice(mask, solid, geometry, nearest, ends, off)
    if not mask[:, :, nearest].any():  # smaller than a pixel
        one = solid.centre[None]
        i, j = np.rint(one[0, :2] if solid.of_voxels else geometry.to_pixels(one, nearest)[0]).astype(int)
        if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
            mask[i, j, nearest] = True
    return abs(off) > 1e-6


def _fill_slice(
    mask: NDArray[np.bool_], solid: _Ellipsoid, geometry: Geometry, k: int, ends: Array, off: float
) -> None:
    """Mark the pixels of slice k that an ellipsoid holds; those `off` above it, if it lies between two."""
    pixels = ends[:, :2] if solid.of_voxels else geometry.to_pixels(ends, k)
    low = np.maximum(np.floor(pixels.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0)) + 1, mask.shape[:2]).astype(int)
    if (low >= high).any():
        return
    i, j = (x.ravel() for x in np.mgrid[low[0] : high[0], low[1] : high[1]])
    voxels = np.column_stack([i, j, np.full(i.size, k)])
    if solid.of_voxels:
        points = voxels + np.array([0.0, 0.0, off])
    else:
        points = geometry.to_world(voxels) + off * geometry.normal
    mask[i, j, k] |= solid.holds(points)


def _outside_share(solid: _Ellipsoid, geometry: Geometry) -> float:
    """The part of an ellipsoid that lies outside the scan."""
    at = (np.arange(_SAMPLES) + 0.5) / _SAMPLES * 2 - 1
    points = np.stack(np.meshgrid(at, at, at), axis=-1).reshape(-1, 3) * solid.half + solid.centre
    points = points[solid.holds(points)]
    if solid.of_voxels:
        inside = ((points > -0.5) & (points < np.array(geometry.shape) - 0.5)).all(axis=1)
    else:
        inside = is_inside(points, geometry)
    return 1.0 - float(inside.mean())
