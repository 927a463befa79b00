"""The findings of a scan as text, JSON and CSV: pure functions that return strings.

``docs/output.md`` describes every field and column, and ``data/findings.schema.json`` in the package is the
JSON Schema. A change that can break a reader raises the number in `SCHEMA`, in all three places.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from situs.anatomy import SITES, SiteList
from situs.finding import Finding, Reference
from situs.tables import csv_text, text_table
from situs.volume import Volume

__all__ = [
    "DISCLAIMER",
    "SCHEMA",
    "csv_cell",
    "csv_columns",
    "finding_cells",
    "format_csv",
    "format_json",
    "format_text",
    "json_text",
    "millilitres",
    "one_line",
    "site_name",
    "slice_ranges",
    "to_json_object",
]

SCHEMA = "situs.findings/2"
DISCLAIMER = "Research software, not a medical device."

_COLUMNS_BEFORE = (
    "scan_name",
    "roi_value",
    "roi_name",
    "component",
    "volume_ml",
    "slice_count",
    "first_slice",
    "last_slice",
    "largest_slice",
    "site",
    "side",
    "sure",
    "doubts",
    "site_set",
    "score",
)
_COLUMNS_AFTER = (
    "nearest",
    "comparison",
    "notes",
    "assumptions",
    "bundle_name",
    "bundle_version",
)
_TEXT_HEAD = ("#", "ROI", "lesion", "site", "side", "score", "ml", "slices", "nearest references")
_TEXT_LEFT = (1, 3, 4, 7, 8)  # the columns that are aligned to the left


def csv_columns(sites: SiteList = SITES) -> tuple[str, ...]:
    """The columns of a table of findings.

    Scores and shares have a column for each site, groups one for each grouping, empty or not, so that all
    tables of a bundle are alike.

    Args:
        sites: The bundle's sites.
    """
    of_sites = (f"{what}_{key}" for what in ("score", "share") for key in sites.keys)
    of_groupings = (f"{what}_{name}" for what in ("group", "shared_group") for name in sites.groupings)
    return (*_COLUMNS_BEFORE, *of_sites, *_COLUMNS_AFTER, *of_groupings)


def site_name(finding: Finding) -> str:
    """The site's name for people, with a question mark if the finding is not sure.

    Returns:
        The name; for a finding without a site ``too small to judge`` or ``outside the scan``.
    """
    if finding.site is None:
        return "too small to judge" if finding.slices else "outside the scan"
    return finding.sites.site(finding.site).name + ("" if finding.sure else " ?")


def millilitres(finding: Finding) -> str:
    """The volume for people: one decimal, or two digits below 0.1 ml."""
    return f"{finding.volume_ml:.1f}" if finding.volume_ml >= 0.1 else f"{finding.volume_ml:.2g}"


def slice_ranges(slices: Iterable[int]) -> str:
    """Ascending slice numbers, with each run of successive numbers as one range.

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


def format_text(volume: Volume, findings: Sequence[Finding]) -> str:
    """A table for people: one row per lesion, then doubts, notes, assumptions and the disclaimer."""
    rows = [_TEXT_HEAD, *(_text_row(number, finding) for number, finding in enumerate(findings, start=1))]
    count = "1 lesion" if len(findings) == 1 else f"{len(findings)} lesions"
    bundles = dict.fromkeys(f"bundle {f.bundle_name} {f.bundle_version}" for f in findings)
    details = "; ".join([" x ".join(map(str, volume.geometry.shape)) + " voxels", *bundles])
    lines = [
        f"{one_line(volume.name)}: {count}   ({details})",
        "",
        text_table(rows, rules=(), left=_TEXT_LEFT),
    ]
    for title, sentences in (
        ("not sure (?)", _with_rows([finding.doubts for finding in findings])),
        ("what all possible sites share", _with_rows([_shared(finding) for finding in findings])),
        ("notes", _with_rows([finding.notes for finding in findings])),
        ("assumed about the scan", volume.assumptions),
    ):
        if sentences:
            lines += ["", f"{title}:", *(f"  - {one_line(sentence)}" for sentence in sentences)]
    lines += ["", f"Slices count from 0; sides are the patient's; scores are not probabilities. {DISCLAIMER}"]
    return "\n".join(lines) + "\n"


