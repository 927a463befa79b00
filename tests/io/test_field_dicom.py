"""DICOM of the kinds that people report: the shipped bundle through the command line (see `test_field`)."""

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

# The sites by value that are answered in what each scan shows, and words of its assumptions.
SMALL = {1: "gangliocapsular_region", 4: "ventricular_system"}
SLAB = {**SMALL, 3: "cerebellum"}
READ = {
    "F07a": (SLAB, "Series 2 was read (12 slices); not series 2 (axial CT, 12 images): sharp kernel"),
    "F08a": (SLAB, "Series 2 was read (12 slices); not 3 x series 5 (axial CT, 12 images): one moment"),
    "F09": (SMALL, ""),
    "F15": (SMALL, ""),
    "F16c": (SMALL, ""),
    "F17": (SMALL, ""),
    "F18": (SMALL, "stacked 5 mm apart, as its SpacingBetweenSlices says"),
    "F19a": (SMALL, "they were joined"),
    "F28": ({3: "cerebellum", 6: "maxillary"}, "uneven (5, 10 mm)"),
    "F30": (SMALL, "(3 slices); not series 2 (axial CT, 1 image): another direction of the slices"),
    "F31": (SMALL, "Series 2 was read"),
    "F32": (SMALL, ""),
}
REFUSED = {
    "F08c": "give the SeriesInstanceUID of one: 1.2.826.0.1.3680043.8.498.4043679084142956489878978965249779",
    "F16a": "ImagePositionPatient is missing",
    "F16b": "PixelSpacing is missing",
}


@pytest.fixture
def label(tmp_path, monkeypatch):
    """Runs the command of an input; returns its report, or None if it was refused."""
    monkeypatch.chdir(FIELD)
    rows = csv.DictReader((FIELD / "field.csv").read_text(encoding="utf-8").splitlines())
    commands = {row["id"]: row["command (run in this folder)"] for row in rows}

    def run(name):
        code = main([*shlex.split(commands[name])[1:], "--json", str(tmp_path / "f.json"), "--quiet"])
        assert code in (0, 2)
        return json.loads((tmp_path / "f.json").read_text()) if code == 0 else None

    return run


@pytest.mark.parametrize("name", sorted(READ))
def test_dicom_from_the_field_is_read_rightly(label, name):
    sites, words = READ[name]
    report = label(name)
    answers = {f["roi_value"]: f for f in report["findings"] if f["site"] is not None}
    assert {value: f["site"] for value, f in answers.items()} == sites
    assert all(f["side"] == ("right" if value == 4 else "left") for value, f in answers.items())
    assumptions = " ".join(report["assumptions"])
    assert words in assumptions and "missing" not in assumptions
    assert any("no positions" in d for f in answers.values() for d in f["doubts"]) == (name == "F18")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_dicom_from_the_field_that_cannot_be_read_is_refused_for_what_it_is(label, name, capsys):
    assert label(name) is None
    _, err = capsys.readouterr()
    assert REFUSED[name] in err and err.count("\n") == 1
