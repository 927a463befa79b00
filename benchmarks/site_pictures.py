"""A picture of each of the 15 sites on CT, for docs/concepts/sites.md: a rendered scan, the site outlined.

    python benchmarks/site_pictures.py HEAD.nii.gz docs/pictures/sites [--seed 1]

HEAD is a head label map. Each picture shows the slice that has most of the site.
"""

from __future__ import annotations

from pathlib import Path

import frame
import numpy as np
from PIL.Image import Quantize

from situs.anatomy import SITE_INDEX
from situs.files import make_folder
from situs.geometry import Geometry
from situs.report.slices import draw_slice
from situs.synth.heads import Head, read_head
from situs.synth.pose import ScanPlan, draw_plan
from situs.synth.render import render_scan
from situs.volume import Roi, Volume

SIZE_PX, COLOURS = 260, 48
_GAP_MM = (3.0, 5.0)
_MOST_TURN = 0.1  # sine of the angle between the head's axes and the scan's


def draw_level_plan(head: Head, rng: np.random.Generator) -> ScanPlan:
    """A plan of an ordinary scan of the whole head, lying straight."""
    while True:
        plan = draw_plan(head, rng)
        bottom, top = plan.affine[2, 3], plan.affine[2, 3] + plan.gap_mm * (plan.shape[2] - 1)
        turn = plan.to_head[:3, :3] / np.linalg.norm(plan.to_head[:3, :3], axis=0)
        off = np.abs(turn - np.diag(np.diag(turn))).max()
        if _GAP_MM[0] < plan.gap_mm < _GAP_MM[1] and bottom < -75 and top > 60 and off < _MOST_TURN:
            return plan


def main() -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("head", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    head = read_head(options.head)
    while True:
        plan = draw_level_plan(head, rng)
        scan = render_scan(head, [], plan, rng)
        if scan.hu.max() > 1000:  # a scan that no archive clipped
            break
    volume = Volume(scan.hu, Geometry.from_affine(plan.shape, plan.affine))
    make_folder(options.out)
    for key, number in SITE_INDEX.items():
        site = Roi.from_mask(scan.sites == number + 1, volume.geometry)
        picture = draw_slice(volume, site, [], SIZE_PX)
        picture.quantize(COLOURS, Quantize.FASTOCTREE).save(options.out / f"{key}.png", optimize=True)
    return 0


if __name__ == "__main__":
    frame.run(main)
