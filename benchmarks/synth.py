"""How many virtual scans a core renders in a second, with their lesions, written to disk.

No fixed promise; beside it stands the least that rendering can cost: nearest-neighbour resampling of the
label map to each scan's grid, without intensities, lesions or files. Run:

    python benchmarks/synth.py [--heads ../shared/data/heads] [--scans 16] [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median

import nibabel
import numpy as np

from situs.errors import SitusError
from situs.synth.cohort import render_cohort
from situs.tables import text_table


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    heads = sorted(options.heads.glob("*.nii.gz"))
    if not heads:
        print(
            f"--heads: no .nii.gz in {options.heads}; it is the folder with the label maps", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "cohort")
        import_module("torch")  # paid once a run, however many scans
        wall, cpu = time.perf_counter(), time.process_time()
        render_cohort(heads, out, scans=options.scans, seed=options.seed, sites="balanced", jobs=1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scans = sorted({row["scan"] for row in rows})
        n_slices = sum(count_slices(out / roi) for roi in {row["roi"] for row in rows})
        resampling = [resample_seconds(nibabel.load(heads[0]), nibabel.load(out / scan)) for scan in scans]

    n, plain = len(scans), median(resampling)
    print(f"{n} scans with {len(rows)} ROIs on {n_slices} slices, one process\n")
    table = [
        ["", "CPU s a scan", "scans a CPU s", "ratio"],
        ["situs synth", f"{cpu / n:.2f}", f"{n / cpu:.3f}", f"{cpu / n / plain:.1f}"],
        ["nearest resampling alone, median", f"{plain:.2f}", f"{1 / plain:.3f}", "1.0"],
    ]
    print(text_table(table))
    print(f"\n{wall / n:.2f} s of wall time a scan; ROI slices a CPU second: {n_slices / cpu:.1f}")
    return 0


def count_slices(roi: Path) -> int:
    """Examples in a mask: slices that a value meets, over all values."""
    labels = np.asarray(nibabel.load(roi).dataobj)
    return sum(int((labels == value).any(axis=(0, 1)).sum()) for value in np.unique(labels[labels > 0]))


def resample_seconds(head: nibabel.Nifti1Image, scan: nibabel.Nifti1Image) -> float:
    """CPU seconds to bring the label map to the grid of a scan, both centred on each other."""
    from scipy import ndimage

    labels = np.asarray(head.dataobj)
    started = time.process_time()
    matrix = np.linalg.inv(head.affine[:3, :3]) @ scan.affine[:3, :3]
    offset = (np.array(labels.shape) - 1) / 2 - matrix @ ((np.array(scan.shape) - 1) / 2)
    ndimage.affine_transform(labels, matrix, offset, output_shape=scan.shape, order=0)
    return time.process_time() - started


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "heads"
    parser.add_argument(
        "--heads", type=Path, default=beside, help="folder of label maps (default: shared/data/heads)"
    )
    parser.add_argument("--scans", type=int, default=16, help="virtual scans to render (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the rendering (default: 0)")
    options = parser.parse_args(args)
    if options.scans < 1:
        parser.error("--scans: expected at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
