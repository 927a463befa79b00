"""The parent: starts a process for the mutants, and the next one where a mutant ended it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.judge import NO_FAULTS

TESTS = Path(__file__).parents[1]
WALL_SECONDS = 60.0  # for what waits and takes no CPU time; a loaded machine is no fault


@dataclass
class Outcome:
    """What one mutant led to: one of `NO_FAULTS`, or the name of a fault."""

    seed: int
    kind: str
    what: str
    outcome: str
    text: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome not in NO_FAULTS

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.kind}: {self.what}: {self.outcome}: {self.text}"


def run_mutants(first: int, last: int, base: Path) -> Iterator[Outcome]:
    """Run the mutants of the seeds first to last - 1; base: see `fuzz.base.make_base`."""
    with tempfile.TemporaryDirectory(prefix="situs-fuzz-") as scratch:
        while first < last:
            for outcome in _run_until_death(first, last, base, Path(scratch) / "mutant"):
                first = outcome.seed + 1
                yield outcome


def report(outcomes: Iterable[Outcome]) -> str:
    """Counts by kind and outcome."""
    counts = Counter((o.kind, o.outcome) for o in outcomes)
    faults = sum(n for (_, outcome), n in counts.items() if outcome not in NO_FAULTS)
    lines = [f"{counts.total():,} mutants, {faults} faults"]
    lines += [f"  {kind:9} {outcome:30} {n:6,}" for (kind, outcome), n in sorted(counts.items())]
    return "\n".join(lines)


def _run_until_death(first: int, last: int, base: Path, scratch: Path) -> Iterator[Outcome]:
    """The outcomes up to the mutant that ended the process, or up to the last."""
    command = [sys.executable, "-m", "fuzz.child", str(base), str(scratch), str(first), str(last)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    mutant: dict[str, Any] = {}
    with subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.PIPE) as child:
        for line in _lines(child):
            if "begin" in line:
                mutant = {"seed": line["begin"], "kind": "", "what": ""}
            elif "outcome" in line:
                yield Outcome(**mutant, outcome=line["outcome"], text=line["text"].strip())
                mutant.clear()
            else:
                mutant |= line
        try:
            code, waits = child.wait(5), False
        except subprocess.TimeoutExpired:
            child.kill()
            code, waits = child.wait(), True
    if not mutant:
        if code:
            raise RuntimeError(f"the process for the mutants ended with code {code}")
        return
    if not mutant["kind"]:
        name = f"the mutator failed (exit code {code})"
    elif waits:
        name = "over the time limit (waiting)"
    else:
        name = "over the time limit" if code == -signal.SIGPROF else f"death (exit code {code})"
    yield Outcome(**mutant, outcome=name)


def _lines(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The lines that a process prints, until it ends or prints none for too long."""
    assert child.stdout is not None
    buffer = b""
    while select.select([child.stdout], [], [], WALL_SECONDS)[0]:
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        yield from map(json.loads, lines)
