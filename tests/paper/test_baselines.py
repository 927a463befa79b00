"""Baselines: their prediction is the argmax of their logits, and a logit is a log-probability."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestCentroid

from situs.anatomy import SITES
from situs.neighbors import References
from situs.paper.baselines import BASELINES, fit_baselines, fit_centroids, fit_prototypes
from situs.paper.baselines import _log_probability as log_probability
from situs.paper.baselines import _means_without as means_without
from situs.paper.results import predict_sites

CLASSES = [2, 5, 9]


def items(X, sites, patients):
    return References(X, sites, np.array([f"i{i}" for i in range(len(sites))]), patients)


def clouds(n=40, seed=0):
    """Three classes around the corners of a triangle, 4 patients; the last class is rare."""
    rng = np.random.default_rng(seed)
    sites = np.repeat(CLASSES, [n, n, n // 4])
    X = np.eye(3)[np.searchsorted(CLASSES, sites)] + rng.normal(0, 0.2, (len(sites), 3))
    return items(X.astype(np.float32), sites, np.array([f"p{i % 4}" for i in range(len(sites))]))


@pytest.fixture(scope="module")
def fitted():
    return fit_baselines(clouds(), clouds(), seed=0)


def test_all_learn_what_is_easy(fitted):
    unseen = clouds(seed=1)
    assert tuple(fitted) == BASELINES == ("kNN", "nearest centroid", "logistic regression", "mean prototypes")
    for name, baseline in fitted.items():
        assert (predict_sites(baseline.logits(unseen.embeddings)) == unseen.sites).mean() > 0.9, name


@pytest.mark.parametrize("name", BASELINES)
def test_the_prediction_is_the_argmax_of_the_logits_and_equal_frequencies_change_nothing(fitted, name):
    # Points between the classes, and beyond them: there two classifiers of one name would differ.
    X = np.random.default_rng(2).normal(0.3, 1, (500, 3)).astype(np.float32)
    logits = fitted[name].logits(X)
    assert logits.shape == (500, len(SITES))
    absent = np.setdiff1d(np.arange(len(SITES)), CLASSES)
    assert np.isneginf(logits[:, absent]).all() and np.isfinite(logits[:, CLASSES]).all()
    predictions = predict_sites(logits)
    np.testing.assert_array_equal(predictions, logits.argmax(axis=1))
    for frequency in (1.0, 0.1, 1028):
        equal = np.full(len(SITES), frequency)
        np.testing.assert_array_equal(predict_sites(logits, equal), predictions)
    # What is more frequent is predicted more often, what does not occur never.
    frequencies = np.ones(len(SITES))
    frequencies[2], frequencies[5] = 5, 0
    adjusted = predict_sites(logits, frequencies)
    assert (adjusted[predictions == 2] == 2).all() and (adjusted != 5).all()


def test_knn_counts_votes():
    """Of 5 neighbours two are of one site, two of another, one of a third: of equal votes the first site
    wins, and half a vote is made up for by 2.1 times the frequency."""
    X = np.array([[0, 0], [0, 1], [1, 0], [5, 5], [5, 6], [0, 2]], np.float32)
    knn = fit_baselines(*[items(X, np.array([4, 4, 1, 1, 1, 8]), np.array(["p"] * 6))] * 2, 0, 5)["kNN"]
    logits = knn.logits(np.array([[0.1, 0.1]], np.float32))[0]  # all but (5, 6)
    np.testing.assert_allclose(logits[[1, 4, 8]], np.log([0.4, 0.4, 0.2]))
    assert predict_sites(logits[None]).tolist() == [1]
    frequencies = np.ones(len(SITES))
    frequencies[8] = 2.1
    assert predict_sites(logits[None], frequencies).tolist() == [8]


def test_the_nearest_centroid_is_that_of_the_field():
    train = clouds()
    X = np.random.default_rng(2).normal(0.3, 1, (500, 3)).astype(np.float32)
    theirs = NearestCentroid().fit(train.embeddings, train.sites)
    np.testing.assert_array_equal(predict_sites(fit_centroids(train).logits(X)), theirs.predict(X))


def test_centroids_give_the_posterior_of_round_clouds():
    """Two sites at -1 and 1, 4 examples each, squared deviations of .01 in x and of .09 in y: the pooled
    variance is 8 (.01 + .09) / (2 * 6)."""
    signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * (0.1, 0.3)
    X = np.concatenate([signs + np.array([x, 0]) for x in (-1, 1)]).astype(np.float32)
    centroids = fit_centroids(items(X, np.repeat([3, 7], 4), np.array(["p"] * 8)))
    points = np.array([[0.2, 0.5], [-0.3, 0.1]], np.float32)
    logits = centroids.logits(points)
    spread = 0.8 / 12
    densities = [multivariate_normal([x, 0], spread).logpdf(points) for x in (-1, 1)]
    np.testing.assert_allclose(logits[:, 7] - logits[:, 3], densities[1] - densities[0], rtol=1e-5)


@pytest.mark.parametrize("copies", [1, 3])
def test_classes_without_any_spread(copies):
    """A single example of each site, or the same one several times: nothing is divided by zero."""
    X = np.repeat(np.eye(3, 4, dtype=np.float32), copies, axis=0)
    centroids = fit_centroids(items(X, np.repeat([0, 3, 6], copies), np.array(["p"] * len(X))))
    frequencies = np.arange(1.0, 16)
    assert predict_sites(centroids.logits(X), frequencies).tolist() == np.repeat([0, 3, 6], copies).tolist()


def test_the_probability_that_a_prototype_s_score_stands_for():
    """Of 5 classes the own one weighs 4 times: where it has the probability .3, the expected error
    .3 * 4 (s - 1)^2 + .7 s^2 is least at the score s = 1.2 / 1.9."""
    score = 1.2 / 1.9
    outputs = torch.full((1, 5), float(np.log(score / (1 - score))))
    np.testing.assert_allclose(log_probability(outputs).exp().numpy(), 0.3, rtol=1e-5)
    grid = np.linspace(0, 1, 1901)
    assert grid[(1.2 * (grid - 1) ** 2 + 0.7 * grid**2).argmin()] == pytest.approx(score, abs=1e-3)


def test_means_leave_the_own_patient_out():
    train = clouds(8)
    codes, patients = np.searchsorted(CLASSES, train.sites), np.arange(len(train)) % 4
    means = means_without(train.embeddings, codes, patients)
    for p, c in np.ndindex(4, 3):
        others = (codes == c) & (patients != p)
        np.testing.assert_allclose(means[p, c], train.embeddings[others].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_class_of_one_patient_keeps_its_mean():
    X = np.eye(3, dtype=np.float32)
    means = means_without(X, np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert means[1, 1].tolist() == [0, 0, 1] and means[0, 0].tolist() == [0, 1, 0]


def test_the_same_seed_gives_the_same_logits_and_leaves_torch_alone():
    state = torch.random.get_rng_state()
    points = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
    logits = [fit_prototypes(clouds(), seed, epochs=1).logits(points)[:, CLASSES] for seed in (4, 4, 5)]
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] != logits[2]).any()


def test_fewer_examples_than_neighbours():
    X = np.eye(4, dtype=np.float32)
    train = items(X, np.array([0, 0, 3, 3]), np.array(["p"] * 4))
    assert predict_sites(fit_baselines(train, train, 0)["kNN"].logits(X)).tolist() == [0] * 4
