"""BaseNet's training: the weights it starts from, the paper's recipe, frozen paths."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from phantoms.small_cohort import draw_cohort
from phantoms.tiny_recipe import SHORT, TINY, narrow_basenet

from situs.anatomy import SITES
from situs.cohort.slices import open_slices
from situs.errors import InputError, OutputError
from situs.learn import basenet as module
from situs.learn import vgg
from situs.learn.basenet import embed, new_basenet, train_basenet
from situs.learn.devices import CPU
from situs.learn.features import embed_features, keep_features
from situs.learn.given import read_given
from situs.learn.recipe import PAPER, RECIPES
from situs.learn.vgg import vgg16_basenet
from situs.progress import silent

# The paper's recipe, with paths a few channels wide.
VGG = replace(
    PAPER,
    spec=replace(PAPER.spec, size_px=32),
    basenet_samples=64,
    relation_samples=64,
    n_neighbors=2,
    batch=16,
    relation_batch=16,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def slices(cohort):
    return open_slices(cohort, VGG.spec)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Networks with few channels."""
    monkeypatch.setattr(module, "compact_basenet", narrow_basenet)
    monkeypatch.setattr(module, "vgg16_basenet", partial(vgg16_basenet, widths=(2, 3, 4, 4, 6), hidden=8))


@pytest.fixture
def vgg_file(tmp_path):
    torch.manual_seed(5)
    tensors = module.vgg16_basenet(len(SITES), 32).local_path.features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def learn(slices, work, recipe=VGG, given=None, **others):
    return train_basenet(slices, np.arange(len(slices)), recipe, 0, work, given=given, **others)


def test_the_paper_s_numbers():
    """Section 3.4: 30 and 15 epochs of 80 % of 15,425 slices, SGD 1e-3, momentum 0.9, weight decay 5e-4."""
    assert RECIPES["paper"] is PAPER
    assert PAPER.basenet_samples == 30 * 12_340 and PAPER.relation_samples == 15 * 12_340
    assert round(0.8 * 15_425) == 12_340
    assert (PAPER.learning_rate, PAPER.momentum, PAPER.weight_decay) == (1e-3, 0.9, 5e-4)
    assert PAPER.spec.size_px == 224


def holds(path, tensors):
    return all(torch.equal(t, tensors[f"features.{name}"]) for name, t in path.features.state_dict().items())


def test_paper_recipe_fine_tuned(slices, vgg_file, tmp_path):
    given = read_given(VGG, (), vgg_file)
    first = learn(slices, tmp_path / "b", given=given)
    assert not holds(first.global_path, torch.load(vgg_file))
    assert not (tmp_path / "b" / "paint.pt").exists()  # its paths do not paint
    assert not torch.equal(first.fc1.weight, learn(slices, tmp_path / "c").fc1.weight)


def test_a_file_of_weights_is_read_once_for_all_trainings(slices, vgg_file, tmp_path, monkeypatch):
    """Read and hashed once, whatever is trained from it; a training leaves the given weights as they were."""
    reads = {"load": 0, "digest": 0}
    real_load, real_digest = torch.load, vgg.digest

    def load(path, *args, **kwargs):
        reads["load"] += path == vgg_file
        return real_load(path, *args, **kwargs)

    def digest(source):
        reads["digest"] += source == vgg_file
        return real_digest(source)

    monkeypatch.setattr(torch, "load", load)
    for name in ("checkpoints", "run", "vgg"):
        monkeypatch.setattr(f"situs.learn.{name}.digest", digest)
    given = read_given(VGG, (), vgg_file)
    before = {name: tensor.clone() for name, tensor in given["weights"].tensors.items()}
    one, other = (learn(slices, tmp_path / name, given=given) for name in "ab")
    assert reads == {"load": 1, "digest": 1}
    assert torch.equal(one.global_path.features[0].weight, other.global_path.features[0].weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given["weights"].tensors.items())


