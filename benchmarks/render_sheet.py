"""Draw rendered scans of a cohort as one picture: per scan a row of slices with its lesions outlined, and a
row of the site map beneath.

    python benchmarks/render_sheet.py COHORT OUT.png [--scans 6] [--slices 8]

The patient's left is on the right. Lesions have the colour of their site (legend as in contact_sheet.py).
"""

from __future__ import annotations

from pathlib import Path

import frame
import numpy as np
from contact_sheet import COLOURS, save_sheet
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from situs.anatomy import SITE_INDEX
from situs.cohort.manifest import Row
from situs.errors import SitusError
from situs.io import read_rois, read_volume
from situs.io.nifti import read_nifti_grid
from situs.resample import Place, resample_slice, sample_slice

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
            marked[roi.box][roi.mask] = SITE_INDEX[row.site] + 1
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


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", type=frame.positive, default=6, help="how many (default: 6)")
    parser.add_argument("--slices", type=frame.positive, default=8, help="of each scan (default: 8)")
    options = parser.parse_args(args)
    pictures = []
    for scan, rows in frame.rows_by_scan(options.cohort, options.scans).items():
        picture = Image.fromarray(draw_scan(rows, options.slices))
        ImageDraw.Draw(picture).text((3, 1), f"{scan.name}  {rows[0].patient}", fill=(255, 255, 0))
        pictures.append(np.asarray(picture))
    save_sheet(pictures, options.out)
    return 0


if __name__ == "__main__":
    frame.run(main)
