"""The experiment at its smallest: from heads to results, stopped and continued, and refused.

In the quick tests scans are drawn, BaseNet is not trained, pairs are few, and no table is written.
"""

import csv
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from phantoms.drawn_experiment import HEADS, SIZE, draw_scans, rename_patients
from phantoms.small_cohort import draw_cohort
from phantoms.small_head import draw_small_plan, small_head
from phantoms.tiny_recipe import SHORT

from situs.anatomy import SITE_INDEX, SITES
from situs.errors import InputError, ManifestError, OutputError
from situs.files import stem
from situs.learn import basenet, relations
from situs.learn.basenet import new_basenet
from situs.learn.recipe import PAPER
from situs.learn.vgg import vgg16_basenet
from situs.paper import cohorts, experiment
from situs.paper.baselines import BASELINES
from situs.paper.cohorts import TESTS
from situs.paper.experiment import reproduce
from situs.paper.results import METHODS, predict_sites
from situs.paper.stages import read_embedded
from situs.synth import cohort, pose
from situs.synth.lesions import LesionGrower


def untrained(slices, chosen, recipe, seed, work, progress, machine, weights, features):
    """Stands for `train_basenet`."""
    progress("basenet", 0, 1, "")
    return new_basenet(recipe, seed)


def run(folder, seeds=1, train=untrained, **others):
    """The results and settings of a run without tables."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "render_cohort", draw_scans)
        patch.setattr(experiment, "train_basenet", train)
        patch.setattr(relations, "PAIRS", 16)
        patch.setattr(relations, "FINAL_PAIRS", 32)
        patch.setattr(experiment, "write_results", lambda *arguments: given.append(arguments))
        arguments = {"size": SIZE, "recipe": SHORT, "device": "cpu"} | others
        reproduce(HEADS, folder / "results", folder / "work", seeds=seeds, **arguments)
    ((out, results, settings),) = given
    assert out == folder / "results"
    return results, settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, calls = tmp_path_factory.mktemp("whole"), []
    return folder, *run(folder, seeds=2, progress=lambda *call: calls.append(call)), calls


@pytest.mark.slow
def test_every_method_every_seed_every_epoch(whole):
    _, results, settings, _ = whole
    for name in TESTS:
        n = len(results.truth[name])
        assert list(results.logits[name]) == [*METHODS, *BASELINES] and results.heads[name].shape == (n,)
        for seeds in results.logits[name].values():
            assert [logits.shape for logits in seeds] == [(n, len(SITES))] * 2
        assert list(results.curves[name]) == list(METHODS[1:])
        for method, seeds in results.curves[name].items():
            for curve, logits in zip(seeds, results.logits[name][method], strict=True):
                assert curve.shape == (SIZE.epochs, n)
                np.testing.assert_array_equal(curve[-1], predict_sites(logits))
    assert [len(clock) for clock in results.seconds["BaseNet+RN"]] == [SIZE.epochs] * 2
    assert results.scans == {"train": 6, "test": 4, "balanced": 4} and results.n_related == 4 * 16
    np.testing.assert_array_equal(results.site_frequencies["test"], SIZE.counts)
    assert np.ptp(results.site_frequencies["balanced"]) == 0
    assert (settings["seeds"], settings["epochs"], settings["samples"]) == (2, SIZE.epochs, 1.0)
    assert settings["cohorts"]["test_heads"] == ["head_c.nii.gz", "head_d.nii.gz"]


@pytest.mark.slow
def test_basenet_s_logits_are_those_of_its_embeddings(whole):
    folder, results, *_ = whole
    for seed in (0, 1):
        labelled, logits = read_embedded(folder / "work", SHORT, seed)
        train, targets = labelled["train"], labelled["targets"]
        assert train.ids.tolist() == targets.ids.tolist() and (train.embeddings != targets.embeddings).any()
        for name in TESTS:
            np.testing.assert_array_equal(results.logits[name]["BaseNet"][seed], logits[name])
            np.testing.assert_array_equal(results.truth[name], labelled[name].sites)
            np.testing.assert_array_equal(results.heads[name], labelled[name].patients)


@pytest.mark.slow
def test_frozen_paths_see_every_slice_once_for_all_seeds(tmp_path, monkeypatch):
    """What is embedded from their kept features is what the network embeds from the views."""
    recipe = replace(
        PAPER, spec=replace(PAPER.spec, size_px=32), n_neighbors=2, relation_batch=16, frozen=True
    )
    monkeypatch.setattr(basenet, "vgg16_basenet", partial(vgg16_basenet, widths=(2, 3, 4, 4, 6), hidden=8))
    monkeypatch.setattr(experiment, "read_given", lambda *arguments: {})
    monkeypatch.setattr("situs.learn.features._oversampled", lambda sites: sites % 2 == 0)
    paths = new_basenet(recipe, 0)
    stages = []

    def of_the_same_paths(slices, chosen, recipe, seed, *others):
        made = new_basenet(recipe, seed)
        made.global_path, made.local_path = paths.global_path, paths.local_path
        return made

    run(
        tmp_path / "frozen",
        2,
        recipe=recipe,
        train=of_the_same_paths,
        progress=lambda *call: stages.append(call[0]),
    )
    assert len(list((tmp_path / "frozen/work/paper/features").glob("*.f16"))) == 3
    assert "seed 0, features" in stages and "seed 1, features" not in stages
    run(tmp_path / "free", 2, recipe=replace(recipe, frozen=False), train=of_the_same_paths)
    for seed in (0, 1):
        kept, seen = (read_embedded(tmp_path / name / "work", recipe, seed)[0] for name in ("frozen", "free"))
        for name in ("train", *TESTS):
            np.testing.assert_allclose(kept[name].embeddings, seen[name].embeddings, atol=0.02)
        changed = (kept["targets"].embeddings != kept["train"].embeddings).any(axis=1)
        assert changed.any() and not changed[kept["train"].sites % 2 == 1].any()


@pytest.mark.slow
def test_stages_are_reported_in_their_order(whole):
    stages = list(dict.fromkeys(call[0] for call in whole[3]))
    assert stages[:3] == ["render", "choose", "slices"] and stages[-1] == "tables"
    of_seed = ["basenet", "embed", "relation all", "relation nearest", "baselines"]
    assert stages[3:-1] == [f"seed {seed}, {stage}" for seed in (0, 1) for stage in of_seed]


@pytest.mark.slow
def test_a_killed_run_goes_on_after_the_last_whole_stage(whole, tmp_path):
    """Killed in one stage after the other, it ends as one that was not, and no whole stage is done twice."""
    stages = [
        "choose",
        "slices",
        "seed 0, basenet",
        "seed 0, embed",
        "seed 0, relation nearest",
        "seed 0, base",
    ]
    began = []
    for stage in stages:

        def stop(now, *rest, stage=stage):
            began.append(now)
            if now.startswith(stage):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=stop)
        assert not list(tmp_path.rglob(".writing-*"))
    results, _ = run(tmp_path, progress=lambda now, *rest: began.append(now))
    for name in TESTS:
        for method, (logits, _) in whole[1].logits[name].items():
            np.testing.assert_array_equal(results.logits[name][method], [logits])
        for method, (curve, _) in whole[1].curves[name].items():
            np.testing.assert_array_equal(results.curves[name][method], [curve])
    counts = Counter(began)
    assert counts["seed 0, relation all"] == SIZE.epochs and counts["seed 0, baselines"] == 3
    assert counts["seed 0, relation nearest"] == 1 + SIZE.epochs


@pytest.mark.slow
def test_other_settings_or_damage_are_refused(whole, tmp_path):
    folder = whole[0]
    with pytest.raises(OutputError, match="run of other settings"):
        run(folder, size=replace(SIZE, epochs=3))
    with pytest.raises(OutputError, match="run of other settings"):
        run(folder, size=replace(SIZE, train_scans=5))
    with pytest.raises(InputError, match="'tiny' has no VGG16"):
        run(tmp_path, weights="imagenet")
    with pytest.raises(InputError, match="at least two"):
        reproduce(HEADS[:1], tmp_path / "r", tmp_path / "w", SHORT)
    path = folder / "work" / "tiny" / "seed0" / "baselines.npz"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    with pytest.raises(OutputError, match="is damaged: delete it"):
        run(folder)
    path.write_bytes(content)


@pytest.mark.slow
def test_another_cohort_can_be_trained_on(tmp_path):
    own = draw_cohort(tmp_path / "own", patients=3, scans=2)
    rename_patients(own, {"p0": "head_a", "p1": "head_c", "p2": "someone"})
    recipe = replace(SHORT, max_slices=2, n_targets=5)
    results, settings = run(tmp_path, recipe=recipe, train_cohort=own)
    assert settings["cohorts"]["train_cohort"] == "own" and results.scans["train"] == 4
    assert np.bincount(results.train_sites).max() == 8 and results.n_related == 4 * 5
    labelled, _ = read_embedded(tmp_path / "work", recipe)
    assert set(labelled["train"].patients) == {"head_a", "someone"}
    assert np.bincount(labelled["train"].sites).max() == 5
    with pytest.raises(OutputError, match="run of other settings"):
        run(tmp_path, recipe=recipe)
    manifest = own / "manifest.csv"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(OutputError, match="run of other settings"):  # of its name, but another
        run(tmp_path, recipe=recipe, train_cohort=own)


def test_a_cohort_that_is_none_is_refused_before_anything_is_rendered(tmp_path):
    with pytest.raises(ManifestError):
        run(tmp_path, train_cohort=tmp_path / "nowhere")
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_with_scans_that_are_rendered(tmp_path, monkeypatch):
    """Nothing stands for anything, but that the heads are small."""
    growers = {head.name: LesionGrower(small_head(stem(head))) for head in HEADS}
    monkeypatch.setattr(cohort, "_grower", lambda path, *settings: growers[path.name])
    monkeypatch.setattr(cohort, "_BATCH", 2)
    monkeypatch.setattr(pose, "draw_plan", draw_small_plan)
    sites = ("frontal_region", "parietal_region", "ventricular_system", "maxillary")
    size = replace(SIZE, train_scans=4, test_scans=2, slices=dict.fromkeys(sites, 15), epochs=6)
    out, work = tmp_path / "results", tmp_path / "work"
    reproduce(HEADS, out, work, SHORT, seeds=1, size=size, device="cpu")

    def table(name):
        with (out / name).open() as file:
            return list(csv.DictReader(file))

    table1 = {row["site"]: row for row in table("table1.csv")}
    for site in (SITES[SITE_INDEX[key]].name for key in sites):
        assert (table1[site]["to train on"], table1[site]["to test on"]) == ("12", "3")
    assert (table1["scans"]["to train on"], table1["scans"]["to test on"]) == ("4", "2")
    labelled, _ = read_embedded(work, SHORT)
    assert set(labelled["train"].patients) == {"head_a", "head_b"}
    assert set(labelled["test"].patients) <= set(labelled["balanced"].patients) == {"head_c", "head_d"}
    # The balanced test has all sites of these heads, of which some were not trained on.
    assert set(labelled["balanced"].sites.tolist()) > set(labelled["train"].sites.tolist())
    text = (out / "README.md").read_text()
    assert "small run" in text and "always missed: along falx/tentorium" in text
    f1 = {(r["cohort"], r["method"], r["f1"]): r["mean"] for r in table("methods.csv")}
    for method in (*METHODS, *BASELINES):
        assert f1["balanced", f"{method}, prior-adjusted", "macro"] == f1["balanced", method, "macro"]
    curves = table("curves.csv")
    assert len(curves) == 2 * 2 * 6  # cohorts, Relation Networks, epochs
    assert len(list(out.glob("*.svg"))) == 10
