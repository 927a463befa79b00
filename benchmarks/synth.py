"""How many virtual scans a core renders in a second, with their lesions, written to disk; and what limits it.

Promised are 4 scans a CPU second. Beside it stands the least that rendering can cost: nearest-neighbour
resampling of the label map to each scan's grid, without intensities, lesions or files. A profile of some more
scans says what takes the time. Label maps are read once before, so that their site maps are known. Run:

    python benchmarks/synth.py [--heads ../shared/data/heads] [--scans 16] [--seed 0]
"""

from __future__ import annotations

import cProfile
import csv
import pstats
import tempfile
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import frame
import nibabel
import numpy as np

from situs.synth import cohort
from situs.synth.cohort import render_cohort
from situs.synth.heads import find_heads
from situs.tables import text_table

# Functions of a scan's rendering that hardly call each other, by what they do.
_PARTS = {
    "read_head": "label map and site maps, once for eight scans",
    "_grow_lesions": "lesions are grown",
    "tissue_hu": "HU of the head",
    "paint_lesions": "HU of the lesions",
    "map_to_head": "the map from the scan to the head",
    "_pack": "maps in one array, once for eight scans",
    "nearest_voxels": "nearest voxels",
    "_sample": "trilinear sampling through the slices' thickness",
    "blur_slices": "blur of the scan and of its noise",
    "draw_mask": "masks as readers draw them",
    "_write_image": "files, packed with gzip",
}


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    heads = find_heads(options.heads)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "cohort")
        import_module("torch")  # paid once a run, however many scans
        render_cohort(heads, Path(folder, "warm"), scans=options.scans, seed=options.seed, lesions=1)
        cohort._grower.cache_clear()  # heads are read again
        with frame.Timer() as timer:
            render_cohort(heads, out, scans=options.scans, seed=options.seed)
        with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scans = sorted({row["scan"] for row in rows})
        n_slices = sum(count_slices(out / roi) for roi in {row["roi"] for row in rows})
        cohort._grower.cache_clear()
        profile = cProfile.Profile()
        profile.enable()
        render_cohort(heads, Path(folder, "profile"), scans=min(8, options.scans), seed=options.seed)
        profile.disable()
        resampling = [resample_seconds(nibabel.load(heads[0]), nibabel.load(out / scan)) for scan in scans]

    n, cpu, plain = len(scans), timer.cpu_s, median(resampling)
    print(f"{n} scans with {len(rows)} ROIs on {n_slices} slices, one process\n")
    table = [
        ["", "CPU s a scan", "scans a CPU s", "ratio"],
        ["situs synth", f"{cpu / n:.2f}", f"{n / cpu:.3f}", f"{cpu / n / plain:.1f}"],
        ["nearest resampling alone, median", f"{plain:.2f}", f"{1 / plain:.3f}", "1.0"],
    ]
    print(text_table(table))
    print(f"\n{timer.wall_s / n:.2f} s of wall time a scan; ROI slices a CPU second: {n_slices / cpu:.1f}\n")
    print(text_table([["", "% of the time"], *shares(pstats.Stats(profile))]))
    frame.print_promises([frame.Promise("virtual scans a CPU second", n / cpu, 4, at_least=True)])
    return 0


def shares(stats: pstats.Stats) -> list[list[str]]:
    """What each of `_PARTS` takes of the time of a profile, in percent; the rest is last."""
    total, took = stats.total_tt, dict.fromkeys(_PARTS, 0.0)
    for (file, _, name), (_, _, _, seconds, _) in stats.stats.items():
        if name in took and "synth" in file:
            took[name] += seconds
    rows = sorted(((seconds / total, _PARTS[name]) for name, seconds in took.items()), reverse=True)
    rest = 1 - sum(share for share, _ in rows)
    return [[what, f"{100 * share:.0f}"] for share, what in (*rows, (rest, "all else"))]


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
