"""The findings as text, JSON and CSV; output, documentation and JSON Schema agree."""

import csv
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from jsonschema import ValidationError
from phantoms import REPO, small_case
from phantoms.findings_schema import read_findings, schema

from situs.anatomy import SITE_KEYS, SITES, Site, SiteList
from situs.finding import SIDES, Finding, Reference
from situs.report.findings import (
    DISCLAIMER,
    SCHEMA,
    csv_columns,
    format_csv,
    format_json,
    format_text,
    slice_ranges,
    to_json_object,
)

DOCS = REPO / "docs" / "output.md"


@pytest.fixture(scope="module")
def case():
    volume = small_case.volume()
    return volume, small_case.findings(small_case.rois(volume.geometry))


def documented(title: str) -> list[str]:
    """The names in the first column of the table that follows a line of ``docs/output.md``."""
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index(title) :].split("|---|", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)


def test_json_schema_and_documentation_have_the_same_fields_in_the_same_order(case):
    report = read_findings(format_json(*case))
    parts = schema()["$defs"]
    finding = report["findings"][0]
    for title, written, allowed in (
        ("## JSON", report, schema()),
        ("\n`scan`:", report["scan"], parts["scan"]),
        ("\nEach of `findings`:", finding, parts["finding"]),
        ("\nEach of `nearest` and `comparison`:", finding["nearest"][0], parts["reference"]),
    ):
        assert documented(title) == list(written) == list(allowed["properties"]) == allowed["required"]
        assert allowed["additionalProperties"] is False


def test_one_number_names_the_schema_everywhere(case):
    assert read_findings(format_json(*case))["schema"] == SCHEMA
    assert schema()["title"] == schema()["properties"]["schema"]["const"] == SCHEMA
    assert set(re.findall(r"situs\.findings/\d+", DOCS.read_text(encoding="utf-8"))) == {SCHEMA}


def test_the_schema_knows_the_sites_and_sides():
    parts = schema()["$defs"]
    assert all(re.fullmatch(parts["site"]["pattern"], key) for key in SITE_KEYS)
    assert parts["side"]["enum"] == list(SIDES)


def test_python_and_json_have_the_same_names(case):
    """Every field and property of a finding stands in the JSON under its own name, with its own value."""
    volume, findings = case
    report = read_findings(format_json(volume, findings))
    names = {field.name for field in fields(Finding)} - {"sites"} | {
        "sure",
        "score",
        "groups",
        "shared_groups",
    }
    for finding, written in zip(findings, report["findings"], strict=True):
        assert set(written) == names
        assert written["scores"] == pytest.approx(finding.scores)
        assert written["shares"] == pytest.approx(finding.shares)
        for name in names - {"nearest", "comparison", "volume_ml", "scores", "shares"}:
            value = getattr(finding, name)
            assert written[name] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    "change",
    [
        {"doubt": "one field too many"},
        {"sure": "false"},
        {"sure": True},  # and doubts
        {"doubts": []},  # and not sure
        {"site": None},  # with scores
        {"site": "the skull"},
        {"scores": {"thalamus": 2.0}},
        {"score": 1.5},
        {"groups": {"compartment": ""}},
        {"shared_groups": {"A b": "lobar"}},
        {"nearest": [{"id": "a", "site": "thalamus"}]},
    ],
)
def test_the_schema_refuses(case, change):
    volume, findings = case
    report = to_json_object(volume, findings[:1])
    read_findings(json.dumps(report))
    report["findings"][0] |= change
    with pytest.raises(ValidationError):
        read_findings(json.dumps(report))


def test_the_schema_refuses_a_field_that_is_missing(case):
    for name in documented("\nEach of `findings`:"):
        report = to_json_object(*case)
        del report["findings"][0][name]
        with pytest.raises(ValidationError):
            read_findings(json.dumps(report))


def test_groups_are_those_of_the_site_and_of_all_possible_sites(case):
    """The site is the thalamus; the brainstem is possible too."""
    volume, findings = case
    first, second, _ = read_findings(format_json(volume, findings))["findings"]
    assert first["groups"] == {
        "compartment": "parenchyma", "tentorium": "supratentorial", "ich_location": "deep",
    }  # fmt: skip
    assert first["shared_groups"] == {"compartment": "parenchyma", "tentorium": None, "ich_location": None}
    assert second["groups"] == second["shared_groups"] == {}
    assert replace(findings[0], site_set=()).shared_groups == {}


