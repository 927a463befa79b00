"""Relation Networks on the nearest and on all references: they learn, and no target meets its own patient."""

import numpy as np
import pytest
import torch
from phantoms.benchmark import load_benchmark

from situs.anatomy import SITES
from situs.errors import InputError
from situs.learn.losses import relation_loss
from situs.learn.nets import ABSENT_LOGIT, RelationNetwork
from situs.learn.relations import RelationModel, train_relations
from situs.neighbors import References

M = len(SITES)


def clouds(n=60, seed=0):
    """Three sites around the corners of a square, 4 patients; the last site is rare."""
    rng = np.random.default_rng(seed)
    sites = np.repeat([2, 5, 9], [n, n, n // 4])
    corners = {2: (1, 0, 0, 0), 5: (0, 1, 0, 0), 9: (0, 0, 1, 0)}
    X = (np.array([corners[s] for s in sites]) + rng.normal(0, 0.25, (len(sites), 4))).astype(np.float32)
    patients = np.array([f"p{i % 4}" for i in range(len(sites))])
    return References(X, sites, patients, patients)


def predict(model, items):
    return model.scores(items.embeddings, model.find_neighbors(items.embeddings)).argmax(axis=1)


@pytest.mark.parametrize("choice", ["nearest", "all"])
def test_learns_and_tells_after_every_epoch(choice):
    """Far better than chance, which is a third, on clouds that a line divides."""
    train, test = clouds(40), clouds(40, seed=1)
    accuracies = {}

    def after_epoch(epoch, model):
        accuracies[epoch] = (predict(model, test) == test.sites).mean()

    state = torch.random.get_rng_state()
    train_relations(train, choice, 3, 4, after_epoch=after_epoch, hidden=32, batch=16)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(accuracies) == [1, 2, 3, 4]
    assert accuracies[4] > 0.7


@pytest.mark.parametrize("choice", ["nearest", "all"])
def test_the_seed_decides_and_predicting_changes_nothing(choice):
    train = clouds(12)

    def weights(seed, after_epoch=None):
        return train_relations(train, choice, 2, 2, seed, after_epoch, hidden=32).network.state_dict()

    def ask(epoch, model):
        predict(model, train)

    first, again, other = weights(0), weights(0, ask), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["f_last.weight"], other["f_last.weight"])


def untrained(references):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RelationNetwork(references.embeddings.shape[1], dropout=0.0)
    return RelationModel(network, "all", references, 3)


def logits_of(references, part, embeddings=None):
    """Of targets at their own place, or at that in `embeddings`."""
    numbers = np.unique(references.patients, return_inverse=True)[1]
    with torch.no_grad():
        targets = torch.from_numpy((references.embeddings if embeddings is None else embeddings)[part])
        generator = torch.Generator().manual_seed(0)
        patients = torch.from_numpy(numbers[part])
        return untrained(references)._training_logits(targets, None, part, patients, generator)


def test_no_pair_holds_the_target_s_own_patient():
    """Moving every reference of a patient leaves the relations of its own targets as they were."""
    references = clouds(40)
    own = np.flatnonzero(references.patients == "p1")[:6]
    others = np.flatnonzero(references.patients == "p2")[:6]
    moved = references.embeddings.copy()
    moved[references.patients == "p1"] += 3
    # The targets stay where they were; what they are related to has moved.
    changed = References(moved, references.sites, references.ids, references.patients)
    for part, alike in ((own, True), (others, False)):
        after = logits_of(changed, part, references.embeddings)
        assert torch.allclose(logits_of(references, part), after) == alike


def test_a_site_without_references_is_never_predicted():
    references = clouds(20)
    logits = logits_of(references, np.arange(10))
    absent = [s for s in range(M) if s not in (2, 5, 9)]
    assert (logits[:, absent] == ABSENT_LOGIT).all() and (logits[:, [2, 5, 9]] > ABSENT_LOGIT).all()


def test_the_mean_over_pairs_by_hand():
    """With one reference a site, of another patient, every pair is that reference with itself."""
    X = np.eye(4, dtype=np.float32)[:3]
    references = References(X, np.array([1, 4, 6]), np.array(["a", "b", "c"]), np.array(["a", "b", "c"]))
    logits = logits_of(references, np.array([0]))
    with torch.no_grad():
        sets, present = torch.from_numpy(X)[None, :, None], torch.ones(1, 3, 1, dtype=torch.bool)
        expected = untrained(references).network.logits(torch.from_numpy(X[:1]), sets, present)
    np.testing.assert_allclose(logits[0, [4, 6]], expected[0, 1:], rtol=1e-4)
    assert logits[0, 1] == ABSENT_LOGIT  # only its own


def test_logits_are_those_of_the_scores():
    train = clouds(20)
    model = train_relations(train, "nearest", 2, 2, hidden=32)
    neighbors = model.find_neighbors(train.embeddings)
    logits = model.logits(train.embeddings, neighbors)
    scores = model.scores(train.embeddings, neighbors)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(float))), rtol=1e-5)
    assert scores.dtype == np.float32 and not np.allclose(scores[:, 2], scores[:, 5])


