"""Masks: regions of interest from a file, bound to a scan. World frame RAS+ in mm.

A mask on the scan's grid is taken voxel by voxel, one on another grid through `situs.io.regrid`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError
from situs.geometry import Geometry
from situs.io.nifti import NiftiGrid, read_nifti_grid
from situs.io.regrid import iter_values, regrid
from situs.volume import Roi, Volume

__all__ = ["read_mask"]

_BETWEEN_NOTE = "A part of the region lies between two slices of the scan; it was moved to the nearest one."

Labels = NDArray[Any]


def read_mask(path: Path, volume: Volume) -> list[Roi]:
    """The regions of a NIfTI mask on the scan's grid, one per value, ascending.

    Raises:
        RoiError: see `situs.io.read_rois`
    """
    grid = read_nifti_grid(path, RoiError)
    labels = _whole_numbers(grid.values, path)
    if volume.geometry.is_same_grid(grid.geometry):
        return _rois(labels, volume.geometry, {})
    if not grid.oriented:
        raise RoiError(
            f"{path}: its header has no orientation (sform and qform codes are 0), so it cannot be bound "
            "to the scan: save it with the scan's affine"
        )
    found = regrid(labels, grid.affine, volume.geometry)
    rois = _rois(found.labels, volume.geometry, found.between)
    if not rois:
        raise RoiError(
            f"{path}: none of it meets the scan (mask: {_box_text(grid.geometry)}; scan: "
            f"{_box_text(volume.geometry)}): it is of another patient space; draw it on this scan"
        )
    notes = [_grid_note(grid)]
    if absent := sorted({v for v, _ in iter_values(labels)} - {r.value for r in rois}):
        notes.append(f"Of the mask, {_list_text(absent)} lies outside the scan and was left out.")
    if found.outside > 0.01:
        notes.append(f"{100 * found.outside:.0f} % of the mask's voxels lie outside the scan.")
    return [replace(roi, notes=(*notes, *roi.notes)) for roi in rois]


def _whole_numbers(values: Labels, path: Path) -> Labels:
    """The mask as integers of the smallest kind; refuses what is no mask."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RoiError(f"{path}: holds NaN or infinite values, expected whole numbers: save it as integers")
    if low < 0:
        raise RoiError(
            f"{path}: holds negative values (down to {low:g}), expected 0, 1, ...: is this the scan?"
        )
    if high == 0:
        raise RoiError(f"{path}: the mask is empty (all voxels are 0): draw a region")
    if high >= 2**31:
        raise RoiError(f"{path}: holds values up to {high:g}, expected less than 2^31: renumber them")
    kind = np.min_scalar_type(int(high))
    if values.dtype.kind in "iu":
        return values.astype(kind, copy=False)
    whole = values.astype(kind)
    if not np.array_equal(whole, values):
        raise RoiError(f"{path}: holds values that are not whole: threshold it and save it as integers")
    return whole


def _rois(labels: Labels, geometry: Geometry, between: dict[int, NDArray[np.int64]]) -> list[Roi]:
    """One region per value, each only as large as its box."""
    between = dict(between)
    rois = {}
    for value, box in iter_values(labels):
        start, mask = np.array([s.start for s in box]), labels[box] == value
        notes: tuple[str, ...] = ()
        if value in between:
            start, mask = _union(start, mask, between.pop(value))
            notes = (_BETWEEN_NOTE,)
        rois[value] = Roi(np.ascontiguousarray(mask), _triple(start), geometry, value, notes=notes)
    for value, extra in between.items():
        start, mask = _union(extra[0], np.ones((1, 1, 1), dtype=bool), extra)
        rois[value] = Roi(mask, _triple(start), geometry, value, notes=(_BETWEEN_NOTE,))
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


def _list_text(values: list[int]) -> str:
    shown = ", ".join(str(v) for v in values[:10]) + (", ..." if len(values) > 10 else "")
    return f"value {shown}"


def _grid_note(grid: NiftiGrid) -> str:
    sizes = " x ".join(f"{x:.2f}" for x in np.linalg.norm(grid.affine[:3, :3], axis=0))
    return (
        f"The mask is on another grid ({' x '.join(map(str, grid.values.shape))} voxels of {sizes} mm); it "
        "was resampled to the scan's through patient space."
    )


def _box_text(g: Geometry) -> str:
    i, j = g.shape[0] - 1, g.shape[1] - 1
    corners = np.concatenate([g.origins + a * g.step_i + b * g.step_j for a in (0, i) for b in (0, j)])
    spans = zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in spans) + " mm"
