"""What `situs label` costs beside merely reading the scan.

Promise: on a 512x512x32 scan with one lesion the whole process takes under 3 times the wall time and under
3 times the CPU time of a process that only reads the scan, and under 200 MB. With the networks loaded, the
first lesion takes under 0.8 times the CPU time of that process, and each further one, on four slices of its
own, under 0.3 times. Run:

    python benchmarks/label.py [--bundle DIR] [--runs 9] [--sites 40]

With --sites the process is compared instead with one whose bundle names so many sites: new ones that have as
many references as the others. Promise: under 1.3 times the CPU time.

The two processes take turns, so that whatever else the machine does hits both alike; times are medians,
ratios the medians of the pairs' ratios. The scan is a phantom with the noise of a real one, since noise is
what makes a .nii.gz slow to read.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import frame

from situs.tables import text_table

SHAPE = (512, 512, 32)
SPACING_MM = (0.45, 0.45, 5.0)
MOST_RATIO, MOST_MB = 3.0, 200.0
MOST_FIRST, MOST_FURTHER = 0.8, 0.3  # of reading
FURTHER, SLICES = 10, 4  # lesions, and the slices of each
MOST_FOR_SITES = 1.3
# What no change of situs can take away: its libraries are loaded, and the scan is unpacked.
FLOOR = "import sys, gzip, numpy, scipy.ndimage, onnxruntime, typer; gzip.open(sys.argv[1]).read()"
READ = "import sys, nibabel, numpy; numpy.asanyarray(nibabel.load(sys.argv[1]).dataobj)"


@dataclass(frozen=True)
class Cost:
    """Of one process: wall and CPU (user and system) seconds, and the most memory it held."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    situs = Path(sys.executable).with_name("situs")
    if not situs.is_file():
        print(f"situs is not installed beside {Path(sys.executable).name}: pip install -e .", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        scan, roi = Path(folder, "scan.nii.gz"), Path(folder, "roi.nii.gz")
        # Made in a process of its own: Linux lets a child's peak memory begin at that of its parent.
        maker = multiprocessing.get_context("spawn").Process(target=write_phantom, args=(scan, roi))
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        bundle = ["--bundle", str(options.bundle)] if options.bundle else []
        label = [str(situs), "label", str(scan), "--roi", str(roi), *bundle]
        base, other = [sys.executable, "-c", READ, str(scan)], label
        if options.sites:
            wide = Path(folder, "wide")
            write_wide_bundle(options.bundle, options.sites, wide)
            base, other = label, [*label[:5], "--bundle", str(wide)]
        size_mb = scan.stat().st_size / 1e6
        try:
            measure(base), measure(other)  # once unmeasured, to fill the file cache and write the byte code
            pairs = [(measure(base), measure(other)) for _ in range(options.runs)]
            floor = [measure([sys.executable, "-c", FLOOR, str(scan)]) for _ in range(options.runs)]
        except subprocess.CalledProcessError as error:
            print(f"{error.cmd[0]} ended with exit code {error.returncode}: {error.stderr}", file=sys.stderr)
            return 1
        # Last, because a child's peak memory begins at that of its parent.
        warm = None if options.sites else warm_costs(scan, roi, options.bundle, options.runs)
    print_result(pairs, floor, size_mb, options.sites, warm)
    return 0


def measure(command: list[str]) -> Cost:
    """Run a command to its end; CalledProcessError if it fails."""
    with tempfile.TemporaryFile() as errors:
        with frame.Timer() as timer:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for already
        if process.returncode:
            errors.seek(0)
            raise subprocess.CalledProcessError(
                process.returncode, command, stderr=errors.read().decode(errors="replace").strip()
            )
    return Cost(timer.wall_s, usage.ru_utime + usage.ru_stime, frame.in_mb(usage.ru_maxrss))


def warm_costs(scan: Path, roi: Path, bundle: Path | None, runs: int) -> tuple[float, float, float]:
    """CPU seconds of a call that labels one lesion, of each further lesion, and of BaseNet on its slices.

    All are medians. The last is what the network alone takes of the second.
    """
    from dataclasses import replace

    import numpy as np

    from situs import Labeler, read_rois, read_volume
    from situs.runtime import Runtime

    volume, labeler = read_volume(scan), Labeler.load(bundle)
    lesion: Any = read_rois(roi, volume)[0]
    i, j, k = lesion.start
    # Along the brain, on other slices: each further lesion has its own slices to look at, or shares some.
    moved: list[Any] = [
        replace(lesion, start=(i - 25 * (n % 6), j - 20 * (n % 5), k - 6 + n), value=n + 2)
        for n in range(FURTHER)
    ]

    def cost(lesions: list[Any]) -> float:
        with frame.Timer() as timer:
            labeler.label(volume, lesions)
        return timer.cpu_s

    cost([lesion])  # what is prepared once
    pairs = [(cost([lesion]), cost([lesion, *moved])) for _ in range(runs)]
    spec = labeler.bundle.spec
    views = np.zeros((SLICES * FURTHER, len(spec.channels), spec.size_px, spec.size_px), dtype=np.uint8)
    runtime, network = Runtime(labeler.bundle), []
    for _ in range(runs + 1):  # the first is not counted
        with frame.Timer() as timer:
            runtime.embed(views, views)
        network.append(timer.cpu_s / FURTHER)
    return (
        median(one for one, _ in pairs),
        median((many - one) / FURTHER for one, many in pairs),
        median(network[1:]),
    )


def write_phantom(
    scan: Path,
    roi: Path,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> None:
    """A head of shells (scalp, skull, brain, ventricles) with noise, int16 HU, and one lesion of 20 mm."""
    import nibabel
    import numpy as np

    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * mm)
        .astype(np.float32)
        .reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, mm) in enumerate(zip(shape, spacing_mm, strict=True))
    )
    head = np.sqrt((x / 75) ** 2 + (y / 95) ** 2 + (z / 90) ** 2)
    hu = np.select([head < 0.88, head < 0.95, head < 1], [32, 1000, 20], -1000).astype(np.float32)
    for side in (-1, 1):
        hu[((x - side * 14) / 7) ** 2 + (y / 35) ** 2 + ((z - 10) / 12) ** 2 < 1] = 8
    hu += np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    hu = np.where(x**2 + y**2 > 115**2, -1024, hu)  # the scanner's field of view is round, constant outside
    lesion = (x - 30) ** 2 + (y - 10) ** 2 + (z - 5) ** 2 < 10**2
    hu += 35 * lesion
    nibabel.save(nibabel.Nifti1Image(np.rint(hu).astype(np.int16), affine), scan)
    nibabel.save(nibabel.Nifti1Image(lesion.astype(np.uint8), affine), roi)


