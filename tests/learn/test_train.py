"""Training as a whole: every stage, stopped and gone on with, and what is refused before it."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.small_cohort import BANDS, draw_cohort, write_manifest
from phantoms.tiny_recipe import SHORT, TINY, narrow_basenet

from situs.anatomy import SITE_INDEX
from situs.bundle.pictures import OUTLINE, decode_picture, draw_picture
from situs.cohort.manifest import read_manifest
from situs.cohort.slices import open_slices
from situs.errors import InputError, ManifestError, OutputError
from situs.learn import basenet
from situs.learn import train as module
from situs.learn.train import train
from situs.neighbors import nearest, reference_sets

QUICK = replace(SHORT, n_references=3, n_targets=10)


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


@pytest.fixture
def narrow(monkeypatch, exported):
    monkeypatch.setattr(basenet, "compact_basenet", narrow_basenet)
    return exported


@pytest.mark.slow
def test_learns(cohort, tmp_path, exported):
    """On the patient left out all answers are far above chance, which is 1 in 4."""
    train(cohort, tmp_path / "b", TINY, test_patients=["p3"])
    slices = open_slices(cohort, TINY.spec, TINY.max_slices)
    views = slices.batch(np.flatnonzero(slices.patient == "p3"))
    with torch.no_grad():
        output = exported["basenet"].eval()(
            torch.from_numpy(views.global_view), torch.from_numpy(views.local_view)
        )
        references = exported["references"]
        neighbors = nearest(output.embedding, references, exported["recipe"].n_neighbors)
        sets, present = (
            torch.from_numpy(a) for a in (reference_sets(references, neighbors), neighbors.present)
        )
        scores = exported["relation"].eval()(output.embedding, sets, present)
    for answer in (output.site_logits, output.shares, scores):
        assert (answer.argmax(dim=1).numpy() == views.site).mean() > 0.5


@pytest.mark.slow
def test_all_stages_on_all_patients_but_one(tmp_path, narrow):
    cohort, calls = draw_cohort(tmp_path / "c", scans=1), []
    assert train(cohort, tmp_path / "b", QUICK, test_patients=["p3"], progress=lambda *a: calls.append(a))
    slices = open_slices(cohort, QUICK.spec, QUICK.max_slices)
    references = narrow["references"]
    assert set(references.patients.tolist()) == {"p0", "p1", "p2"}
    assert set(references.ids.tolist()) <= set(slices.id.tolist())
    stages = list(dict.fromkeys(call[0] for call in calls))
    assert stages == ["scans", "paint", "basenet", "embed", "relation", "export"]
    for stage in stages:
        done = [call[1] for call in calls if call[0] == stage]
        assert done == sorted(done) and done[-1] == next(c[2] for c in calls if c[0] == stage)
    facts = json.loads(json.dumps(narrow["facts"]))  # they go into a JSON file
    assert facts["patients"] == 3 and facts["scans"] == 3
    assert sum(facts["slices of each site"].values()) == facts["slices"] == (slices.patient != "p3").sum()
    assert all(0 <= facts[stage]["accuracy"] <= 1 for stage in ("basenet", "relation"))
    assert "p0" not in json.dumps(facts)  # nobody is named


@pytest.mark.slow
def test_rendered_references_get_pictures_and_patients_only_if_asked_for(cohort, tmp_path, narrow):
    """In a new run and in one that goes on; each picture shows the reference it is named for."""
    train(cohort, tmp_path / "b", QUICK)
    assert narrow["pictures"] is None
    train(cohort, tmp_path / "b", QUICK, pictures=True)
    asked = narrow["pictures"]
    assert set(asked) == set(narrow["references"].ids.tolist())
    assert not any(picture.rendered for picture in asked.values())
    slices = open_slices(cohort, QUICK.spec, QUICK.max_slices)
    place = {name: n for n, name in enumerate(slices.id.tolist())}
    for name, picture in asked.items():
        expected = draw_picture(slices.global_view[place[name]], QUICK.spec)
        np.testing.assert_array_equal(decode_picture(picture.webp) == OUTLINE, expected == OUTLINE)

    settings = {"heads": [f"p{n}.nii.gz" for n in range(4)], "seed": 0, "sites": "balanced"}
    (cohort / "cohort.json").write_text(json.dumps(settings))
    try:
        train(cohort, tmp_path / "b", QUICK)
        assert {name: picture.webp for name, picture in narrow["pictures"].items()} == {
            name: picture.webp for name, picture in asked.items()
        }
        assert all(picture.rendered for picture in narrow["pictures"].values())
    finally:
        (cohort / "cohort.json").unlink()


def test_pictures_that_cannot_be_told_apart_or_drawn_are_refused_before_the_work(tmp_path, narrow):
    folder = draw_cohort(tmp_path / "c", patients=2, scans=1, painted=False)
    rows = []
    for n, patient in enumerate(("p0", "p1")):  # files of one name in a folder for each patient
        (folder / patient).mkdir()
        for kind in ("scan", "roi"):
            (folder / f"{kind}{n}.nii.gz").rename(folder / patient / f"{kind}.nii.gz")
        files = {kind: f"{patient}/{kind}.nii.gz" for kind in ("scan", "roi")}
        rows.append({**files, "value": 1, "site": "thalamus", "patient": patient})
    write_manifest(folder, rows)
    with pytest.raises(ManifestError, match="would come from two rows"):
        train(folder, tmp_path / "b", QUICK, pictures=True)
    blind = replace(QUICK, network="vgg16", spec=replace(QUICK.spec, channels=("brain",)))
    with pytest.raises(InputError, match="leave --pictures out"):
        train(folder, tmp_path / "b", blind, pictures=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def checkpoints(work):
    """The tensors of all checkpoints of a run, by stage and name."""
    tensors = {}
    for stage in ("paint", "basenet", "embed"):
        content = torch.load(work / f"{stage}.pt", weights_only=True)
        tensors |= {(stage, name): tensor for name, tensor in content.get("network", content).items()}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}


@pytest.mark.slow
def test_a_stopped_run_ends_alike(cohort, tmp_path, narrow):
    train(cohort, tmp_path / "whole", QUICK, seed=3)
    before = {name: narrow[name].state_dict() for name in ("basenet", "relation")}
    for stage in ("paint", "basenet", "relation"):

        def stop(now, done, total, message="", stage=stage):
            if now == stage and done >= total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(cohort, tmp_path / "parts", QUICK, seed=3, progress=stop)
    train(cohort, tmp_path / "parts", QUICK, seed=3)
    whole, parts = checkpoints(tmp_path / "whole.work"), checkpoints(tmp_path / "parts.work")
    assert whole.keys() == parts.keys() and len(whole) > 100
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    for network, tensors in before.items():
        for name, tensor in narrow[network].state_dict().items():
            assert torch.equal(tensor, tensors[name])
    train(cohort, tmp_path / "other", QUICK, seed=4)
    other = checkpoints(tmp_path / "other.work")
    assert not torch.equal(other["basenet", "fc3.weight"], whole["basenet", "fc3.weight"])
    assert not list(tmp_path.rglob(".writing-*"))


@pytest.mark.slow
def test_without_site_maps_and_from_a_checkpoint(cohort, tmp_path, narrow):
    """The user's own cohort: no site maps, so no painting; weights may come from an earlier run."""
    bare = draw_cohort(tmp_path / "bare", painted=False, patients=2)
    train(cohort, tmp_path / "first", QUICK)
    stages = set()
    init = tmp_path / "first.work" / "paint.pt"
    train(bare, tmp_path / "b", QUICK, init=init, progress=lambda stage, *rest: stages.add(stage))
    assert "basenet" in stages and "paint" not in stages
    assert not (tmp_path / "b.work" / "paint.pt").exists()
    with pytest.raises(InputError, match="is not a checkpoint of this version"):
        train(bare, tmp_path / "c", QUICK, init=tmp_path / "first.work" / "embed.pt")
    with pytest.raises(InputError, match="cannot be read"):
        train(bare, tmp_path / "c", QUICK, init=tmp_path / "nowhere")
    with pytest.raises(OutputError, match="holds a run of other settings"):
        train(bare, tmp_path / "b", QUICK)  # from other weights


