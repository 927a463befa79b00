"""What `situs batch` costs a scan and core beside merely reading the scan, and what a second process brings.

Promise: a scan takes under 1.3 times the CPU time of reading it with nibabel, and two processes are at least
1.8 times as fast as one. Run:

    python benchmarks/batch.py [--bundle DIR] [--scan FILE --roi FILE] [--copies 24] [--runs 3] [--dask]

The scans are copies of the example scan, or of the one that is given. Reading, one process and two take
turns; figures are medians, ratios the medians of the rounds' ratios. What starting costs is taken out: each
is measured with 4 scans and with all copies, and the difference counts. With --dask, two workers of a Dask
scheduler on this computer label the scans too; the CPU time that the scheduler takes for a scan limits how
many workers it can have.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import frame

import situs
from situs.errors import InputError
from situs.tables import csv_text, text_table

EXAMPLE = Path(situs.__file__).parent / "data" / "example"
FEW = 4
MOST_RATIO, LEAST_SPEEDUP = 1.3, 1.8
READ = "import sys, nibabel, numpy\nfor f in sys.argv[1:]: numpy.asanyarray(nibabel.load(f).dataobj)"


@dataclass(frozen=True)
class Cost:
    """Of a scan: wall and CPU (user and system, with child processes) milliseconds."""

    wall_ms: float
    cpu_ms: float


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    if options.copies <= FEW:
        raise InputError(f"--copies {options.copies}: expected more than {FEW}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = copy_scans(folder, options.scan, options.roi, options.copies)
        bundle = ["--bundle", str(options.bundle)] if options.bundle else []
        rounds = []
        with dask() if options.dask else nullcontext() as cluster:
            if cluster is not None:
                print_dask(cluster, folder, options.copies, bundle)
        for number in range(options.runs + 1):  # the first one fills the file cache and is not counted
            costs = (
                slope(lambda n: [sys.executable, "-c", READ, *scans[:n]], options.copies),
                slope(lambda n: batch(folder, n, 1, bundle), options.copies),
                slope(lambda n: batch(folder, n, 2, bundle), options.copies),
            )
            if number:
                rounds.append(costs)
    print_result(rounds, options.copies)
    return 0


def copy_scans(folder: Path, scan: Path, roi: Path, copies: int) -> list[str]:
    """Copies of a scan and its mask, and manifests of `FEW` and of all of them; the scans' paths."""
    suffix = "".join(scan.suffixes)
    for n in range(copies):
        shutil.copyfile(scan, folder / f"scan{n}{suffix}")
        shutil.copyfile(roi, folder / f"roi{n}{suffix}")
    for count in (FEW, copies):
        rows = [[f"scan{n}{suffix}", f"roi{n}{suffix}"] for n in range(count)]
        (folder / f"{count}.csv").write_text(csv_text(["scan", "roi"], rows))
    return [str(folder / f"scan{n}{suffix}") for n in range(copies)]


def batch(folder: Path, count: int, jobs: int, bundle: list[str]) -> list[str]:
    """The command that labels `count` scans anew."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    args = ["batch", str(folder / f"{count}.csv"), "--out", str(folder / "out"), "--jobs", str(jobs)]
    return [sys.executable, "-m", "situs", *args, "--no-parquet", "--quiet", *bundle]


@dataclass(frozen=True)
class Cluster:
    """A Dask scheduler with two workers, processes on this computer."""

    address: str
    scheduler: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """CPU seconds that the scheduler has taken."""
        fields = Path(f"/proc/{self.scheduler.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def dask() -> Iterator[Cluster]:
    """A scheduler and two workers of one thread, until the end."""
    from distributed import Client

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    worker = ["worker", address, "--nthreads", "1", "--no-nanny"]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]], worker, worker]
    started = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        for kind, *args in commands:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *args, "--no-dashboard"]
            quiet = subprocess.DEVNULL
            started.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield Cluster(address, started[0])
    finally:
        for process in started:
            process.kill()
            process.wait()


def print_dask(cluster: Cluster, folder: Path, copies: int, bundle: list[str]) -> None:
    """Measure two workers, after a first turn that loads their networks."""
    more = [*bundle, "--backend", "dask", "--scheduler", cluster.address]
    walls, schedulers = [], []
    for count in (FEW, FEW, copies):
        before = cluster.cpu_s()
        walls.append(measure(batch(folder, count, 1, more))[0])
        schedulers.append(cluster.cpu_s() - before)
    wall, scheduler = (1000 * (costs[2] - costs[1]) / (copies - FEW) for costs in (walls, schedulers))
    print(f"Dask, 2 workers, a scan: {wall:.0f} ms wall, {scheduler:.0f} ms CPU of the scheduler\n")


def slope(command: Any, copies: int) -> Cost:
    """The cost of one more scan, from the commands for `FEW` and for all scans."""
    few, all_ = measure(command(FEW)), measure(command(copies))
    per_scan = [1000 * (b - a) / (copies - FEW) for a, b in zip(few, all_, strict=True)]
    return Cost(*per_scan)


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and the processes that it waited for."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = os.times()
    with frame.Timer() as timer:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return timer.wall_s, cpu


def print_result(rounds: list[tuple[Cost, Cost, Cost]], copies: int) -> None:
    names = ("read only (nibabel)", "situs batch, 1 process", "situs batch, 2 processes")
    rows = [["median of a scan", "wall ms", "CPU ms"]]
    for column, name in enumerate(names):
        costs = [costs[column] for costs in rounds]
        cells = median(c.wall_ms for c in costs), median(c.cpu_ms for c in costs)
        rows.append([name, *(f"{cell:.0f}" for cell in cells)])
    print(f"{copies} copies, {len(rounds)} rounds, {os.cpu_count()} cores\n\n{text_table(rows)}\n")
    cpu = median(one.cpu_ms / read.cpu_ms for read, one, _ in rounds)
    speedup = median(one.wall_ms / two.wall_ms for _, one, two in rounds)
    frame.print_promises(
        [
            frame.Promise("CPU of a scan", cpu, MOST_RATIO, "times reading"),
            frame.Promise("2 processes", speedup, LEAST_SPEEDUP, "times 1", at_least=True),
        ]
    )


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_argument(
        "--scan", type=Path, default=EXAMPLE / "head.nii.gz", help="default: the example scan"
    )
    parser.add_argument("--roi", type=Path, default=EXAMPLE / "lesions.nii.gz", help="its mask")
    parser.add_argument("--copies", type=frame.positive, default=24, help="default: 24")
    parser.add_argument("--runs", type=frame.positive, default=3, help="rounds (default: 3)")
    parser.add_argument("--dask", action="store_true", help="measure two workers of a Dask scheduler too")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