@pytest.mark.slow
def test_paper_recipe_frozen_goes_on_where_it_was(slices, vgg_file, tmp_path, monkeypatch):
    """Only the fully connected layers learn, from features that are kept in a file."""
    monkeypatch.setattr("situs.learn.features._BATCH", 7)
    frozen = replace(VGG, frozen=True)
    given, tensors = read_given(frozen, (), vgg_file), torch.load(vgg_file)
    basenet = learn(slices, tmp_path / "whole", frozen, given)
    assert holds(basenet.global_path, tensors) and holds(basenet.local_path, tensors)
    rare = slices.site == slices.site[0]
    chosen = np.flatnonzero(~rare | (np.cumsum(rare) == 1))  # one site is rare, the others are not
    kept = keep_features(basenet, slices, chosen, tmp_path / "some", CPU, silent, training=True)
    assert len(kept.values) == len(chosen) + 1
    rows, rare = np.arange(len(chosen)), rare[chosen]
    views = slices.batch(chosen)
    assert len(np.unique(views.global_view, axis=0)) < len(chosen)  # some regions share a slice
    # Of over-sampled sites alone, the mirrored examples are kept too. Embedded as from the views.
    for mirror in (0, 1):

        def change(batch, step=1 - 2 * mirror):
            views = (np.ascontiguousarray(v[..., ::step]) for v in (batch.global_view, batch.local_view))
            return replace(batch, **dict(zip(("global_view", "local_view"), views, strict=True)))

        paths = (basenet.global_path, basenet.local_path)
        changed = change(views)
        pair = (changed.global_view, changed.local_view)
        with torch.no_grad():
            seen = [path(torch.from_numpy(view)).features for path, view in zip(paths, pair, strict=True)]
        found = kept.take(rows, np.full(len(rows), mirror))
        same = rare | (mirror == 0)
        np.testing.assert_allclose(found[same], torch.cat(seen, dim=1)[same], rtol=0.05, atol=0.02)
        np.testing.assert_array_equal(found[~same], kept.values[rows[~same]])
        found = embed_features(basenet, kept, np.full(len(rows), mirror), lambda done: None)
        for one, other in zip(found, embed(basenet, slices, chosen, change=change), strict=True):
            np.testing.assert_allclose(one[same], other[same], atol=0.02)
    for stage in ("features", "fc"):

        def stop(now, done, total, message="", stage=stage):
            if now == stage and done >= total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            learn(slices, tmp_path / "parts", frozen, given, progress=stop)
    parts = learn(slices, tmp_path / "parts", frozen, given)
    for name, tensor in parts.state_dict().items():
        assert torch.equal(tensor, basenet.state_dict()[name])


def test_trainings_of_the_same_paths_share_their_features(slices, vgg_file, tmp_path):
    frozen = replace(VGG, frozen=True)
    given, stages = read_given(frozen, (), vgg_file), []

    def note(stage, *rest):
        stages.append(stage)

    for seed, work in enumerate("ab"):
        stages.clear()
        train_basenet(
            slices, np.arange(len(slices)), frozen, seed, tmp_path / work, note, given=given,
            features=tmp_path / "kept",
        )  # fmt: skip
        assert ("features" in stages) == (seed == 0) and "fc" in stages
    assert len(list((tmp_path / "kept").glob("*.f16"))) == 1
    learn(slices, tmp_path / "c", frozen, given, features=tmp_path / "kept")
    some = np.arange(len(slices) - 1)
    train_basenet(slices, some, frozen, 0, tmp_path / "d", given=given, features=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.f16"))) == 2


@pytest.mark.slow
def test_what_does_not_fit_the_recipe_is_refused(cohort, slices, vgg_file, tmp_path):
    for words, recipe, init, weights in (
        ("'tiny' has no VGG16", TINY, (), vgg_file),
        ("give the weights that are to be kept", replace(VGG, frozen=True), (), None),
        ("frozen: the recipe 'tiny' has no VGG16", replace(TINY, frozen=True), [vgg_file], None),
        ("nowhere: cannot be read", VGG, (), tmp_path / "nowhere"),
        ("nowhere: cannot be read", VGG, [tmp_path / "nowhere"], None),
    ):
        with pytest.raises(InputError, match=words):
            read_given(recipe, init, weights)
    learn(open_slices(cohort, SHORT.spec), tmp_path / "compact", SHORT)
    with pytest.raises(InputError, match="not a checkpoint of this recipe's BaseNet"):
        read_given(VGG, [tmp_path / "compact" / "basenet.pt"], None)
    with pytest.raises(OutputError, match="holds a run of other settings"):
        learn(slices, tmp_path / "compact")


def test_a_network_that_paints_is_never_made_for_views_without_the_region():
    with pytest.raises(InputError, match="'tiny': its network needs views whose last channel is 'roi'"):
        new_basenet(replace(TINY, spec=replace(TINY.spec, channels=("brain", "wide"))), 0)
    new_basenet(VGG, 0)  # the paper's needs none


def test_embedding_one_by_one_and_together(slices):
    """Batches are not seen, the mode is left as it was, and what is changed is what is embedded."""
    basenet = new_basenet(VGG, 1).train()
    done = []
    embeddings, logits = embed(basenet, slices, np.arange(40), done.append)
    assert basenet.training and done == [32, 40]
    assert embeddings.shape == (40, basenet.width) and logits.shape == (40, len(SITES))
    one, its_logits = embed(basenet, slices, np.array([33]))
    np.testing.assert_allclose(embeddings[33], one[0], atol=1e-3)
    np.testing.assert_allclose(logits[33], its_logits[0], atol=1e-4)

    def swap(batch):
        return replace(batch, global_view=batch.local_view, local_view=batch.global_view)

    changed, _ = embed(basenet, slices, np.array([33]), change=swap)
    assert not np.allclose(changed, one, atol=1e-3)