def test_groups_of_a_list_of_ones_own_have_columns_of_their_own(case):
    volume, findings = case
    sites = SiteList(
        Site(key, key, groups={"territory": "PCA" if key in ("thalamus", "brainstem") else ""})
        for key in SITE_KEYS
    )
    text = format_csv(volume, [replace(findings[0], sites=sites)])
    (row,) = csv.DictReader(text.splitlines())
    assert list(row)[-2:] == ["group_territory", "shared_group_territory"]
    assert (row["group_territory"], row["shared_group_territory"]) == ("PCA", "PCA")
    report = to_json_object(volume, [replace(findings[0], site="maxillary", sites=sites)])
    assert read_findings(json.dumps(report))["findings"][0]["groups"] == {"territory": None}


def test_json_says_what_the_findings_say(case):
    volume, findings = case
    report = read_findings(format_json(volume, findings))
    assert {(f["bundle_name"], f["bundle_version"]) for f in report["findings"]} == {("compact", "3")}
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
    assert (first["sure"], first["score"], second["score"]) == (False, 0.9371, None)
    assert first["nearest"][0] == {"id": "head_01/3", "site": "thalamus", "distance": 0.25}
    assert first["comparison"][1] == {"id": "head_02/9", "site": "brainstem", "distance": 0.5}
    assert second["nearest"] == second["comparison"] == []
    assert second["site"] is None and second["scores"] == {} and second["sure"] is False
    assert second["doubts"] == ["Too small to be judged."]
    assert second["notes"] == ["The mask was resampled."]
    assert third["side"] == "right"


def test_a_lesion_outside_the_scan_has_a_row_of_its_own(case):
    volume, findings = case
    findings = [*findings, small_case.outside()]
    written = read_findings(format_json(volume, findings))["findings"][3]
    assert (written["slices"], written["largest_slice"], written["side"], written["site"]) == (
        [],
        None,
        None,
        None,
    )
    row = list(csv.DictReader(format_csv(volume, findings).splitlines()))[3]
    assert row["slice_count"] == "0"
    assert {row[name] for name in ("first_slice", "last_slice", "largest_slice", "side", "site")} == {""}
    line = next(line for line in format_text(volume, findings).splitlines() if line.startswith("4 "))
    assert line.split()[:7] == ["4", "1", "blood,", "left", "3", "outside", "the"]
    assert "#4: It lies outside the scan." in format_text(volume, findings)


@pytest.mark.parametrize("change", [{"site": "thalamus"}, {"side": "left"}, {"largest_slice": 1}])
def test_the_schema_refuses_an_answer_outside_the_scan(case, change):
    report = to_json_object(case[0], [small_case.outside()])
    read_findings(json.dumps(report))
    report["findings"][0] |= change
    with pytest.raises(ValidationError):
        read_findings(json.dumps(report))


def test_json_is_ascii_and_refuses_what_is_not_a_number(case):
    volume, findings = case
    named = replace(findings[0], roi_name="Blutung östlich")
    assert format_json(volume, [named]).isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json(volume, [replace(findings[0], volume_ml=float("nan"))])


def test_one_slice_has_no_gap():
    volume = small_case.volume(hu=small_case.head_hu()[:, :, :1])
    assert read_findings(format_json(volume, []))["scan"]["slice_gap_mm"] is None


def test_csv_columns_are_the_documented_ones_and_never_shift(case):
    volume, findings = case
    text = format_csv(volume, findings)
    rows = list(csv.reader(text.splitlines()))
    assert tuple(rows[0]) == csv_columns()
    assert len(rows) == 4 and {len(row) for row in rows} == {len(csv_columns())}
    fixed = ("score_", "share_", "group_", "shared_group_")
    named = [c for c in csv_columns() if not c.startswith(fixed)]
    assert [c for c in documented("## CSV") if not c.startswith(fixed)] == named
    for start, names in zip(fixed, [SITE_KEYS] * 2 + [SITES.groupings] * 2, strict=True):
        assert tuple(c.removeprefix(start) for c in csv_columns() if c.startswith(start)) == names
    groups = DOCS.read_text(encoding="utf-8").partition("## CSV")[2].partition("\n## ")[0]
    assert re.findall(r"`((?:shared_)?group_\w+)`", groups) == list(csv_columns())[-6:]


