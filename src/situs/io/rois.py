"""Masks: regions of interest from a file, bound to a scan. World frame RAS+ in mm.

`situs.io.binding` decides how a mask lies on a scan: voxel by voxel, or through `situs.io.regrid`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.arrays import FileGrid, NamedSegment
from situs.io.binding import Binding, BindingError, MaskSpace, bind
from situs.io.grid_files import read_grid
from situs.io.grids import box_text
from situs.io.labels import Labels, Layer, Threshold, WholeNumbers, to_layers
from situs.io.regrid import iter_values, regrid
from situs.sentences import Sentence
from situs.volume import OutsideRoi, Roi, Volume

__all__ = [
    "BETWEEN_NOTE",
    "bound_regions",
    "label_regions",
    "mask_positions",
    "read_mask",
    "resampled_regions",
    "with_outside_share",
]

_POSITIONS_OF_A_SLICE = 200
_LEAST_OUTSIDE = 0.01  # of a region that is worth a note
_MUCH_OUTSIDE = 0.1  # of a region; with more outside the scan, what is left may be another site
BETWEEN_NOTE = "A part of the region lies between two slices of the scan; it was moved to the nearest one."


def read_mask(
    path: Path, volume: Volume, space: MaskSpace | None = None, threshold: float | None = None
) -> list[Roi | OutsideRoi]:
    """The regions of a mask on the scan's grid, one per value, ascending.

    Raises:
        RoiError: see `situs.io.read_rois`
    """
    convert = WholeNumbers(str(path)) if threshold is None else Threshold(str(path), threshold)
    grid = read_grid(path, RoiError, convert)
    if threshold is not None and grid.values.max() > 1:
        raise RoiError(
            f"{path}: holds labels up to {grid.values.max()}, expected probabilities from 0 to 1: leave "
            "--threshold out"
        )
    layers, notes = to_layers(grid.values, str(path), bool(grid.segments))
    try:
        binding = bind(grid, volume, space)
    except BindingError as problem:
        raise RoiError(f"{path}: {problem}") from problem
    regions = [
        _named(region, number, grid.segments)
        for number, layer in enumerate(layers)
        for region in bound_regions([layer], grid, volume, binding)
    ]
    if not any(isinstance(region, Roi) for region in regions):
        raise RoiError(
            f"{path}: none of it meets the scan (mask: {box_text(grid.geometry)}; scan: "
            f"{box_text(volume.geometry)}): it is of another patient space; draw it on this scan"
        )
    regions.sort(key=lambda region: (isinstance(region, OutsideRoi), region.value))
    said = (*convert.notes, *notes)
    return [replace(region, notes=(*said, *region.notes)) for region in regions]


def _named(region: Roi | OutsideRoi, layer: int, segments: tuple[NamedSegment, ...]) -> Roi | OutsideRoi:
    """A region with the name of its segment, and with its number where segments share a label."""
    own = [n for n, s in enumerate(segments) if (s.layer, s.value) == (layer, region.value)]
    if not own:
        return region
    one_each = len({s.value for s in segments}) == len(segments)
    value = region.value if one_each else own[0] + 1
    return replace(region, value=value, name=segments[own[0]].name)


def mask_positions(path: Path) -> NDArray[np.float64]:
    """Where a mask lies in the patient, by its own header: some of its voxels on each slice.

    Returns:
        (n, 3) RAS+ mm; none if the mask is empty or its header has no orientation.

    Raises:
        RoiError: The mask cannot be read.
    """
    # Of a map of probabilities, the likelier half.
    grid = read_grid(path, RoiError, lambda values, _: values >= 0.5)
    if not grid.oriented:
        return np.empty((0, 3))
    positions = []
    for k in range(grid.geometry.shape[2]):
        ij = np.argwhere(grid.values[:, :, k] > 0)[:, :2]
        ij = ij[:: max(1, len(ij) // _POSITIONS_OF_A_SLICE)]
        positions.append(grid.geometry.to_world(np.column_stack([ij, np.full(len(ij), k)])))
    return np.concatenate(positions)


def bound_regions(
    layers: list[Layer], grid: FileGrid, volume: Volume, binding: Binding
) -> list[Roi | OutsideRoi]:
    """The regions of a mask's layers (see `situs.io.labels.to_layers`) that is bound to a scan."""
    regions: list[Roi | OutsideRoi] = []
    for value, labels in layers:
        if not labels.any():
            continue
        if binding.axes is not None:
            own: list[Roi | OutsideRoi] = [*label_regions(binding.to_scan_axes(labels), volume.geometry)]
        else:
            own = resampled_regions(labels, grid.affine, volume.geometry)
        regions += own if value is None else [replace(region, value=value) for region in own]
    return [
        replace(region, notes=(*binding.notes, *region.notes), doubts=(*binding.doubts, *region.doubts))
        for region in regions
    ]


