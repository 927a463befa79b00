"""Which voxels of a scan a mask's voxels are, decided by what both headers say. World frame RAS+ in mm.

A mask is bound *by index* (its array is the scan's array) or *through patient space* (it is resampled to
where its header puts it). Whoever drew it meant one of the two, but headers are lost, mirrored and rounded on
the way. So the evidence decides, in this order:

1. **The grids are one.** Every voxel of the mask lies within a quarter of a voxel of one of the scan's, its
   axes reordered or reversed as the headers say. By index; patient space would give the same.
2. **The mask's grid stands for the scan's.** It is another one that the scan's header gives (its qform), or
   the scan's without the tilt and the uneven distances of its slices, which most programs cannot write: its
   first or last slice is the scan's, and the others follow along the normal. By index, with a note.
3. **The mask has as many voxels along each axis.** By index. No finding is sure if the headers put the same
   voxel more than 2 mm apart: the mask's header is wrong, or it is a mask of another scan. If one side has no
   orientation, voxels of the same size (within 2 %) take the place of this test.
4. **Any other grid.** Through patient space. No finding is sure if less than 95 % of the smaller of both
   boxes lies in the other, if the mask's place is lost (its first voxel lies at exactly 0, 0, 0), or if it
   fits a grid of point 2 better.

A quarter of a voxel: from half a voxel on, the nearest voxel is another one; a mirrored head is off by a
whole voxel or more, unless it is exactly centred. 2 mm: the networks' pixels are that large. 95 %: a
mask may be cropped, or cover more than the scan, but then one box lies in the other but for rounding; some
stacks that dcm2niix freed of their tilt lie 40 mm off, which leaves 93 % or less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.io.arrays import FileGrid
from situs.io.grids import (
    SAME_VOXEL,
    apart_mm,
    apart_voxels,
    is_part,
    misfit_mm,
    nearest_axes,
    place_text,
    reordered,
    shape_text,
    shared_box,
    size_text,
    steps,
)
from situs.sentences import Sentence
from situs.volume import Volume

__all__ = ["Binding", "BindingError", "MaskSpace", "bind", "resampled_note"]

MaskSpace = Literal["index", "world"]

_SAME_PLACE_MM = 2.0
_SAME_SIZE = 0.02
_SHARED_BOX = 0.95
_BETTER_MM = 1.0
_ROUNDING = 0.005  # of a slice distance
_TILT_DEG = 0.5


class BindingError(ValueError):
    """The mask cannot be bound to the scan; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class Binding:
    """How a mask's array lies on a scan's.

    Attributes:
        axes: By index: the mask's axis for each axis of the scan. None: through patient space.
        backward: By index: whether each axis of the scan runs against the mask's.
        notes: One sentence for everything assumed.
        doubts: Why it is doubtful where the mask lies, one sentence each.
    """

    axes: tuple[int, ...] | None
    backward: tuple[bool, ...] = (False, False, False)
    notes: tuple[str, ...] = ()
    doubts: tuple[Sentence, ...] = ()

    def to_scan_axes(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A mask (mi, mj, mk) that is bound by index, as a view with the scan's axes (ni, nj, nk)."""
        assert self.axes is not None
        return labels.transpose(self.axes)[tuple(slice(None, None, -1 if b else 1) for b in self.backward)]


def bind(mask: FileGrid, scan: Volume, space: MaskSpace | None = None) -> Binding:
    """Decide how a mask is bound to a scan.

    Args:
        mask: The mask's grid.
        scan: The scan.
        space: ``index`` or ``world`` overrules what the headers suggest.

    Raises:
        BindingError: There is no way to bind it, or not the one that `space` asks for.
    """
    scan_oriented = scan.stored is None or scan.stored.oriented
    oriented = mask.oriented and scan_oriented
    no_codes = f"{'the scan' if mask.oriented else 'it'} has no orientation (sform and qform codes are 0)"
    if space == "world":
        if not oriented:
            raise BindingError(f"--mask-space world cannot be, because {no_codes}: leave it out")
        return _one_grid(mask.geometry, scan.geometry) or Binding(
            None, notes=(resampled_note(mask.geometry),)
        )
    if mask.oriented == scan_oriented and (binding := _by_grid(mask, scan)) is not None:
        return binding
    by_array = _by_array(mask, scan)
    shapes = f"the mask has {shape_text(mask.geometry)} voxels, the scan {shape_text(scan.geometry)}"
    if space == "index":
        if by_array is None:
            raise BindingError(f"--mask-space index cannot be, because {shapes}: leave it out")
        return replace(by_array, notes=("The mask was bound voxel by voxel, as asked for.",))
    if by_array is not None:
        return (_judged_by_place if oriented else _judged_by_size)(by_array, mask, scan)
    if not oriented:
        raise BindingError(f"{no_codes}, and {shapes}, so it cannot be bound: save it on the scan's grid")
    return Binding(None, notes=(resampled_note(mask.geometry),), doubts=tuple(_box_doubts(mask, scan)))


def _by_grid(mask: FileGrid, scan: Volume) -> Binding | None:
    """By index, if the mask's grid is the scan's or stands for it (points 1 and 2)."""
    for grid in _grids(mask):
        for geometry in _geometries(scan):
            if (binding := _one_grid(grid, geometry)) is not None:
                if grid is mask.geometry and geometry is scan.geometry:
                    return binding
                note = "The headers' other affines (qform) put the mask on the scan; it was bound by them."
                return replace(binding, notes=(note,))
            if (binding := _but_straight(grid, geometry)) is not None:
                return binding
    return None


def _grids(mask: FileGrid) -> list[Geometry]:
    """Where a mask's voxels lie by each affine of its header."""
    return [mask.geometry, *(Geometry.from_affine(mask.geometry.shape, affine) for affine in mask.others)]


def _geometries(scan: Volume) -> list[Geometry]:
    """Where a scan's voxels lie by each affine of its header."""
    return [scan.geometry, *(scan.stored.others if scan.stored is not None else ())]


def _one_grid(grid: Geometry, geometry: Geometry) -> Binding | None:
    """The binding of a grid whose voxels all lie near those of the scan's geometry, if it is one."""
    axes, backward = nearest_axes(grid, geometry)
    turned = reordered(grid, axes, backward)
    if turned.shape != geometry.shape or apart_voxels(turned, geometry).max() > SAME_VOXEL:
        return None
    return Binding(axes, backward)


def _but_straight(grid: Geometry, geometry: Geometry) -> Binding | None:
    """The binding of a grid that is the scan's but for tilt and uneven distances, if it is one.

    Its first or last slice lies on the scan's. Its slices follow along the normal, or the way that the scan's
    follow, by a distance that some slices of the scan have.
    """
    axes, backward = nearest_axes(grid, geometry)
    turned = reordered(grid, axes, backward)
    if turned.shape != geometry.shape or geometry.shape[2] < 2:
        return None
    if apart_voxels(turned, geometry)[[0, -1]].min() > SAME_VOXEL:
        return None
    step, ways = turned.origins[1] - turned.origins[0], np.diff(geometry.origins, axis=0)
    distances = np.concatenate([geometry.slice_gaps_mm, np.linalg.norm(ways, axis=1)])
    if not distances.min() * (1 - _ROUNDING) <= np.linalg.norm(step) <= distances.max() * (1 + _ROUNDING):
        return None
    mean_way = steps(geometry)[:, 2]
    units = (geometry.normal, mean_way / np.linalg.norm(mean_way))
    aside = min(float(np.linalg.norm(step - (step @ unit) * unit)) for unit in units)
    if aside * (geometry.shape[2] - 1) > SAME_VOXEL * min(geometry.spacing_mm):
        return None
    what = "tilt" if geometry.tilt_deg > _TILT_DEG else "uneven distances"
    note = f"The mask's header leaves out the {what} of the scan's slices; it was bound voxel by voxel."
    return Binding(axes, backward, notes=(note,))


def _by_array(mask: FileGrid, scan: Volume) -> Binding | None:
    """The binding of one file's array to another's, if they have one shape (point 3).

    A DICOM series counts as an array of columns, rows and slices from feet to head, as ITK orders it. The
    rows are reversed if the mask's header says that and no more, as dcm2niix does.
    """
    order = (0, 1, 2) if scan.stored is None else scan.stored.order
    axes = tuple(mask.order.index(axis) for axis in order)
    if tuple(mask.geometry.shape[axis] for axis in axes) != scan.geometry.shape:
        return None
    as_dcm2niix = (axes, (False, True, False))
    if scan.stored is None and mask.oriented and nearest_axes(mask.geometry, scan.geometry) == as_dcm2niix:
        return Binding(*as_dcm2niix)
    return Binding(axes)


def _judged_by_place(binding: Binding, mask: FileGrid, scan: Volume) -> Binding:
    """A binding by index, doubtful if the headers put the same voxel at two places."""
    assert binding.axes is not None
    grids = [reordered(grid, binding.axes, binding.backward) for grid in _grids(mask)]
    apart = [
        float(np.linalg.norm(apart_mm(grid, geometry), axis=-1).max())
        for grid in grids
        for geometry in _geometries(scan)
    ]
    if min(apart) <= _SAME_PLACE_MM:
        note = f"The mask's header is up to {min(apart):.1f} mm off the scan's; it was bound voxel by voxel."
        return replace(binding, notes=(note,))
    places = _both_places(grids[0], scan)
    return replace(binding, doubts=(Sentence("doubt.far_header", distance=f"{apart[0]:.0f}", **places),))


def _judged_by_size(binding: Binding, mask: FileGrid, scan: Volume) -> Binding:
    """A binding by index where one side has no orientation, doubtful if the sizes of the voxels differ."""
    assert binding.axes is not None
    sizes, expected = (np.linalg.norm(steps(g), axis=0) for g in (mask.geometry, scan.geometry))
    sizes = sizes[list(binding.axes)]
    counted = 3 if scan.geometry.shape[2] > 1 else 2
    unoriented = "scan" if mask.oriented else "mask"
    if np.abs(sizes / expected - 1)[:counted].max() > _SAME_SIZE:
        doubt = Sentence(f"doubt.{unoriented}_unlike_size", mask=size_text(sizes), scan=size_text(expected))
        return replace(binding, doubts=(doubt,))
    if scan.stored is None:
        return replace(binding, doubts=(Sentence(f"doubt.{unoriented}_without_orientation"),))
    note = (
        f"The {unoriented}'s header has no orientation; numbers and sizes of voxels agree, so the mask was "
        "bound voxel by voxel."
    )
    return replace(binding, notes=(note,))


def _box_doubts(mask: FileGrid, scan: Volume) -> Iterator[Sentence]:
    """Why a mask on another grid may lie elsewhere than its header says (point 4)."""
    places = _both_places(mask.geometry, scan)
    if (shared := shared_box(mask.geometry, scan.geometry)) < _SHARED_BOX:
        yield Sentence("doubt.boxes_apart", percent=f"{100 * shared:.0f}", **places)
    if not mask.geometry.origins[0].any() and scan.geometry.origins[0].any():
        yield Sentence("doubt.lost_place", **places)
    if any(_fits_better(mask.geometry, other, scan.geometry) for other in _stand_ins(scan)):
        yield Sentence("doubt.other_grid", **places)


def _stand_ins(scan: Volume) -> Iterator[Geometry]:
    """Grids that may stand for the scan's and lie elsewhere (point 2)."""
    g = scan.geometry
    candidates = _geometries(scan)[1:]
    way = g.origins[-1] - g.origins[0]
    if way.any():
        up = g.normal * np.sign(way @ g.normal)
        share = np.linspace(0, 1, g.shape[2])[:, None]
        for length in (abs(float(way @ g.normal)), float(np.linalg.norm(way))):
            for first in (g.origins[0], g.origins[-1] - up * length):
                candidates.append(replace(g, origins=first + share * up * length))
    for candidate in candidates:
        if np.linalg.norm(apart_mm(candidate, g), axis=-1).max() > _SAME_PLACE_MM:
            yield candidate


def _fits_better(grid: Geometry, other: Geometry, geometry: Geometry) -> bool:
    """Whether a grid is a part of another, voxel by voxel, or ends where it does; but not the scan's."""
    if geometry.is_affine and is_part(grid, geometry, SAME_VOXEL):
        return False
    if other.is_affine and is_part(grid, other, SAME_VOXEL):
        return True
    ends, largest = (
        misfit_mm(grid, other),
        np.linalg.norm(np.hstack([steps(grid), steps(other)]), axis=0).max(),
    )
    return bool(ends <= largest and ends + _BETTER_MM < misfit_mm(grid, geometry))


def _both_places(grid: Geometry, scan: Volume) -> dict[str, str]:
    return {"mask": place_text(grid), "scan": place_text(scan.geometry)}


def resampled_note(grid: Geometry) -> str:
    """What is said about a mask that is on another grid than the scan."""
    voxels = f"{shape_text(grid)} voxels of {size_text(np.linalg.norm(steps(grid), axis=0))}"
    return f"The mask is on another grid ({voxels}); it was resampled to the scan's through patient space."
