"""What the benchmarks share: options, promises, times, progress, a JSON file, one line for an error.

A benchmark imports it by name: the folder of the script that Python runs is on its path. It loads no package
that takes memory, because `label.py` measures that of its children, which Linux lets begin at its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from situs.errors import InputError, SitusError
from situs.files import write_file

if TYPE_CHECKING:
    from situs.cohort.manifest import Row

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


class Parser(argparse.ArgumentParser):
    """A parser whose help is the docstring of a script, with the options that several scripts have."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def add_bundle(self) -> None:
        self.add_argument("--bundle", type=Path, help="folder of the bundle (default: the shipped one)")

    def add_data(self) -> None:
        self.add_argument(
            "--data",
            type=Path,
            default=SHARED / "ct",
            help="folder of the real scans, with landmarks.csv (default: shared/data/ct)",
        )

    def add_heads(self) -> None:
        self.add_argument(
            "--heads",
            type=Path,
            default=SHARED / "heads",
            help="folder of label maps (default: shared/data/heads)",
        )

    def add_json(self) -> None:
        self.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an option."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def run(main: Callable[[], int]) -> NoReturn:
    """End the process with the exit code of `main`; what is wrong with the input is one line and code 2."""
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


@dataclass(frozen=True)
class Promise:
    """A figure and the limit that is promised for it.

    Attributes:
        what: What was measured.
        value: The figure.
        limit: The figure is to be below it.
        unit: Of both.
        at_least: Whether the limit is to be reached instead.

    >>> print(Promise("peak memory", 310.2, 400, "MB"))
    promise: peak memory under 400 MB: 310, met
    >>> print(Promise("sides", 0.97, 0.98, at_least=True))
    promise: sides at least 0.98: 0.97, not met
    """

    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value < self.limit

    def __str__(self) -> str:
        words, unit = "at least" if self.at_least else "under", f" {self.unit}" if self.unit else ""
        verdict = "met" if self.is_met else "not met"
        return f"promise: {self.what} {words} {self.limit:g}{unit}: {self.value:.3g}, {verdict}"


def print_promises(promises: Sequence[Promise]) -> None:
    """A line for each promise, with its verdict."""
    print(*promises, sep="\n")


class Timer:
    """A context that measures what is done in it.

    Attributes:
        wall_s: Wall-clock seconds.
        cpu_s: CPU seconds of this process.
    """

    wall_s = cpu_s = 0.0

    def __enter__(self) -> Timer:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        wall, cpu = self._began
        self.wall_s, self.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


def in_mb(max_rss: int) -> float:
    """The ``ru_maxrss`` of a process in MB; Linux counts KiB, macOS bytes."""
    return max_rss * (1 if sys.platform == "darwin" else 1024) / 1e6


def peak_mb() -> float:
    """The most memory that this process has held."""
    return in_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


class ProgressLine:
    """A `situs.progress.Progress` that reports on one line of standard error, at most once a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int, message: str = "", /) -> None:
        if (now := time.monotonic()) - self._last > 1 or done == total:
            self._last = now
            end = "\n" if done == total else ""
            print(f"\r{stage} {done}/{total} {message}\033[K", end=end, file=sys.stderr, flush=True)


def rows_by_scan(cohort: Path, n_scans: int) -> dict[Path, list[Row]]:
    """The rows of a cohort's manifest by scan, for at most `n_scans` scans, evenly through the cohort."""
    import numpy as np

    from situs.cohort.manifest import read_manifest

    by_scan: dict[Path, list[Row]] = {}
    for row in read_manifest(cohort):
        by_scan.setdefault(row.scan, []).append(row)
    scans = list(by_scan)
    chosen = np.linspace(0, len(scans) - 1, min(n_scans, len(scans))).astype(int)
    return {scans[n]: by_scan[scans[n]] for n in chosen}


def need_file(option: str, path: Path, what: str) -> None:
    """Refuse a run whose input is missing.

    Raises:
        InputError: If there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{option}: no {path.name} in {path.parent}; it is {what}")


def write_json(path: Path | None, result: Any) -> None:
    """Write the numbers of a run to the file that ``--json`` names, if any."""
    if path is not None:
        write_file(path, (json.dumps(result, indent=1) + "\n").encode())
