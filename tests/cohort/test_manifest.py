"""What a manifest says, and what is wrong with one."""

import os
from dataclasses import replace

import pytest
from phantoms.small_cohort import BANDS, COLUMNS, draw_cohort, write_manifest

from situs.cohort.manifest import describe_cohort, read_manifest
from situs.cohort.manifest import write_manifest as write_rows
from situs.errors import ManifestError


def manifest_error(folder) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_manifest_rows(tmp_path):
    cohort = draw_cohort(tmp_path, patients=2, scans=1)
    rows = read_manifest(cohort)
    assert len(rows) == 2 * 1 * 4
    assert [r.site for r in rows[:4]] == list(BANDS)
    assert rows[0].scan == cohort / "scan0.nii.gz" and rows[4].patient == "p1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"site": "frontal_regoin"}, "did you mean 'frontal_region'?"),
        ({"value": "1.5"}, "value: expected a whole number, got '1.5'"),
        ({"scan": "nowhere.nii.gz"}, "no such file"),
        ({"sites": "nowhere.nii.gz"}, "no such file"),
        ({"patient": " "}, "patient is empty"),
        ({"mask_space": "World"}, "mask_space: expected 'index', 'world' or nothing, got 'World'"),
    ],
)
def test_manifest_wrong_value(tmp_path, change, expected):
    (tmp_path / "a.nii").touch()
    row = {"scan": "a.nii", "roi": "a.nii", "value": 1, "site": "thalamus", "patient": "p"}
    write_manifest(tmp_path, [row, {**row, **change}], (*COLUMNS, "mask_space"))
    text = manifest_error(tmp_path)
    assert expected in text and "line 3" in text


def test_manifest_missing_or_empty(tmp_path):
    assert "manifest.csv" in manifest_error(tmp_path)
    write_manifest(tmp_path, [], ("scan", "roi", "value", "patient"))
    assert "'site'" in manifest_error(tmp_path)
    write_manifest(tmp_path, [])
    assert "no rows" in manifest_error(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"scan\xff,roi\n")
    assert "UTF-8" in manifest_error(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    rows = read_manifest(draw_cohort(tmp_path / "drawn", patients=2, scans=1))
    rows += read_manifest(draw_cohort(tmp_path / "plain", patients=1, scans=1, painted=False))
    other = tmp_path / "chosen"
    other.mkdir()
    path = write_rows(other, rows[::3])  # of two cohorts, with and without site maps
    assert path == other / "manifest.csv"
    lines = path.read_text().splitlines()
    assert lines[0] == "scan,roi,value,site,patient,side,kind,sites,lateral"
    assert lines[1].startswith("../drawn/scan0.nii.gz,../drawn/roi0.nii.gz,1,frontal_region,p0,")
    assert lines[-1].endswith(",,,")

    def resolved(row):
        files = {name: getattr(row, name) for name in ("scan", "roi", "sites", "lateral")}
        return replace(row, **{name: path and path.resolve() for name, path in files.items()})

    assert [resolved(row) for row in read_manifest(other)] == [resolved(row) for row in rows[::3]]


def test_how_a_mask_is_placed_is_kept(tmp_path):
    rows = read_manifest(draw_cohort(tmp_path, patients=1, scans=1, painted=False))
    rows[1] = replace(rows[1], mask_space="world")
    write_rows(tmp_path, rows)
    assert [row.mask_space for row in read_manifest(tmp_path)] == ["", "world", "", ""]


@pytest.mark.parametrize("name", ["manifest.csv", "cohort.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert describe_cohort(tmp_path, []) == {}
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)