@pytest.mark.slow
def test_trains_on_a_list_of_its_own(tmp_path, narrow):
    own = draw_cohort(tmp_path / "own", painted=False, patients=2)
    keys = ("orbit", *reversed(BANDS))
    (own / "sites.csv").write_text("\n".join(["key", *keys]))
    train(own, tmp_path / "b", QUICK)
    assert narrow["sites"].keys == keys
    assert narrow["basenet"].fc3.out_features == narrow["references"].n_sites == 5
    slices = open_slices(own, QUICK.spec)
    by_id = dict(zip(slices.id.tolist(), slices.site.tolist(), strict=True))
    references = narrow["references"]
    assert [by_id[name] for name in references.ids.tolist()] == references.sites.tolist()
    assert set(references.sites.tolist()) == {1, 2, 3, 4}


def test_refusals(cohort, tmp_path):
    (tmp_path / "b.work").mkdir()
    (tmp_path / "b.work" / "run.json").write_text(json.dumps({"recipe": "another"}))
    with pytest.raises(OutputError, match="delete it or choose another"):
        train(cohort, tmp_path / "b", QUICK)
    with pytest.raises(ManifestError, match="no patient 'p33'"):
        train(cohort, tmp_path / "c", QUICK, test_patients=["p33"])
    (tmp_path / "d.work").touch()
    with pytest.raises(OutputError, match=r"d\.work"):
        train(cohort, tmp_path / "d", QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.work", "d.work"]


def test_what_is_no_bundle_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"not a bundle \(it holds thesis.txt\)"):
        train(tmp_path / "nowhere", out, QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_heads_are_not_quite_upright_in_training(tmp_path, narrow):
    """The pictures of references show the views that were learned from."""
    cohort = draw_cohort(tmp_path / "c", patients=2, scans=1)
    recipe = replace(QUICK, spec=replace(QUICK.spec, upright=True))
    train(cohort, tmp_path / "b", recipe, pictures=True)
    slices = open_slices(cohort, recipe.spec, recipe.max_slices, training=True)
    place = {name: n for n, name in enumerate(slices.id.tolist())}
    for name, picture in narrow["pictures"].items():
        expected = draw_picture(slices.global_view[place[name]], recipe.spec)
        np.testing.assert_array_equal(decode_picture(picture.webp) == OUTLINE, expected == OUTLINE)


def test_two_sites_are_enough_and_one_is_refused(tmp_path, narrow):
    """Cohorts in which most sites have no example."""
    folder = draw_cohort(tmp_path / "c", patients=2, scans=1)
    sites = {1: "thalamus", 2: "brainstem"}
    rows = [
        {
            "scan": r.scan.name,
            "roi": r.roi.name,
            "value": r.value,
            "site": sites[r.value],
            "patient": r.patient,
        }
        for r in read_manifest(folder)
        if r.value in sites
    ]
    write_manifest(folder, rows)
    train(folder, tmp_path / "b", QUICK)
    assert set(narrow["references"].sites.tolist()) == {SITE_INDEX[site] for site in sites.values()}
    write_manifest(folder, [row for row in rows if row["value"] == 1])
    with pytest.raises(ManifestError, match="of one site, thalamus: at least two are needed"):
        train(folder, tmp_path / "d", QUICK)
