"""What a manifest says, and what is wrong with one."""

import pytest
from phantoms.small_cohort import BANDS, draw_cohort, write_manifest

from situs.anatomy import SITE_INDEX
from situs.cohort.manifest import did_you_mean, read_manifest
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
    assert [r.site for r in rows[:4]] == [SITE_INDEX[s] for s in BANDS]
    assert rows[0].scan == cohort / "scan0.nii.gz" and rows[4].patient == "p1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"site": "frontal_regoin"}, "did you mean 'frontal_region'?"),
        ({"value": "1.5"}, "value: expected a whole number, got '1.5'"),
        ({"scan": "nowhere.nii.gz"}, "no such file"),
        ({"sites": "nowhere.nii.gz"}, "no such file"),
        ({"patient": " "}, "patient is empty"),
    ],
)
def test_manifest_wrong_value(tmp_path, change, expected):
    (tmp_path / "a.nii").touch()
    row = {"scan": "a.nii", "roi": "a.nii", "value": 1, "site": "thalamus", "patient": "p"}
    write_manifest(tmp_path, [row, {**row, **change}])
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


def test_a_wrong_word_gets_the_nearest_or_at_most_twenty():
    names = [f"p{n:03d}" for n in range(1000)]
    assert did_you_mean("Bobb", ["Bob", *names]) == "; did you mean 'Bob'?"
    text = did_you_mean("Bob", names)
    assert text.endswith("p018, p019 or 980 more") and text.count("p0") == 20
    assert did_you_mean("Bob", names[:20]).endswith("p018, p019")
