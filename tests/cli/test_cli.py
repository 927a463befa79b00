"""The command line: what it writes and where, and one line with exit code 2 for whatever is wrong."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import nibabel as nib
import pytest
from phantoms import REPO, small_case
from phantoms.findings_schema import read_findings

import situs
from situs.cli import main
from situs.errors import BundleError, RoiError, ScanError
from situs.report import DISCLAIMER


class FakeLabeler:
    """Stands for the networks: answers with `small_case.findings`."""

    bundle = SimpleNamespace(name="fake", version="1", pictures={}, picture=lambda reference_id: None)

    @classmethod
    def load(cls, bundle=None):
        return cls()

    def label(self, volume, rois, progress=None):
        return small_case.findings(rois)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with scan.nii.gz and mask.nii.gz, which is also the working folder."""
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), tmp_path / "mask.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("situs.labeler.Labeler", FakeLabeler)
    monkeypatch.delenv("SITUS_DEBUG", raising=False)
    return tmp_path


LABEL = ["label", "scan.nii.gz", "--roi", "mask.nii.gz"]


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


def refused(capsys, args, *words) -> str:
    """Runs `args`, which must fail with exit code 2 and one line that holds `words`."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("situs: error: ") and err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert word in err
    return err


def test_label_prints_a_table_and_nothing_else(files, capsys):
    assert main(LABEL) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "scan.nii.gz: 3 lesions" in out and out.count("thalamus") >= 2 and DISCLAIMER in out
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_label_writes_json_csv_and_pictures(files, capsys):
    assert main([*LABEL, "--json", "out/f.json", "--csv", "out/f.csv", "--png", "out", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert names(files / "out") == [
        "f.csv",
        "f.json",
        "roi01_lesion1.png",
        "roi01_lesion2.png",
        "roi07_lesion1.png",
    ]
    report = read_findings((files / "out" / "f.json").read_text())
    assert [f["roi_value"] for f in report["findings"]] == [1, 1, 7]
    assert len(list(csv.reader((files / "out" / "f.csv").read_text().splitlines()))) == 4


def test_damaged_pictures_of_references_are_refused_only_where_they_are_wanted(files, capsys, monkeypatch):
    class Damaged:
        name, version = "fake", "1"

        @property
        def pictures(self):
            raise BundleError("pictures.npz was changed after its export")

    monkeypatch.setattr(FakeLabeler, "bundle", Damaged())
    assert main([*LABEL, "--json", "f.json"]) == 0
    capsys.readouterr()
    refused(capsys, [*LABEL, "--json", "g.json", "--png", "out"], "pictures.npz was changed")
    assert names(files) == ["f.json", "mask.nii.gz", "scan.nii.gz"]


@pytest.mark.parametrize(
    ("slices", "terminal", "options", "shown"),
    [(500, True, [], True), (20, True, [], False), (500, False, [], False), (500, True, ["--quiet"], False)],
)
def test_progress_is_shown_on_a_terminal_and_for_many_slices(
    files, capsys, monkeypatch, slices, terminal, options, shown
):
    class SlowLabeler(FakeLabeler):
        def label(self, volume, rois, progress=None):
            progress("slices", slices // 2, slices)
            return super().label(volume, rois)

    monkeypatch.setattr("situs.labeler.Labeler", SlowLabeler)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main([*LABEL, *options]) == 0
    assert ("slices" in capsys.readouterr().err) == shown


def test_standard_output_holds_json_alone(files, capsys):
    assert main([*LABEL, "--json", "-", "--csv", "f.csv"]) == 0
    out, err = capsys.readouterr()
    assert len(read_findings(out)["findings"]) == 3 and err == ""
    assert (files / "f.csv").exists()


def test_standard_output_holds_csv_alone(files, capsys):
    assert main([*LABEL, "--csv", "-"]) == 0
    out, _ = capsys.readouterr()
    assert len(list(csv.DictReader(io.StringIO(out)))) == 3


def test_pictures_of_other_names_stay(files):
    (files / "out").mkdir()
    (files / "out" / "roi99_lesion1.png").write_text("mine")
    (files / "out" / "roi01_lesion1.png").write_text("old")
    assert main([*LABEL, "--png", "out", "--quiet"]) == 0
    assert (files / "out" / "roi99_lesion1.png").read_text() == "mine"
    assert (files / "out" / "roi01_lesion1.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json", "-", "--csv", "-"], ["--json -", "--csv -"]),
        (["--json", "a", "--csv", "./a"], ["both are"]),
        (["--json", "absent/a.json"], ["absent/a.json", "no folder"]),
        (["--csv", "absent/a.csv"], ["absent/a.csv", "no folder"]),
        (["--json", "scan.nii.gz"], ["scan.nii.gz", "overwrite the input"]),
        (["--csv", "mask.nii.gz"], ["mask.nii.gz", "overwrite the input"]),
        (["--json", "."], ["is a folder"]),
        (["--png", "scan.nii.gz"], ["scan.nii.gz", "not a folder"]),
        (["--png", "absent/out"], ["absent/out", "no folder"]),
    ],
)
def test_outputs_are_refused_before_the_work(files, capsys, monkeypatch, options, words):
    monkeypatch.setattr("situs.io.read_volume", lambda *_, **__: pytest.fail("the work began"))
    before = {p: p.read_bytes() for p in files.iterdir()}
    refused(capsys, [*LABEL, *options], *words)
    assert {p: p.read_bytes() for p in files.iterdir()} == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["label", "absent.nii.gz", "--roi", "mask.nii.gz"], ["absent.nii.gz", "no such file"]),
        (["label", "scan.nii.gz", "--roi", "absent.nii.gz"], ["absent.nii.gz"]),
        (["label", "scan.nii.gz"], ["--roi", "situs label --help"]),
        (["label", "--roi", "mask.nii.gz"], ["SCAN"]),
        (["label"], ["SCAN"]),
        ([*LABEL, "--jsno", "f.json"], ["--jsno", "--json"]),
        ([*LABEL, "--js", "f.json"], ["--js"]),
        ([*LABEL, "second.nii.gz"], ["second.nii.gz"]),
        ([*LABEL, "--json"], ["--json"]),
        ([*LABEL, "--series", "3"], ["series"]),
        (["lable", "scan.nii.gz"], ["lable", "label"]),
        (["--verison"], ["--verison", "--version"]),
    ],
)
def test_bad_usage_is_one_line(files, capsys, args, words):
    refused(capsys, args, *words)
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


@pytest.mark.parametrize(
    "error", [ScanError("scan: bad"), RoiError("mask: bad"), PermissionError(13, "no", "x")]
)
def test_errors_of_the_work_write_nothing(files, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(FakeLabeler, "label", fail)
    refused(capsys, [*LABEL, "--json", "f.json", "--csv", "f.csv", "--png", "out"])
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_a_bundle_that_is_none_is_refused(files, capsys, monkeypatch):
    monkeypatch.undo()
    os.chdir(files)
    refused(capsys, [*LABEL, "--bundle", "absent", "--json", "f.json"], "absent", "bundle")
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_an_error_of_several_lines_is_shown_as_one(files, capsys, monkeypatch):
    monkeypatch.setattr(FakeLabeler, "label", lambda *_: (_ for _ in ()).throw(RoiError("one\ntwo")))
    assert "one two" in refused(capsys, LABEL)


def test_a_fault_of_situs_is_one_line_with_a_hint(files, capsys, monkeypatch):
    monkeypatch.setattr(FakeLabeler, "label", lambda *_: 1 // 0)
    assert main(LABEL) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ZeroDivisionError" in err and "SITUS_DEBUG=1" in err
    monkeypatch.setenv("SITUS_DEBUG", "1")
    assert main(LABEL) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(files, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeLabeler, "label", stop)
    assert main([*LABEL, "--json", "f.json", "--png", "out"]) == 130
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_ctrl_c_while_writing_leaves_no_half_written_file(files, monkeypatch):
    from situs.report import picture

    whole = picture.iter_pictures

    def stop(*args):
        yield next(whole(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "iter_pictures", stop)
    assert main([*LABEL, "--json", "f.json", "--png", "out"]) == 130
    assert names(files) == ["mask.nii.gz", "out", "roi01_lesion1.png", "scan.nii.gz"]
    assert (files / "out" / "roi01_lesion1.png").read_bytes().endswith(b"IEND\xaeB`\x82")


def test_a_missing_extra_names_the_pip_line(files, capsys, monkeypatch):
    def load(bundle=None):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(FakeLabeler, "load", load)
    refused(capsys, LABEL, "torch is not installed", "pip install 'situs[train]'")


def test_a_missing_package_that_no_extra_installs_is_a_fault(files, capsys, monkeypatch):
    def load(bundle=None):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(FakeLabeler, "load", load)
    assert main(LABEL) == 1
    assert "No module named 'numpy'" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"situs {situs.__version__}\n"
    assert main(["label", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--roi", "--bundle", "--series", "--json", "--csv", "--png", "--quiet"):
        assert option in out
    assert main([]) == 2
    assert "Usage: situs" in capsys.readouterr().err


def commands_of_the_readme() -> list[list[str]]:
    lines = (REPO / "README.md").read_text(encoding="utf-8").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("situs ")]


@pytest.mark.parametrize("words", commands_of_the_readme(), ids=" ".join)
def test_the_commands_of_the_readme_exist(words, capsys):
    depth = 2 if words[0] == "references" else 1
    assert main([*words[:depth], "--help"]) == 0
    options = capsys.readouterr().out.split()
    assert set(word for word in words if word.startswith("--")) <= set(options)


def test_python_m_situs_is_the_same_command():
    found = subprocess.run([sys.executable, "-m", "situs", "--version"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"situs {situs.__version__}\n", "")


def test_a_closed_pipe_is_no_traceback(files):
    """`situs ... | head -0`: the reader is gone before the first line is written."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "situs", "--help"]
    found = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert found.returncode == 1 and found.stderr == ""


