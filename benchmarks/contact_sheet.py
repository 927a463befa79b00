"""Draw the site maps of all heads in a folder as one picture: a row a head, level slices, a legend.

    python benchmarks/contact_sheet.py HEADS OUT.png [--extra-axial] [--table]

The patient's left is on the right of axial and coronal slices; the front is on the left of sagittal ones.
``--table`` prints, for every site, its volume (ml): the smallest, the median and the largest of the heads.
"""

from __future__ import annotations

from pathlib import Path

import frame
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from situs.anatomy import SITE_KEYS, SITES
from situs.files import replacing
from situs.synth.heads import Head, find_heads, read_head
from situs.tables import text_table

# In the order of SITES.
COLOURS = np.array(
    [
        (230, 25, 45), (0, 190, 235), (250, 130, 0), (150, 110, 230), (240, 50, 230),
        (70, 120, 255), (255, 215, 0), (0, 205, 110), (240, 150, 180), (110, 190, 90),
        (255, 250, 170), (50, 45, 190), (190, 240, 60), (200, 100, 70), (0, 95, 140),
    ],
    dtype=np.uint8,
)  # fmt: skip
STEP_MM = 1.5
AXIAL_MM = (-58, -46, -34, -22, -10, 2, 14, 30, 50)
CORONAL_MM = (30, -15, -60)
SAGITTAL_MM = (-28, 0, 5)


def draw_head(head: Head, extra_axial: bool) -> NDArray[np.uint8]:
    """One row of slices through a head, level in its own frame: (height, width, 3)."""
    u = np.arange(-102, 108, STEP_MM)  # along y, from the front backwards when negated
    v = np.arange(-80, 80.1, STEP_MM)  # along x, from the patient's right to the left when negated
    w = np.arange(-100, 85, STEP_MM)
    tiles = [_slice(head, extra_axial, -v[None, :], -u[:, None], np.float64(z)) for z in AXIAL_MM]
    tiles += [_slice(head, extra_axial, -v[None, :], np.float64(y), -w[:, None]) for y in CORONAL_MM]
    tiles += [_slice(head, extra_axial, np.float64(x), -u[None, :], -w[:, None]) for x in SAGITTAL_MM]
    height = max(t.shape[0] for t in tiles)
    return np.concatenate([np.pad(t, ((0, height - t.shape[0] + 2), (0, 2), (0, 0))) for t in tiles], axis=1)


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("heads", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--extra-axial", action="store_true", help="draw the map for crescents")
    parser.add_argument("--table", action="store_true", help="print the volume of every site")
    options = parser.parse_args(args)
    rows, volumes = [], []
    for path in find_heads(options.heads):
        head = read_head(path)
        row = Image.fromarray(draw_head(head, options.extra_axial))
        ImageDraw.Draw(row).text((3, 1), head.name, fill=(255, 255, 255))
        rows.append(np.asarray(row))
        volumes.append(np.bincount(head.sites.ravel(), minlength=len(SITES) + 1)[1:] / 1000)
    save_sheet(rows, options.out)
    if options.table:
        table = [["site, ml", "min", "median", "max"]]
        for key, ml in zip(SITE_KEYS, np.array(volumes).T, strict=True):
            table.append([key, *(f"{v:.1f}" for v in (ml.min(), np.median(ml), ml.max()))])
        print(text_table(table))
    return 0


def save_sheet(rows: list[NDArray[np.uint8]], out: Path) -> None:
    """Write rows of pictures (height, width, 3), all of one width, and a legend as one PNG of few colours."""
    sheet = Image.fromarray(np.concatenate([*rows, _legend(rows[0].shape[1])]))
    with replacing(out) as temporary:
        sheet.quantize(128, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)


def _slice(head: Head, extra_axial: bool, x, y, z) -> NDArray[np.uint8]:  # type: ignore[no-untyped-def]
    """Colours of the plane of head-frame points (x, y, z), which broadcast to (height, width)."""
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1)
    to_voxel = np.linalg.inv(head.frame @ head.affine)
    index = np.rint(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < head.labels.shape)).all(axis=-1)
    i, j, k = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
    gray = np.where(inside, _gray(head.labels[i, j, k]), 0)
    site = np.where(inside, (head.extra_axial if extra_axial else head.sites)[i, j, k], 0)
    colour = COLOURS[np.maximum(site, 1) - 1]
    mixed = 0.65 * colour + 0.35 * gray[..., None]
    return np.where(site[..., None] > 0, mixed, gray[..., None]).astype(np.uint8)


def _gray(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """A gray that looks somewhat like CT."""
    table = np.full(3000, 150, dtype=np.uint8)
    table[[2, 41, 7, 46]] = 190
    table[[4, 5, 14, 15, 24, 43, 44, 72]] = 40
    table[[515, 516]] = 255
    table[[0]] = 0
    table[[507, 511]] = 80
    return np.asarray(table[labels])


def _legend(width: int) -> NDArray[np.uint8]:
    columns = 5
    image = Image.new("RGB", (width, 20 * -(-len(SITES) // columns) + 6))
    draw = ImageDraw.Draw(image)
    for n, site in enumerate(SITES):
        left, top = 8 + (n % columns) * (width // columns), 4 + 20 * (n // columns)
        draw.rectangle((left, top, left + 24, top + 14), fill=tuple(int(c) for c in COLOURS[n]))
        draw.text((left + 32, top + 2), site.name, fill=(255, 255, 255))
    return np.asarray(image)


if __name__ == "__main__":
    frame.run(main)
