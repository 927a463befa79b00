"""Inputs of the kinds that people report: the shipped bundle through the command line.

`field.csv`, beside the inputs, says what is right. The scan is a rendered head with six lesions.
"""

import csv
import json
import shlex

import pytest
from phantoms import SHARED

from situs.cli import main

FIELD = SHARED / "data" / "field"

# One input takes a second or two; all together take too long for `make test`.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs from the field are not here"),
]

# Value: the site and the side that it was rendered with (`README.md` of the inputs). 5 lies in a sulcus's
# neighbourhood and is not sure.
BASE = {
    1: ("gangliocapsular_region", "left"),
    2: ("frontal_region", "right"),
    3: ("cerebellum", "left"),
    4: ("ventricular_system", "right"),
    5: ("parietal_region", "left"),
    6: ("maxillary", "left"),
}

# Read as the base, with these words in the notes or the assumptions.
READ = {
    "F01a": "leaves out the tilt",
    "F04a": "HU + 1024",
    "F04b": "HU + 1024",
    "F04d": "HU + 1024",
    "F05": "rounded to whole numbers",
    "F06": "NaN",
    "F06b": "NaN",
    "F10": "",
    "F11": "",
    "F12a": "",
    "F12b": "",
    "F12c": "no DICOM UIDs",
    "F14": "no orientation; numbers and sizes of voxels agree",
    "F22a": "metres",
    "F23": "the qform was used",
    "F24": "",
    "F34": "Negative labels",
    "F35": "6 channels",
}
# Bound by index, and nothing sure, with these words in every finding's doubts.
UNSURE = {
    "F02": "Left and right cannot be trusted",
    "F03a": "mask: axes to RPS",
    "F13a": "mask: axes to RAS, 1.00 x 1.00 x 1.00 mm",
    "F37": "Left and right cannot be trusted",
}
REFUSED = {
    "F12d": "no structure has closed contours",
    "F25a": "vox_offset",
}


@pytest.fixture
def label(tmp_path, monkeypatch):
    """Runs the command of an input; returns its report, or None if it was refused."""
    monkeypatch.chdir(FIELD)
    commands = {
        row["id"]: row["command (run in this folder)"]
        for row in csv.DictReader((FIELD / "field.csv").read_text(encoding="utf-8").splitlines())
    }

    def run(name):
        words = shlex.split(commands[name])
        assert words[0] == "situs"
        code = main([*words[1:], "--json", str(tmp_path / "f.json"), "--quiet"])
        assert code in (0, 2)
        return json.loads((tmp_path / "f.json").read_text()) if code == 0 else None

    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The findings on the base itself, by value."""
    file = tmp_path_factory.mktemp("base") / "f.json"
    scan, mask = (str(FIELD / "base" / name) for name in ("scan.nii.gz", "mask.nii.gz"))
    assert main(["label", scan, "--roi", mask, "--json", str(file), "--quiet"]) == 0
    return {f["roi_value"]: f for f in json.loads(file.read_text())["findings"]}


def answers(report):
    return {f["roi_value"]: (f["site"], f["side"], f["sure"]) for f in report["findings"]}


def test_the_base_has_the_sites_that_it_was_rendered_with(plain):
    assert {v: (f["site"], f["side"]) for v, f in plain.items() if v != 5} == {
        v: answer for v, answer in BASE.items() if v != 5
    }
    assert "parietal_region" in plain[5]["site_set"] and plain[5]["side"] == "left"


def assert_like_plain(report, plain):
    """The same sides, and sites; where the base is not sure, one of those that it may be in."""
    assert len(report["findings"]) == len(plain) == 6
    for finding in report["findings"]:
        base = plain[finding["roi_value"]]
        assert finding["side"] == base["side"]
        assert finding["site"] in ([base["site"]] if base["sure"] else base["site_set"])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(READ))
def test_it_is_read_as_the_plain_case(name, label, plain):
    report = label(name)
    assert_like_plain(report, plain)
    assert any(finding["sure"] for finding in report["findings"])
    sentences = [*report["assumptions"], *report["findings"][0]["notes"]]
    assert any(READ[name] in sentence for sentence in sentences) or not READ[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(UNSURE))
def test_it_is_bound_by_index_and_nothing_is_sure(name, label, plain):
    report = label(name)
    assert sorted(answers(report)) == list(BASE)
    for finding in report["findings"]:
        assert any(UNSURE[name] in doubt for doubt in finding["doubts"])
        assert not any("resampled" in note for note in finding["notes"])
    if name in ("F03a", "F13a"):
        assert_like_plain(report, plain)


@pytest.mark.parametrize("name", list(REFUSED))
def test_it_is_refused_with_what_it_is(name, label, capsys):
    assert label(name) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert REFUSED[name] in line


@pytest.mark.slow
def test_thin_axial_slices_are_axial_and_lesions_outside_have_rows(label):
    report = label("F20")
    assert not any("not axial" in note for note in report["assumptions"])
    found = answers(report)
    assert found[1][:2] == BASE[1] and found[4][:2] == BASE[4]
    assert {value: found[value] for value in (2, 3, 5, 6)} == dict.fromkeys((2, 3, 5, 6), (None, None, False))
