"""What a run may do, and what it may not: the outcome of a mutant.

A run is *refused* (exit code 2), or answered in one of three ways:

- *same answer*: what the mutant keeps of every lesion's answer is as for the whole input
- *doubt or note*: it is not, and a doubt, a note or an assumption that the whole input does not have says why
- *other content*: the mutant keeps nothing of the answer, so any answer may be right

Every other outcome is a fault. An answer that changed without a word is a *silent change*.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import ValidationError
from phantoms.findings_schema import read_findings

NO_FAULTS = ("refused", "same answer", "doubt or note", "other content")


def outcome(
    run: tuple[int, str, str], folder: Path, plain: dict[str, Any] | None, keeps: Sequence[str]
) -> str:
    """The outcome of a mutant.

    Args:
        run: Its exit code, standard output and standard error.
        folder: Where it ran.
        plain: The JSON object of the whole input's findings; None for a command that finds nothing.
        keeps: See `fuzz.spoil.Spoilt`.
    """
    code, out, err = run
    if fault := _misbehaviour(code, out, err, folder):
        return fault
    if code:
        return "refused"
    if not (folder / "out.json").exists():
        return "other content"
    try:
        report = _read_report((folder / "out.json").read_text(encoding="utf-8"))
    except (ValueError, ValidationError) as error:
        return f"JSON: {str(error).splitlines()[0]}"
    return compare(report, plain, keeps) if plain and keeps else "other content"


def compare(report: dict[str, Any], plain: dict[str, Any], keeps: Sequence[str]) -> str:
    """Whether findings (a JSON object) are those of the whole input, or say why they are not.

    Lesions are compared in their order: a mask may give its regions other values.
    """
    assumed = bool(set(report["assumptions"]) - set(plain["assumptions"]))
    findings, expected = report["findings"], plain["findings"]
    if len(findings) != len(expected):
        known = set().union(*map(_sentences, expected))
        told = assumed or any(_sentences(finding) - known for finding in findings)
        return "doubt or note" if told else "silent change"
    others = [
        (finding, whole)
        for finding, whole in zip(findings, expected, strict=True)
        if any(finding[name] != whole[name] for name in keeps)
    ]
    if not others:
        return "same answer"
    told = assumed or all(_sentences(finding) - _sentences(whole) for finding, whole in others)
    return "doubt or note" if told else "silent change"


def _sentences(finding: dict[str, Any]) -> set[str]:
    return {*finding["doubts"], *finding["notes"]}


def _misbehaviour(code: int, out: str, err: str, folder: Path) -> str:
    """What a run did that no run may do; empty if nothing."""
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in out + err:
        return "traceback"
    if any(path.name.startswith(".") for path in folder.iterdir()):
        return "leftovers"
    if code == 0:
        return "text on standard error" if err else ""
    if err.count("\n") != 1 or not err.startswith("situs: error: "):
        return "not one line on standard error"
    if len(err) > 1000:
        return "a line of over 1,000 characters"
    return "output of a refused run" if out or any(folder.glob("out*")) else ""


@lru_cache(100)  # many mutants give the answer of the whole input
def _read_report(text: str) -> dict[str, Any]:
    """The JSON object in a text; ValueError or ValidationError if it is none, or breaks the schema."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    json.loads(text, parse_constant=refuse)
    return read_findings(text)
