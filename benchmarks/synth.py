"""How many virtual scans a core renders in a second, with their lesions, written to disk.

No fixed promise; beside it stands the least that rendering can cost: nearest-neighbour resampling of the
label map to each scan's grid, without intensities, lesions or files. Run:

    python benchmarks/synth.py [--heads ../shared/data/heads] [--scans 16] [--seed 0]
"""

from __future__ import annotations

import csv
import tempfile
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import frame
import nibabel
import numpy as np

from situs.synth.cohort import render_cohort
from situs.synth.heads import find_heads
from situs.tables import text_table


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    heads = find_heads(options.heads)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "cohort")
        import_module("torch")  # paid once a run, however many scans
        with frame.Timer() as timer:
            render_cohort(heads, out, scans=options.scans, seed=options.seed)
        with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scans = sorted({row["scan"] for row in rows})
        n_slices = sum(count_slices(out / roi) for roi in {row["roi"] for row in rows})
        resampling = [resample_seconds(nibabel.load(heads[0]), nibabel.load(out / scan)) for scan in scans]

    n, cpu, plain = len(scans), timer.cpu_s, median(resampling)
    print(f"{n} scans with {len(rows)} ROIs on {n_slices} slices, one process\n")
    table = [
        ["", "CPU s a scan", "scans a CPU s", "ratio"],
        ["situs synth", f"{cpu / n:.2f}", f"{n / cpu:.3f}", f"{cpu / n / plain:.1f}"],
        ["nearest resampling alone, median", f"{plain:.2f}", f"{1 / plain:.3f}", "1.0"],
    ]
    print(text_table(table))
    print(f"\n{timer.wall_s / n:.2f} s of wall time a scan; ROI slices a CPU second: {n_slices / cpu:.1f}")
    return 0


def count_slices(roi: Path) -> int:
    """Examples in a mask: slices that a value meets, over all values."""
    labels = np.asarray(nibabel.load(roi).dataobj)
    return sum(int((labels == value).any(axis=(0, 1)).sum()) for value in np.unique(labels[labels > 0]))


def resample_seconds(head: nibabel.Nifti1Image, scan: nibabel.Nifti1Image) -> float:
    """CPU seconds to bring the label map to the grid of a scan, both centred on each other."""
    from scipy import ndimage

    labels = np.asarray(head.dataobj)
    matrix = np.linalg.inv(head.affine[:3, :3]) @ scan.affine[:3, :3]
    offset = (np.array(labels.shape) - 1) / 2 - matrix @ ((np.array(scan.shape) - 1) / 2)
    with frame.Timer() as timer:
        ndimage.affine_transform(labels, matrix, offset, output_shape=scan.shape, order=0)
    return timer.cpu_s


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_heads()
    parser.add_argument(
        "--scans", type=frame.positive, default=16, help="virtual scans to render (default: 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the rendering (default: 0)")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
