"""Whether a lesion's side is right however the head lies: turned, rolled, off centre, its midline pushed.

    python benchmarks/sides.py COHORT [--bundle DIR] [--scans N] [--json FILE]

COHORT is a rendered cohort (``situs synth``) of heads that the bundle was not trained on: it knows how far
every voxel is from the midline, and so the side of every region by the same rule. Beside ``situs label``
stand what it is made of, and what people would do without it:

skull's centroid   the middle of the head on every slice, upright in the picture
painted line       what BaseNet paints on the slices of the region, as the head lies
midplane           where the whole head is most like its own mirror image, searched for from these lines

Of these also: how far they are off where a region comes within 12 mm of the midline (mean over its pixels),
and by how many degrees the turn of the head.

Then the regions by their true side and how far from the midline they begin, and what is said of them: of
midline lesions, how many are given a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import frame
import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.cohort.examples import LATERAL_UNKNOWN
from situs.cohort.manifest import Row
from situs.errors import InputError, SitusError
from situs.io import read_rois, read_volume
from situs.io.nifti import read_nifti_grid
from situs.labeler import MAX_SLICES, Labeler
from situs.midplane import Midplane
from situs.runtime import Runtime
from situs.side import side_of_distances
from situs.tables import text_table
from situs.views import extract_views, head_centre_mm
from situs.volume import Roi, Volume, choose_slices, split_lesions, union_mask

REGIONS = 3  # of a scan
NEAR_MM = 12.0
OFF_MM = 2.5
PLACES = ("midline", "bilateral", "beside it, within 3 mm", "within 12 mm", "farther")
WAYS = ("skull's centroid", "painted line", "midplane", "situs label")
Array = NDArray[np.float64]


@dataclass
class Case:
    """One region: its true side, what every way says, and how its head lies.

    Attributes:
        near: where it lies: on the midline, or how far beside it
        sides: way to side
        off_mm: way to how far it is off; only near the midline
        off_deg: way to how far the turn is off
    """

    side: str
    lies: set[str]
    near: str
    sides: dict[str, str] = field(default_factory=dict)
    off_mm: dict[str, float] = field(default_factory=dict)
    off_deg: dict[str, float] = field(default_factory=dict)


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    labeler = Labeler.load(options.bundle)
    runtime = Runtime(labeler.bundle)
    cases = list(_cases(options.cohort, options.scans, labeler, runtime))
    result = {"ways": {way: _summary(cases, way) for way in WAYS}, "lies": _by_lie(cases)}
    rows = [["way", "side right", "near the midline: mm off", f"over {OFF_MM} mm", "degrees off", "over 4"]]
    for way, found in result["ways"].items():
        cells = ("side", "mm", "over_mm", "degrees", "over_degrees")
        rows.append([way, *("" if found[cell] is None else f"{found[cell]:.3f}" for cell in cells)])
    near = sum(bool(case.off_mm) for case in cases)
    print(f"{len(cases)} regions, {near} of them within {NEAR_MM:.0f} mm of the midline")
    print(text_table(rows), end="\n\n")
    rows = [["side right, where the head", "n", *WAYS]]
    for lie, found in result["lies"].items():
        rows.append([lie, str(found["n"]), *(f"{found[way]:.3f}" for way in WAYS)])
    print(text_table(rows), end="\n\n")
    rows = [["where the region lies", "n", "right", "given a side", "midline", "bilateral"]]
    for near in PLACES:
        answers = [(case.side, case.sides["situs label"]) for case in cases if case.near == near]
        said = [answer for _, answer in answers]
        counts = {
            "n": len(answers),
            "right": sum(truth == answer for truth, answer in answers),
            "given a side": sum(answer in ("left", "right") for answer in said),
            "midline": said.count("midline"),
            "bilateral": said.count("bilateral"),
        }
        result.setdefault("near", {})[near] = counts
        rows.append([near, *map(str, counts.values())])
    print(text_table(rows))
    frame.write_json(options.json, result)
    return 0


def _cases(cohort: Path, n_scans: int, labeler: Labeler, runtime: Runtime) -> Iterator[Case]:
    by_scan = frame.rows_by_scan(cohort, n_scans)
    if any(row.lateral is None for rows in by_scan.values() for row in rows):
        raise InputError(f"{cohort}: has no distances to the midline: expected a cohort that situs rendered")
    rng = np.random.default_rng(0)
    report = frame.ProgressLine()
    for done, (scan, own) in enumerate(by_scan.items(), start=1):
        volume = read_volume(scan)
        lateral = read_nifti_grid(own[0].lateral, SitusError).values.astype(np.float64)
        left, lies = _how_it_lies(lateral, volume)
        for row in [own[n] for n in rng.permutation(len(own))[:REGIONS]]:
            yield _case(row, volume, lateral, left, lies, labeler, runtime)
        report("scans", done, len(by_scan))


def _how_it_lies(lateral: Array, volume: Volume) -> tuple[Array, set[str]]:
    """The direction (3,) to the patient's left, and what is unusual about how a head lies, from its distances
    to the midline (ni, nj, nk)."""
    geometry = volume.geometry
    known = np.flatnonzero((lateral != LATERAL_UNKNOWN) & (np.abs(lateral) < 60))
    known = known[:: max(1, known.size // 20_000)]
    at = np.stack(np.unravel_index(known, lateral.shape), axis=1)
    world, mm = geometry.to_world(at), lateral.ravel()[known]
    design = np.concatenate([world, np.ones((len(world), 1))], axis=1)
    fitted = np.linalg.lstsq(design, mm, rcond=None)[0]
    left = fitted[:3] / np.linalg.norm(fitted[:3])
    bent = np.abs(design @ fitted - mm)[np.abs(mm) < NEAR_MM].mean()
    turn = abs(geometry.turn_deg(left))
    roll = abs(np.degrees(np.arcsin(left @ geometry.normal)))
    width_mm = geometry.spacing_mm[0] * (geometry.shape[0] - 1)
    off_centre = abs(np.median(at[:, 0]) / (geometry.shape[0] - 1) - 0.5) * width_mm
    lies = {
        "is upright within 10 degrees": turn < 10,
        "is turned by 15 to 45 degrees": 15 <= turn <= 45,
        "is turned by more": turn > 45,
        "is rolled by more than 4 degrees": roll > 4,
        "has its midline bent by 2 mm (mean)": bent > 2,
        "lies 10 mm off centre": off_centre > 10,
        "has at most 10 slices": geometry.shape[2] <= 10,
    }
    return left, {lie for lie, is_so in lies.items() if is_so}


def _case(
    row: Row,
    volume: Volume,
    lateral: Array,
    left: Array,
    lies: set[str],
    labeler: Labeler,
    runtime: Runtime,
) -> Case:
    geometry, spec = volume.geometry, labeler.bundle.spec
    rois = read_rois(row.roi, volume)
    roi = next(r for r in rois if r.value == row.value)
    lesion = split_lesions(roi)[0]
    fill = union_mask([roi], geometry)
    slices = choose_slices(lesion, MAX_SLICES)
    views = [extract_views(volume, k, [lesion], fill, spec)[0] for k in slices]
    embedded = runtime.embed(
        np.stack([view.global_view for view in views]), np.stack([view.local_view for view in views])
    )
    if embedded.midline is None:
        raise InputError(f"{labeler.bundle.path}: does not paint the midline")
    painted = [
        Midplane.from_painting(maps, view.places, geometry, spec.size_px)
        for maps, view in zip(embedded.midline, views, strict=True)
    ]
    near = Midplane.median(painted, geometry)
    plane = Midplane.by_symmetry(volume, near) or near
    right, _ = geometry.display_axes
    centres = [head_centre_mm(volume.hu[:, :, k].astype(np.float32), geometry, k) for k in slices]
    lines = {
        "skull's centroid": [Midplane(centre, right, 0.0) for centre in centres],
        "painted line": painted,
        "midplane": [plane] * len(slices),
    }
    crosses = SITES.site(row.site).crosses_midline
    truth, weights = _truth(lesion, slices, lateral)
    side = side_of_distances(truth, weights, crosses)
    case = Case(side, lies, _place(side, truth))
    for way, found in lines.items():
        mm = np.concatenate(
            [line.distances_mm(_pixels(lesion, k)) for line, k in zip(found, slices, strict=True)]
        )
        case.sides[way] = side_of_distances(mm, weights, crosses)
        if np.abs(truth).min() < NEAR_MM:
            case.off_mm[way] = abs(float(np.average(mm - truth, weights=weights)))
        apart = geometry.turn_deg(Midplane.median(found, geometry).left) - geometry.turn_deg(left)
        case.off_deg[way] = abs((apart + 180) % 360 - 180)
    case.sides["situs label"] = labeler.label(volume, [lesion])[0].side
    return case


def _place(side: str, truth: Array) -> str:
    """Where a region lies, one of `PLACES`, by its side and its true distances (n,) to the midline."""
    if side in PLACES:
        return side
    nearest = np.abs(truth).min()
    return PLACES[2] if nearest <= 3 else PLACES[3] if nearest <= NEAR_MM else PLACES[4]


def _truth(lesion: Roi, slices: dict[int, float], lateral: Array) -> tuple[Array, Array]:
    """True distances to the midline of a lesion's pixels, and their weights, as in `situs.labeler`."""
    distances, weights = [], []
    for k, weight in slices.items():
        found = lateral[:, :, k][lesion.slice_mask(k)]
        distances.append(found)
        weights.append(np.full(found.size, weight / found.size))
    return np.concatenate(distances), np.concatenate(weights)


