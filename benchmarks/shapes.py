"""What a box or a point costs beside the lesion's own mask: is the site still right?

No promise. Run:

    python benchmarks/shapes.py COHORT [--bundle DIR] [--scans N] [--json FILE]

COHORT is a rendered cohort (``situs synth``), whose lesions have known sites. Each lesion of at least 0.2 ml
is asked about by its mask; by its box in voxels, taken whole and taken for the ellipsoid within it; and by a
point, its voxel nearest to its centre of mass, taken for balls of several radii. The defaults of
`situs.io.shapes` are chosen by this table. If the bundle was trained on the heads of the cohort, the rows
compare with each other, and with nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import frame
import numpy as np

from situs.cohort.manifest import Row
from situs.finding import Finding
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.tables import text_table
from situs.volume import Roi, Volume

LEAST_ML = 0.2
RADII_MM = (2, 3, 4, 5, 6, 8, 10)


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    labeler = Labeler.load(options.bundle)
    report = frame.ProgressLine()
    answers: dict[str, list[tuple[str, Finding, Finding]]] = {}  # way: true site, finding, that of the mask
    by_scan = frame.rows_by_scan(options.cohort, options.scans)
    for done, (scan, rows) in enumerate(by_scan.items(), start=1):
        volume = read_volume(scan)
        lesions = [(row.site, roi) for row in rows if (roi := _lesion(row, volume)) is not None]
        ways: dict[str, list[Roi]] = {}
        for _, roi in lesions:
            for way, region in [("mask", roi), *_ways(roi, volume)]:
                ways.setdefault(way, []).append(region)
        findings = {way: labeler.label(volume, regions) for way, regions in ways.items()}
        for way, found in findings.items():
            own = zip((truth for truth, _ in lesions), found, findings["mask"], strict=True)
            answers.setdefault(way, []).extend(own)
        report("scans", done, len(by_scan))
    result = {way: _scores(found) for way, found in answers.items()}
    head = [
        "region",
        "lesions",
        "site right",
        "site of the mask",
        "side of the mask",
        "sure",
        "right if sure",
    ]
    print(text_table([head, *([way, *map(_text, scores.values())] for way, scores in result.items())]))
    frame.write_json(options.json, result)
    return 0


def _lesion(row: Row, volume: Volume) -> Roi | None:
    """The lesion of a manifest's row, unless it is too small."""
    regions = [roi for roi in read_rois(row.roi, volume) if isinstance(roi, Roi) and roi.value == row.value]
    return regions[0] if regions and regions[0].volume_ml >= LEAST_ML else None


def _ways(roi: Roi, volume: Volume) -> Iterator[tuple[str, Roi]]:
    """What a lesion is replaced with."""
    low, high = np.array(roi.start), np.array(roi.start) + roi.mask.shape - 1
    yield "box", Roi(np.ones_like(roi.mask), roi.start, volume.geometry)
    order = (0, 1, 2) if volume.stored is None else volume.stored.order
    stored = np.argsort(order)  # the scan's axis for each of the file's
    yield "box, ellipsoid", _read({"box": [low[stored].tolist(), high[stored].tolist()]}, volume)
    voxels = np.argwhere(roi.mask) + roi.start
    world = volume.geometry.to_world(voxels)
    middle = voxels[np.linalg.norm(world - world.mean(axis=0), axis=1).argmin()]
    for radius in RADII_MM:
        yield f"point, {radius} mm", _read({"point": middle[stored].tolist(), "radius_mm": radius}, volume)


def _read(shape: dict[str, Any], volume: Volume) -> Roi:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shapes.json"
        path.write_text(json.dumps({"schema": "situs.shapes/1", "space": "voxel", "shapes": [shape]}))
        (roi,) = read_rois(path, volume)
    assert isinstance(roi, Roi)
    return roi


def _scores(found: list[tuple[str, Finding, Finding]]) -> dict[str, float]:
    right = np.array([finding.site == truth for truth, finding, _ in found])
    sure = np.array([finding.sure for _, finding, _ in found])
    return {
        "lesions": len(found),
        "site_right": float(right.mean()),
        "site_of_mask": float(np.mean([finding.site == mask.site for _, finding, mask in found])),
        "side_of_mask": float(np.mean([finding.side == mask.side for _, finding, mask in found])),
        "sure": float(sure.mean()),
        "right_if_sure": float(right[sure].mean()) if sure.any() else float("nan"),
    }


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="a rendered cohort")
    parser.add_argument(
        "--scans", type=frame.positive, default=40, help="at most so many scans (default: 40)"
    )
    parser.add_bundle()
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