def to_json_object(volume: Volume, findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings of a scan as dictionaries and lists for `json.dumps`, in the schema `SCHEMA`.

    Numbers are rounded to six decimals.
    """
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
        "assumptions": list(volume.assumptions),
        "disclaimer": DISCLAIMER,
        "findings": [_finding_object(finding) for finding in findings],
    }


def format_json(volume: Volume, findings: Sequence[Finding]) -> str:
    """`to_json_object` as indented ASCII text that ends in a newline.

    Raises:
        ValueError: If a number is infinite or not a number.
    """
    return json_text(to_json_object(volume, findings))


def json_text(report: dict[str, Any]) -> str:
    """A JSON object as indented ASCII text that ends in a newline, see `format_json`."""
    text = io.StringIO()  # of thousands of lesions, it is much smaller than the list of its pieces
    json.dump(report, text, indent=2, allow_nan=False)
    return text.getvalue() + "\n"


def format_csv(volume: Volume, findings: Sequence[Finding]) -> str:
    """One row per lesion under `csv_columns`; lines end in a bare newline."""
    report = to_json_object(volume, findings)
    columns = csv_columns(_sites_of(findings))
    cells = [finding_cells(report, finding) for finding in report["findings"]]
    return csv_text(columns, [[csv_cell(row.get(column)) for column in columns] for row in cells])


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
        "sure": finding.sure,
        "doubts": [str(doubt) for doubt in finding.doubts],
        "site_set": list(finding.site_set),
        "score": None if finding.score is None else _number(finding.score),
        "scores": {key: _number(score) for key, score in finding.scores.items()},
        "shares": {key: _number(share) for key, share in finding.shares.items()},
        "nearest": [_reference_object(reference) for reference in finding.nearest],
        "comparison": [_reference_object(reference) for reference in finding.comparison],
        "notes": [str(note) for note in finding.notes],
        "bundle_name": finding.bundle_name,
        "bundle_version": finding.bundle_version,
        "groups": finding.groups,
        "shared_groups": finding.shared_groups,
    }


def _reference_object(reference: Reference) -> dict[str, Any]:
    return {"id": reference.id, "site": reference.site, "distance": _number(reference.distance)}


def finding_cells(report: dict[str, Any], finding: dict[str, Any]) -> dict[str, Any]:
    """The values of a row of a table, by `csv_columns`.

    Args:
        report: The JSON object of a scan.
        finding: One of its findings.
    """
    slices = finding["slices"]
    references = {
        name: [f"{r['id']}:{r['site']}:{r['distance']}" for r in finding[name]]
        for name in ("nearest", "comparison")
    }
    return {
        **finding,
        **references,
        "scan_name": report["scan"]["name"],
        "assumptions": report["assumptions"],
        "slice_count": len(slices),
        "first_slice": slices[0] if slices else None,
        "last_slice": slices[-1] if slices else None,
        **{f"score_{key}": score for key, score in finding["scores"].items()},
        **{f"share_{key}": share for key, share in finding["shares"].items()},
        **{f"group_{name}": group for name, group in finding["groups"].items()},
        **{f"shared_group_{name}": group for name, group in finding["shared_groups"].items()},
    }


def csv_cell(value: Any) -> Any:
    """A value of a table as a cell of a CSV: a list is joined, None is empty."""
    if isinstance(value, list):
        return " | ".join(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _text_row(number: int, finding: Finding) -> tuple[str, ...]:
    return (
        str(number),
        f"{finding.roi_value} {one_line(finding.roi_name)}".strip(),
        str(finding.component),
        site_name(finding),
        finding.side or "-",
        "-" if finding.score is None else f"{finding.score:.2f}",
        millilitres(finding),
        slice_ranges(finding.slices) or "-",
        _reference_counts(finding),
    )


def _reference_counts(finding: Finding) -> str:
    """How many nearest references come from which site: the two most frequent sites, and the rest."""
    counts = Counter(reference.site for reference in finding.nearest).most_common()
    parts = [f"{count} {finding.sites.site(key).name}" for key, count in counts[:2]]
    if others := sum(count for _, count in counts[2:]):
        parts.append(f"{others} other")
    return ", ".join(parts) or "-"


def _shared(finding: Finding) -> list[str]:
    """The groups that the possible sites share, where there are several."""
    if len(finding.site_set) < 2:
        return []
    shared = [f"{name}: {group}" for name, group in finding.shared_groups.items() if group]
    return [", ".join(shared)] if shared else []


def _sites_of(findings: Sequence[Finding]) -> SiteList:
    """The sites of the bundle that answered; the shipped list where nothing was asked."""
    return findings[0].sites if findings else SITES


def _with_rows(sentences: Sequence[Iterable[str]]) -> list[str]:
    """Each sentence once, after the numbers of its rows; without numbers if it belongs to all of many rows.

    Args:
        sentences: The sentences of every row of the table.
    """
    rows: dict[str, list[int]] = {}
    for number, of_row in enumerate(sentences, start=1):
        for sentence in dict.fromkeys(of_row):
            rows.setdefault(sentence, []).append(number)
    return [
        sentence if len(numbers) == len(sentences) > 1 else f"#{slice_ranges(numbers)}: {sentence}"
        for sentence, numbers in rows.items()
    ]


def one_line(text: str) -> str:
    """The text with a space for every control character, since names come from files of others."""
    return (text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)).strip()


def _number(value: float) -> float:
    return round(float(value), 6)
