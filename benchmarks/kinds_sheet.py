"""Draw real lesions and rendered ones of the same kind beside each other, a row a kind.

    python benchmarks/kinds_sheet.py COHORT OUT.png [--data DIR] [--each 4]

COHORT is a rendered cohort. The left half of a row are real lesions of `lesions.csv`, the right half rendered
ones that the scan shows (their mean differs from what is around them). Every lesion stands twice: as it is,
and outlined. The patient's left is on the right.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import frame
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from situs.cohort.manifest import Row, read_manifest
from situs.io import read_rois, read_volume
from situs.resample import Place, resample_slice, sample_slice
from situs.views import head_centre_mm
from situs.volume import Roi, Volume

TILE_PX, PIXEL_MM = 110, 2.0
_LEAST_CONTRAST_HU, _LEAST_MM2 = 8.0, 60.0
# The title of a row, and the kind of its real lesions in lesions.csv.
KINDS = {
    "bleeds in tissue": "parenchymal_bleed",
    "bleeds into ventricles": "intraventricular_bleed",
    "subarachnoid bleeds": "subarachnoid_bleed",
    "bleeds outside the brain": "extraaxial_bleed",
    "infarcts": "infarct",
}
Picture = NDArray[np.uint8]
T = TypeVar("T")


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_data()
    parser.add_argument("--each", type=frame.positive, default=4, help="lesions a half (default: 4)")
    options = parser.parse_args(args)
    frame.need_file("--data", options.data / "lesions.csv", "the folder with the real scans")
    rows = []
    for name, real in KINDS.items():
        halves = (_real(options.data, real), _rendered(options.cohort, name))
        found = [list(islice(half, options.each)) for half in halves]
        blank = np.zeros((TILE_PX, 2 * TILE_PX, 3), np.uint8)
        tiles = [pair for half in found for pair in (half + [blank] * options.each)[: options.each]]
        rows.append(titled(f"{name}: real, then rendered", np.concatenate(tiles, axis=1)))
    Image.fromarray(np.concatenate(rows)).save(options.out, optimize=True)
    return 0


def _real(data: Path, kind: str) -> Iterator[Picture]:
    with (data / "lesions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == kind]
    for row in _one_a_scan(rows, lambda row: row["scan"]):
        volume = read_volume(data / "lesions" / row["scan"])
        rois = read_rois(data / "lesions" / row["roi"], volume)
        yield draw_region(volume, next(roi for roi in rois if roi.value == int(row["value"])))


def _rendered(cohort: Path, name: str) -> Iterator[Picture]:
    for row in _one_a_scan(read_manifest(cohort), lambda row: str(row.scan)):
        if name not in (_kind(row, 1.0), _kind(row, -1.0)):
            continue
        volume = read_volume(row.scan)
        roi = next(roi for roi in read_rois(row.roi, volume) if roi.value == row.value)
        contrast = _contrast_hu(volume, roi)
        if abs(contrast) >= _LEAST_CONTRAST_HU and _kind(row, contrast) == name:
            yield draw_region(volume, roi)


def _kind(row: Row, contrast_hu: float) -> str | None:
    """Which of `KINDS` a rendered lesion is, if any, by how it was grown, its site and its contrast."""
    site = row.site
    if contrast_hu < 0:
        return "infarcts" if row.kind in ("tissue", "cortex") else None
    if row.kind in ("cast", "fluid"):
        return "bleeds into ventricles" if site == "ventricular_system" else "subarachnoid bleeds"
    return {"tissue": "bleeds in tissue", "crescent": "bleeds outside the brain"}.get(row.kind)


def _one_a_scan(rows: list[T], scan_of: Callable[[T], str]) -> Iterator[T]:
    """Rows in their order, the second of a scan after the first of all."""
    seen: dict[str, int] = {}
    order = []
    for row in rows:
        seen[scan_of(row)] = turn = seen.get(scan_of(row), -1) + 1
        order.append(turn)
    return (rows[n] for n in np.argsort(order, kind="stable"))


def _largest_slice(roi: Roi) -> int:
    return max(roi.areas_px, key=lambda k: roi.areas_px[k])


def _contrast_hu(volume: Volume, roi: Roi) -> float:
    """How much denser the region is than what is around it on its largest slice; 0 where it is small."""
    k = _largest_slice(roi)
    mask = roi.slice_mask(k)
    if mask.sum() * np.prod(volume.geometry.spacing_mm) < _LEAST_MM2:
        return 0.0
    hu = volume.hu[:, :, k].astype(np.float64)
    around = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
    return float(np.median(hu[mask]) - np.median(hu[around]))


def draw_region(volume: Volume, roi: Roi) -> Picture:
    """(tile, 2 tiles, 3) the largest slice of a region, as it is and outlined."""
    k = _largest_slice(roi)
    hu = volume.hu[:, :, k].astype(np.float32)
    place = (volume.geometry, k, Place(head_centre_mm(hu, volume.geometry, k), PIXEL_MM), (TILE_PX, TILE_PX))
    gray = np.clip(resample_slice(hu, *place, outside=-1000.0) / 80, 0, 1) * 255
    plain = np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    mask = sample_slice(roi.slice_mask(k).astype(np.uint8), *place) > 0
    outlined = plain.copy()
    outlined[mask & ~ndimage.binary_erosion(mask)] = (255, 70, 40)
    return np.concatenate([plain, outlined], axis=1)


def titled(title: str, picture: Picture) -> Picture:
    bar = Image.new("RGB", (picture.shape[1], 16))
    ImageDraw.Draw(bar).text((4, 2), title, fill=(255, 255, 255))
    return np.concatenate([np.asarray(bar), picture])


if __name__ == "__main__":
    frame.run(main)
