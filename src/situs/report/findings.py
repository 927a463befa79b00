"""What is said about a scan's lesions, as text, JSON and CSV: pure functions from findings to strings.

Slices are the scan's own, counted from 0; sides are the patient's; scores are relation scores, which are
not probabilities. The fields of the JSON and the columns of the CSV are described in ``docs/output.md``;
a change that could break a reader changes `SCHEMA`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.finding import Finding, Reference
from situs.volume import Volume

__all__ = [
    "CSV_COLUMNS",
    "DISCLAIMER",
    "SCHEMA",
    "format_csv",
    "format_json",
    "format_text",
    "millilitres",
    "site_name",
    "slice_ranges",
    "to_json_object",
]

SCHEMA = "situs.findings/1"
DISCLAIMER = "Research software, not a medical device."

# The 15 scores and shares have fixed columns, empty or not, so that no table ever shifts.
CSV_COLUMNS = (
    "scan",
    "roi_value",
    "roi_name",
    "component",
    "site",
    "side",
    "score",
    "volume_ml",
    "slice_count",
    "first_slice",
    "last_slice",
    "largest_slice",
    *(f"score_{key}" for key in SITE_KEYS),
    "references",
    "notes",
    "assumptions",
    "bundle",
    *(f"share_{key}" for key in SITE_KEYS),
    "not_sure",
    "site_set",
    "not_sure_because",
)
_MANY = " | "  # between several sentences in one cell


def site_name(finding: Finding) -> str:
    """The site's name for people, with a question mark if it is not sure; ``too small to judge`` where there
    is none."""
    if finding.site is None:
        return "too small to judge"
    return SITES[SITE_INDEX[finding.site]].name + (" ?" if finding.not_sure else "")


def millilitres(finding: Finding) -> str:
    """The volume for people: one decimal, two digits below 0.1 ml."""
    return f"{finding.volume_ml:.1f}" if finding.volume_ml >= 0.1 else f"{finding.volume_ml:.2g}"


def slice_ranges(slices: Iterable[int]) -> str:
    """Ascending slice numbers in short.

    >>> slice_ranges([3, 4, 5, 9])
    '3-5, 9'
    """
    runs: list[list[int]] = []
    for k in slices:
        if runs and k == runs[-1][1] + 1:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def format_text(volume: Volume, findings: Sequence[Finding], bundle: tuple[str, str]) -> str:
    """A table for people: a row a lesion, then notes, assumptions and the disclaimer.

    Args:
        bundle: name and version of the bundle that answered
    """
    rows = [["#", "ROI", "lesion", "site", "side", "score", "ml", "slices", "nearest references"]]
    rows += [_text_row(number, finding) for number, finding in enumerate(findings, start=1)]
    count = "1 lesion" if len(findings) == 1 else f"{len(findings)} lesions"
    ni, nj, nk = volume.geometry.shape
    lines = [
        f"{_one_line(volume.name)}: {count}   ({ni} x {nj} x {nk} voxels; bundle {' '.join(bundle)})",
        "",
        *_aligned(rows, right={0, 2, 5, 6}),
    ]
    notes = _grouped_notes(findings)
    for title, sentences in (("notes", notes), ("assumed about the scan", volume.assumptions)):
        if sentences:
            lines += ["", f"{title}:", *(f"  - {_one_line(sentence)}" for sentence in sentences)]
    lines += ["", f"Slices count from 0; sides are the patient's; scores are not probabilities. {DISCLAIMER}"]
    return "\n".join(lines) + "\n"


def to_json_object(volume: Volume, findings: Sequence[Finding], bundle: tuple[str, str]) -> dict[str, Any]:
    """The findings as JSON-able dictionaries and lists, in the schema `SCHEMA`."""
    geometry = volume.geometry
    gaps = geometry.slice_gaps_mm
    return {
        "schema": SCHEMA,
        "scan": {
            "name": volume.name,
            "shape": list(geometry.shape),
            "pixel_spacing_mm": [_number(mm) for mm in geometry.spacing_mm],
            "slice_gap_mm": [_number(gaps.min()), _number(gaps.max())] if gaps.size else None,
            "tilt_deg": _number(geometry.tilt_deg),
        },
        "bundle": {"name": bundle[0], "version": bundle[1]},
        "assumptions": list(volume.assumptions),
        "disclaimer": DISCLAIMER,
        "findings": [_finding_object(finding) for finding in findings],
    }


def format_json(volume: Volume, findings: Sequence[Finding], bundle: tuple[str, str]) -> str:
    """`to_json_object` as indented ASCII text that ends in a newline."""
    return json.dumps(to_json_object(volume, findings, bundle), indent=2, allow_nan=False) + "\n"


def format_csv(volume: Volume, findings: Sequence[Finding], bundle: tuple[str, str]) -> str:
    """One row a lesion under `CSV_COLUMNS`; lines end in a bare newline."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for finding in findings:
        row: dict[str, Any] = {
            "scan": volume.name,
            "roi_value": finding.roi_value,
            "roi_name": finding.roi_name,
            "component": finding.component,
            "site": finding.site or "",
            "side": finding.side,
            "score": _number(finding.scores[finding.site]) if finding.site else "",
            "volume_ml": _number(finding.volume_ml),
            "slice_count": len(finding.slices),
            "first_slice": finding.slices[0],
            "last_slice": finding.slices[-1],
            "largest_slice": finding.largest_slice,
            "references": " ".join(f"{r.id}:{r.site}:{_number(r.distance)}" for r in finding.references),
            "notes": _MANY.join(finding.notes),
            "assumptions": _MANY.join(volume.assumptions),
            "bundle": " ".join(bundle),
        }
        row |= {
            "not_sure": str(bool(finding.not_sure)).lower(),
            "site_set": " ".join(finding.site_set),
            "not_sure_because": _MANY.join(finding.not_sure),
        }
        row |= {f"score_{key}": _number(score) for key, score in finding.scores.items()}
        row |= {f"share_{key}": _number(share) for key, share in finding.shares.items()}
        writer.writerow(row)
    return text.getvalue()


