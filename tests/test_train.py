"""A tiny recipe on a tiny cohort: it must learn, stop and go on."""

import inspect
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_cohort import draw_cohort, write_manifest

from situs import train as module
from situs.anatomy import SITE_INDEX
from situs.dataset import open_slices
from situs.errors import InputError, ManifestError, OutputError
from situs.manifest import read_manifest
from situs.neighbors import nearest, reference_sets
from situs.train import Recipe, choose_evenly, train
from situs.views import ViewSpec

TINY = Recipe(
    "tiny",
    ViewSpec(size_px=32),
    paint_samples=320,
    basenet_samples=480,
    relation_samples=2400,
    n_neighbors=2,
    n_references=20,
    n_targets=50,
    batch=16,
    relation_batch=16,
)
SHORT = replace(TINY, paint_samples=64, basenet_samples=64, relation_samples=64)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"), scans=3)


@pytest.fixture
def exported(monkeypatch):
    """What the export is given; it takes longer than all else here and has tests of its own."""
    given = {}
    signature = inspect.signature(module.export_bundle)

    def export(*args, **kwargs):
        given.clear()
        given.update(signature.bind(*args, **kwargs).arguments)
        return given["out"]

    monkeypatch.setattr(module, "export_bundle", export)
    return given


def test_learns(cohort, tmp_path, exported):
    """On the patient left out, all answers are far above chance (1 in 4)."""
    calls = []
    train(cohort, tmp_path / "b", TINY, test_patients=["p3"], progress=lambda *a: calls.append(a))
    slices = open_slices(cohort, TINY.spec, TINY.max_slices)
    unseen = np.flatnonzero(slices.patient == "p3")
    views = slices.batch(unseen)
    with torch.no_grad():
        said = exported["basenet"].eval()(
            torch.from_numpy(views.global_view), torch.from_numpy(views.local_view)
        )
        references = exported["references"]
        near = nearest(said.embedding, references, exported["n_neighbors"])
        sets = torch.from_numpy(reference_sets(references, near))
        scores = exported["relation"].eval()(said.embedding, sets, torch.from_numpy(near.present))
    for answer in (said.site_logits, said.shares, scores):
        assert (answer.argmax(dim=1).numpy() == views.site).mean() > 0.8

    assert set(references.patients.tolist()) == {"p0", "p1", "p2"}
    assert set(references.ids.tolist()) <= set(slices.id.tolist())
    stages = list(dict.fromkeys(call[0] for call in calls))
    assert stages == ["slices", "paint", "basenet", "embed", "relation", "export"]
    for stage in stages:
        done = [call[1] for call in calls if call[0] == stage]
        assert done == sorted(done) and done[-1] == next(c[2] for c in calls if c[0] == stage)
    facts = json.loads(json.dumps(exported["facts"]))  # they go into a JSON file
    assert facts["patients"] == 3 and facts["scans"] == 9
    assert sum(facts["slices of each site"].values()) == facts["slices"] == (slices.patient != "p3").sum()
    assert "p0" not in json.dumps(facts)  # nobody is named


def weights(work):
    return {stage: load_file(work / f"{stage}.safetensors") for stage in ("paint", "basenet", "relation")}


def test_stopped_run_ends_alike(cohort, tmp_path, exported):
    train(cohort, tmp_path / "whole", SHORT, seed=3)
    before = exported["basenet"].state_dict()
    for stage in ("paint", "basenet", "relation"):

        def stop(now, done, total, message, stage=stage):
            if now == stage and done >= total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(cohort, tmp_path / "parts", SHORT, seed=3, progress=stop)
    train(cohort, tmp_path / "parts", SHORT, seed=3)
    whole, parts = weights(tmp_path / "whole.work"), weights(tmp_path / "parts.work")
    for stage, tensors in whole.items():
        assert tensors.keys() == parts[stage].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, parts[stage][name]), f"{stage} {name}"
    for name, tensor in exported["basenet"].state_dict().items():  # also where all stages were done before
        assert torch.equal(tensor, before[name])
    train(cohort, tmp_path / "other", SHORT, seed=4)
    assert not torch.equal(
        weights(tmp_path / "other.work")["basenet"]["weights.fc3.weight"],
        whole["basenet"]["weights.fc3.weight"],
    )
    assert not list(tmp_path.glob("**/*.tmp"))


def test_without_site_maps_and_from_a_checkpoint(cohort, tmp_path, caplog, exported):
    """The user's own cohort: no site maps, so no painting; weights may come from an earlier run."""
    bare = draw_cohort(tmp_path / "bare", painted=False)
    train(cohort, tmp_path / "first", SHORT)
    with caplog.at_level(logging.INFO, logger="situs.fit"):
        train(bare, tmp_path / "b", SHORT, init=tmp_path / "first.work" / "paint.safetensors")
    assert not (tmp_path / "b.work" / "paint.safetensors").exists()
    assert "basenet" in caplog.text and "paint" not in caplog.text
    with pytest.raises(InputError, match="is not a checkpoint"):
        train(bare, tmp_path / "c", SHORT, init=tmp_path / "first.work" / "relation.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        train(bare, tmp_path / "c", SHORT, init=tmp_path / "nowhere")


def test_refusals(cohort, tmp_path):
    work = tmp_path / "w"
    work.mkdir()
    (work / "run.json").write_text(json.dumps({"key": "another"}))
    with pytest.raises(OutputError, match="delete it or choose another"):
        train(cohort, tmp_path / "b", SHORT, work=work)
    with pytest.raises(ManifestError, match="no patient 'p33'"):
        train(cohort, tmp_path / "b", SHORT, test_patients=["p33"])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        train(cohort, tmp_path / "b", SHORT, work=tmp_path / "file" / "work")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "w"]


def test_what_is_no_bundle_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"not a bundle \(it holds thesis.txt\)"):
        train(tmp_path / "nowhere", out, SHORT)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_choose_evenly():
    sites = np.repeat([0, 1], [100, 6])
    patients = np.array(["a"] * 90 + ["b"] * 8 + ["c"] * 2 + ["a"] * 5 + ["c"])
    chosen = choose_evenly(sites, patients, 12, np.random.default_rng(0))
    names = patients[chosen[sites[chosen] == 0]]
    assert {p: int((names == p).sum()) for p in "abc"} == {"a": 5, "b": 5, "c": 2}
    assert (sites[chosen] == 1).sum() == 6 and len(set(chosen.tolist())) == len(chosen)


def test_one_site_only(tmp_path, exported):
    """A cohort in which most sites have no example."""
    folder = draw_cohort(tmp_path / "c", patients=2, scans=1)
    rows = [r for r in read_manifest(folder) if r.value == 1]
    write_manifest(
        folder,
        [
            {"scan": r.scan.name, "roi": r.roi.name, "value": 1, "site": "thalamus", "patient": r.patient}
            for r in rows
        ],
    )
    train(folder, tmp_path / "b", SHORT)
    assert set(exported["references"].sites.tolist()) == {SITE_INDEX["thalamus"]}
