"""Whether the bundle doubts where it should: outside the 15 sites, on no head, on scans stored wrongly.

Goal: no confident wrong answer. Run:

    python benchmarks/unsure.py COHORT [--bundle DIR] [--scans N] [--json FILE]

COHORT is a rendered cohort (``situs synth``) of heads that the bundle was not trained on. On its scans balls
of 5 to 9 mm are put where its site maps name no site: into soft tissue (orbit, face, neck, scalp), into bone,
into air (mastoid, frontal sinus, pharynx) and outside the head. Then its own lesions are asked about, on the
scans as they are and spoilt: upside down and mirrored in their own header, with MRI-like contrast; and balls
in noise, in a water phantom with and without a ring of bone, and in an abdomen-like volume. *Sure* is an
answer without a reason for doubt. Scans that are mirrored or upside down in their header show the same
slices: the sites count, the sides are as wrong as the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import frame
import numpy as np
from numpy.typing import NDArray

from situs.cohort.manifest import Row
from situs.errors import BundleError, SitusError
from situs.geometry import Geometry
from situs.io import read_rois, read_volume
from situs.io.nifti import read_nifti_grid
from situs.labeler import Labeler
from situs.tables import text_table
from situs.volume import Roi, Volume, largest_part, union_mask

BALLS = 3  # of each kind on a scan
LESIONS = 4  # of a scan, asked about on its spoilt versions
AFFINE = np.diag([-1.0, -1.0, 5.0, 1.0])

Question = tuple[
    str, Volume, Roi, str | None
]  # kind, scan, region, the right site or None for none of the 15


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    labeler = Labeler.load(options.bundle)
    if labeler.bundle.calibration is None:
        raise BundleError(f"{labeler.bundle.path}: was not calibrated, see 'situs calibrate'")
    counts: dict[str, NDArray[np.int64]] = {}  # n, sure, sure and wrong
    for kind, volume, roi, truth in _questions(options.cohort, options.scans):
        finding = labeler.label(volume, [roi])[0]
        counts.setdefault(kind, np.zeros(3, dtype=np.int64))
        counts[kind] += [1, finding.sure, finding.sure and (truth is None or finding.site != truth)]
    rows = [["region", "n", "sure", "sure and wrong", "of all"]]
    for kind, (n, sure, wrong) in counts.items():
        rows.append([kind, str(n), str(sure), str(wrong), f"{wrong / n:.3f}"])
    print(text_table(rows))
    names = ("n", "sure", "wrong")
    result = {kind: dict(zip(names, c.tolist(), strict=True)) for kind, c in counts.items()}
    frame.write_json(options.json, result)
    return 0


def _questions(cohort: Path, n_scans: int) -> Iterator[Question]:
    rng = np.random.default_rng(0)
    report = frame.ProgressLine()
    by_scan = frame.rows_by_scan(cohort, n_scans)
    for done, (scan, own) in enumerate(by_scan.items(), start=1):
        volume = read_volume(scan)
        sites = read_nifti_grid(own[0].sites, SitusError).values if own[0].sites else None
        if sites is not None:
            yield from _outside(volume, sites, rng)
        yield from _spoilt(volume, own[:LESIONS])
        report("scans", done, len(by_scan))
    yield from _no_heads(rng)


def _outside(volume: Volume, sites: NDArray[np.generic], rng: np.random.Generator) -> Iterator[Question]:
    """Balls that lie in no site."""
    hu = np.asarray(volume.hu)
    high = float(hu.max())
    bone = min(300.0, high - 1)
    low = -300.0 if hu.min() < -500 else float(hu.min()) + 1
    inside = _enclosed(hu > low)
    places = {
        "soft tissue in no site": (hu > 20) & (hu < min(90, bone)) & inside,
        "bone": (hu > bone) & inside,
        "air in no site": (hu < low) & inside,
        "outside the head": ~inside,
    }
    for kind, where in places.items():
        where = where & (sites == 0)
        starts, n = np.argwhere(where), 0
        for start in starts[rng.permutation(len(starts))[: 20 * BALLS]]:
            mask = _ball(volume.geometry, start, rng.uniform(5, 9))
            if where[mask].mean() > 0.8 and mask.any():
                yield kind, volume, Roi.from_mask(mask, volume.geometry), None
                n += 1
                if n == BALLS:
                    break


def _spoilt(volume: Volume, rows: list[Row]) -> Iterator[Question]:
    """Lesions of a scan on versions of it that are stored or taken in another way."""
    geometry, hu = volume.geometry, np.asarray(volume.hu)
    # As a T1-weighted picture: fluid dark, white matter brighter than gray, bone and air black, fat bright.
    levels = [-1024, -200, -80, 0, 10, 22, 30, 38, 60, 100, 400, 3000]
    mri = np.interp(hu, levels, [0, 0, 900, 900, 150, 500, 480, 400, 450, 200, 20, 0]).astype(np.int16)
    for row in rows:
        roi = next(r for r in read_rois(row.roi, volume) if r.value == row.value)
        mask = union_mask([roi], geometry)
        for kind, changed, moved in (
            ("its lesions, as they are", hu, mask),
            ("upside down in its header", hu[:, :, ::-1], mask[:, :, ::-1]),
            ("mirrored in its header", hu[::-1], mask[::-1]),
            ("MRI-like contrast", mri, mask),
        ):
            scan = replace(volume, hu=np.ascontiguousarray(changed))
            region = Roi.from_mask(np.ascontiguousarray(moved), geometry)
            yield kind, scan, region, row.site


def _no_heads(rng: np.random.Generator) -> Iterator[Question]:
    shape = (240, 240, 24)
    geometry = Geometry.from_affine(shape, AFFINE)
    x, y = np.meshgrid(np.arange(240) - 119.5, np.arange(240) - 119.5, indexing="ij")
    radius = np.hypot(x / 75, y / 95)
    noise = rng.normal(0, 4, shape)

    def volume(plane: NDArray[np.floating]) -> NDArray[np.int16]:
        return np.rint(plane[:, :, None] + noise).astype(np.int16)

    body = np.hypot(x / 115, y / 85)
    abdomen = np.where(body < 1, np.where(body < 0.85, 45.0, -90.0), -1000.0)
    abdomen[np.hypot(x, y - 50) < 18] = 400
    scans = {
        "noise": rng.normal(0, 300, shape).astype(np.int16),
        "water phantom": volume(np.where(radius < 1, 0.0, -1000.0)),
        "water phantom in a ring of bone": volume(
            np.where(radius < 0.9, 0.0, np.where(radius < 1, 900.0, -1000.0))
        ),
        "abdomen-like": volume(abdomen),
    }
    for kind, hu in scans.items():
        scan = Volume(hu, geometry)
        for _ in range(20):
            start = np.array([*rng.integers(80, 160, 2), rng.integers(4, 20)])
            yield kind, scan, Roi.from_mask(_ball(geometry, start, rng.uniform(5, 12)), geometry), None


def _ball(geometry: Geometry, voxel: NDArray[np.integer], radius_mm: float) -> NDArray[np.bool_]:
    """(ni, nj, nk) bool, on the grid and around a voxel; at least that voxel."""
    mask = np.zeros(geometry.shape, dtype=bool)
    centre = geometry.to_world([voxel])[0]
    reach = [max(1, int(radius_mm / mm) + 1) for mm in geometry.spacing_mm]
    ki = np.flatnonzero(np.abs(geometry.heights_mm - geometry.heights_mm[voxel[2]]) <= radius_mm)
    lines = [
        np.arange(max(0, v - r), min(n, v + r + 1))
        for v, r, n in zip(voxel[:2], reach, geometry.shape[:2], strict=True)
    ]
    grid = np.stack(np.meshgrid(*lines, ki, indexing="ij"), axis=-1)
    world = geometry.to_world(grid.reshape(-1, 3)).reshape(grid.shape)
    mask[np.ix_(*lines, ki)] = np.linalg.norm(world - centre, axis=-1) <= radius_mm
    mask[tuple(voxel)] = True
    return mask


def _enclosed(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The head with the air in it: its largest part, and what that surrounds on a slice."""
    from scipy import ndimage

    core = ndimage.binary_erosion(tissue, iterations=2)
    if not core.any():
        return tissue
    head = ndimage.binary_dilation(largest_part(core), iterations=2)
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1, :, 1] = flat[:, 1, 1] = True
    return np.asarray(ndimage.binary_fill_holes(head, structure=flat))


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="a rendered cohort, see situs synth")
    parser.add_bundle()
    parser.add_argument(
        "--scans", type=frame.positive, default=40, help="scans of the cohort that are used (default: 40)"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
