"""What stands for rendered scans in tests of the paper's experiment: cohorts drawn by hand, in a second."""

import csv
from pathlib import Path

from phantoms.small_cohort import BANDS, COLUMNS, draw_cohort, write_manifest
from situs.paper.cohorts import ExperimentSize

HEADS = [Path(f"maps/head_{c}.nii.gz") for c in "cabd"]
SIZE = ExperimentSize(6, 4, dict.fromkeys(BANDS, 20), balanced_scans=4, epochs=2, test_fraction=0.5)


def draw_scans(heads, out, scans, seed, sites, jobs, progress, lesions=14):
    """Stands for `render_cohort`: scans with four bands, a lesion in each."""
    if not (out / "manifest.csv").exists() or len(list(out.glob("scan*"))) < scans:
        draw_cohort(out, len(heads), -(-scans // len(heads)), seed=seed % 1000)
        rename_patients(out, {f"p{n}": head.name.removesuffix(".nii.gz") for n, head in enumerate(heads)})
    progress("scans", scans, scans)


def rename_patients(cohort, names):
    """Give the patients of a drawn cohort other names; those without one are left out."""
    with (cohort / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = [{**row, "patient": names[row["patient"]]} for row in rows if row["patient"] in names]
    write_manifest(cohort, rows, COLUMNS)
