"""What 2,000 lesions cost, beside merely reading the scan and labelling one lesion.

Promise: `situs label` takes under 30 CPU seconds for 2,000 lesions on a 512x512x64 scan, and less memory than
twice the scan as int16 plus 300 MB. Run:

    python benchmarks/many.py [--bundle DIR] [--lesions 2000]

Specks of one voxel are too small to be judged and never reach the networks. Discs of 4 mm, each on one slice,
are judged. Both are spread evenly over the slices and the brain of the phantom of `label.py`. Each row is one
process, which writes JSON and CSV too.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import frame
from label import READ, Cost, measure, write_phantom

from situs.tables import text_table

SHAPE = (512, 512, 64)
SPACING_MM = (0.45, 0.45, 2.5)
SPECK_PX, DISC_PX = 1, 9  # across
MOST_CPU_S = 30.0
MOST_MB = 2 * 2 * SHAPE[0] * SHAPE[1] * SHAPE[2] / 1e6 + 300


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    bundle = ["--bundle", str(options.bundle)] if options.bundle else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Made in a process of its own: Linux lets a child's peak memory begin at that of its parent.
        maker = multiprocessing.get_context("spawn").Process(
            target=write_inputs, args=(folder, options.lesions)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        scan = str(folder / "scan.nii.gz")
        outputs = ["--json", str(folder / "out.json"), "--csv", str(folder / "out.csv")]
        commands = {"read only": [sys.executable, "-c", READ, scan]}
        for mask in ("one lesion", "specks", "discs"):
            roi = ["--roi", str(folder / f"{mask}.nii.gz")]
            commands[mask] = [sys.executable, "-m", "situs", "label", scan, *roi, *bundle, *outputs]
        try:
            costs = {row: measure(command) for row, command in commands.items()}
        except subprocess.CalledProcessError as error:
            print(f"{error.cmd[0]} ended with exit code {error.returncode}: {error.stderr}", file=sys.stderr)
            return 1
    print_result(costs, options.lesions)
    return 0


def write_inputs(folder: Path, lesions: int) -> None:
    """The scan, and a mask for each row of the table."""
    import nibabel
    import numpy as np

    write_phantom(folder / "scan.nii.gz", folder / "one lesion.nii.gz", SHAPE, SPACING_MM)
    affine = nibabel.load(folder / "scan.nii.gz").affine
    for name, width in (("specks", SPECK_PX), ("discs", DISC_PX)):
        mask = np.zeros(SHAPE, dtype=np.uint8)
        mask_lesions(mask, lesions, width)
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}.nii.gz")


def mask_lesions(mask: Any, lesions: int, width_px: int) -> None:
    """Mark separate discs in a mask (ni, nj, nk), on every other slice, there on a grid within the brain."""
    import numpy as np

    ni, nj, nk = mask.shape
    slices = np.arange(nk // 8, nk - nk // 8, 2)
    columns = int(np.ceil(np.sqrt(lesions / len(slices))))
    i, j = (np.linspace(0.35 * n, 0.65 * n, columns).astype(int) for n in (ni, nj))
    offsets = np.arange(width_px) - width_px // 2
    disc = np.argwhere(offsets[:, None] ** 2 + offsets**2 <= (width_px / 2) ** 2) - width_px // 2
    for number in range(lesions):
        place, k = divmod(number, len(slices))
        at = disc + np.array([i[place // columns], j[place % columns]])
        mask[at[:, 0], at[:, 1], slices[k]] = 1


def print_result(costs: dict[str, Cost], lesions: int) -> None:
    names = {"specks": f"{lesions:,} specks", "discs": f"{lesions:,} discs of 4 mm"}
    rows = [["one process each", "CPU s", "wall s", "peak MB"]]
    rows += [
        [names.get(name, name), f"{cost.cpu_s:.1f}", f"{cost.wall_s:.1f}", f"{cost.peak_mb:.0f}"]
        for name, cost in costs.items()
    ]
    print(f"{'x'.join(map(str, SHAPE))} int16\n\n{text_table(rows, rules=(1,))}\n")
    frame.print_promises(
        [
            frame.Promise(f"CPU of {names[name]}", costs[name].cpu_s, MOST_CPU_S, "s")
            for name in ("specks", "discs")
        ]
        + [frame.Promise("peak memory, largest", max(c.peak_mb for c in costs.values()), MOST_MB, "MB")]
    )


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_argument("--lesions", type=frame.positive, default=2000, help="of each kind (default: 2000)")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
