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
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
WALL_SECONDS = 60.0  # for what waits and takes no CPU time; a loaded machine is no fault


@dataclass
class Outcome:
    """What one mutant led to: ``answered``, ``refused``, or the name of a fault."""

    seed: int
    kind: str
    what: str
    outcome: str
    text: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome not in ("answered", "refused")


def run_mutants(first: int, last: int, base: Path) -> list[Outcome]:
    """Run the mutants of the seeds first to last - 1; base: see `fuzz.base.make_base`."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="situs-fuzz-") as scratch:
        while first < last:
            outcomes += _run_until_death(first, last, base, Path(scratch) / "mutant")
            if not outcomes:
                raise RuntimeError("the process for the mutants did not start")
            first = outcomes[-1].seed + 1
    return outcomes


def report(outcomes: list[Outcome]) -> str:
    """Counts by kind and outcome, and each fault with its seed."""
    counts = Counter((o.kind, o.outcome) for o in outcomes)
    lines = [f"{len(outcomes):,} mutants, {sum(o.is_fault for o in outcomes)} faults"]
    lines += [f"  {kind:9} {outcome:30} {n:6,}" for (kind, outcome), n in sorted(counts.items())]
    lines += [f"seed {o.seed}: {o.kind}: {o.what}: {o.outcome}: {o.text}" for o in outcomes if o.is_fault]
    return "\n".join(lines)


def _run_until_death(first: int, last: int, base: Path, scratch: Path) -> list[Outcome]:
    command = [sys.executable, "-m", "fuzz.child", str(base), str(scratch), str(first), str(last)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    outcomes: list[Outcome] = []
    with subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        seed, kind, what, buffer = first, "", "", b""
        while True:
            ready, _, _ = select.select([child.stdout], [], [], WALL_SECONDS)
            data = os.read(child.stdout.fileno(), 65536) if ready else b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in map(json.loads, lines):
                if "begin" in line:
                    seed, kind, what = line["begin"], "", ""
                elif "kind" in line:
                    kind, what = line["kind"], line["what"]
                else:
                    outcome = line["fault"] or ("refused" if line["code"] else "answered")
                    outcomes.append(Outcome(seed, kind, what, outcome, line["err"].strip()))
        if not ready:
            child.kill()
        code = child.wait()
        if outcomes and outcomes[-1].seed == last - 1:
            return outcomes
        if not ready:
            name = "over the time limit (waiting)"
        elif not kind:
            name = f"the mutator failed (exit code {code})"
        else:
            name = "over the time limit" if code == -signal.SIGPROF else f"death (exit code {code})"
        return [*outcomes, Outcome(seed, kind, what, name)]