def test_csv_keeps_columns_whatever_the_order_of_the_scores(case):
    volume, findings = case
    backwards = replace(findings[0], scores=dict(reversed(findings[0].scores.items())))
    assert format_csv(volume, [backwards]) == format_csv(volume, findings[:1])


def test_csv_and_json_agree(case):
    table = list(csv.DictReader(format_csv(*case).splitlines()))
    report = read_findings(format_json(*case))
    own = {"scan_name", "slice_count", "first_slice", "last_slice", "assumptions"}
    by_site = {f"{start}_{key}" for start in ("score", "share") for key in SITE_KEYS}
    for row, finding in zip(table, report["findings"], strict=True):
        by_group = {f"{what}group_{name}" for what in ("", "shared_") for name in SITES.groupings}
        objects = {"slices", "scores", "shares", "groups", "shared_groups"}
        assert set(row) - own - by_site - by_group == set(finding) - objects
        for what, start in (("groups", "group_"), ("shared_groups", "shared_group_")):
            cells = {name: row[start + name] or None for name in SITES.groupings}
            assert cells == (finding[what] or dict.fromkeys(SITES.groupings))
        assert row["scan_name"] == report["scan"]["name"]
        assert row["assumptions"] == " | ".join(report["assumptions"])
        for name in ("site", "score"):
            assert row[name] == ("" if finding[name] is None else str(finding[name]))
        for name in ("side", "component", "roi_value", "roi_name", "bundle_name", "bundle_version"):
            assert row[name] == str(finding[name])
        for name in ("doubts", "notes", "site_set"):
            assert row[name] == " | ".join(finding[name])
        for name in ("nearest", "comparison"):
            cells = [cell.rsplit(":", 2) for cell in row[name].split(" | ") if cell]
            assert [(i, s, float(d)) for i, s, d in cells] == [tuple(r.values()) for r in finding[name]]
        assert row["sure"] == ("true" if finding["sure"] else "false")
        assert int(row["slice_count"]) == len(finding["slices"])
        assert float(row["volume_ml"]) == finding["volume_ml"]
        assert (int(row["first_slice"]), int(row["last_slice"])) == (
            finding["slices"][0],
            finding["slices"][-1],
        )
        scores = {key: float(row[f"score_{key}"]) for key in SITE_KEYS if row[f"score_{key}"]}
        assert scores == finding["scores"]
        shares = {key: float(row[f"share_{key}"]) for key in SITE_KEYS if row[f"share_{key}"]}
        assert shares == finding["shares"]


def test_text_has_a_row_a_lesion_under_its_heading(case):
    volume, findings = case
    lines = format_text(volume, findings).splitlines()
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
    many = replace(findings[0], nearest=tuple(Reference("x", site, 1.0) for site in sites))
    assert "2 cerebellum, 1 brainstem, 2 other\n" in format_text(volume, [many])


def test_text_says_each_doubt_and_note_once_and_the_disclaimer(case):
    text = format_text(*case)
    doubts, shared, notes, assumed = text.split("not sure (?):\n")[1].split("\n\n")[:4]
    assert shared.splitlines() == ["what all possible sites share:", "  - #1, 3: compartment: parenchyma"]
    assert doubts.splitlines() == [
        "  - #1, 3: More than one site fits: thalamus or brainstem.",
        "  - #2: Too small to be judged.",
    ]
    assert notes.splitlines() == ["notes:", "  - The mask was resampled."]
    assert assumed.splitlines() == ["assumed about the scan:", "  - The scan was clipped."]
    for sentence in ("More than one site fits", "Too small to be judged.", "resampled", DISCLAIMER):
        assert text.count(sentence) == 1
    assert "bundle compact 3)" in text


def test_text_of_a_sure_finding_has_no_question_mark(case):
    volume, findings = case
    sure = replace(findings[0], doubts=())
    text = format_text(volume, [sure])
    assert "?" not in text and "not sure" not in text and "thalamus" in text


def test_text_of_a_scan_without_lesions(case):
    assert format_text(case[0], []).startswith("scan: 0 lesions   (60 x 72 x 6 voxels)\n")


def test_text_lets_no_control_character_out(case):
    volume, findings = case
    hostile = replace(findings[0], roi_name="\x1b[31mred\nline")
    text = format_text(volume, [hostile])
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
    report = read_findings(format_json(volume, [replace(findings[0], scores=scores)]))
    assert report["findings"][0]["scores"]["thalamus"] == pytest.approx(0.9371)
