"""A tiny recipe on a tiny cohort: it must learn, stop and go on."""

import inspect
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_dataset import draw_cohort, write_manifest

from situs import train as module
from situs.anatomy import SITE_INDEX, SITES
from situs.dataset import LATERAL_UNKNOWN, SITE_UNKNOWN, open_slices, read_manifest
from situs.errors import InputError, ManifestError, OutputError
from situs.neighbors import nearest, reference_sets
from situs.train import Recipe, choose_evenly, painting_loss, relation_loss, train
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
    with caplog.at_level(logging.INFO, logger="situs.train"):
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


def test_a_failing_batch_is_not_swallowed():
    def make(step):
        if step == 2:
            raise OSError("disk")
        return step

    seen = []
    with pytest.raises(OSError, match="disk"):
        seen.extend(iter_and_keep(module._prefetch(make, 0, 5), seen))
    assert seen == [0, 1]


def iter_and_keep(batches, seen):
    for batch in batches:
        seen.append(batch)
    return []


def test_choose_evenly():
    sites = np.repeat([0, 1], [100, 6])
    patients = np.array(["a"] * 90 + ["b"] * 8 + ["c"] * 2 + ["a"] * 5 + ["c"])
    chosen = choose_evenly(sites, patients, 12, np.random.default_rng(0))
    names = patients[chosen[sites[chosen] == 0]]
    assert {p: int((names == p).sum()) for p in "abc"} == {"a": 5, "b": 5, "c": 2}
    assert (sites[chosen] == 1).sum() == 6 and len(set(chosen.tolist())) == len(chosen)


# --- losses, against plain numpy ---


def test_painting_loss_by_hand():
    rng = np.random.default_rng(0)
    n, c, h = 2, len(SITES) + 1, 3
    painting = rng.normal(size=(n, c + 1, h, h)).astype(np.float32)
    sites = rng.integers(0, c, (n, h, h)).astype(np.uint8)
    lateral = rng.integers(-50, 50, (n, h, h)).astype(np.int8)
    region = rng.random((n, h, h)).astype(np.float32)
    weights = rng.random(c).astype(np.float32)
    sites[0, 0], lateral[1, 2] = SITE_UNKNOWN, LATERAL_UNKNOWN

    top = bottom = far = known = 0.0
    for a, i, j in np.ndindex(n, h, h):
        pixel = 1 + 9 * region[a, i, j]
        if sites[a, i, j] != SITE_UNKNOWN:
            logits = painting[a, :c, i, j].astype(np.float64)
            s = sites[a, i, j]
            top += pixel * weights[s] * (np.log(np.exp(logits).sum()) - logits[s])
            bottom += pixel * weights[s]
        if lateral[a, i, j] != LATERAL_UNKNOWN:
            off = abs(painting[a, c, i, j] - lateral[a, i, j] / 30)
            far += pixel * (off**2 / 2 if off < 1 else off - 0.5)
            known += pixel
    expected = top / bottom + 0.5 * far / known
    found = painting_loss(*map(torch.from_numpy, (painting, sites, lateral, region, weights)))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_painting_loss_with_nothing_known_is_zero():
    sites = torch.full((1, 2, 2), SITE_UNKNOWN, dtype=torch.uint8)
    lateral = torch.full((1, 2, 2), LATERAL_UNKNOWN, dtype=torch.int8)
    painting = torch.randn(1, len(SITES) + 2, 2, 2)
    loss = painting_loss(painting, sites, lateral, torch.ones(1, 2, 2), torch.ones(len(SITES) + 1))
    assert float(loss) == 0


def test_relation_loss_by_hand():
    logits, site = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, -3.0]]), [0, 2]
    total = 0.0
    for row, s in zip(logits, site, strict=True):
        p = 1 / (1 + np.exp(-row))
        binary = [-2 * np.log(p[m]) if m == s else -np.log(1 - p[m]) for m in range(3)]
        total += np.mean(binary) / 2 + np.log(np.exp(row).sum()) - row[s]
    assert float(relation_loss(torch.tensor(logits), torch.tensor(site))) == pytest.approx(total / 2)


def test_learning_rate_cycle():
    rates = [module._one_cycle(n / 100) for n in range(100)]
    top = int(np.argmax(rates))
    assert top == 20 and rates[top] == pytest.approx(1)
    assert np.all(np.diff(rates[: top + 1]) > 0) and np.all(np.diff(rates[top:]) < 0)
    assert rates[-1] < 0.01


def test_class_weights_average_to_one(cohort):
    slices = open_slices(cohort, TINY.spec)
    everything = np.arange(len(slices))
    found = module._class_weights(slices, everything, 0).numpy()
    codes = np.concatenate([slices.global_sites.ravel(), slices.local_sites.ravel()])
    assert found[codes].mean() == pytest.approx(1, rel=1e-5)
    counts = np.bincount(codes)
    a, b = SITE_INDEX["parietal_region"] + 1, SITE_INDEX["frontal_region"] + 1
    assert found[a] / found[b] == pytest.approx((counts[b] / counts[a]) ** 0.5, rel=1e-5)


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
