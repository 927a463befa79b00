"""A cohort drawn by hand: balls in an elliptic head whose sites are bands from front to back."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from situs.anatomy import SITE_INDEX

COLUMNS = ("scan", "roi", "value", "site", "patient", "side", "kind", "sites", "lateral")
# Four bands of the head, 50 mm each, front to back, with the middle's y in mm.
BANDS = {"frontal_region": 75, "gangliocapsular_region": 25, "parietal_region": -25, "occipital_region": -75}


def draw_cohort(folder: Path, patients=4, scans=2, painted=True, seed=0) -> Path:
    """Heads of 160 x 200 mm whose bands differ in brightness, a lesion in each, left or right."""
    rng = np.random.default_rng(seed)
    shape, step = (64, 64, 4), (3.5, 3.5, 5.0)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, step, strict=True)]
    x, y, z = (np.arange(n) * s + o for n, s, o in zip(shape, step, affine[:3, 3], strict=True))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []

    def save(array, name):
        nib.Nifti1Image(array, affine).to_filename(folder / name)
        return name

    for n in range(patients * scans):
        head = np.broadcast_to((x / 80) ** 2 + (y / 100) ** 2 < 1, shape)
        hu = np.where(head, 0.0, -1000.0)
        sites = np.zeros(shape, np.uint8)
        mask = np.zeros(shape, np.uint8)
        sides = rng.permutation([-1, -1, 1, 1]).tolist()  # of x: the right is positive
        for value, (site, middle) in enumerate(BANDS.items(), start=1):
            part = head & (abs(y - middle) <= 25)
            hu[part] += 15 * value + rng.normal(0, 2)
            sites[part] = SITE_INDEX[site] + 1
            cx, cy = sides[value - 1] * rng.uniform(25, 35), middle + rng.uniform(-8, 8)
            ball = (x - cx) ** 2 + (y - cy) ** 2 + z**2 < rng.uniform(8, 14) ** 2
            mask[np.broadcast_to(ball, shape)] = value
        hu += rng.normal(0, 4, shape)
        lateral = np.broadcast_to(np.clip(-x, -126, 126), shape).astype(np.int8)
        files = {
            "scan": save(hu.astype(np.int16), f"scan{n}.nii.gz"),
            "roi": save(mask, f"roi{n}.nii.gz"),
            "sites": save(sites, f"sites{n}.nii.gz") if painted else "",
            "lateral": save(lateral, f"lateral{n}.nii.gz") if painted else "",
        }
        for value, site in enumerate(BANDS, start=1):
            side = "right" if sides[value - 1] > 0 else "left"
            rows.append({**files, "value": value, "site": site, "patient": f"p{n % patients}", "side": side})
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows, columns=COLUMNS) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