def _pixels(lesion: Roi, k: int) -> Array:
    i, j = np.nonzero(lesion.slice_mask(k))
    return lesion.geometry.to_world(np.stack([i, j, np.full_like(i, k)], axis=1))


def _summary(cases: list[Case], way: str) -> dict[str, float | None]:
    mm = np.array([case.off_mm[way] for case in cases if way in case.off_mm])
    degrees = np.array([case.off_deg[way] for case in cases if way in case.off_deg])
    return {
        "side": float(np.mean([case.sides[way] == case.side for case in cases])),
        "mm": float(mm.mean()) if mm.size else None,
        "over_mm": float((mm > OFF_MM).mean()) if mm.size else None,
        "degrees": float(degrees.mean()) if degrees.size else None,
        "over_degrees": float((degrees > 4).mean()) if degrees.size else None,
    }


def _by_lie(cases: list[Case]) -> dict[str, dict[str, float]]:
    found = {}
    for lie in sorted({lie for case in cases for lie in case.lies}):
        some = [case for case in cases if lie in case.lies]
        right = {way: float(np.mean([case.sides[way] == case.side for case in some])) for way in WAYS}
        found[lie] = {"n": len(some), **right}
    return found


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="a rendered cohort of heads that the bundle has not seen")
    parser.add_bundle()
    parser.add_argument(
        "--scans", type=frame.positive, default=100, help="at most so many scans (default: 100)"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
