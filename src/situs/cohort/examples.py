"""From one scan of a cohort to examples: its regions' slices as views, and the painting targets over them.

Painting targets are at half the view's size. One is the site map: 0 for no site, else the site's index + 1,
or `SITE_UNKNOWN`. The other is the signed distance to the midline in mm, positive to the patient's left, or
`LATERAL_UNKNOWN`. Where views are upright (`situs.views.ViewSpec`), the head's turn comes from these
distances or, without them, from the head's symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.cohort.manifest import Row
from situs.errors import ManifestError
from situs.files import stem
from situs.geometry import Geometry
from situs.io.nifti import read_nifti_grid
from situs.midplane import Midplane
from situs.resample import Place, sample_slice
from situs.views import LEAST_TURN_DEG, MIRRORED, ViewSpec, extract_views
from situs.volume import Roi, Volume, choose_slices, union_mask

__all__ = [
    "LATERAL_UNKNOWN",
    "SITE_UNKNOWN",
    "TARGETS",
    "Extraction",
    "extract_scan",
    "iter_scans",
]

SITE_UNKNOWN = 255
LATERAL_UNKNOWN = 127
TARGETS = ("global_sites", "local_sites", "global_lateral", "local_lateral")  # of a `Batch`

# In training, this part of the regions is seen as the heads lie, so that the networks know turned heads. The
# others are upright but for a random error with this standard deviation.
_AS_THEY_LIE = 0.25
_TURN_ERROR_DEG = 5.0
# The midplane that a head is mirrored over has these errors in training (standard deviations), as in use.
_PLANE_ERROR_MM, _PLANE_ERROR_DEG = 2.0, 2.0
_PLANE_VOXELS = 5000  # that a head's midplane is estimated from


@dataclass(frozen=True)
class Extraction:
    """How the examples of a scan are made.

    Attributes:
        spec: How slices become views.
        max_slices: At most this many slices of each region, see `situs.volume.choose_slices`; None for all.
        painted: Whether the cohort has site maps and distances to the midline, so that there are targets.
        training: Whether the views are for training. Then upright views have a random error, and a quarter of
            the regions is seen as the heads lie.
    """

    spec: ViewSpec
    max_slices: int | None
    painted: bool
    training: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays that examples are made of."""
        return ("global_view", "local_view", *(TARGETS if self.painted else ()))

    def turn_deg(self, lies_deg: float, row: int) -> float:
        """The turn of a region's views, degrees clockwise in the picture.

        Args:
            lies_deg: The turn of the head, degrees clockwise in the picture.
            row: The region's row of the manifest; it seeds what is random.
        """
        if not self.spec.upright:
            return 0.0
        if not self.training:
            return lies_deg if abs(lies_deg) >= LEAST_TURN_DEG else 0.0
        rng = np.random.default_rng(row)
        return 0.0 if rng.random() < _AS_THEY_LIE else lies_deg + rng.normal(0, _TURN_ERROR_DEG)

    def mirror(self, plane: Midplane | None, row: int) -> NDArray[np.float64] | None:
        """The reflection that `MIRRORED` shows, see `situs.views.extract_views`.

        Args:
            plane: The midplane of the head, if it is known.
            row: The region's row of the manifest; it seeds what is random.
        """
        if plane is None or not self.training:
            return None if plane is None else plane.mirror
        rng = np.random.default_rng([row, 1])
        left = plane.left + np.radians(_PLANE_ERROR_DEG) * rng.standard_normal(3)
        offset = plane.offset_mm + rng.normal(0, _PLANE_ERROR_MM)
        return replace(plane, left=left / np.linalg.norm(left), offset_mm=offset).mirror


def extract_scan(
    rows: list[tuple[int, Row]], how: Extraction
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """The examples of one scan.

    Args:
        rows: Rows of the manifest with their numbers, all of one scan.
        how: How the examples are made.

    Returns:
        Arrays (n, ...) by the names of `Extraction.names`; of each example its ``row``, ``k`` and ``id``.

    Raises:
        ManifestError: If a file lacks a value that a row names, a map lies on another grid than its scan, or
            it is doubtful where a region lies.
        InputError: If a file cannot be read.
    """
    from situs.io import read_rois, read_volume

    first = rows[0][1]
    spec = how.spec
    volume = read_volume(first.scan, roi=None if first.mask_space == "index" else first.roi)
    maps = _read_maps(first, volume.geometry) if how.painted else None
    plane = None
    if spec.upright or MIRRORED in spec.channels:
        plane = _midplane(volume, None if maps is None else maps[1])
    lies = 0.0 if plane is None else volume.geometry.turn_deg(plane.left)
    arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in how.names}
    entries = []
    files: dict[tuple[Path, str], tuple[dict[int, Roi], NDArray[np.bool_]]] = {}
    for index, row in rows:
        key = row.roi, row.mask_space
        if key not in files:  # as in use: all regions of one mask file are given, and filled, together
            found = read_rois(row.roi, volume, row.mask_space or None)
            rois = [roi for roi in found if isinstance(roi, Roi)]
            files[key] = {roi.value: roi for roi in rois}, union_mask(rois, volume.geometry)
        by_value, fill = files[key]
        if row.value not in by_value:
            raise ManifestError(
                f"{row.roi}: has no value {row.value} on its scan; its values are {sorted(by_value)}"
            )
        roi = by_value[row.value]
        _refuse_doubt(row, volume, roi)
        turn, mirror = how.turn_deg(lies, index), how.mirror(plane, index)
        for k in choose_slices(roi, how.max_slices):
            (views,) = extract_views(volume, k, [roi], fill, spec, turn, mirror)
            arrays["global_view"].append(views.global_view)
            arrays["local_view"].append(views.local_view)
            if maps is not None:
                for view, place in zip(("global", "local"), views.places, strict=True):
                    targets = _targets(maps, volume.geometry, k, place, spec)
                    arrays[f"{view}_sites"].append(targets[0])
                    arrays[f"{view}_lateral"].append(targets[1])
            entries.append({"row": index, "k": k, "id": f"{stem(row.scan)}/{stem(row.roi)}/{row.value}/{k}"})
    return {name: np.stack(planes) for name, planes in arrays.items()}, entries


