"""A long `situs batch` into which faults are thrown: no lesion lost, repeated or changed, and no leak.

Promise: every row of the manifest is in `findings.csv` as if it had been labelled alone, in order; nothing
half written is left; no process grows by more than 20 % while the last half is labelled. Run:

    python benchmarks/soak.py [--heads DIR] [--scans 2000] [--pool 24] [--jobs 2] [--work DIR]

`--pool` scans are rendered from label maps and made smaller. The manifest names them again and again under
other names. One row in ten cannot be labelled: its scan is missing, cut or no scan, its mask is empty, or the
pair stood in an earlier row. Thrown in, as the rows are done: the batch is killed; it is stopped by Ctrl-C,
once and twice; one of its workers is killed; a second run is started beside it; its output folder is taken
away. Each time the same command goes on.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import frame
import nibabel
import numpy as np

from situs.errors import SitusError
from situs.synth.cohort import render_cohort
from situs.synth.heads import find_heads
from situs.tables import csv_text, text_table

BAD = ("missing", "cut", "no scan", "empty mask", "twice")
ONE_IN = 10
QUIET_FROM = 0.5  # of the rows: from then on nothing is thrown in, and memory is watched
MOST_GROWTH = 1.2
OWN_COLUMNS = ("row", "id", "scan", "roi", "scan_name")
_WAIT_S = 600.0


@dataclass
class Soak:
    """A batch that is disturbed.

    Attributes:
        folder: Where everything lies; the manifest is ``manifest.csv``, the findings are in ``out``.
        jobs: Processes of the batch.
        peaks: The resident MB of the processes of the batch together: when the quiet part began, and the
            largest since.
        told: What was thrown in and what came of it, a row each.
    """

    folder: Path
    jobs: int
    peaks: list[float] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[str]:
        """The batch in a process group of its own."""
        args = ["batch", "manifest.csv", "--out", "out", "--jobs", str(self.jobs), "--quiet", "--no-parquet"]
        return subprocess.Popen(
            [sys.executable, "-m", "situs", *args],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def done(self) -> int:
        """How many rows have a part."""
        return sum(1 for _ in self.out.glob("parts/*/*.json"))

    def wait_for(self, process: subprocess.Popen[str], rows: int) -> bool:
        """Wait until so many rows are done; False if the batch ended before."""
        while process.poll() is None:
            if self.done() >= rows:
                return True
            time.sleep(0.2)
        return False

    def disturb(self, name: str, fault: Callable[[subprocess.Popen[str]], str], rows: int) -> None:
        """Start the batch, throw a fault in when so many rows are done, and end it."""
        process = self.start()
        if not self.wait_for(process, rows):
            raise SitusError(f"soak: the batch ended before {rows} rows: {_errors(process)}")
        with ended(process):
            came = fault(process)
        self.told.append([name, str(self.done()), came])

    def finish(self, rows: int) -> int:
        """Go on to the end, undisturbed; the exit code."""
        process = self.start()
        with ended(process):
            self.wait_for(process, rows)
            self.peaks = [resident_mb(process.pid)] * 2
            while process.poll() is None:
                self.peaks[1] = max(self.peaks[1], resident_mb(process.pid))
                time.sleep(1)
        return process.returncode


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        pool = make_pool(folder / "pool", options.heads, options.pool)
        kinds = write_manifest(folder, pool, options.scans)
        expected = label_pool(folder, pool)
        soak = Soak(folder, options.jobs)
        with frame.Timer() as timer:
            for number, (name, fault) in enumerate(faults(soak).items(), start=1):
                soak.disturb(name, fault, int(options.scans * QUIET_FROM * number / (len(FAULTS) + 1)))
            code = soak.finish(int(options.scans * QUIET_FROM))
        found = read_rows(soak.out / "findings.csv")
        wrong = [n for n, kind in enumerate(kinds, 1) if not as_expected(found.get(n, []), kind, expected)]
        left = [
            path
            for path in soak.out.rglob("*")
            if path.is_file() and (path.suffix or path.name) not in _KNOWN
        ]
        print(text_table([["thrown in", "rows done", "what came of it"], *soak.told]), end="\n\n")
        in_order = list(found) == list(range(1, options.scans + 1))
        failed = sum(kind in BAD for kind in kinds)
        print(f"{options.scans} rows, {failed} of them faulty; exit code {code}; {timer.wall_s:.0f} s")
        print(f"in order and whole: {in_order}; rows that differ from their scan alone: {len(wrong)}")
        print(f"half written files left: {len(left)}")
        print(f"memory of all processes: {soak.peaks[0]:.0f} MB, at most {soak.peaks[1]:.0f} MB later\n")
        growth = soak.peaks[1] / soak.peaks[0]
        frame.print_promises(
            [
                frame.Promise("rows lost, repeated or changed", len(wrong) + (not in_order), 1),
                frame.Promise("half written files", len(left), 1),
                frame.Promise("memory while the last half is labelled", growth, MOST_GROWTH, "times"),
            ]
        )
    return 0


# --- the scans --------------------------------------------------------------------------------------------


def make_pool(folder: Path, heads: Path, count: int) -> list[tuple[Path, Path]]:
    """Rendered scans of half as many pixels each way, and their masks."""
    render_cohort(find_heads(heads), folder / "cohort", count, 1)
    pairs = []
    for scan in sorted((folder / "cohort" / "scans").glob("*.nii.gz")):
        mask = next((folder / "cohort" / "rois").glob(f"{scan.name.split('.')[0]}_*.nii.gz"))
        pair = (folder / f"scan_{scan.name}", folder / f"mask_{scan.name}")
        for source, target in zip((scan, mask), pair, strict=True):
            image = nibabel.load(source)
            affine = image.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
            nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj)[::2, ::2], affine), target)
        pairs.append(pair)
    return pairs


def write_manifest(folder: Path, pool: list[tuple[Path, Path]], scans: int) -> list[int | str]:
    """A manifest of `scans` rows; of each row which scan of the pool it is, or how it is faulty."""
    (folder / "scans").mkdir(exist_ok=True)
    for path in (folder / "scans").iterdir():
        path.unlink()
    kinds: list[int | str] = []
    rows, last = [], ["", ""]
    for n in range(1, scans + 1):
        kind: int | str = BAD[n // ONE_IN % len(BAD)] if n % ONE_IN == 0 else n % len(pool)
        scan, mask = (folder / "scans" / f"{n:06d}_{what}.nii.gz" for what in ("scan", "mask"))
        source, own = pool[n % len(pool)]
        os.link(own, mask)
        if kind == "cut":
            scan.write_bytes(source.read_bytes()[:5000])
        elif kind == "no scan":
            scan.write_bytes(b"no scan")
        elif kind != "missing":
            os.link(source, scan)
        if kind == "empty mask":
            image = nibabel.load(mask)
            mask.unlink()
            nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
        row = [str(path.relative_to(folder)) for path in (scan, mask)]
        rows.append(last if kind == "twice" else row)
        last = row
        kinds.append(kind)
    (folder / "manifest.csv").write_text(csv_text(["scan", "roi"], rows), encoding="utf-8")
    return kinds


def label_pool(folder: Path, pool: list[tuple[Path, Path]]) -> dict[int | str, list[list[str]]]:
    """The rows of each scan of the pool, by its number, when nothing disturbs."""
    rows = [[str(path) for path in pair] for pair in pool]
    (folder / "pool.csv").write_text(csv_text(["scan", "roi"], rows), encoding="utf-8")
    shutil.rmtree(folder / "pool_out", ignore_errors=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    args = ["batch", "pool.csv", "--out", "pool_out", "--quiet", "--no-parquet"]
    subprocess.run([sys.executable, "-m", "situs", *args], cwd=folder, check=True)
    return {n - 1: lines for n, lines in read_rows(folder / "pool_out" / "findings.csv").items()}


# --- what came out ----------------------------------------------------------------------------------------

_KNOWN = (".csv", ".json", ".html", ".lock")  # a file that was not renamed ends otherwise


def read_rows(path: Path) -> dict[int, list[list[str]]]:
    """The lines of a table by the number of their row, without the columns that name the row."""
    found: dict[int, list[list[str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            cells = [value for name, value in line.items() if name not in OWN_COLUMNS]
            found.setdefault(int(line["row"]), []).append(cells)
    return found


def as_expected(lines: list[list[str]], kind: int | str, expected: dict[int | str, list[list[str]]]) -> bool:
    """Whether the lines of a row are those of its scan alone, or one line with an error if it is faulty."""
    if kind in BAD:
        return len(lines) == 1 and bool(lines[0][0])
    return lines == expected[kind]


# --- faults -----------------------------------------------------------------------------------------------

Fault = Callable[[subprocess.Popen[str]], str]
FAULTS = ("killed", "Ctrl-C", "a worker killed", "a second run", "Ctrl-C twice", "folder taken away")


def faults(soak: Soak) -> dict[str, Fault]:
    """What is thrown in, by name; each gives what came of it."""

    def kill(process: subprocess.Popen[str]) -> str:
        os.killpg(process.pid, signal.SIGKILL)
        return _outcome(process)

    def interrupt(process: subprocess.Popen[str]) -> str:
        os.killpg(process.pid, signal.SIGINT)
        return _outcome(process)

    def interrupt_twice(process: subprocess.Popen[str]) -> str:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        return _outcome(process)

    def kill_worker(process: subprocess.Popen[str]) -> str:
        workers = [pid for pid in children(process.pid) if "loky" in command_of(pid)]
        if not workers:
            return "there was no worker"
        os.kill(workers[0], signal.SIGKILL)
        before = soak.done()
        soak.wait_for(process, before + 10)
        went_on = f"went on, {soak.done() - before} rows later stopped by Ctrl-C"
        os.killpg(process.pid, signal.SIGINT)
        return went_on if process.poll() is None else _outcome(process)

    def second_run(process: subprocess.Popen[str]) -> str:
        second = soak.start()
        said = f"the second one: {_outcome(second)}"
        os.killpg(process.pid, signal.SIGINT)
        return said

    def take_away(process: subprocess.Popen[str]) -> str:
        away = soak.folder / "away"
        soak.out.rename(away)
        said = _outcome(process)
        shutil.rmtree(soak.out, ignore_errors=True)
        away.rename(soak.out)
        return said

    done: tuple[Fault, ...] = (kill, interrupt, kill_worker, second_run, interrupt_twice, take_away)
    return dict(zip(FAULTS, done, strict=True))


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for a process after the block; one that goes on is killed with all it started."""
    try:
        yield
        process.wait(_WAIT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _outcome(process: subprocess.Popen[str]) -> str:
    """The exit code and the last line of a process that ends."""
    line = _errors(process)
    return f"exit code {process.returncode}" + (f": {line[:100]}" if line else "")


def _errors(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=_WAIT_S)
    return errors.strip().splitlines()[-1] if errors.strip() else ""


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                own = int(path.parent.name)
                found += [own, *children(own)]
    return found


def command_of(pid: int) -> str:
    """The command line of a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def resident_mb(pid: int) -> float:
    """MB in memory of a process and of all that it started."""
    pages = 0
    for own in (pid, *children(pid)):
        with suppress(OSError):
            pages += int(Path(f"/proc/{own}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_heads()
    parser.add_argument("--scans", type=frame.positive, default=2000, help="rows (default: 2000)")
    parser.add_argument("--pool", type=frame.positive, default=24, help="scans (default: 24)")
    parser.add_argument("--jobs", type=frame.positive, default=2, help="processes (default: 2)")
    parser.add_argument("--work", type=Path, help="keep everything here (default: a temporary folder)")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
