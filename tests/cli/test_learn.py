"""`situs synth`, `train`, `evaluate`, `calibrate` and `reproduce`: one call each, with the given options."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from phantoms.commands import refused

from situs.cli import main


def test_synth_passes_its_options_on(tmp_path, capsys, monkeypatch):
    (tmp_path / "head_01.nii.gz").write_text("")
    asked = {}

    def render_cohort(heads, out, scans, seed, sites, jobs, progress, note):
        asked.update(heads=[h.name for h in heads], scans=scans, seed=seed, sites=sites, jobs=jobs)
        progress("scans", scans, scans)
        return out / "manifest.csv"

    monkeypatch.setattr("situs.synth.cohort.render_cohort", render_cohort)
    options = ["--scans", "3", "--seed", "7", "--sites", "paper", "--jobs", "2"]
    assert main(["synth", str(tmp_path), "out", *options]) == 0
    assert asked == {"heads": ["head_01.nii.gz"], "scans": 3, "seed": 7, "sites": "paper", "jobs": 2}
    assert capsys.readouterr().out == f"{Path('out', 'manifest.csv')}\n"


class FakeEvaluation:
    def to_dict(self):
        return {"sites": {}, "weighted": {}, "macro": {"f1": 0.5}}

    def text(self):
        return "the table"


def test_evaluate_prints_the_table_and_writes_json(tmp_path, capsys, monkeypatch):
    asked = {}

    def evaluate(bundle, cohort, patients=None, jobs=1, progress=None):
        asked.update(bundle=bundle, cohort=cohort.name, patients=patients, jobs=jobs)
        return FakeEvaluation()

    monkeypatch.setattr("situs.cohort.evaluate.evaluate", evaluate)
    monkeypatch.chdir(tmp_path)
    args = ["evaluate", "shipped", "cohort", "--test-patient", "a", "--test-patient", "b"]
    assert main([*args, "--json", "e.json"]) == 0
    assert asked == {"bundle": "shipped", "cohort": "cohort", "patients": ["a", "b"], "jobs": 1}
    assert capsys.readouterr() == ("the table\n", "")
    assert json.loads((tmp_path / "e.json").read_text())["macro"] == {"f1": 0.5}
    assert main(["evaluate", "shipped", "cohort", "--json", "-"]) == 0
    assert asked["patients"] is None
    assert json.loads(capsys.readouterr().out)["macro"] == {"f1": 0.5}


def test_evaluate_into_card_names_the_card(tmp_path, capsys, monkeypatch):
    asked = []

    def evaluate_into_card(bundle, cohort, patients, out, jobs, progress):
        asked.append((bundle, str(cohort), patients, out, jobs))
        return FakeEvaluation(), out or Path(bundle)

    monkeypatch.setattr("situs.cohort.card_entry.evaluate_into_card", evaluate_into_card)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "mine", "cohort", "--into-card"]) == 0
    assert capsys.readouterr().out == f"the table\n{Path('mine', 'README.md')}: the scores are in the card.\n"
    assert main(["evaluate", "mine", "cohort", "--into-card", "--out", "new", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["macro"] == {"f1": 0.5}
    assert asked == [("mine", "cohort", None, None, 1), ("mine", "cohort", None, Path("new"), 1)]
    assert main(["evaluate", "mine", "cohort", "--out", "new"]) == 2
    assert "give --into-card too" in capsys.readouterr().err and len(asked) == 2


def test_calibrate_passes_its_options_on(tmp_path, capsys, monkeypatch):
    asked = []

    def calibrate(bundle, cohort, folds, out, level, jobs, progress):
        asked.append((str(bundle), str(cohort), [str(f) for f in folds], out, level, jobs))
        return SimpleNamespace(regions=30, patients=4, level=level), None

    monkeypatch.setattr("situs.cohort.calibrate.calibrate", calibrate)
    args = ["calibrate", "bundle", "cohort", "--fold", "a", "--fold", "b", "--level", "0.95"]
    assert main(args) == 0
    assert asked == [("bundle", "cohort", ["a", "b"], None, 0.95, 1)]
    assert capsys.readouterr().out == (
        "bundle: calibrated on 30 ROIs of 4 patients; the set of sites shall hold the true one in 95 %.\n"
    )


def test_train_passes_its_options_on(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    from situs.learn.recipe import COMPACT, PAPER

    asked = {}

    def train(cohort, out, recipe, seed, test_patients, *, progress, **others):
        asked.update(cohort=cohort.name, recipe=recipe.name, seed=seed, test=list(test_patients), **others)
        asked["examples"] = recipe.basenet_samples
        progress("paint", 1, 2, "loss 0.5")
        return out

    monkeypatch.setattr("situs.learn.train.train", train)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.chdir(tmp_path)
    args = ["train", "cohort", "--out", "b", "--seed", "3", "--test-patient", "head_01"]
    assert main(args) == 0
    given = {"cohort": "cohort", "recipe": "compact", "seed": 3, "test": ["head_01"], "init": ()}
    given |= {"device": "auto", "weights": None, "pictures": False, "examples": COMPACT.basenet_samples}
    assert asked == {**given, "threads": 1, "jobs": 1}
    out, err = capsys.readouterr()
    assert out == "b\n" and "paint: loss 0.5" in err
    more = ["--threads", "4", "--jobs", "2", "--init", "w", "--init", "shipped", "--samples", "0.5"]
    assert main([*args, *more]) == 0
    half = COMPACT.basenet_samples // 2
    assert asked == {**given, "init": ["w", "shipped"], "threads": 4, "jobs": 2, "examples": half}
    assert main([*args, "--recipe", "paper", "--weights", "imagenet", "--device", "cpu"]) == 0
    given |= {"recipe": "paper", "weights": "imagenet", "device": "cpu", "examples": PAPER.basenet_samples}
    assert asked == {**given, "threads": 1, "jobs": 1}
    assert main([*args, "--pictures"]) == 0 and asked["pictures"] is True


def test_the_choices_of_options_are_those_of_the_library():
    """The command line writes them down itself, because the library's own need torch."""
    pytest.importorskip("torch")
    from situs.cli import options, synth
    from situs.learn import devices
    from situs.learn.recipe import RECIPES
    from situs.synth import cohort

    assert set(get_args(options.RecipeName)) == set(RECIPES)
    assert set(get_args(options.DeviceName)) == set(get_args(devices.DeviceName))
    assert set(get_args(synth.SiteFrequencies)) == set(get_args(cohort.SiteFrequencies))


