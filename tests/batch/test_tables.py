"""The tables of a batch and their summary, from parts made by hand."""

import csv
import json
import re

import pytest
from phantoms import REPO, small_case

from situs.anatomy import SITES
from situs.batch.parts import Part
from situs.batch.summary import VOLUMES_ML, Summary
from situs.batch.tables import write_json_files, write_tables
from situs.report import csv_columns, format_csv, format_json, to_json_object

CASE_COLUMNS = ("row", "id", "scan", "roi", "error")


@pytest.fixture
def case():
    volume = small_case.volume()
    findings = [*small_case.findings(small_case.rois(volume.geometry)), small_case.outside()]
    return volume, findings


def parts(case):
    report = json.loads(json.dumps(to_json_object(*case)))
    return [
        Part(1, "one", "a/1.nii", "b/1.nii", "", report),
        Part(2, "", "a/2.nii", "b/2.nii", "a/2.nii: slice 17 is, damaged", None),
        Part(3, "", "a/3.nii", "b/3.nii", "a/3.nii: slice 4 is, damaged", None),
        Part(4, "", "a/4.nii", "b/4.nii", "", {**report, "findings": []}),
    ]


def test_a_row_holds_what_situs_label_writes(case, tmp_path):
    write_tables(tmp_path, parts(case), SITES, False)
    rows = list(csv.DictReader((tmp_path / "findings.csv").read_text().splitlines()))
    assert tuple(rows[0]) == (*CASE_COLUMNS, *csv_columns())
    expected = list(csv.DictReader(format_csv(*case).splitlines()))
    assert [{name: row[name] for name in expected[0]} for row in rows[:4]] == expected
    assert [row["row"] for row in rows] == ["1", "1", "1", "1", "2", "3", "4"]
    assert {row["id"] for row in rows[:4]} == {"one"}
    failed = {"row": "2", "scan": "a/2.nii", "roi": "b/2.nii", "error": "a/2.nii: slice 17 is, damaged"}
    assert {name: cell for name, cell in rows[4].items() if cell} == failed


def test_parquet_holds_what_the_csv_holds(case, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow.parquet import read_table

    from situs.report.findings import csv_cell

    write_tables(tmp_path, parts(case), SITES, True)
    table = read_table(tmp_path / "findings.parquet")
    assert tuple(table.column_names) == (*CASE_COLUMNS, *csv_columns())
    rows = [[str(csv_cell(cell)) for cell in row.values()] for row in table.to_pylist()]
    assert rows == list(csv.reader((tmp_path / "findings.csv").read_text().splitlines()))[1:]
    assert table["sure"].to_pylist()[:2] == [False, False] and table["sure"][4].as_py() is None
    assert table["site_set"][0].as_py() == ["thalamus", "brainstem"]
    write_tables(tmp_path, parts(case), SITES, False)
    assert not (tmp_path / "findings.parquet").exists()


def test_a_json_file_for_each_labelled_scan(case, tmp_path):
    write_json_files(tmp_path, parts(case))
    files = sorted((tmp_path / "json").rglob("*.json"))
    assert [file.relative_to(tmp_path / "json").as_posix() for file in files] == [
        "000000/000000001.json",
        "000000/000000004.json",
    ]
    assert files[0].read_text() == format_json(*case)


def test_the_summary_counts(case, tmp_path):
    summary = write_tables(tmp_path, parts(case), SITES, False)
    assert (summary.scans, summary.failed, summary.lesions, summary.unsure) == (4, 2, 4, 4)
    assert summary.sites == {
        ("thalamus", "left"): 1,
        (None, "left"): 1,
        ("thalamus", "right"): 1,
        (None, None): 1,
    }
    assert summary.reasons == {"scan: slice # is, damaged": 2}
    assert summary.format_text() == (
        "4 scans: 2 labelled, 2 failed; 4 lesions, 4 not sure\n\n"
        "site            left  right  midline  bilateral  all\n"
        "----------------------------------------------------\n"
        "thalamus           1      1        0          0    2\n"
        "without a site     1      0        0          0    2\n\n"
        "failed:\n  2 x scan: slice # is, damaged\n"
    )


def test_the_documentation_names_each_column_and_file():
    text = (REPO / "docs" / "batch.md").read_text(encoding="utf-8")
    for name in CASE_COLUMNS:
        assert f"\n| `{name}` |" in text
    for file in ("findings.csv", "findings.parquet", "batch.json", "manifest.csv", "summary.html"):
        assert f"\n| `{file}` |" in text


def test_the_page_of_the_summary_shows_all_counts_and_fetches_nothing(case, tmp_path):
    pytest.importorskip("jinja2")
    from situs.batch.page import format_summary

    odd = [Part(5, "", "a/5.nii", "b/5.nii", "<script>alert(1)</script>", None)]
    summary = write_tables(tmp_path, [*parts(case), *odd], SITES, False)
    page = format_summary(summary, "small 1")
    row = "".join(f"<td>{n}</td>" for n in (1, 1, 0, 0, 0, 2, 2))
    assert f'<tr><th scope="row">thalamus</th>{row}</tr>' in page
    row = "".join(f"<td>{n}</td>" for n in (1, 0, 0, 0, 1, 2, 2))
    assert f'<tr><th scope="row">without a site</th>{row}</tr>' in page
    for tip in ("thalamus, left: 1", "thalamus, not sure: 2"):
        assert f"<title>{tip}</title>" in page
    assert "<tr><td>2</td><td><bdi>scan: slice # is, damaged</bdi></td></tr>" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_lesions_count_by_volume():
    volumes = [0.05, 0.1, 0.29, 5.0, 1000.0]
    findings = [{"sure": True, "site": "thalamus", "side": "left", "volume_ml": v} for v in volumes]
    summary = Summary()
    summary.add(Part(1, "", "a", "b", "", {"findings": findings}))
    assert summary.volumes == {0: 1, 1: 2, 4: 1, len(VOLUMES_ML): 1}
