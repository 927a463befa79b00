"""The shipped bundle on the example scan: what a user sees first."""

import csv

import pytest
from phantoms import REPO
from phantoms.findings_schema import read_findings

from situs.cli import main

EXAMPLES = REPO / "src/situs/data/example"


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    out = tmp_path_factory.mktemp("example")
    files = [str(EXAMPLES / "head.nii.gz"), "--roi", str(EXAMPLES / "lesions.nii.gz")]
    assert main(["label", *files, "--json", str(out / "f.json"), "--png", str(out), "--quiet"]) == 0
    assert len(list(out.glob("*.png"))) == 6
    return read_findings((out / "f.json").read_text())["findings"]


def truth():
    return list(csv.DictReader((EXAMPLES / "lesions.csv").read_text().splitlines()))


@pytest.mark.slow
def test_the_example_is_mostly_named_as_it_was_rendered(findings):
    """One lesion lies on the border of its lobe, one crosses the midline: five of six is the promise."""
    found = {f["roi_value"]: f for f in findings}
    assert sorted(found) == [int(row["value"]) for row in truth()]
    for what in ("site", "side"):
        assert sum(found[int(row["value"])][what] == row[what] for row in truth()) >= 5


def test_scan_and_lesions_of_the_example_raise_no_doubts(findings):
    """But more than one site may fit: one lesion lies on the border of its lobe."""
    assert [f["notes"] for f in findings] == [[]] * 6
    assert all(doubt.startswith("More than one site fits") for f in findings for doubt in f["doubts"])


def test_no_reference_is_the_example(findings):
    """The example's head is one of those trained on, but this scan of it is not.

    Embeddings have unit length. References are kept in half precision, which moves them by at most 2**-11.
    """
    assert all(reference["distance"] > 0.01 for f in findings for reference in f["nearest"])