def test_frozen_needs_something_to_freeze(tmp_path, capsys):
    pytest.importorskip("torch")
    args = ["train", str(tmp_path), "--out", str(tmp_path / "b"), "--recipe", "paper", "--frozen"]
    refused(capsys, args, "frozen: give the weights")


def test_reproduce_passes_its_options_on(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    from situs.paper.cohorts import PAPER_SIZE, SMALL_SIZE

    asked = {}

    def reproduce(heads, out, work, recipe, *, progress, **others):
        asked.update(heads=heads, out=out, work=work, recipe=recipe.name, **others)
        out.mkdir(exist_ok=True)
        (out / "README.md").write_text("# Results\n")
        return out

    monkeypatch.setattr("situs.paper.experiment.reproduce", reproduce)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    refused(capsys, ["reproduce", "heads"], "docs", "create it first")
    refused(capsys, ["reproduce", "heads", "--out", "r"], "heads")
    (tmp_path / "heads" / "head_01.nii.gz").touch()
    args = ["reproduce", "heads", "--out", "r"]
    assert main(args) == 0
    given = {
        "out": Path("r"),
        "work": Path("reproduce.work"),
        "recipe": "compact",
        "seeds": 3,
        "weights": None,
        "train_cohort": None,
    }
    given |= {"heads": [Path("heads/head_01.nii.gz")], "size": PAPER_SIZE, "device": "auto"}
    assert asked == {**given, "threads": 1, "jobs": 1}
    assert capsys.readouterr().out == "# Results\n"
    assert main([*args, "--small", "--recipe", "paper", "--jobs", "2", "--work", "w"]) == 0
    given |= {"size": SMALL_SIZE, "seeds": 1, "recipe": "paper", "work": Path("w")}
    assert asked == {**given, "threads": 1, "jobs": 2}
    assert main(["reproduce", "heads", "--small"]) == 0  # beside a whole run, not over it
    assert (asked["out"], asked["work"]) == (Path("reproduce_small"), Path("reproduce_small.work"))
    assert main([*args, "--samples", "0.5", "--train-cohort", "own"]) == 0
    assert asked["size"] == replace(PAPER_SIZE, samples=0.5) and asked["train_cohort"] == Path("own")


def test_a_stopped_training_says_that_it_can_go_on(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")

    def train(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("situs.learn.train.train", train)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cohort", "--out", "b"]) == 130
    assert "the same command resumes the work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["synth", "absent", "out", "--scans", "1"], ["absent", "no such folder"]),
        (["synth", "absent", "out"], ["--scans"]),
        (["synth", "absent", "out", "--scans", "0"], ["--scans"]),
        (["synth", "absent", "out", "--scans", "1", "--sites", "all"], ["--sites", "paper", "balanced"]),
        (["evaluate", "absent", "cohort"], ["absent", "bundle"]),
        (["evaluate", "absent", "cohort", "--json", "no/e.json"], ["no/e.json", "no folder"]),
        (["train", "cohort"], ["--out"]),
        (["train", "cohort", "--out", "no/b"], ["no/b", "no folder"]),
        (["train", "cohort", "--out", "b", "--recipe", "huge"], ["--recipe", "compact"]),
        (["train", "absent", "--out", "b"], ["absent", "manifest.csv"]),
    ],
)
def test_bad_usage_of_the_other_commands_is_one_line(tmp_path, capsys, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    refused(capsys, args, *words)
    assert list(tmp_path.iterdir()) == []