def label_regions(labels: Labels, geometry: Geometry, start: tuple[int, int, int] = (0, 0, 0)) -> list[Roi]:
    """The regions of labels (li, lj, lk) that are those of the scan from voxel `start` on."""
    return _rois(labels, geometry, {}, start)


def resampled_regions(
    labels: Labels, affine: NDArray[np.float64], geometry: Geometry
) -> list[Roi | OutsideRoi]:
    """The regions of a mask that is brought to the scan through patient space, and what lies outside it.

    Args:
        labels: (mi, mj, mk) whole numbers, not all 0.
        affine: (4, 4) where they lie, RAS+ mm.
        geometry: The scan's.
    """
    found = regrid(labels, affine, geometry)
    regions: list[Roi | OutsideRoi] = []
    for roi in _rois(found.labels, geometry, found.between):
        regions.append(with_outside_share(roi, found.beyond.get(roi.value, 0.0)))
    return regions + [OutsideRoi(found.outside_ml[value], value) for value in sorted(found.outside_ml)]


def with_outside_share(roi: Roi, share: float) -> Roi:
    """A region with a note, or a doubt if it is much, that a share of it lies outside the scan."""
    sentence = Sentence("doubt.part_outside", percent=f"{100 * share:.0f}")
    if share > _MUCH_OUTSIDE:
        return replace(roi, doubts=(*roi.doubts, sentence))
    return replace(roi, notes=(*roi.notes, sentence)) if share > _LEAST_OUTSIDE else roi


def _rois(
    labels: Labels,
    geometry: Geometry,
    between: dict[int, NDArray[np.int64]],
    first: tuple[int, int, int] = (0, 0, 0),
) -> list[Roi]:
    """One region per value, each only as large as its box; the labels begin at voxel `first`."""
    between = dict(between)
    rois = {}
    for value, box in iter_values(labels):
        start, mask = np.array([s.start for s in box]) + first, labels[box] == value
        notes: tuple[str, ...] = ()
        if value in between:
            start, mask = _union(start, mask, between.pop(value))
            notes = (BETWEEN_NOTE,)
        rois[value] = Roi(np.ascontiguousarray(mask), _triple(start), geometry, value, notes=notes)
    for value, extra in between.items():
        start, mask = _union(extra[0], np.ones((1, 1, 1), dtype=bool), extra)
        rois[value] = Roi(mask, _triple(start), geometry, value, notes=(BETWEEN_NOTE,))
    return [rois[value] for value in sorted(rois)]


def _union(
    start: NDArray[Any], mask: NDArray[np.bool_], extra: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A boxed mask with further voxels (n, 3) added: its new start and mask."""
    low = np.minimum(start, extra.min(axis=0))
    high = np.maximum(start + mask.shape, extra.max(axis=0) + 1)
    union = np.zeros(high - low, dtype=bool)
    union[tuple(slice(a, a + n) for a, n in zip(start - low, mask.shape, strict=True))] = mask
    union[tuple((extra - low).T)] = True
    return low, union


def _triple(start: NDArray[Any]) -> tuple[int, int, int]:
    i, j, k = (int(x) for x in start)
    return i, j, k
