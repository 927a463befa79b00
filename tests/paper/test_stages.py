"""The stages of one seed on made-up embeddings, and their files."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms.tiny_recipe import SHORT

from situs.anatomy import SITES
from situs.errors import InputError, OutputError
from situs.learn.devices import CPU
from situs.neighbors import References
from situs.paper.baselines import BASELINES
from situs.paper.cohorts import TESTS
from situs.paper.results import predict_sites
from situs.paper.stages import (
    RELATIONS,
    baseline_logits,
    choose_references,
    make_stage,
    read_baselines,
    read_embedded,
    read_relation,
    read_stage,
    relation_predictions,
    seed_folder,
)
from situs.progress import silent

RECIPE = replace(SHORT, n_references=7)
M = len(SITES)


def embeddings(n, heads, seed):
    """Noisy points around a place of each of four sites, in half precision."""
    rng = np.random.default_rng(seed)
    sites = np.repeat([0, 4, 7, 9], n)
    X = np.random.default_rng(0).normal(size=(M, 8))[sites] + rng.normal(0, 0.5, (len(sites), 8))
    ids = np.array([f"{seed}/{i}" for i in range(len(sites))])
    return References(X.astype(np.float16), sites, ids, np.array([heads[i % 2] for i in range(len(sites))]))


@pytest.fixture(scope="module")
def labelled():
    train = embeddings(12, "ab", 1)
    changed = replace(train, embeddings=train.embeddings + np.float16(0.1))
    return {"train": train, "targets": changed, **{t: embeddings(5, "cd", n) for n, t in enumerate(TESTS, 2)}}


@pytest.fixture
def stored(labelled, tmp_path):
    """A work folder with the embeddings of one seed."""
    arrays = {name: items.embeddings for name, items in labelled.items()}
    for name in ("train", *TESTS):
        items = labelled[name]
        arrays |= {f"{name}_site": items.sites, f"{name}_id": items.ids, f"{name}_patient": items.patients}
        arrays[f"{name}_logits"] = np.eye(M, dtype=np.float32)[items.sites]
    make_stage(seed_folder(tmp_path, RECIPE, 1) / "embeddings.npz", lambda: arrays)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", RELATIONS)
def test_a_relation_network_is_tested_after_every_epoch(labelled, tmp_path, kind):
    calls = []
    make_stage(
        tmp_path / f"relation_{kind}.npz",
        lambda: relation_predictions(kind, labelled, RECIPE, 3, 0, CPU, lambda *call: calls.append(call)),
    )
    arrays = read_relation(tmp_path, kind)
    assert [call[:3] for call in calls] == [(f"relation {kind}", n, 3) for n in (1, 2, 3)]
    for name in TESTS:
        assert arrays[name].shape == (3, 20) and arrays[f"{name}_logits"].shape == (20, M)
        np.testing.assert_array_equal(arrays[name][-1], predict_sites(arrays[f"{name}_logits"]))
    assert (np.diff(arrays["seconds"]) > 0).all() and arrays["seconds"].shape == (3,)


def test_baselines_leave_their_logits(labelled, tmp_path):
    make_stage(tmp_path / "baselines.npz", lambda: baseline_logits(labelled, RECIPE, 0, silent))
    arrays = read_baselines(tmp_path)
    assert set(arrays) == {f"{method}/{name}_logits" for method in BASELINES for name in TESTS}
    trained = np.isin(np.arange(M), labelled["train"].sites)
    for name, logits in arrays.items():
        assert logits.shape == (20, M), name
        assert np.isfinite(logits[:, trained]).all() and np.isneginf(logits[:, ~trained]).all(), name


def test_embeddings_are_read_with_their_labels(labelled, stored):
    items, logits = read_embedded(stored, RECIPE, 1)
    assert set(items) == set(labelled) and set(logits) == {"train", *TESTS}
    for name, expected in labelled.items():
        for field in ("embeddings", "sites", "ids", "patients"):
            np.testing.assert_array_equal(getattr(items[name], field), getattr(expected, field))
    np.testing.assert_array_equal(predict_sites(logits["test"]), labelled["test"].sites)


def test_other_embeddings_are_refused(stored):
    with pytest.raises(InputError, match=r"seed2.*is not there"):
        read_embedded(stored, RECIPE, 2)
    path = seed_folder(stored, RECIPE, 1) / "embeddings.npz"
    arrays = read_stage(path)
    np.savez(path, **{name: array[:3] for name, array in arrays.items() if name != "test_site"})
    with pytest.raises(OutputError, match="is damaged: delete it"):
        read_embedded(stored, RECIPE, 1)
    np.savez(path, train=arrays["train"])
    with pytest.raises(OutputError, match="is of an earlier version: delete it"):
        read_embedded(stored, RECIPE, 1)
    path.write_bytes(b"")
    with pytest.raises(OutputError, match="is damaged: delete it"):
        read_embedded(stored, RECIPE, 1)


def test_stages_of_an_earlier_version_are_refused(tmp_path):
    """They had predictions for a prior where now logits are."""
    old = {"test": np.zeros((2, 3)), "balanced": np.zeros((2, 3)), "seconds": np.zeros(2)}
    old |= {f"{name}_mix_known": np.zeros(3) for name in TESTS}
    np.savez(tmp_path / "relation_all.npz", **old)
    with pytest.raises(OutputError, match=r"relation_all.npz: is of an earlier version: delete it"):
        read_relation(tmp_path, "all")
    names = [
        f"{method}{known}/{name}" for method in BASELINES for known in ("", ", mix known") for name in TESTS
    ]
    np.savez(tmp_path / "baselines.npz", **{name: np.zeros(3) for name in names})
    with pytest.raises(OutputError, match=r"baselines.npz: is of an earlier version: delete it"):
        read_baselines(tmp_path)


def test_a_stage_is_made_once(tmp_path):
    path, made = tmp_path / "new" / "stage.npz", []
    for n in range(2):
        make_stage(path, lambda n=n: made.append(n) or {"a": np.array([n])})
    assert made == [0] and read_stage(path, "a")["a"].tolist() == [0]


def test_a_full_disk_leaves_no_half_stage(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match=r"stage\.npz: cannot be written: No space left"):
        make_stage(tmp_path / "stage.npz", lambda: {"a": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_fewer_references_are_among_more(labelled):
    everything = labelled["train"]
    fewer, more = (choose_references(everything, n) for n in (3, 7))
    assert np.bincount(fewer.sites).max() == 3 and np.bincount(more.sites).max() == 7
    assert set(fewer.ids) < set(more.ids) and len(choose_references(everything, 10**6)) == len(everything)
