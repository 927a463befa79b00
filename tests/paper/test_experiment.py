"""The experiment at its smallest: drawn heads, two test heads, BaseNet and Relation Networks of seconds."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms.small_cohort import BANDS, COLUMNS, draw_cohort, write_manifest
from phantoms.small_head import draw_small_plan, small_head
from phantoms.tiny_recipe import SHORT

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.cohort.slices import open_slices
from situs.errors import InputError, ManifestError, OutputError
from situs.files import stem
from situs.paper import cohorts as paper_cohorts
from situs.paper.claims import count, macro_f1, weighted_f1
from situs.paper.cohorts import PAPER_SCALE, SMALL_SCALE, Part, Scale, check_apart, choose_scans
from situs.paper.experiment import _answer_of_mix, choose_references, read_embedded, reproduce
from situs.synth import cohort, pose
from situs.synth.cohort import paper_slices
from situs.synth.lesions import LesionGrower

HEADS = [Path(f"maps/head_{c}.nii.gz") for c in "cabd"]
TINY = Scale(6, 4, dict.fromkeys(BANDS, 20), balanced_scans=4, epochs=6, test_share=0.5)


def draw(heads, out, scans, seed, sites, jobs, progress, lesions=14):
    """Stands for `render_cohort`: scans with four bands, a lesion in each."""
    if not (out / "manifest.csv").exists() or len(list(out.glob("scan*"))) < scans:
        draw_cohort(out, len(heads), -(-scans // len(heads)), seed=seed % 1000)
        with (out / "manifest.csv").open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["patient"] = heads[int(row["patient"][1:])].name.removesuffix(".nii.gz")
        write_manifest(out, rows, COLUMNS)
    progress("scans", scans, scans)


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    monkeypatch.setattr(paper_cohorts, "render_cohort", draw)


def run(folder, seeds=1, **others):
    arguments = {"scale": TINY, "recipe": SHORT, "device": "cpu"} | others
    return reproduce(HEADS, folder / "results", folder / "work", seeds=seeds, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_cohorts, "render_cohort", draw)
        calls = []
        run(folder, seeds=2, progress=lambda *call: calls.append(call))
    return folder, calls


def table(folder, name):
    with (folder / "results" / name).open() as file:
        return list(csv.DictReader(file))


def test_counts_are_met_exactly_and_no_head_is_on_both_sides(whole):
    folder, _ = whole
    found = {row["site"]: row for row in table(folder, "table1.csv")}
    for site in BANDS:
        row = found[site.replace("_", " ")]
        assert (row["to train on"], row["to test on"]) == ("16", "4")
    assert found["thalamus"]["here"] == "0"
    assert (found["scans"]["to train on"], found["scans"]["to test on"]) == ("6", "4")
    sides = [set(open_slices(folder / "work" / name, SHORT.spec).patient) for name in ("train", "test")]
    assert sides == [{"head_a", "head_b"}, {"head_c", "head_d"}]
    assert set(open_slices(folder / "work" / "balanced", SHORT.spec).patient) == {"head_c", "head_d"}


def test_with_scans_that_are_rendered(tmp_path, monkeypatch):
    """Nothing stands for anything, but that the heads are small."""
    monkeypatch.setattr(paper_cohorts, "render_cohort", cohort.render_cohort)
    growers = {head.name: LesionGrower(small_head(stem(head))) for head in HEADS}
    monkeypatch.setattr(cohort, "_grower", lambda path, atrophy_mm: growers[path.name])
    monkeypatch.setattr(cohort, "_BATCH", 2)
    monkeypatch.setattr(pose, "draw_plan", draw_small_plan)
    sites = ("frontal_region", "parietal_region", "ventricular_system", "maxillary")
    run(tmp_path, scale=Scale(4, 2, dict.fromkeys(sites, 15), balanced_scans=4, epochs=6, test_share=0.5))
    found = {row["site"]: row for row in table(tmp_path, "table1.csv")}
    for site in (SITES[SITE_INDEX[key]].name for key in sites):
        assert (found[site]["to train on"], found[site]["to test on"]) == ("12", "3")
    assert (found["scans"]["to train on"], found["scans"]["to test on"]) == ("4", "2")
    labelled, _ = read_embedded(tmp_path / "work", SHORT)
    assert set(labelled["train"].patients) == {"head_a", "head_b"}
    assert set(labelled["test"].patients) <= set(labelled["balanced"].patients) == {"head_c", "head_d"}
    # The balanced test has all sites of these heads, of which some were not trained on.
    assert set(labelled["balanced"].sites.tolist()) > set(labelled["train"].sites.tolist())
    text = (tmp_path / "results" / "README.md").read_text()
    assert "small run" in text and "always missed: along falx/tentorium" in text


def test_every_method_every_seed_every_epoch(whole):
    folder, calls = whole
    methods = {row["method"] for row in table(folder, "methods.csv")}
    baselines = {"kNN", "nearest centroid", "logistic regression", "mean prototypes"}
    every = {"BaseNet", "BaseNet+RN", "BaseNet+RN+NN"} | baselines
    assert methods == every | {f"{name}, mix known" for name in every}
    curves = table(folder, "curves.csv")
    assert len(curves) == 2 * 2 * 2 * TINY.epochs  # cohorts, methods, seeds
    for method in ("BaseNet+RN", "BaseNet+RN+NN"):
        clock = [
            float(r["seconds"])
            for r in curves
            if (r["method"], r["seed"], r["cohort"]) == (method, "1", "test")
        ]
        assert clock == sorted(clock)
    stages = list(dict.fromkeys(call[0] for call in calls))
    assert stages[:3] == ["render", "choose", "slices"] and stages[-1] == "tables"
    assert "seed 1, relation nearest" in stages


def test_to_know_that_all_sites_are_alike_changes_nothing(whole):
    f1 = {
        row["method"]: row["mean"]
        for row in table(whole[0], "methods.csv")
        if (row["cohort"], row["f1"]) == ("balanced", "macro")
    }
    for name in (name for name in f1 if "known" not in name):
        assert f1[f"{name}, mix known"] == f1[name]


def test_a_known_mix_counts_as_much_as_the_odds():
    logits = np.full((3, len(SITES)), -9.0)
    logits[:, 0], logits[:, 1] = np.log(9), np.log([1.5, 4, 1.5])
    mix = np.ones(len(SITES))
    assert _answer_of_mix(logits, mix).tolist() == [0, 0, 0]
    mix[1] = 3.0
    assert _answer_of_mix(logits, mix).tolist() == [0, 1, 0]
    mix[0] = 0.0
    assert _answer_of_mix(logits, mix).tolist() == [1, 1, 1]


def test_a_stage_of_an_earlier_version_is_refused(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    for stage, missing in (("relation_all", "known"), ("baselines", "known"), ("embeddings", "logits")):
        path = tmp_path / "work" / SHORT.name / "seed1" / f"{stage}.npz"
        with np.load(path) as arrays:
            old = {name: array for name, array in arrays.items() if missing not in name}
        np.savez(path, **old)
        with pytest.raises(OutputError, match=rf"{stage}.npz: is of an earlier version: delete it"):
            run(tmp_path, seeds=2)


def numbers(folder):
    """Everything but times."""
    names = ("table1.csv", "table2.csv", "methods.csv", "claims.csv", "confusion.csv")
    return {name: (folder / "results" / name).read_text() for name in names}


def test_a_killed_run_goes_on_after_the_last_whole_stage(whole, tmp_path):
    """Killed in one stage after the other, it ends as one that was not, and no whole stage is done twice."""
    stages = [
        "choose",
        "slices",
        "seed 0, basenet",
        "seed 0, embed",
        "seed 0, relation nearest",
        "seed 1, base",
    ]
    began = []
    for stage in stages:

        def stop(now, *rest, stage=stage):
            began.append(now)
            if now.startswith(stage):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, seeds=2, progress=stop)
        assert not list(tmp_path.rglob(".writing-*"))
    run(tmp_path, seeds=2, progress=lambda now, *rest: began.append(now))
    assert numbers(tmp_path) == numbers(whole[0])
    counts = Counter(began)
    assert counts["seed 0, relation all"] == TINY.epochs and counts["seed 0, baselines"] == 2
    assert counts["seed 0, relation nearest"] == 1 + TINY.epochs


def test_a_full_disk_leaves_no_half_stage(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match=r"embeddings\.npz: cannot be written: No space left"):
        run(tmp_path)
    assert not list(tmp_path.rglob("embeddings.npz*"))


def test_other_settings_or_damage_are_refused(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(OutputError, match="run of other settings"):
        run(folder, scale=replace(TINY, epochs=2))
    with pytest.raises(OutputError, match="run of other settings"):
        run(folder, scale=replace(TINY, train_scans=5))
    with pytest.raises(InputError, match="'tiny' has no VGG16"):
        run(tmp_path, weights="imagenet")
    with pytest.raises(InputError, match="at least two"):
        reproduce(HEADS[:1], tmp_path / "r", tmp_path / "w", SHORT)
    with pytest.raises(InputError, match="do not hold 6 with the wanted slices"):
        run(tmp_path, scale=replace(TINY, slices={"thalamus": 5}))
    path = folder / "work" / "tiny" / "seed0" / "baselines.npz"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    with pytest.raises(OutputError, match="is damaged: delete it"):
        run(folder)
    path.write_bytes(content)


def test_embeddings_are_read_with_their_labels(whole):
    """BaseNet's answers have the F1 of the run's own table."""
    folder, _ = whole
    read = [read_embedded(folder / "work", SHORT, seed) for seed in (0, 1)]
    labelled, _ = read[0]
    assert set(labelled) == {"train", "targets", "test", "balanced"}
    train, targets = labelled["train"], labelled["targets"]
    assert train.ids.tolist() == targets.ids.tolist() and (train.embeddings != targets.embeddings).any()
    assert np.bincount(train.sites).max() == 16 and np.bincount(labelled["test"].sites).max() == 4
    written = {
        (r["cohort"], r["f1"]): r["mean"] for r in table(folder, "methods.csv") if r["method"] == "BaseNet"
    }
    for name, measure in (("weighted", weighted_f1), ("macro", macro_f1)):
        for part in ("test", "balanced"):
            asked = labelled[part]
            said = [logits[part].argmax(axis=1) for _, logits in read]
            counts = count(asked.sites, said, asked.patients)
            assert f"{measure(counts.sum(axis=1)).mean():.4f}" == written[part, name]


def test_other_embeddings_are_refused(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(InputError, match=r"seed2.*is not there"):
        read_embedded(folder / "work", SHORT, 2)
    path = tmp_path / SHORT.name / "seed0" / "embeddings.npz"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(OutputError, match="is damaged: delete it"):
        read_embedded(tmp_path, SHORT)
    np.savez(path, train=np.zeros((3, 2), np.float16))
    with pytest.raises(OutputError, match="is of an earlier version: delete it"):
        read_embedded(tmp_path, SHORT)
    with np.load(folder / "work" / SHORT.name / "seed0" / "embeddings.npz") as arrays:
        np.savez(path, **{name: array[:3] for name, array in arrays.items() if name != "test_site"})
    with pytest.raises(OutputError, match="is damaged: delete it"):
        read_embedded(tmp_path, SHORT)


@pytest.fixture
def own(tmp_path):
    """A cohort of three patients, one of whom is a head that is tested on."""
    folder = draw_cohort(tmp_path / "own", patients=3, scans=2)
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"p0": "head_a", "p1": "head_c", "p2": "someone"}
    write_manifest(folder, [{**row, "patient": names[row["patient"]]} for row in rows], COLUMNS)
    return folder


def test_another_cohort_can_be_trained_on(whole, own, tmp_path):
    """The tests are the same; who is tested on is left out; as many slices as `train` would take."""
    recipe = replace(SHORT, max_slices=2, n_targets=5)
    run(tmp_path, recipe=recipe, train_cohort=own)
    assert not (tmp_path / "work" / "train_pool").exists()
    assert "Trained on 4 scans of the cohort `own`" in (tmp_path / "results" / "README.md").read_text()
    labelled, _ = read_embedded(tmp_path / "work", recipe)
    assert set(labelled["train"].patients) == {"head_a", "someone"}
    assert np.bincount(labelled["train"].sites).max() == 5
    before, now = ({r["site"]: r for r in table(folder, "table1.csv")} for folder in (whole[0], tmp_path))
    for site, row in now.items():
        assert row["to test on"] == before[site]["to test on"]
        assert row["balanced test"] == before[site]["balanced test"]
    # of each site a lesion in 4 scans, of which two slices are taken
    assert now["frontal region"]["to train on"] == "8"
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


def test_a_cohort_of_tested_patients_alone_is_refused(own, tmp_path):
    with (own / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] == "head_c"]
    write_manifest(own, rows, COLUMNS)
    with pytest.raises(ManifestError, match="no patient is left to train on"):
        run(tmp_path, train_cohort=own)


def test_few_references_are_among_more(whole):
    everything = read_embedded(whole[0] / "work", SHORT)[0]["train"]
    few, more = (choose_references(everything, n) for n in (3, 7))
    assert np.bincount(few.sites).max() == 3 and np.bincount(more.sites).max() == 7
    assert set(few.ids) < set(more.ids) and len(choose_references(everything, 10**6)) == len(everything)


def test_patients_on_both_sides_are_named(tmp_path):
    cohorts = []
    for n, patients in enumerate((3, 2)):
        draw_cohort(tmp_path / str(n), patients=patients, scans=1)
        slices = open_slices(tmp_path / str(n), SHORT.spec)
        cohorts.append(Part(slices, np.arange(len(slices))))
    with pytest.raises(ManifestError, match="'p0', 'p1': in the training and in the test"):
        check_apart(*cohorts)


def test_scans_are_chosen_by_what_is_missing():
    slices = np.zeros((4, len(SITE_KEYS)), int)
    slices[:, SITE_INDEX["thalamus"]] = [9, 1, 0, 0]
    slices[:, SITE_INDEX["brainstem"]] = [0, 0, 50, 8]
    need = np.zeros(len(SITE_KEYS), int)
    need[SITE_INDEX["thalamus"]], need[SITE_INDEX["brainstem"]] = 5, 8
    assert choose_scans(slices, need, 2).tolist() == [0, 2]
    assert choose_scans(slices, need, 3).tolist() == [0, 1, 2]  # nothing is missing any more: the first
    assert choose_scans(slices, need, 1) is None
    need[SITE_INDEX["thalamus"]] = 10
    assert choose_scans(slices, need, 3).tolist() == [0, 1, 2]
    need[SITE_INDEX["thalamus"]] = 11
    assert choose_scans(slices, need, 4) is None


def test_the_scales():
    assert PAPER_SCALE.train_scans + PAPER_SCALE.test_scans == 216
    assert PAPER_SCALE.slices == paper_slices() and sum(PAPER_SCALE.slices.values()) == 15_425
    assert PAPER_SCALE.epochs == 15 and SMALL_SCALE.epochs > 5  # the paper looks at both after five
    assert set(SMALL_SCALE.slices) == set(SITE_KEYS)
