"""A tiny recipe on a tiny cohort: it must learn, stop and go on."""

import inspect
import json
import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from phantoms.small_cohort import draw_cohort, write_manifest
from phantoms.tiny_recipe import SHORT, TINY
from safetensors.torch import load_file

from situs.anatomy import SITE_INDEX, SITES
from situs.bundle.pictures import OUTLINE, decode_picture, draw_picture
from situs.cohort.manifest import read_manifest
from situs.cohort.slices import open_slices
from situs.errors import InputError, ManifestError, OutputError
from situs.learn import basenet as train_basenet
from situs.learn import train as module
from situs.learn.recipe import PAPER, RECIPES
from situs.learn.train import train
from situs.learn.vgg import vgg16_basenet
from situs.neighbors import nearest, reference_sets


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
        near = nearest(said.embedding, references, exported["recipe"].n_neighbors)
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


def test_rendered_references_get_pictures_and_patients_only_if_asked_for(cohort, tmp_path, exported):
    """In a new run and in one that goes on; each picture shows the reference it is named for."""
    train(cohort, tmp_path / "b", SHORT)
    assert exported["pictures"] is None
    train(cohort, tmp_path / "b", SHORT, pictures=True)
    asked = exported["pictures"]
    assert set(asked) == set(exported["references"].ids.tolist())
    assert not any(picture.rendered for picture in asked.values())
    slices = open_slices(cohort, SHORT.spec, SHORT.max_slices)
    place = {name: n for n, name in enumerate(slices.id.tolist())}
    for name, picture in asked.items():
        expected = draw_picture(slices.global_view[place[name]], SHORT.spec)
        np.testing.assert_array_equal(decode_picture(picture.webp) == OUTLINE, expected == OUTLINE)

    settings = {"heads": [f"p{n}.nii.gz" for n in range(4)], "seed": 0, "sites": "balanced"}
    (cohort / "cohort.json").write_text(json.dumps(settings))
    try:
        train(cohort, tmp_path / "b", SHORT)
        assert {name: picture.webp for name, picture in exported["pictures"].items()} == {
            name: picture.webp for name, picture in asked.items()
        }
        assert all(picture.rendered for picture in exported["pictures"].values())
    finally:
        (cohort / "cohort.json").unlink()


