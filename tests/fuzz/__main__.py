"""``python -m fuzz [COUNT] [FIRST]``: run mutants and print a report; exit code 1 if one is a fault."""

import sys
import tempfile
from pathlib import Path

from fuzz.base import make_base
from fuzz.runner import report, run_mutants

count, first = (int(text) for text in (sys.argv[1:] + ["5000", "0"][len(sys.argv) - 1 :]))
with tempfile.TemporaryDirectory(prefix="situs-fuzz-") as folder:
    outcomes = run_mutants(first, first + count, make_base(Path(folder)))
print(report(outcomes))
sys.exit(any(o.is_fault for o in outcomes))
