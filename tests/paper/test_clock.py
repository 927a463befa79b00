"""The time of a run's stages, also of a run that was killed."""

import json

import pytest

from situs.errors import OutputError
from situs.paper.clock import StageClock
from situs.progress import silent


class Run:
    """A run whose stages take the CPU seconds that a test says."""

    def __init__(self, path, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("situs.paper.clock.time.process_time", lambda: self.now)
        self.clock = StageClock(path)

    def reports(self, seed, stage, total, *steps):
        """Report each of `steps`, (seconds, done)."""
        progress = self.clock.of_seed(seed, silent)
        for seconds, done in steps:
            self.now += seconds
            progress(stage, done, total)


def test_hours_are_those_of_all_steps(tmp_path, monkeypatch):
    run = Run(tmp_path / "times.json", monkeypatch)
    # Two parts of one stage; what comes before a part's first report is not its own.
    run.reports(0, "features", 4, (50, 1), (360, 2), (360, 4))
    run.reports(0, "features", 2, (50, 1), (720, 2))
    run.reports(0, "fc", 10, (1, 1), (36, 10))
    run.reports(1, "fc", 10, (1, 1), (72, 10))
    assert run.clock.hours() == pytest.approx(
        {"features": (240 * 4 + 720 * 2) / 3600, "fc": (40 + 80) / 2 / 3600}
    )


def test_a_killed_run_keeps_the_time_of_a_step(tmp_path, monkeypatch):
    path = tmp_path / "times.json"
    monkeypatch.setattr("situs.paper.clock._SECONDS_A_SAVE", 0)
    run = Run(path, monkeypatch)
    run.reports(0, "fc", 100, (5, 10), (20, 20))
    again = Run(path, monkeypatch)
    again.reports(0, "fc", 100, (1000, 20), (80, 60))  # what the kill took away is done again
    assert again.clock.hours() == pytest.approx({"fc": 100 * (20 + 80) / (10 + 40) / 3600})


def test_progress_is_passed_on(tmp_path):
    told = []
    clock = StageClock(tmp_path / "times.json")
    clock.of_seed(3, lambda *report: told.append(report))("fc", 1, 2, "loss 1")
    assert told == [("seed 3, fc", 1, 2, "loss 1")]


@pytest.mark.parametrize("text", ["", "[{}]", "[1]", json.dumps([{"seed": 0}])])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / "times.json").write_text(text)
    with pytest.raises(OutputError, match="is damaged: delete it"):
        StageClock(tmp_path / "times.json")