def iter_scans(
    scans: list[list[tuple[int, Row]]], how: Extraction, jobs: int
) -> Iterator[tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]]:
    """The examples of every scan, in order, see `extract_scan`.

    Args:
        scans: For each scan, its rows of the manifest with their numbers.
        how: How the examples are made.
        jobs: Number of processes. With more than one, scans are made ahead of their turn.
    """
    if jobs == 1:  # as in evaluation, which needs no more packages than labelling does
        return (extract_scan(scan, how) for scan in scans)
    from joblib import Parallel, delayed

    tasks = (delayed(extract_scan)(scan, how) for scan in scans)
    results: Iterator[Any] = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2*n_jobs")(tasks)
    return results


def _refuse_doubt(row: Row, volume: Volume, roi: Roi) -> None:
    """Refuse a region that may lie elsewhere, unless its row says how its mask is placed."""
    doubts = (*volume.doubts, *roi.doubts)
    if doubts and not row.mask_space:
        raise ManifestError(
            f"{row.scan}: it is doubtful where value {row.value} of {row.roi.name} lies, so it is not used: "
            f"{doubts[0]} Correct the files, or write index or world into the manifest's column mask_space"
        )


def _read_maps(row: Row, geometry: Geometry) -> tuple[NDArray[Any], NDArray[Any]]:
    """Site map and distance to the midline, each (ni, nj, nk), on the scan's grid."""
    maps = []
    for path in (row.sites, row.lateral):
        assert path is not None  # only asked for where every row has both
        grid = read_nifti_grid(path, ManifestError)
        if not geometry.is_same_grid(grid.geometry):
            raise ManifestError(f"{path}: is not on the grid of its scan {row.scan.name}")
        maps.append(grid.values)
    return maps[0], maps[1]


def _midplane(volume: Volume, lateral: NDArray[Any] | None) -> Midplane | None:
    """The midplane of a head, from the distances to it (ni, nj, nk) or else from the head's symmetry.

    None if it cannot be told.
    """
    geometry = volume.geometry
    if lateral is None:
        return Midplane.by_symmetry(volume)
    voxels = np.flatnonzero(lateral != LATERAL_UNKNOWN)
    voxels = voxels[:: max(1, voxels.size // _PLANE_VOXELS)]
    if voxels.size < 4:  # a linear function has as many coefficients
        return None
    world = geometry.to_world(np.stack(np.unravel_index(voxels, lateral.shape), axis=1))
    middle = world.mean(axis=0)
    design = np.concatenate([world - middle, np.ones((len(world), 1))], axis=1)
    fit = np.linalg.lstsq(design, lateral.ravel()[voxels].astype(np.float64), rcond=None)[0]
    slope = float(np.linalg.norm(fit[:3]))
    return Midplane(middle, fit[:3] / slope, float(fit[3]) / slope) if slope else None


def _targets(
    maps: tuple[NDArray[Any], NDArray[Any]], geometry: Geometry, k: int, place: Place, spec: ViewSpec
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Site map and distance to the midline over a view, each (size / 2, size / 2)."""
    half = (spec.size_px // 2, spec.size_px // 2)
    coarse = replace(place, pixel_mm=2 * place.pixel_mm)
    sites, lateral = (
        sample_slice(whole[:, :, k], geometry, k, coarse, half, outside)
        for whole, outside in zip(maps, (0, LATERAL_UNKNOWN), strict=True)
    )
    limit = LATERAL_UNKNOWN - 1  # so that the mirrored distance is a byte too
    lateral = np.where(lateral == LATERAL_UNKNOWN, lateral, np.clip(lateral, -limit, limit))
    return sites.astype(np.uint8), lateral.astype(np.int8)
