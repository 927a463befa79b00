"""What is said, as text, JSON and CSV."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from phantoms import REPO, small_case

from situs.anatomy import SITE_KEYS
from situs.finding import Reference
from situs.report.findings import (
    CSV_COLUMNS,
    DISCLAIMER,
    SCHEMA,
    format_csv,
    format_json,
    format_text,
    slice_ranges,
)

DOCS = REPO / "docs" / "output.md"
BUNDLE = ("compact", "3")


@pytest.fixture(scope="module")
def case():
    volume = small_case.volume()
    return volume, small_case.findings(small_case.rois(volume.geometry))


def documented(title: str) -> list[str]:
    """The names in the first column of the table that follows a line of ``docs/output.md``."""
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index(title) :].split("|---|", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)


def test_json_has_exactly_the_documented_fields_in_their_order(case):
    report = json.loads(format_json(*case, BUNDLE))
    assert list(report) == documented("## JSON")
    assert list(report["scan"]) == documented("\n`scan`:")
    for finding in report["findings"]:
        assert list(finding) == documented("\nEach of `findings`:")
    assert report["schema"] == SCHEMA
    assert f"`{SCHEMA}`" in DOCS.read_text(encoding="utf-8")


def test_json_says_what_the_findings_say(case):
    volume, findings = case
    report = json.loads(format_json(volume, findings, BUNDLE))
    assert report["bundle"] == {"name": "compact", "version": "3"}
    assert report["assumptions"] == ["The scan was clipped."]
    assert report["scan"] == {
        "name": "scan",
        "shape": [60, 72, 6],
        "pixel_spacing_mm": [3.0, 3.0],
        "slice_gap_mm": [5.0, 5.0],
        "tilt_deg": 0.0,
    }
    first, second, third = report["findings"]
    assert [(f["roi_value"], f["component"]) for f in report["findings"]] == [(1, 1), (1, 2), (7, 1)]
    assert first["volume_ml"] == pytest.approx((8 * 10 * 3 + 10) * 45 / 1000)  # voxels of 3 x 3 x 5 mm
    assert (first["slices"], first["site"], first["side"]) == ([1, 2, 3], "thalamus", "left")
    assert list(first["scores"]) == list(first["shares"]) == list(SITE_KEYS)
    assert (first["shares"]["thalamus"], second["shares"]) == (0.75, {})
    assert first["references"][0] == {"id": "head_01/3", "site": "thalamus", "distance": 0.25}
    assert first["evidence"][1] == {"id": "head_02/9", "site": "brainstem", "distance": 0.5}
    assert second["references"] == second["evidence"] == []
    assert second["site"] is None and second["scores"] == {} and "too small to be judged" in second["notes"]
    assert third["side"] == "right"


def test_json_is_ascii_and_refuses_what_is_not_a_number(case):
    volume, findings = case
    named = replace(findings[0], roi_name="Blutung östlich")
    assert format_json(volume, [named], BUNDLE).isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json(volume, [replace(findings[0], volume_ml=float("nan"))], BUNDLE)


def test_one_slice_has_no_gap():
    volume = small_case.volume(hu=small_case.head_hu()[:, :, :1])
    assert json.loads(format_json(volume, [], BUNDLE))["scan"]["slice_gap_mm"] is None


def test_csv_columns_are_the_documented_ones_and_never_shift(case):
    volume, findings = case
    text = format_csv(volume, findings, BUNDLE)
    rows = list(csv.reader(text.splitlines()))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 4 and {len(row) for row in rows} == {len(CSV_COLUMNS)}
    fixed = ("score_", "share_")
    named = [c for c in CSV_COLUMNS if not c.startswith(fixed)]
    assert [c for c in documented("## CSV") if not c.startswith(fixed)] == named
    for start in fixed:
        assert [c.removeprefix(start) for c in CSV_COLUMNS if c.startswith(start)] == list(SITE_KEYS)


def test_csv_keeps_columns_whatever_the_order_of_the_scores(case):
    volume, findings = case
    backwards = replace(findings[0], scores=dict(reversed(findings[0].scores.items())))
    assert format_csv(volume, [backwards], BUNDLE) == format_csv(volume, findings[:1], BUNDLE)


def test_csv_and_json_agree(case):
    table = list(csv.DictReader(format_csv(*case, BUNDLE).splitlines()))
    findings = json.loads(format_json(*case, BUNDLE))["findings"]
    for row, finding in zip(table, findings, strict=True):
        assert row["site"] == (finding["site"] or "")
        assert float(row["volume_ml"]) == finding["volume_ml"]
        assert (int(row["first_slice"]), int(row["last_slice"])) == (
            finding["slices"][0],
            finding["slices"][-1],
        )
        scores = {key: float(row[f"score_{key}"]) for key in SITE_KEYS if row[f"score_{key}"]}
        assert scores == finding["scores"]
        shares = {key: float(row[f"share_{key}"]) for key in SITE_KEYS if row[f"share_{key}"]}
        assert shares == finding["shares"]
        assert row["notes"] == " | ".join(finding["notes"])
        assert row["roi_name"] == finding["roi_name"]


def test_text_has_a_row_a_lesion_under_its_heading(case):
    volume, findings = case
    lines = format_text(volume, findings, BUNDLE).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("#"))
    rows = lines[head + 1 : head + 4]
    at = lines[head].index("site")
    assert [row[at:].split("  ")[0] for row in rows] == ["thalamus ?", "too small to judge", "thalamus ?"]
    at = lines[head].index("slices")
    assert [row[at:].split("  ")[0] for row in rows] == ["1-3", "5", "2"]
    assert rows[0].endswith("1 thalamus, 1 brainstem")
    assert "0.94" in rows[0] and " 11.2 " in rows[0]


def test_text_counts_the_references_by_site(case):
    volume, findings = case
    sites = ["cerebellum", "brainstem", "cerebellum", "thalamus", "maxillary"]
    many = replace(findings[0], references=tuple(Reference("x", site, 1.0) for site in sites))
    assert "2 cerebellum, 1 brainstem, 2 other\n" in format_text(volume, [many], BUNDLE)


def test_text_says_each_note_once_and_the_disclaimer(case):
    text = format_text(*case, BUNDLE)
    assert text.count("No skull in sight.") == 1
    assert "  - #2: too small to be judged" in text
    assert "  - The scan was clipped." in text
    assert DISCLAIMER in text
    assert "compact 3" in text


def test_text_lets_no_control_character_out(case):
    volume, findings = case
    hostile = replace(findings[0], roi_name="\x1b[31mred\nline")
    text = format_text(volume, [hostile], BUNDLE)
    assert "\x1b" not in text
    assert sum("red" in line for line in text.splitlines()) == 1 and "[31mred line" in text


@pytest.mark.parametrize(
    ("slices", "short"),
    [([], ""), ([4], "4"), ([4, 5], "4-5"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8")],
)
def test_slice_ranges(slices, short):
    assert slice_ranges(slices) == short


def test_findings_hold_numpy_numbers_too(case):
    volume, findings = case
    scores = {key: np.float32(score) for key, score in findings[0].scores.items()}
    report = json.loads(format_json(volume, [replace(findings[0], scores=scores)], BUNDLE))
    assert report["findings"][0]["scores"]["thalamus"] == pytest.approx(0.9371)