def test_pictures_that_cannot_be_told_apart_or_drawn_are_refused_before_the_work(tmp_path, exported):
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
        train(folder, tmp_path / "b", SHORT, pictures=True)
    blind = replace(SHORT, spec=replace(SHORT.spec, channels=("brain",)))
    with pytest.raises(InputError, match="leave --pictures out"):
        train(folder, tmp_path / "b", blind, pictures=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def weights(work):
    return {stage: load_file(work / f"{stage}.safetensors") for stage in ("paint", "basenet", "embed")}


def test_stopped_run_ends_alike(cohort, tmp_path, exported):
    train(cohort, tmp_path / "whole", SHORT, seed=3)
    before = {name: exported[name].state_dict() for name in ("basenet", "relation")}
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
    for network, tensors in before.items():
        for name, tensor in exported[network].state_dict().items():
            assert torch.equal(tensor, tensors[name])
    train(cohort, tmp_path / "other", SHORT, seed=4)
    assert not torch.equal(
        weights(tmp_path / "other.work")["basenet"]["weights.fc3.weight"],
        whole["basenet"]["weights.fc3.weight"],
    )
    assert not list(tmp_path.rglob(".writing-*"))


def test_without_site_maps_and_from_a_checkpoint(cohort, tmp_path, caplog, exported):
    """The user's own cohort: no site maps, so no painting; weights may come from an earlier run."""
    bare = draw_cohort(tmp_path / "bare", painted=False)
    train(cohort, tmp_path / "first", SHORT)
    with caplog.at_level(logging.INFO, logger="situs.learn.loop"):
        train(bare, tmp_path / "b", SHORT, init=tmp_path / "first.work" / "paint.safetensors")
    assert not (tmp_path / "b.work" / "paint.safetensors").exists()
    assert "basenet" in caplog.text and "paint" not in caplog.text
    with pytest.raises(InputError, match="is not a checkpoint"):
        train(bare, tmp_path / "c", SHORT, init=tmp_path / "first.work" / "embed.safetensors")
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


def test_heads_are_not_quite_upright_in_training(cohort, tmp_path, exported):
    """The pictures of references show the views that were learned from."""
    recipe = replace(SHORT, spec=replace(SHORT.spec, upright=True))
    train(cohort, tmp_path / "b", recipe, pictures=True)
    slices = open_slices(cohort, recipe.spec, recipe.max_slices, training=True)
    place = {name: n for n, name in enumerate(slices.id.tolist())}
    for name, picture in exported["pictures"].items():
        expected = draw_picture(slices.global_view[place[name]], recipe.spec)
        np.testing.assert_array_equal(decode_picture(picture.webp) == OUTLINE, expected == OUTLINE)


def test_two_sites_are_enough_and_one_is_refused(tmp_path, exported):
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
    train(folder, tmp_path / "b", SHORT)
    assert set(exported["references"].sites.tolist()) == {SITE_INDEX[site] for site in sites.values()}
    write_manifest(folder, [row for row in rows if row["value"] == 1])
    with pytest.raises(ManifestError, match="of one site, thalamus: at least two are needed"):
        train(folder, tmp_path / "d", SHORT)


# --- the paper's recipe, with paths a few channels wide ---

VGG = replace(
    PAPER,
    spec=replace(PAPER.spec, size_px=32),
    basenet_samples=64,
    relation_samples=64,
    n_neighbors=2,
    batch=16,
    relation_batch=16,
)


@pytest.fixture
def narrow(monkeypatch):
    """VGG16 with few channels, and a file of weights for it."""
    make = partial(vgg16_basenet, widths=(2, 3, 4, 4, 6), hidden=8)
    monkeypatch.setattr(train_basenet, "vgg16_basenet", make)
    return make


@pytest.fixture
def vgg_file(narrow, tmp_path):
    torch.manual_seed(5)
    tensors = narrow(len(SITES), 32).local_path.features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def test_the_paper_s_numbers():
    """Section 3.4: 30 and 15 epochs of 80 % of 15,425 slices, SGD 1e-3, momentum 0.9, weight decay 5e-4."""
    assert RECIPES["paper"] is PAPER
    assert PAPER.basenet_samples == 30 * 12_340 and PAPER.relation_samples == 15 * 12_340
    assert round(0.8 * 15_425) == 12_340
    assert (PAPER.learning_rate, PAPER.momentum, PAPER.weight_decay, PAPER.spec.size_px) == (
        1e-3,
        0.9,
        5e-4,
        224,
    )


def same(path, tensors):
    return all(torch.equal(t, tensors[f"features.{name}"]) for name, t in path.features.state_dict().items())


def test_paper_recipe_fine_tuned(cohort, vgg_file, tmp_path, exported):
    given = torch.load(vgg_file)
    train(cohort, tmp_path / "b", VGG, weights=vgg_file, device="cpu")
    assert not same(exported["basenet"].global_path, given)
    assert not (tmp_path / "b.work" / "paint.safetensors").exists()  # its paths do not paint
    first = exported["basenet"].fc1.weight.clone()
    train(cohort, tmp_path / "c", VGG)
    assert not torch.equal(exported["basenet"].fc1.weight, first)


def test_paper_recipe_frozen_goes_on_where_it_was(cohort, vgg_file, tmp_path, exported):
    """Only the fully connected layers learn, from features that are kept in a file."""
    frozen, given = replace(VGG, frozen=True), torch.load(vgg_file)
    train(cohort, tmp_path / "whole", frozen, weights=vgg_file)
    basenet = exported["basenet"]
    assert same(basenet.global_path, given) and same(basenet.local_path, given)
    slices = open_slices(cohort, VGG.spec)
    features = np.fromfile(tmp_path / "whole.work" / "features.f16", np.float16)
    features = features.reshape(len(slices), 2, basenet.fc1.in_features)
    views = slices.batch(np.array([3]))
    with torch.no_grad():
        for which, step in enumerate((1, -1)):
            pair = (np.ascontiguousarray(v[..., ::step]) for v in (views.global_view, views.local_view))
            paths = zip((basenet.global_path, basenet.local_path), pair, strict=True)
            said = torch.cat([path(torch.from_numpy(view)).features for path, view in paths], dim=1)
            np.testing.assert_allclose(features[3, which], said[0], rtol=0.05, atol=0.02)
    for stage in ("features", "fc"):

        def stop(now, done, total, message, stage=stage):
            if now == stage and done >= total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(cohort, tmp_path / "parts", frozen, weights=vgg_file, progress=stop)
    train(cohort, tmp_path / "parts", frozen, weights=vgg_file)
    for name, tensor in exported["basenet"].state_dict().items():
        assert torch.equal(tensor, basenet.state_dict()[name])


def test_what_does_not_fit_the_recipe_is_refused(cohort, vgg_file, tmp_path, exported):
    with pytest.raises(InputError, match="'tiny' has no VGG16"):
        train(cohort, tmp_path / "b", TINY, weights=vgg_file)
    with pytest.raises(InputError, match="give the weights that are to be kept"):
        train(cohort, tmp_path / "b", replace(VGG, frozen=True))
    with pytest.raises(InputError, match="frozen: the recipe 'tiny' has no VGG16"):
        train(cohort, tmp_path / "b", replace(TINY, frozen=True), init=vgg_file)
    with pytest.raises(InputError, match=r"nowhere: cannot be read"):
        train(tmp_path / "no cohort", tmp_path / "b", VGG, weights=tmp_path / "nowhere")
    train(cohort, tmp_path / "compact", SHORT)
    checkpoint = tmp_path / "compact.work" / "basenet.safetensors"
    with pytest.raises(InputError, match="not a checkpoint of this recipe's BaseNet"):
        train(cohort, tmp_path / "b", VGG, init=checkpoint)
    with pytest.raises(OutputError, match="another cohort, recipe or seed"):
        train(cohort, tmp_path / "b", VGG, work=tmp_path / "compact.work")