def test_diverged_training_is_told():
    with pytest.raises(InputError, match="relation: the loss is"):
        train_relations(clouds(20), "nearest", 2, 5, hidden=32, learning_rate=1e30, momentum=0.9)


def test_embeddings_that_are_all_but_alike_do_not_diverge():
    """As of a network that has hardly learned: one direction, and a thousandth of it beside."""
    rng = np.random.default_rng(0)
    X = (1 + rng.normal(0, 1e-3, (60, 16))).astype(np.float32)
    names = np.array([f"p{n % 4}" for n in range(60)])
    references = References(X, np.arange(60) % 3, names, names)
    model = train_relations(references, "nearest", 2, 5, momentum=0.9, weight_decay=5e-4)
    assert float(model.network.scale) == pytest.approx(10, rel=0.01)
    same = References(np.zeros_like(X), references.sites, names, names)
    assert float(train_relations(same, "nearest", 2, 1).network.scale) == 1


def test_targets_of_their_own_are_labelled_by_the_references():
    """Half of the patients are none of the references'; they are told from no reference's patient."""
    references, targets = clouds(40), clouds(20, seed=2)
    strangers = np.array([f"q{i % 2}" if i % 2 else name for i, name in enumerate(targets.patients)])
    targets = References(targets.embeddings, targets.sites, strangers, strangers)
    model = train_relations(references, "nearest", 3, 8, targets=targets, hidden=32, batch=16)
    assert model.references is references
    assert (predict(model, references) == references.sites).mean() > 0.7


@pytest.mark.parametrize("k", [1, 3])
def test_a_step_is_the_plain_loop(k, monkeypatch):
    """Loss and gradients of all targets, classes and pairs at once, and one after the other."""
    benchmark = load_benchmark("relation")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)).astype(np.float32)
    names = np.array([f"p{n % 7}" for n in range(40)])
    references = References(X, np.arange(40) % 4, names, names, n_sites=4)
    torch.manual_seed(0)
    network = RelationNetwork(6, hidden=5, dropout=0.0)
    model = RelationModel(network, "nearest", references, k)
    part = np.arange(8)
    neighbors = model.find_neighbors(X[part], names[part])
    targets, truth = torch.from_numpy(X[part]), torch.from_numpy(references.sites[part])

    def gradients(logits):
        network.zero_grad()
        loss = relation_loss(logits, truth)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in network.parameters())]

    fast = gradients(model._training_logits(targets, neighbors, part, truth, torch.Generator()))
    assert len(fast) == 1 + len(list(network.parameters())) and all(g.abs().max() > 0 for g in fast)
    for at_once in (False, True):
        logits = benchmark.plain_logits(network, targets, torch.from_numpy(X), neighbors.indices, at_once)
        for a, b in zip(fast, gradients(logits), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
