"""``python -m fuzz [COUNT] [FIRST]``: run mutants and print a report; exit code 1 if one is a fault.

Faults are printed when they are found, and on a terminal how many mutants were run so far.
"""

import sys
import tempfile
from pathlib import Path

from fuzz.base import make_base
from fuzz.runner import report, run_mutants

count, first = (int(text) for text in (sys.argv[1:] + ["5000", "0"][len(sys.argv) - 1 :]))
outcomes = []
with tempfile.TemporaryDirectory(prefix="situs-fuzz-") as folder:
    for outcome in run_mutants(first, first + count, make_base(Path(folder))):
        outcomes.append(outcome)
        if outcome.is_fault:
            print(outcome, flush=True)
        if sys.stderr.isatty():
            end = "\n" if len(outcomes) == count else "\r"
            print(f"{len(outcomes):,} of {count:,} mutants\033[K", end=end, file=sys.stderr, flush=True)
print(report(outcomes))
sys.exit(any(outcome.is_fault for outcome in outcomes))
