"""Commands in processes of their own: killed at a change of the disk, stopped there, or short of space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
LABEL = ["label", "scan.nii.gz", "--roi", "mask.nii.gz", "--bundle", "bundle"]
LABEL += ["--json", "out/f.json", "--csv", "out/f.csv", "--png", "out"]
BATCH = ["batch", "batch.csv", "--out", "out", "--bundle", "bundle", "--json"]
SYNTH = ["synth", "heads", "out", "--scans", 3, "--seed", 5]
TRAIN = ["train", "cohort", "--out", "out"]
CHANGES = {
    "references add": ["references", "add", "bundle", "cohort"],
    "calibrate": ["calibrate", "bundle", "cohort", "--fold", "fold"],
}


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: Its exit code; that of a signal is negative. None if it was stopped.
        changes: How often it has changed the disk in its folder: opened a file to write it, renamed or
            removed one, made a folder.
        err: What it wrote to standard error.
    """

    code: int | None
    changes: int
    err: str


class Commands:
    """Runs commands in a folder, all from one process that has imported what they need, see `kill.child`.

    Args:
        process: See `open_process`.
        folder: Is made.
    """

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.folder = folder
        self.process = process
        self._logs: dict[int, Path] = {}
        self._running: set[int] = set()
        folder.mkdir()

    def run(self, *args, **how) -> Outcome:
        """Run a command to its end; see `start`."""
        return self.wait(self.start(*args, **how))

    def start(
        self,
        *args: object,
        moment: int | None = None,
        sent: signal.Signals = signal.SIGKILL,
        n_bytes: int | None = None,
        die: bool = False,
        read_only: bool = False,
    ) -> int:
        """Start a command.

        Args:
            args: Arguments of the command line.
            moment: The change of the disk, from 0, before which the process gets a signal.
            sent: That signal.
            n_bytes: The most bytes that a file may have.
            die: Whether the process dies of the first byte too many; else it is told of an error.
            read_only: Whether root too may not write where the permissions forbid it.

        Returns:
            The number of the process.
        """
        log = self.folder.with_name(f"log{len(self._logs)}")
        order = {"args": [*map(str, args)], "folder": str(self.folder), "log": str(log), "moment": moment}
        order |= {"signal": sent.name, "bytes": n_bytes, "die": die, "read_only": read_only}
        number = self._ask(order)["number"]
        self._logs[number] = log
        self._running.add(number)
        return number

    def wait(self, number: int) -> Outcome:
        """Wait until a process has ended or stopped."""
        reply = self._ask({"wait": number})
        if reply["code"] is not None:
            self._running.discard(number)
        return Outcome(reply["code"], reply["changes"], self._logs[number].read_text())

    def go_on(self, number: int) -> Outcome:
        """Let a stopped process go on, and wait for it."""
        os.kill(number, signal.SIGCONT)
        return self.wait(number)

    def end(self) -> None:
        """Kill what still runs."""
        for number in self._running:
            os.kill(number, signal.SIGKILL)

    def _ask(self, order: dict) -> dict:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def open_process(name: str) -> Iterator[subprocess.Popen]:
    """The process for `Commands` of one of the `kill.child.PREPARATIONS`."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "kill.child", name],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.communicate()


def content(folder):
    """The files of a folder by their paths, without caches, locks and what is half written."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {n: path.read_bytes() for n, path in names.items() if not f"/{n}".count("/.")}


def half_written(folder):
    return [path for path in folder.rglob(".writing-*") if not path.name.endswith(".of_a_living_process")]


def is_one_line(err: str) -> bool:
    """Whether standard error is one line of an error."""
    return err.startswith("situs: error: ") and err.count("\n") == 1 and err.endswith("\n")
