"""An evaluation in a bundle's card: the figures of the evaluation, and whether it is a test."""

import json
from dataclasses import replace

import pytest
from phantoms.toy_bundle import content, write_toy

from situs.anatomy import SITE_INDEX
from situs.bundle import read_bundle
from situs.cohort import card_entry as module
from situs.cohort.card_entry import card_entry, evaluate_into_card
from situs.cohort.coverage import Coverage
from situs.cohort.evaluate import Evaluation
from situs.cohort.scores import score_table
from situs.errors import BundleError, OutputError

THALAMUS, BRAINSTEM = SITE_INDEX["thalamus"], SITE_INDEX["brainstem"]


@pytest.fixture
def evaluation():
    """Two scans. Of four slices of the thalamus one is called brainstem; both regions are right."""
    slices = score_table([THALAMUS] * 4, [THALAMUS] * 3 + [BRAINSTEM], list("aabb"), n_boot=5)
    rois = score_table([THALAMUS] * 2, [THALAMUS] * 2, list("ab"), n_boot=5)
    return Evaluation(
        relation=slices,
        basenet=slices,
        relation_rois=rois,
        basenet_rois=rois,
        other_joins={},
        coverage=Coverage(0.9, 0.75, {"thalamus": 0.75}, 1.5, 0.5, 1.0, None),
        share_error=0.125,
        share_rois=2,
        upright=False,
        bundle="toy 1",
        n_neighbors=4,
        n_patients=2,
        known_patients=0,
        unknown_sites=(),
    )


def test_the_entry_has_the_figures_of_the_evaluation(evaluation, tmp_path):
    entry = card_entry(evaluation, tmp_path / "unseen")
    assert entry["title"] == "Cohort unseen"
    assert list(entry["sites"]) == ["thalamus"]  # no other site has an example
    # 3 of 4 found, none falsely: F1 is 2 x 3 / (4 + 3).
    for scores in (entry["sites"]["thalamus"], entry["weighted"], entry["macro"]):
        assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((1, 0.75, 6 / 7))
    assert entry["rois"]["macro"]["f1"] == 1
    text = " ".join(entry["text"])
    assert text.startswith("toy 1 on 4 slices of 2 regions on 2 scans of 2 patients.")
    assert "No patient is among the bundle's references." in text
    assert "Not a test" not in text and "Rendered" not in text and "Always missed" not in text
    assert entry["facts"] == {
        "regions that span several sites": 2,
        "error of their painted shares: mean of half the summed absolute difference": 0.125,
        "site set holds the true site: aim for each site": 0.9,
        "site set holds the true site: all regions": 0.75,
        "site set holds the true site: the worst site, thalamus": 0.75,
        "sites in a set, mean": 1.5,
        "sure answers, fraction": 0.5,
        "right among the sure answers": 1.0,
    }
    json.dumps(entry, allow_nan=False)


def test_known_patients_missed_sites_and_rendered_scans_are_named(evaluation, tmp_path):
    evaluation = replace(
        evaluation, known_patients=1, unknown_sites=("thalamus",), data="Rendered scans only."
    )
    text = card_entry(evaluation, tmp_path)["text"]
    assert any(paragraph.startswith("**Not a test**: 1 of the 2 patients are among") for paragraph in text)
    assert "Always missed, because the bundle has no reference: thalamus." in text
    assert "Rendered scans only." in text


def test_what_could_not_be_measured_is_left_out(evaluation, tmp_path):
    assert card_entry(replace(evaluation, coverage=None, share_error=None), tmp_path)["facts"] == {}


def test_the_scores_of_a_cohort_are_in_the_card_once(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: evaluation)
    folder = write_toy(tmp_path / "mine")
    for name in ("unseen", "other", "unseen"):
        assert evaluate_into_card(folder, tmp_path / name) == (evaluation, folder)
    titles = [entry["title"] for entry in read_bundle(folder).description["evaluation"]]
    assert titles == ["Cohort unseen", "Cohort other"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count("### Cohort unseen\n") == 1 and "| thalamus | 1.000 | 0.750 | 0.857 |" in card


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: pytest.fail("the work began"))
    before = content(read_bundle().path)
    with pytest.raises(BundleError, match="give --out NEW_BUNDLE"):
        evaluate_into_card("shipped", tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not overwritten"):
        evaluate_into_card("shipped", tmp_path, out=tmp_path)
    assert content(read_bundle().path) == before


def test_a_bundle_that_changed_during_the_evaluation_is_left_alone(evaluation, tmp_path, monkeypatch):
    folder = write_toy(tmp_path / "mine")

    def slow(*_, **__):
        write_toy(folder, version="2")
        return evaluation

    monkeypatch.setattr(module, "evaluate", slow)
    with pytest.raises(BundleError, match="changed meanwhile"):
        evaluate_into_card(folder, tmp_path / "unseen")
    assert read_bundle(folder).version == "2" and read_bundle(folder).description["evaluation"] == []
