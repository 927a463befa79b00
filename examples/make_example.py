"""Make the example: a rendered head CT with six lesions, from one head label map.

    python examples/make_example.py HEADS/head_07.nii.gz src/situs/data/example

Writes ``head.nii.gz`` (HU), ``lesions.nii.gz`` (values 1 to 6) and ``lesions.csv``, what each value is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np

from situs.files import write_file
from situs.side import side_of_distances
from situs.synth.heads import read_head
from situs.synth.lesions import Lesion, LesionGrower
from situs.synth.pose import ScanPlan, draw_plan
from situs.synth.render import render_scan
from situs.tables import csv_text

SITES = (
    "gangliocapsular_region",
    "frontal_region",
    "cerebellum",
    "ventricular_system",
    "sulcal_spaces",
    "maxillary",
)
_GAP_MM = (4.5, 5.5)
_LEAST_ML = 1.5  # lesions that a reader sees at once


def main() -> None:
    """Draw plans and lesions until an ordinary scan of a whole head has all six lesions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("head", type=Path, help="a head label map")
    parser.add_argument("out", type=Path, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    grower = LesionGrower(read_head(options.head))
    while True:
        plan = draw_plan(grower.head, rng)
        if not _is_whole(plan):
            continue
        lesions = [lesion for site in SITES if (lesion := _grow(grower, site, plan, rng))]
        scan = render_scan(grower.head, lesions, plan, rng)
        if len(lesions) == len(SITES) and scan.hu.max() > 1000 and all(m.any() for m in scan.masks):
            break
    roi = np.zeros(scan.hu.shape, dtype=np.uint8)
    rows = []
    for value, (lesion, mask) in enumerate(zip(lesions, scan.masks, strict=True), start=1):
        roi[mask] = value
        distances = scan.lateral_mm[mask].astype(float)
        rows.append([value, lesion.site, side_of_distances(distances, np.ones(distances.size))])
    write_file(options.out / "lesions.csv", csv_text(["value", "site", "side"], rows).encode())
    for name, data in (("head", scan.hu), ("lesions", roi)):
        image = nibabel.Nifti1Image(data, plan.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, options.out / f"{name}.nii.gz")


def _is_whole(plan: ScanPlan) -> bool:
    gap = plan.affine[2, 2]
    bottom, top = plan.affine[2, 3], plan.affine[2, 3] + gap * (plan.shape[2] - 1)
    upright = plan.to_head[0, 0] > 0.9 * np.linalg.norm(plan.to_head[:3, 0])
    return bool(_GAP_MM[0] < gap < _GAP_MM[1] and bottom < -75 and top > 70 and upright)


def _grow(grower: LesionGrower, site: str, plan: ScanPlan, rng: np.random.Generator) -> Lesion | None:
    for _ in range(30):
        lesion = grower.grow(site, rng, plan.sulcal_narrowing_mm, plan.window)
        if lesion is not None and lesion.mask.sum() > 1000 * _LEAST_ML:
            return lesion
    return None


if __name__ == "__main__":
    main()
