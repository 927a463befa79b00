"""Relation Networks on the nearest and on all references: they learn, and no target meets its own patient."""

import numpy as np
import pytest
import torch

from situs.anatomy import SITES
from situs.devices import CPU
from situs.neighbors import References
from situs.relations import TrainedRelations, train_relations

M = len(SITES)


def clouds(n=60, seed=0):
    """Three sites around the corners of a square, 4 patients; the last site is rare."""
    rng = np.random.default_rng(seed)
    sites = np.repeat([2, 5, 9], [n, n, n // 4])
    corners = {2: (1, 0, 0, 0), 5: (0, 1, 0, 0), 9: (0, 0, 1, 0)}
    X = (np.array([corners[s] for s in sites]) + rng.normal(0, 0.25, (len(sites), 4))).astype(np.float32)
    patients = np.array([f"p{i % 4}" for i in range(len(sites))])
    return References(X, sites, patients, patients)


@pytest.mark.parametrize("kind", ["nearest", "all"])
def test_learns_and_tells_after_every_epoch(kind):
    train, test = clouds(), clouds(seed=1)
    right = []

    def after(epoch, relations):
        said = relations.predict(test.embeddings, relations.find(test.embeddings))
        right.append((epoch, float((said == test.sites).mean())))

    state = torch.random.get_rng_state()
    train_relations(train, kind, 3, epochs=12, after=after)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [epoch for epoch, _ in right] == list(range(1, 13))
    assert right[-1][1] > 0.9


@pytest.mark.parametrize("kind", ["nearest", "all"])
def test_the_seed_decides_and_predicting_changes_nothing(kind):
    train = clouds(12)

    def weights(seed, after=None):
        return train_relations(train, kind, 2, 2, seed, after).network.state_dict()

    def ask(epoch, relations):
        relations.predict(train.embeddings, relations.find(train.embeddings))

    first, again, other = weights(0), weights(0, ask), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["f.0.weight"], other["f.0.weight"])


def logits_of(references, part):
    relations = TrainedRelations("all", references, 3, 0, CPU, dropout=0.0)
    with torch.no_grad():
        targets = torch.from_numpy(references.embeddings[part])
        return relations.logits(targets, None, part, torch.Generator().manual_seed(0))


def test_no_pair_holds_the_target_s_own_patient():
    """Moving every reference of a patient leaves the relations of its own targets as they were."""
    references = clouds(40)
    own = np.flatnonzero(references.patients == "p1")[:6]
    others = np.flatnonzero(references.patients == "p2")[:6]
    moved = references.embeddings.copy()
    moved[references.patients == "p1"] += 3
    # The targets stay where they were; what they are related to has moved.
    changed = TrainedRelations(
        "all",
        References(moved, references.sites, references.ids, references.patients),
        3,
        0,
        CPU,
        dropout=0.0,
    )
    with torch.no_grad():
        for part, alike in ((own, True), (others, False)):
            targets = torch.from_numpy(references.embeddings[part])
            after = changed.logits(targets, None, part, torch.Generator().manual_seed(0))
            assert torch.allclose(logits_of(references, part), after) == alike


def test_a_site_without_references_is_never_said():
    references = clouds(20)
    logits = logits_of(references, np.arange(10))
    absent = [s for s in range(M) if s not in (2, 5, 9)]
    assert (logits[:, absent] == -20).all() and (logits[:, [2, 5, 9]] > -20).all()


def test_the_mean_over_pairs_by_hand():
    """With one reference a site, of another patient, every pair is that reference with itself."""
    X = np.eye(4, dtype=np.float32)[:3]
    references = References(X, np.array([1, 4, 6]), np.array(["a", "b", "c"]), np.array(["a", "b", "c"]))
    relations = TrainedRelations("all", references, 3, 0, CPU, dropout=0.0)
    with torch.no_grad():
        found = relations.logits(torch.from_numpy(X[:1]), None, np.array([0]), torch.Generator())
        pool = torch.from_numpy(X)[[0, 1, 2]][None, :, None]
        expected = relations.network.relate(
            torch.from_numpy(X[:1]), pool, torch.ones(1, 3, 1, dtype=torch.bool)
        )
    np.testing.assert_allclose(found[0, [4, 6]], expected[0, 1:], rtol=1e-4)
    assert found[0, 1] == -20  # only its own
