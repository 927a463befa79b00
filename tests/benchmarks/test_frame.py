"""What the benchmarks share, and that each says what it is for."""

import runpy
import sys

import pytest
from phantoms import REPO
from phantoms.benchmark import load_benchmark
from phantoms.small_cohort import draw_cohort

from situs.errors import InputError

FOLDER = REPO / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.fixture(scope="module")
def frame():
    return load_benchmark("frame")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_what_the_first_lines_say(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert (FOLDER / script).read_text().splitlines()[0].strip('"') in told and f"benchmarks/{script}" in told


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "verdict"),
    [
        (2.9, 3, False, "met"),
        (3.0, 3, False, "not met"),
        (0.98, 0.98, True, "met"),
        (0.97, 0.98, True, "not met"),
    ],
)
def test_a_promise_is_met_below_its_limit_or_from_it_on(frame, value, limit, at_least, verdict):
    promise = frame.Promise("time", value, limit, "s", at_least)
    assert str(promise).endswith(f"s: {value:.3g}, {verdict}") and promise.is_met == (verdict == "met")


def test_wrong_input_is_one_line_and_code_2(frame, capsys):
    def main():
        raise InputError("no such thing")

    for run, code in ((main, 2), (lambda: 0, 0), (lambda: 1, 1)):
        with pytest.raises(SystemExit) as end:
            frame.run(run)
        assert end.value.code == code
    assert capsys.readouterr().err == "no such thing\n"


def test_scans_are_chosen_evenly_through_a_cohort(frame, tmp_path):
    cohort = draw_cohort(tmp_path)
    everything = frame.rows_by_scan(cohort, 1000)
    chosen = list(frame.rows_by_scan(cohort, 2).items())
    scans = list(everything)
    assert len(scans) > 2 and [scan for scan, _ in chosen] == [scans[0], scans[-1]]
    assert all(rows == everything[scan] and {row.scan for row in rows} == {scan} for scan, rows in chosen)
