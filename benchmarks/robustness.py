"""What `situs label` makes of faulty inputs, beside plain scripts of nibabel, SimpleITK and dcm2niix.

Promise: situs misreads none of them silently, and answers each or refuses it in one line, within the limits
of time and memory. Run:

    pip install -e '.[bench]'
    python benchmarks/robustness.py [--data ../shared/data/field] [--only ID ...]

Every input is read by every tool in a process of its own. The regions that the tool finds are compared with
those of the plain case: at least 90 % of the HU under each region are the same, and its centre lies within
2 mm (`field_inputs.py`). What the plain scripts are is told in `readers.py`. The outcomes:

- right: the regions are right. Of situs also: each sure finding has the site and side of the plain case.
- right, not sure: the same, and situs marks every finding as not sure and says why. So do all findings on
  scans of under five slices.
- not sure: situs marks every finding as not sure. Where the regions lie in the patient cannot be known.
- refused: one line on standard error and exit code 2. Of the others: an exception.
- wrong: the regions are not right, and nothing is said; "wrong, warned": a warning was printed.
- fault: any other end of situs, such as a traceback. - hang, memory: over the limits.
- read: what is right cannot be known. - -: the tool was not asked.

dcm2niix reads DICOM only, and its output is then read with nibabel. nibabel itself reads no DICOM series.
The figures in docs/robustness.md are of this script.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import frame
from field_inputs import FieldInput, Region, fault_of, read_inputs, true_regions
from readers import READERS, is_dicom, read_in_child, stored_regions

from situs.tables import markdown_table

NEEDS = {"SimpleITK": "SimpleITK", "dcm2niix": "dcm2niix"}
HEADINGS = {"situs": "situs", "nibabel": "nibabel, dcm2niix", "SimpleITK": "SimpleITK"}
WHAT_CHARACTERS = 70


@dataclass(frozen=True)
class Outcome:
    """What a tool made of an input.

    Attributes:
        kind: ``right``, ``not sure``, ``refused``, ``wrong``, ...; see the first lines of this file.
        detail: What is wrong, or the last line that the tool printed.
        peak_mb: The most memory that the process held; 0 if that is not known.
    """

    kind: str
    detail: str = ""
    peak_mb: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.kind.startswith("wrong") else self.kind


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    frame.need_file("--data", options.data / "field.csv", "the folder with the inputs from the field")
    missing = {package for package in NEEDS.values() if find_spec(package) is None}
    for package in sorted(missing):
        print(f"{package} is not installed: pip install '{package}'", file=sys.stderr)
    inputs = read_inputs(options.data)
    plain = _run("situs", inputs[0], options)
    progress, table = frame.ProgressLine(), {}
    chosen = [case for case in inputs if not options.only or case.name in options.only]
    for n, case in enumerate(chosen):
        truth = true_regions(case, options.data)
        table[case.name] = {
            tool: judge(tool, _run(tool, case, options), truth, plain)
            if _is_asked(tool, case, missing)
            else Outcome("-")
            for tool in READERS
        }
        progress("inputs", n + 1, len(chosen), case.name)
    print_result(chosen, table)
    frame.write_json(
        options.json,
        {name: {tool: vars(outcome) for tool, outcome in row.items()} for name, row in table.items()},
    )
    return 0


def judge(tool: str, end: dict[str, Any], truth: dict[int, Region] | None, plain: dict[str, Any]) -> Outcome:
    """The outcome of a run.

    Args:
        tool: Key of `READERS`.
        end: How the process ended, see `_run`.
        truth: What is right; None where that cannot be known.
        plain: How the plain case ended, read by situs.
    """
    said = end["messages"].strip().splitlines()
    last = said[-1] if said else ""
    if "limit" in end:
        return Outcome(end["limit"], last)
    if "result" not in end:
        one_line = len(said) == 1 and last.startswith("situs: error: ") and end["code"] == 2
        return Outcome("refused" if one_line or tool != "situs" else "fault", last)
    result = end["result"]
    peak = result["peak_mb"]
    doubted = bool(result.get("doubted"))
    if truth is None:
        return Outcome("read", "", peak)
    fault = fault_of(stored_regions(result), truth) or _false_answers(result, plain["result"])
    if fault:
        return Outcome("not sure" if doubted else "wrong, warned" if said else "wrong", fault, peak)
    if said and tool == "situs":
        return Outcome("fault", last, peak)
    return Outcome("right, not sure" if doubted else "right", last, peak)


def print_result(inputs: list[FieldInput], table: dict[str, dict[str, Outcome]]) -> None:
    """The outcome of each input, how many there are of each kind, and the promises."""
    rows = [
        [case.name, _shortened(case.what), *(str(outcome) for outcome in table[case.name].values())]
        for case in inputs
    ]
    print(markdown_table(["", "input", *(HEADINGS[tool] for tool in READERS)], rows))
    counts = {tool: Counter(row[tool].kind for row in table.values()) for tool in READERS}
    kinds = list(dict.fromkeys(kind for tool in READERS for kind in counts[tool] if kind != "-"))
    rows = [[kind, *(str(counts[tool][kind]) for tool in READERS)] for kind in kinds]
    print(markdown_table(["outcome", *(HEADINGS[tool] for tool in READERS)], rows))
    unkept = sum(counts["situs"][kind] for kind in ("fault", "hang", "memory"))
    wrong = sum(number for kind, number in counts["situs"].items() if kind.startswith("wrong"))
    frame.print_promises(
        [
            frame.Promise("inputs that situs misreads", wrong, 1),
            frame.Promise("inputs that situs neither answers nor refuses in one line", unkept, 1),
            frame.Promise(
                "peak memory of situs", max(row["situs"].peak_mb for row in table.values()), 500, "MB"
            ),
        ]
    )


def _is_asked(tool: str, case: FieldInput, missing: set[str]) -> bool:
    needs = "dcm2niix" if tool == "nibabel" and is_dicom(case.scan) else NEEDS.get(tool)
    return needs not in missing


def _run(tool: str, case: FieldInput, options: Any) -> dict[str, Any]:
    """How a tool's process ended: its ``messages`` and ``code``; ``result`` if it has one, or a ``limit``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        process = multiprocessing.get_context("spawn").Process(
            target=read_in_child, args=(tool, case.scan, case.roi, case.options, out, options.memory_mb)
        )
        process.start()
        process.join(options.seconds)
        hangs = process.is_alive()
        if hangs:
            process.kill()
            process.join()
        messages, result = out / "messages.txt", out / "result.json"
        end: dict[str, Any] = {"messages": messages.read_text(errors="replace"), "code": process.exitcode}
        if hangs:
            end["limit"] = "hang"
        elif any(word in end["messages"] for word in ("MemoryError", "bad_alloc", "Unable to allocate")):
            end["limit"] = "memory"
        elif result.is_file():
            end["result"] = json.loads(result.read_text(encoding="utf-8"))
        return end


def _false_answers(result: dict[str, Any], plain: dict[str, Any]) -> str:
    """The sure findings whose site or side is not that of the plain case; empty from other tools."""
    known = {value: rest for value, component, *rest in plain["answers"] if component == 1}
    false = [
        str(value)
        for value, _, site, side, sure in result.get("answers", ())
        if sure and known[value][:2] != [site, side]
    ]
    return f"another site or side for {', '.join(false)}" if false else ""


def _shortened(text: str) -> str:
    return text if len(text) <= WHAT_CHARACTERS else text[: WHAT_CHARACTERS - 3].rstrip() + "..."


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=frame.SHARED / "field",
        help="folder of the inputs, with field.csv (default: shared/data/field)",
    )
    parser.add_argument("--only", action="append", metavar="ID", help="only this input; may be repeated")
    parser.add_argument(
        "--seconds", type=frame.positive, default=30, help="limit of wall time for each run (default: 30)"
    )
    parser.add_argument(
        "--memory-mb", type=frame.positive, default=4000, help="limit of mapped memory (default: 4000)"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