def write_wide_bundle(bundle: Path | None, n_sites: int, out: Path) -> None:
    """A bundle with new sites, whose references are those of its own sites, moved a little."""
    import numpy as np

    from situs.anatomy import Site, SiteList
    from situs.bundle import read_bundle
    from situs.bundle.change import replace_references
    from situs.neighbors import References

    source = read_bundle(bundle)
    old, known = source.references, len(source.sites)
    sites = SiteList([*source.sites, *(Site(f"place_{n}", f"Place {n}") for n in range(known, n_sites))])
    rng = np.random.default_rng(0)
    parts = [old]
    for number in range(known, n_sites):
        like = old.sites == number % known
        embeddings = old.embeddings[like].astype(np.float32)
        embeddings += rng.normal(0, 0.02, embeddings.shape)
        ids = np.char.add(f"place_{number}/", old.ids[like])
        numbers = np.full(len(ids), number)
        parts.append(References(embeddings, numbers, ids, old.patients[like], n_sites))
    columns = ("embeddings", "sites", "ids", "patients")
    joined = References(*(np.concatenate([getattr(p, c) for p in parts]) for c in columns), n_sites)
    replace_references(source, joined, added=len(joined) - len(old), removed=0, sites=sites, out=out)


def print_result(
    pairs: list[tuple[Cost, Cost]],
    floor: list[Cost],
    size_mb: float,
    n_sites: int | None,
    warm: tuple[float, float, float] | None,
) -> None:
    names = (f"situs label, {n_sites} sites", "situs label") if n_sites else ("situs label", "read only")
    wall = median(label.wall_s / read.wall_s for read, label in pairs)
    cpu = median(label.cpu_s / read.cpu_s for read, label in pairs)
    peak = max(label.peak_mb for _, label in pairs)
    rows = [["median of processes", "wall s", "CPU s", "peak MB"]]
    columns = {names[1]: [a for a, _ in pairs], names[0]: [b for _, b in pairs], "libraries, gunzip": floor}
    for name, costs in columns.items():
        cells = (
            median(c.wall_s for c in costs),
            median(c.cpu_s for c in costs),
            median(c.peak_mb for c in costs),
        )
        rows.append([name, f"{cells[0]:.2f}", f"{cells[1]:.2f}", f"{cells[2]:.0f}"])
    rows.append(["ratio", f"{wall:.2f}", f"{cpu:.2f}", ""])
    size = "x".join(map(str, SHAPE))
    print(f"{size} int16, {size_mb:.1f} MB as .nii.gz, one lesion, {len(pairs)} pairs of runs\n")
    print(text_table(rows, rules=(1, 4)) + "\n")
    if warm is None:
        frame.print_promises([frame.Promise("CPU", cpu, MOST_FOR_SITES, "times labelling")])
        return
    first, further, network = (1000 * cost for cost in warm)
    print(
        f"With the networks loaded: CPU {first:.0f} ms for one lesion, {further:.0f} ms for each further, of "
        f"which BaseNet takes {network:.0f} ms\n"
    )
    reading = median(read.cpu_s for read, _ in pairs)
    frame.print_promises(
        [
            frame.Promise("wall", wall, MOST_RATIO, "times reading"),
            frame.Promise("CPU", cpu, MOST_RATIO, "times reading"),
            frame.Promise("peak memory, largest", peak, MOST_MB, "MB"),
            frame.Promise("one lesion, CPU", warm[0] / reading, MOST_FIRST, "times reading"),
            frame.Promise("each further lesion, CPU", warm[1] / reading, MOST_FURTHER, "times reading"),
        ]
    )


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_argument("--runs", type=frame.positive, default=9, help="pairs of runs (default: 9)")
    parser.add_argument("--sites", type=frame.positive, metavar="N", help="compare with a bundle of N sites")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
