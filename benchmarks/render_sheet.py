"""Draw rendered scans of a cohort as one picture: per scan a row of slices with its lesions outlined, and a
row of the site map beneath.

    python benchmarks/render_sheet.py COHORT OUT.png [--scans 6] [--slices 8]

The patient's left is on the right. Lesions have the colour of their site (legend as in contact_sheet.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from contact_sheet import COLOURS, legend
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from situs.cohort.manifest import Row, read_manifest
from situs.errors import SitusError
from situs.io import read_rois, read_volume
from situs.io.nifti import read_nifti_grid
from situs.views import Place, resample_slice, sample_slice

TILE_PX, PIXEL_MM = 200, 1.2


def draw_scan(rows: list[Row], n_slices: int) -> NDArray[np.uint8]:
    """Slices of one scan over their site maps: (2 tiles, n_slices tiles, 3)."""
    volume = read_volume(rows[0].scan)
    assert rows[0].sites is not None  # a rendered cohort has them
    sites = read_nifti_grid(rows[0].sites, SitusError).values
    marked = np.zeros(volume.geometry.shape, dtype=np.uint8)
    for file in dict.fromkeys(row.roi for row in rows):
        for roi in read_rois(file, volume):
            row = next(r for r in rows if r.roi == file and r.value == roi.value)
            marked[roi.box][roi.mask] = row.site + 1
    tiles = []
    for k in np.linspace(0, volume.geometry.shape[2] - 1, n_slices + 2).astype(int)[1:-1].tolist():
        middle = volume.geometry.to_world([[(n - 1) / 2 for n in volume.geometry.shape[:2]] + [k]])[0]
        place = (volume.geometry, k, Place(middle, PIXEL_MM), (TILE_PX, TILE_PX))
        hu = resample_slice(volume.hu[:, :, k].astype(np.float32), *place, outside=-1000.0)
        picture = np.repeat((np.clip(hu / 80, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
        lesion = sample_slice(marked[:, :, k], *place)
        outline = (lesion > 0) & (ndimage.minimum_filter(lesion, 3) != lesion)
        picture[outline] = COLOURS[lesion[outline] - 1]
        site = sample_slice(sites[:, :, k], *place)
        tiles.append(
            np.concatenate([picture, np.where(site[..., None] > 0, COLOURS[np.maximum(site, 1) - 1], 0)])
        )
    return np.asarray(np.concatenate(tiles, axis=1), dtype=np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", type=int, default=6, help="how many, evenly through the cohort")
    parser.add_argument("--slices", type=int, default=8, help="of each scan")
    arguments = parser.parse_args()
    try:
        by_scan: dict[Path, list[Row]] = {}
        for row in read_manifest(arguments.cohort):
            by_scan.setdefault(row.scan, []).append(row)
        chosen = np.linspace(0, len(by_scan) - 1, arguments.scans).astype(int)
        pictures = []
        for rows in (list(by_scan.values())[n] for n in chosen):
            picture = Image.fromarray(draw_scan(rows, arguments.slices))
            ImageDraw.Draw(picture).text(
                (3, 1), f"{rows[0].scan.name}  {rows[0].patient}", fill=(255, 255, 0)
            )
            pictures.append(np.asarray(picture))
    except SitusError as error:
        raise SystemExit(str(error)) from None
    sheet = Image.fromarray(np.concatenate([*pictures, legend(pictures[0].shape[1])]))
    sheet.quantize(128, dither=Image.Dither.NONE).save(arguments.out, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
