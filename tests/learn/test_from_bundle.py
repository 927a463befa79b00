"""Weights of BaseNet out of a bundle: the network computes what the bundle's does, and can be trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms.small_bundle import RECIPE, SPEC, small_bundle, small_model

from situs.anatomy import SITES, Site, SiteList
from situs.bundle import read_bundle
from situs.errors import InputError
from situs.learn.basenet import new_basenet
from situs.learn.checkpoints import GivenWeights
from situs.learn.compact import CompactPath
from situs.learn.from_bundle import (
    average_weights,
    is_bundle,
    read_bundle_weights,
    unfold_normalisation,
)
from situs.learn.given import read_given
from situs.learn.nets import BaseNet
from situs.learn.recipe import COMPACT
from situs.runtime import Runtime


def views(n, channels=3):
    """Views (n, channels, s, s) of noise with a region in the middle, global and local."""
    rng = np.random.default_rng(3)
    both = rng.integers(0, 256, (2, n, channels, SPEC.size_px, SPEC.size_px), dtype=np.uint8)
    both[:, :, -1] = 0
    both[:, :, -1, 10:20, 12:22] = 255
    return both


def loaded(basenet, recipe, examples):
    """`basenet` with the weights of the small bundle."""
    read_bundle_weights(read_bundle(small_bundle()), recipe, basenet).load_into(basenet)
    unfold_normalisation(basenet, [tuple(torch.from_numpy(examples))])
    return basenet


def answers(basenet, examples, training):
    """Embeddings and shares; in training mode, but without dropout, normalised by the batch itself."""
    basenet.train(training)
    basenet.dropout.eval()
    with torch.no_grad():
        output = basenet(*map(torch.from_numpy, examples))
    return output.embedding.numpy(), output.shares.numpy()


@pytest.mark.parametrize("training", [False, True])
def test_the_network_computes_the_same_in_use_and_in_training(training):
    examples = views(12)
    expected = Runtime(read_bundle(small_bundle())).embed(*examples)
    embedding, shares = answers(loaded(small_model(seed=5).basenet, RECIPE, examples), examples, training)
    assert embedding == pytest.approx(expected.embedding, abs=1e-4)
    assert shares == pytest.approx(expected.shares, abs=1e-4)


def test_channels_that_the_bundle_lacks_change_nothing_at_first():
    spec = replace(SPEC, channels=("brain_mirrored", *SPEC.channels))
    n = len(spec.channels)
    path = CompactPath(15, n, SPEC.size_px, (4, 4, 8, 8), 4)
    wider = BaseNet(
        path, CompactPath(15, n, SPEC.size_px, (4, 4, 8, 8), 4, context=path.n_flat), 15, hidden=16, width=12
    )
    examples = views(6, n)
    expected = Runtime(read_bundle(small_bundle())).embed(*np.ascontiguousarray(examples[:, :, 1:]))
    embedding, _ = answers(loaded(wider, replace(RECIPE, spec=spec), examples), examples, False)
    assert embedding == pytest.approx(expected.embedding, abs=1e-4)
    weight = wider.global_path.stem[0].weight
    assert not weight[:, 0].any() and weight[:, 1:].any()


def small_basenet(n_sites):
    path = CompactPath(n_sites, 3, SPEC.size_px, (4, 4, 8, 8), 4)
    other = CompactPath(n_sites, 3, SPEC.size_px, (4, 4, 8, 8), 4, context=path.n_flat)
    return BaseNet(path, other, n_sites, hidden=16, width=12)


def test_sites_in_another_order_change_nothing_but_the_order():
    examples = views(6)
    expected = Runtime(read_bundle(small_bundle())).embed(*examples)
    turned, basenet = SiteList(reversed(SITES)), small_basenet(15)
    read_bundle_weights(read_bundle(small_bundle()), RECIPE, basenet, turned).load_into(basenet)
    unfold_normalisation(basenet, [tuple(torch.from_numpy(examples))])
    basenet.eval()
    with torch.no_grad():
        output = basenet(*map(torch.from_numpy, examples))
    assert output.embedding.numpy() == pytest.approx(expected.embedding, abs=1e-4)
    assert output.shares.numpy()[:, ::-1] == pytest.approx(expected.shares, abs=1e-4)
    probability = output.site_logits.softmax(dim=1).numpy()
    assert probability[:, ::-1] == pytest.approx(expected.site_probability, abs=1e-4)
    assert output.midline.numpy() == pytest.approx(expected.midline, abs=1e-3)


def test_weights_of_a_site_that_the_bundle_lacks_start_at_zero():
    sites = SiteList([Site("orbit", "Orbit"), *SITES[2:5]])
    basenet = small_basenet(4)
    whole = read_bundle_weights(read_bundle(small_bundle()), RECIPE, small_basenet(15)).tensors
    some = read_bundle_weights(read_bundle(small_bundle()), RECIPE, basenet, sites).tensors
    assert not some["fc3.weight"][0].any()
    assert torch.equal(some["fc3.weight"][1:], whole["fc3.weight"][2:5])
    assert torch.equal(some["fc_shares.bias"][[0, 2, 3, 4]], whole["fc_shares.bias"][[0, 3, 4, 5]])
    paint, all_paint = some["local_path.paint.weight"], whole["local_path.paint.weight"]
    assert torch.equal(paint[[0, 2, 3, 4, 5]], all_paint[[0, 3, 4, 5, 16]]) and not paint[1].any()
    ends = some["fc1.weight"][:, -5:], whole["fc1.weight"][:, -16:]  # "none" and the sites, local path
    assert torch.equal(ends[0][:, [0, 2, 3, 4]], ends[1][:, [0, 3, 4, 5]]) and not ends[0][:, 1].any()
    flat = basenet.global_path.n_features - 5
    assert torch.equal(some["fc1.weight"][:, :flat], whole["fc1.weight"][:, :flat])
    basenet.load_state_dict(some, strict=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, local_mm=70.0), "local_mm"),
        (replace(SPEC, channels=("brain", "roi")), "channels wide"),
    ],
)
def test_other_views_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        read_bundle_weights(read_bundle(small_bundle()), replace(RECIPE, spec=spec), small_model().basenet)


def test_other_networks_are_refused():
    path = CompactPath(15, 3, SPEC.size_px, (4, 4, 8, 16), 4)
    other = BaseNet(path, path, 15, hidden=16, width=12)
    with pytest.raises(InputError, match="does not hold the recipe's networks"):
        read_bundle_weights(read_bundle(small_bundle()), RECIPE, other)


def test_the_shipped_bundle_s_weights_fit_the_recipe():
    given = read_given(COMPACT, ["shipped"], None)["init"]
    basenet = new_basenet(COMPACT, 0)
    given.load_into(basenet)
    assert given.folded and set(given.tensors) == set(dict(basenet.named_parameters()))
    assert all(tensor.device.type == "cpu" for tensor in given.tensors.values())


def test_several_bundles_start_from_the_mean_of_their_weights():
    parts = [
        GivenWeights(Path(name), name, {"a": torch.tensor(values), "b": torch.ones(2)}, folded=True)
        for name, values in (("x", [1.0, 5.0]), ("y", [2.0, 7.0]), ("z", [6.0, 0.0]))
    ]
    mean = average_weights(parts)
    assert mean.folded and mean.tensors["a"].tolist() == [3.0, 4.0] and mean.tensors["b"].tolist() == [1, 1]
    assert mean.sha256 not in {part.sha256 for part in parts}
    assert average_weights(parts[:1]) is parts[0]
    again = average_weights(parts[::-1])
    assert again.sha256 != mean.sha256  # another run, though the mean is the same


def test_a_checkpoint_is_not_averaged_and_some_weights_are_needed(tmp_path):
    with pytest.raises(InputError, match="must all be bundles"):
        read_given(COMPACT, ["shipped", tmp_path / "basenet.pt"], None)
    with pytest.raises(InputError, match="would not be trained at all"):
        read_given(COMPACT.shortened(0), [], None)


def test_what_is_a_bundle(tmp_path):
    (tmp_path / "basenet.pt").write_bytes(b"")
    assert is_bundle("shipped") and is_bundle(tmp_path) and not is_bundle(tmp_path / "basenet.pt")


def test_a_training_that_goes_on_is_shorter_and_does_not_start_with_painting():
    recipe = COMPACT.continued()
    assert recipe.paint_samples == 0 and recipe.painting_weight == COMPACT.painting_weight
    assert recipe.basenet_samples < COMPACT.basenet_samples and recipe.spec == COMPACT.spec
    half = COMPACT.shortened(0.5)
    assert (half.paint_samples, half.basenet_samples) == (30_000, 90_000)
    assert half.relation_samples == COMPACT.relation_samples