# --- synth, train, evaluate: one call each ---------------------------------------------------------------


def test_synth_passes_its_options_on(tmp_path, capsys, monkeypatch):
    (tmp_path / "head_01.nii.gz").write_text("")
    asked = {}

    def render_cohort(heads, out, scans, seed, sites, jobs, progress):
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
    asked = {}

    def train(cohort, out, recipe, seed, test_patients, *, progress, **others):
        asked.update(cohort=cohort.name, recipe=recipe.name, seed=seed, test=list(test_patients), **others)
        progress("paint", 1, 2, "loss 0.5")
        return out

    monkeypatch.setattr("situs.learn.train.train", train)
    monkeypatch.chdir(tmp_path)
    args = ["train", "cohort", "--out", "b", "--seed", "3", "--test-patient", "head_01"]
    assert main(args) == 0
    given = {"cohort": "cohort", "recipe": "compact", "seed": 3, "test": ["head_01"], "init": None}
    given |= {"device": "auto", "weights": None, "pictures": False}
    assert asked == {**given, "threads": 1, "jobs": 1}
    out, err = capsys.readouterr()
    assert out == "b\n" and "paint: loss 0.5" in err
    assert main([*args, "--threads", "4", "--jobs", "2", "--init", "w"]) == 0
    assert asked == {**given, "init": Path("w"), "threads": 4, "jobs": 2}
    assert main([*args, "--recipe", "paper", "--weights", "imagenet", "--device", "cpu"]) == 0
    given |= {"recipe": "paper", "weights": "imagenet", "device": "cpu"}
    assert asked == {**given, "threads": 1, "jobs": 1}
    assert main([*args, "--pictures"]) == 0 and asked["pictures"] is True


def test_the_choices_of_options_are_those_of_the_library():
    """The command line writes them down itself, because the library's own need torch."""
    pytest.importorskip("torch")
    from situs.cli import learn, options
    from situs.learn import devices
    from situs.learn.recipe import RECIPES
    from situs.synth import cohort

    assert set(get_args(options.RecipeName)) == set(RECIPES)
    assert set(get_args(options.DeviceName)) == set(get_args(devices.DeviceName))
    assert set(get_args(learn.SiteFrequencies)) == set(get_args(cohort.SiteFrequencies))


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