def _finding_object(finding: Finding) -> dict[str, Any]:
    return {
        "roi_value": finding.roi_value,
        "roi_name": finding.roi_name,
        "component": finding.component,
        "volume_ml": _number(finding.volume_ml),
        "slices": list(finding.slices),
        "largest_slice": finding.largest_slice,
        "site": finding.site,
        "side": finding.side,
        "scores": {key: _number(score) for key, score in finding.scores.items()},
        "shares": {key: _number(share) for key, share in finding.shares.items()},
        "not_sure": bool(finding.not_sure),
        "not_sure_because": list(finding.not_sure),
        "site_set": list(finding.site_set),
        "references": [_reference_object(reference) for reference in finding.references],
        "notes": list(finding.notes),
        "evidence": [_reference_object(reference) for reference in finding.evidence],
    }


def _reference_object(reference: Reference) -> dict[str, Any]:
    return {"id": reference.id, "site": reference.site, "distance": _number(reference.distance)}


def _text_row(number: int, finding: Finding) -> list[str]:
    roi = f"{finding.roi_value} {_one_line(finding.roi_name)}".strip()
    score = f"{finding.scores[finding.site]:.2f}" if finding.site else "-"
    return [
        str(number),
        roi,
        str(finding.component),
        site_name(finding),
        finding.side,
        score,
        millilitres(finding),
        slice_ranges(finding.slices),
        _reference_summary(finding.references),
    ]


def _reference_summary(references: Sequence[Reference]) -> str:
    """How many of the nearest cases come from which site: the two most frequent, and the rest."""
    counts = Counter(reference.site for reference in references).most_common()
    parts = [f"{count} {SITES[SITE_INDEX[key]].name}" for key, count in counts[:2]]
    if others := sum(count for _, count in counts[2:]):
        parts.append(f"{others} other")
    return ", ".join(parts) or "-"


def _grouped_notes(findings: Sequence[Finding]) -> list[str]:
    """Every note once, with the rows that it is about; a note about all rows goes without."""
    rows: dict[str, list[int]] = {}
    for number, finding in enumerate(findings, start=1):
        for note in dict.fromkeys((*finding.not_sure, *finding.notes)):
            rows.setdefault(note, []).append(number)
    return [
        note if len(numbers) == len(findings) > 1 else f"#{slice_ranges(numbers)}: {note}"
        for note, numbers in rows.items()
    ]


def _aligned(rows: list[list[str]], right: set[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _one_line(text: str) -> str:
    """Names come out of files: no control character of theirs may reach a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _number(value: float) -> float:
    return round(float(value), 6)
