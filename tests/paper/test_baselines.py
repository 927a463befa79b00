"""Baselines: each learns what it can, and no mean holds the target's own patient."""

import numpy as np

from situs.neighbors import References
from situs.paper.baselines import PrototypeRelation, fit_baselines
from situs.paper.baselines import _means_without as means_without


def fit_on(X, y, groups):
    items = References(X, y, np.array([f"i{i}" for i in range(len(y))]), groups)
    return fit_baselines(items, items, seed=0)


def clouds(n=40, seed=0):
    """Three classes around the corners of a triangle, 4 patients; the last class is rare."""
    rng = np.random.default_rng(seed)
    y = np.repeat([2, 5, 9], [n, n, n // 4])
    corners = {2: (1, 0, 0), 5: (0, 1, 0), 9: (0, 0, 1)}
    X = np.array([corners[c] for c in y]) + rng.normal(0, 0.2, (len(y), 3))
    return X.astype(np.float32), y, np.array([f"p{i % 4}" for i in range(len(y))])


def test_all_learn_what_is_easy():
    X, y, groups = clouds()
    unseen, truth, _ = clouds(seed=1)
    fitted = fit_on(X, y, groups)
    assert list(fitted) == ["kNN", "nearest centroid", "logistic regression", "mean prototypes"]
    for name, classifier in fitted.items():
        assert (classifier.predict(unseen) == truth).mean() > 0.9, name


def test_means_leave_the_own_patient_out():
    X, y, groups = clouds(8)
    codes, patients = np.unique(y, return_inverse=True)[1], np.unique(groups, return_inverse=True)[1]
    found = means_without(X, codes, patients)
    for p, c in np.ndindex(4, 3):
        others = (codes == c) & (patients != p)
        np.testing.assert_allclose(found[p, c], X[others].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_class_of_one_patient_keeps_its_mean():
    X = np.eye(3, dtype=np.float32)
    found = means_without(X, np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert found[1, 1].tolist() == [0, 0, 1] and found[0, 0].tolist() == [0, 1, 0]


def test_the_same_seed_gives_the_same_answers_and_leaves_torch_alone():
    import torch

    X, y, groups = clouds()
    state = torch.random.get_rng_state()
    points = np.random.default_rng(3).normal(size=(200, 3)).astype(np.float32)
    answers = [PrototypeRelation(2, random_state=s).fit(X, y, groups).predict(points) for s in (4, 4, 5)]
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()


def test_fewer_examples_than_neighbours():
    X, y, groups = np.eye(4, dtype=np.float32), np.array([0, 0, 3, 3]), np.array(["p"] * 4)
    assert fit_on(X, y, groups)["kNN"].predict(X).shape == (4,)
