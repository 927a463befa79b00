"""Predictions from logits and priors, and the counts that follow."""

import numpy as np
from phantoms.made_up_results import FALX, PARIETAL, TRUTH, made_up_results

from situs.anatomy import SITES
from situs.paper.results import METHODS, PRIOR_ADJUSTED, predict_sites


def test_a_prior_counts_as_much_as_the_odds():
    logits = np.full((3, len(SITES)), -9.0)
    logits[:, 0], logits[:, 1] = np.log(9), np.log([1.5, 4, 1.5])
    frequencies = np.ones(len(SITES))
    assert predict_sites(logits, frequencies).tolist() == [0, 0, 0]
    frequencies[1] = 3.0
    assert predict_sites(logits, frequencies).tolist() == [0, 1, 0]
    assert predict_sites(logits, 1000 * frequencies).tolist() == [0, 1, 0]  # in any unit
    frequencies[0] = 0.0
    assert predict_sites(logits, frequencies).tolist() == [1, 1, 1]


def test_equal_frequencies_change_nothing_not_even_by_rounding():
    """In half precision logits are often equal or neighbours."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (5000, len(SITES))).astype(np.float16)
    for frequency in (1, 0.3, 7, 1028):
        equal = np.full(len(SITES), frequency)
        np.testing.assert_array_equal(predict_sites(logits, equal), predict_sites(logits))


def test_every_method_is_counted_as_it_is_and_prior_adjusted():
    results = made_up_results()
    counts = results.counts
    names = [*METHODS, "kNN"]
    for cohort in ("test", "balanced"):
        assert list(counts[cohort]) == [*names, *(name + PRIOR_ADJUSTED for name in names)]
        confusion = counts[cohort]["BaseNet"].sum(axis=(0, 1))
        assert confusion[:, PARIETAL].sum() == confusion.sum() == 2 * len(TRUTH)
    for name in names:
        adjusted = {cohort: counts[cohort][name + PRIOR_ADJUSTED] for cohort in counts}
        np.testing.assert_array_equal(adjusted["balanced"], counts["balanced"][name])
        # The falx is 1 behind, and three times as frequent: more than the factor e.
        confusion = adjusted["test"].sum(axis=(0, 1))
        assert confusion[:, FALX].sum() == confusion.sum() == 2 * len(TRUTH)


def test_sites_without_training_are_named():
    assert made_up_results().untrained == ["parietal region"]


def test_counts_at_equal_time():
    """RN+NN takes 10 s an epoch, RN 3 s with the first seed and 25 with the second. When RN+NN has trained
    for two epochs, RN has for six, or not even for one: then its first counts."""
    results = made_up_results()
    results.seconds["BaseNet+RN+NN"] = [np.arange(10.0, 61, 10)] * 2
    results.seconds["BaseNet+RN"] = [np.arange(3.0, 19, 3), np.arange(25.0, 151, 25)]
    late, first = (results.after_epoch("test", "BaseNet+RN", epoch) for epoch in (6, 1))
    assert (late != first).any()
    counts = results.at_equal_time("test", "BaseNet+RN", "BaseNet+RN+NN", 2)
    np.testing.assert_array_equal(counts, np.stack([late[0], first[1]]))
    own = results.at_equal_time("test", "BaseNet+RN+NN", "BaseNet+RN+NN", 2)
    np.testing.assert_array_equal(own, results.after_epoch("test", "BaseNet+RN+NN", 2))
