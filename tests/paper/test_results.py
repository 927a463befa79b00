"""The files of results, from answers made up so that every number can be told."""

import csv
import io

import numpy as np
import pytest

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.errors import OutputError
from situs.paper.results import METHODS, Answers, write_results

FALX, PARIETAL, THALAMUS = (SITE_INDEX[k] for k in ("along_falx_tentorium", "parietal_region", "thalamus"))
TRUTH = np.array([FALX] * 4 + [PARIETAL] * 4 + [THALAMUS] * 2)
HEADS = np.array(["a", "b"] * 5)
SETTINGS = {
    "recipe": {"name": "compact", "network": "compact", "paint_samples": 10, "basenet_samples": 20},
    "weights": None,
    "epochs": 6,
    "device": "cpu",
    "seeds": 2,
    "samples": 1.0,
    "basenet_examples": 24,
    "cohorts": {"train_cohort": None, "train_heads": ["c.nii.gz"], "test_heads": ["a.nii.gz", "b.nii.gz"]},
}


def made_up(epochs=6):
    """BaseNet always says parietal, RN is right but for the thalamus, RN+NN is right; both after 2 epochs."""
    parietal = np.full(10, PARIETAL)
    almost = np.where(TRUTH == THALAMUS, PARIETAL, TRUTH)
    curves = {
        "BaseNet+RN": [np.stack([parietal, parietal] + [almost] * (epochs - 2))] * 2,
        "BaseNet+RN+NN": [np.stack([parietal, almost] + [TRUTH] * (epochs - 2))] * 2,
    }
    said = {"BaseNet": [parietal] * 2, "BaseNet+RN": [almost] * 2, "BaseNet+RN+NN": [TRUTH] * 2}
    said["kNN"] = [TRUTH, parietal]
    both = ("test", "balanced")
    return Answers(
        truth=dict.fromkeys(both, TRUTH),
        heads=dict.fromkeys(both, HEADS),
        said=dict.fromkeys(both, said),
        curves=dict.fromkeys(both, curves),
        seconds={name: [np.arange(1.0, epochs + 1), np.arange(1.0, epochs + 1) * 3] for name in curves},
        train_sites=np.repeat([FALX, THALAMUS], [7, 3]),
        n_related=9,
        scans={"train": 173, "test": 43, "balanced": 5},
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "deep" / "results"
    write_results(out, made_up(), SETTINGS)
    return out


def rows(results, name):
    return list(csv.DictReader(io.StringIO((results / name).read_text())))


def test_table1_counts(results):
    found = {row["site"]: row for row in rows(results, "table1.csv")}
    falx = found["along falx/tentorium"]
    assert [falx[c] for c in ("paper", "here", "to train on", "to test on", "balanced test")] == [
        "1025", "11", "7", "4", "4"
    ]  # fmt: skip
    assert found["slices"]["paper"] == "15425" and found["slices"]["here"] == "20"
    assert found["scans"]["paper"] == found["scans"]["here"] == "216"


def test_table2_has_the_paper_s_numbers_beside_ours(results):
    found = {
        (row["cohort"], row["metric"], row["method"], row["site"]): row for row in rows(results, "table2.csv")
    }
    falx = found["test", "f1", "BaseNet+RN", "along_falx_tentorium"]
    assert (falx["paper"], falx["mean"], falx["spread"]) == ("0.5540", "1.0000", "0.0000")
    # BaseNet: 4 of 10 right, all called parietal.
    parietal = found["test", "precision", "BaseNet", "parietal_region"]
    assert (parietal["paper"], parietal["mean"]) == ("0.4010", "0.4000")
    mean = found["test", "f1", "BaseNet", "weighted_mean"]
    assert mean["paper"] == "0.3720" and float(mean["mean"]) == pytest.approx(0.4 * 2 * 4 / 14, abs=1e-4)
    assert float(found["test", "f1", "BaseNet", "macro_mean"]["mean"]) == pytest.approx(8 / 14 / 3, abs=1e-4)
    assert found["test", "f1", "BaseNet", "thalamus"]["paper"] == ""  # the paper does not show it
    assert found["test", "f1", "BaseNet", "brainstem"]["mean"] == ""  # no slice of it here
    assert {site for *_, site in found} == {*SITE_KEYS, "weighted_mean", "macro_mean"}
    text = (results / "table2.md").read_text()
    line = next(li for li in text.splitlines() if li.startswith("| thalamus | 2 |"))
    assert line.split("|")[3].strip() == ".000 ± .000" and line.split("|")[4].strip() == "-"
    assert "1.000 ± .000" in line


def test_baselines_are_in_the_table_of_methods(results):
    found = {(r["cohort"], r["method"], r["f1"]): r for r in rows(results, "methods.csv")}
    knn = found["balanced", "kNN", "weighted"]
    base = 0.4 * 8 / 14
    assert float(knn["mean"]) == pytest.approx((1 + base) / 2, abs=1e-4)
    assert float(knn["spread"]) == pytest.approx((1 - base) / 2, abs=1e-4)
    assert {method for _, method, _ in found} == {*METHODS, "kNN"}


def test_claims_compare_the_same_heads(results):
    found = {(r["cohort"], r["claim"], r["F1"]): r for r in rows(results, "claims.csv")}
    mix = "the paper's mix"
    rare = found[mix, "BaseNet+RN+NN against BaseNet+RN", "six rarest"]
    assert (rare["difference"], rare["pairs ahead"]) == ("+1.000", "4 of 4")
    assert found[mix, "BaseNet+RN+NN against BaseNet", "macro"]["p"] == "0.125"  # 2 of 16 flips
    early = found[mix, "BaseNet+RN+NN after 5 epochs against BaseNet+RN at its end", "six rarest"]
    assert early["difference"] == "+1.000"


def test_at_the_time_of_the_other():
    """RN+NN takes 10 s an epoch, RN 3 s with the first seed and 25 with the second: when RN+NN has trained
    for two, RN has for six, or not even for one: then what it said after its first counts."""
    answers = made_up()
    answers.seconds["BaseNet+RN+NN"] = [np.arange(10.0, 61, 10)] * 2
    answers.seconds["BaseNet+RN"] = [np.arange(3.0, 19, 3), np.arange(25.0, 151, 25)]
    late, first = (answers.after("test", "BaseNet+RN", epoch) for epoch in (6, 1))
    assert (late != first).any()
    found = answers.at_the_time("test", "BaseNet+RN", "BaseNet+RN+NN", 2)
    np.testing.assert_array_equal(found, np.stack([late[0], first[1]]))
    own = answers.at_the_time("test", "BaseNet+RN+NN", "BaseNet+RN+NN", 2)
    np.testing.assert_array_equal(own, answers.after("test", "BaseNet+RN+NN", 2))


def test_curves_have_every_epoch(results):
    found = [r for r in rows(results, "curves.csv") if r["cohort"] == "test" and r["seed"] == "1"]
    nearest = [r for r in found if r["method"] == "BaseNet+RN+NN"]
    assert [float(r["seconds"]) for r in nearest] == [3, 6, 9, 12, 15, 18]
    assert [r["f1"] for r in nearest][2:] == ["1.0000"] * 4 and float(nearest[0]["f1"]) < 0.3


def test_readme_names_what_was_run_and_every_file(results, tmp_path):
    text = (results / "README.md").read_text()
    assert "Recipe `compact`; seeds: 2; on cpu" in text and "small run" not in text
    assert "Highest macro F1 on the balanced cohort: BaseNet+RN+NN, 1.000;" in text
    assert "| BaseNet+RN+NN | .590 | 1.000 | 1.000 | 1.000 |" in text
    assert "BaseNet saw 24 examples" in text
    assert "Nothing to train on, so always missed: parietal region." in text
    for name in ("table1.md", "table2.md", "methods.md", "claims.md"):
        assert f"({name})" in text and (results / name).exists()
    assert len(list(results.glob("confusion_*.svg"))) == 6 and len(list(results.glob("f1_*.svg"))) == 4
    vgg = {**SETTINGS["recipe"], "network": "vgg16"}
    write_results(tmp_path, made_up(), {**SETTINGS, "recipe": vgg, "samples": 0.1})
    text = (tmp_path / "README.md").read_text()
    assert "VGG16 without ImageNet weights" in text
    assert "trained on 10 % of the recipe's examples" in text and "small run" not in text
    few = made_up()
    few.scans["train"] = 16
    write_results(tmp_path, few, SETTINGS)
    assert "small run" in (tmp_path / "README.md").read_text()
    own = {**SETTINGS, "cohorts": {**SETTINGS["cohorts"], "train_cohort": "mine"}}
    for n, small in ((43, False), (6, True)):  # of its own scans to train on there may be any number
        few.scans["test"] = n
        write_results(tmp_path, few, own)
        text = (tmp_path / "README.md").read_text()
        assert "Trained on 16 scans of the cohort `mine`" in text and "Heads to train on" not in text
        assert ("small run" in text) == small


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_results(tmp_path / "file" / "results", made_up(), SETTINGS)
