"""Means, intervals and paired tests by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from situs.anatomy import SITE_KEYS, SITES
from situs.paper.claims import RARE, all_scores, bootstrap, compare, count, macro_f1, rare_f1, weighted_f1
from situs.synth.cohort import paper_slices

M = len(SITES)


def answers(n=600, right=0.6, seed=0, sites=range(M)):
    rng = np.random.default_rng(seed)
    truth = rng.choice(list(sites), n)
    said = [np.where(rng.random(n) < right, truth, rng.integers(0, M, n)) for _ in range(2)]
    return truth, said, rng.choice(["h1", "h2", "h3"], n)


def test_rare_sites_are_the_paper_s_six_smallest():
    slices = paper_slices()
    assert {SITE_KEYS[i] for i in RARE} == set(sorted(slices, key=slices.get)[:6])


def test_counts_by_hand():
    found = count(np.array([0, 0, 3]), [np.array([0, 1, 3]), np.array([0, 0, 0])], np.array(["b", "a", "b"]))
    assert found.shape == (2, 2, M, M)
    assert found[0, 0, 0, 1] == 1 and found[0, 1, 0, 0] == 1 and found[0, 1, 3, 3] == 1
    assert found[1, 1, 3, 0] == 1 and found.sum() == 6


def test_scores_against_scikit_learn():
    truth, said, heads = answers(sites=range(3, M))
    counts = count(truth, said, heads).sum(axis=1)
    scores = all_scores(counts)
    for one, answer in zip(scores, said, strict=True):
        expected = precision_recall_fscore_support(truth, answer, labels=range(M), zero_division=0)[:3]
        np.testing.assert_allclose(one[:, 3:M], np.array(expected)[:, 3:], rtol=1e-12)
        assert np.isnan(one[:, :3]).all()
        for mean, place in (("weighted", M), ("macro", M + 1)):
            f1 = f1_score(truth, answer, labels=range(3, M), average=mean, zero_division=0)
            assert one[2, place] == pytest.approx(f1)
    np.testing.assert_allclose(weighted_f1(counts), scores[:, 2, M])
    np.testing.assert_allclose(macro_f1(counts), scores[:, 2, M + 1])
    rare = [i for i in RARE if i >= 3]
    np.testing.assert_allclose(rare_f1(counts), scores[:, 2, rare].mean(axis=1))


def test_interval_is_that_of_drawing_heads():
    """Two heads, one all right, one all wrong: a draw is all right, half right or all wrong."""
    truth, said = np.array([4, 4]), [np.array([4, 5])]
    low, high = bootstrap(count(truth, said, np.array(["a", "b"])), weighted_f1)
    assert (low, high) == (0, 1)
    low, high = bootstrap(count(truth, [truth], np.array(["a", "b"])), weighted_f1)
    assert (low, high) == (1, 1)


def test_one_head_has_no_interval():
    truth, said, _ = answers()
    counts = count(truth, said, np.array(["a"] * len(truth)))
    assert np.isnan(bootstrap(counts, macro_f1)).all()
    found = compare(counts, count(truth, [truth, truth], np.array(["a"] * len(truth))), macro_f1)
    assert np.isnan([found.low, found.high]).all() and found.difference < 0 and found.pairs == 2


def test_interval_of_what_is_not_there_is_none():
    truth, said, heads = answers(sites=[5])
    ends = bootstrap(count(truth, said, heads), all_scores, n_boot=20)
    assert ends.shape == (2, 3, M + 2)
    assert np.isnan(ends[:, :, 4]).all() and not np.isnan(ends[:, :, 5]).any()


def test_the_sign_test_is_exact():
    """Three heads and one seed, always ahead: 2 of the 8 ways to flip the signs are as extreme."""
    truth, heads = np.array([4, 4, 4, 4, 4, 4]), np.array(["a", "a", "b", "b", "c", "c"])
    better, worse = [truth], [np.array([4, 0, 4, 0, 4, 0])]
    found = compare(count(truth, better, heads), count(truth, worse, heads), weighted_f1)
    # Half of a head right, none wrongly called: F1 is 2 / (2 + 1).
    assert found.difference == pytest.approx(1 - 2 / 3)
    assert (found.low, found.high) == pytest.approx((1 / 3, 1 / 3))
    assert found.p == pytest.approx(2 / 8)
    assert (found.pairs, found.better) == (3, 3)
    back = compare(count(truth, worse, heads), count(truth, better, heads), weighted_f1)
    assert (back.difference, back.p, back.better) == (pytest.approx(-1 / 3), found.p, 0)


def test_the_same_methods_do_not_differ():
    truth, said, heads = answers()
    counts = count(truth, said, heads)
    found = compare(counts, counts, macro_f1)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_many_pairs_are_sampled():
    truth, said, heads = answers(2000)
    heads = np.array([f"h{i % 10}" for i in range(2000)])
    worse = [np.where(np.arange(2000) % 3 == 0, 0, answer) for answer in said]
    found = compare(count(truth, said, heads), count(truth, worse, heads), macro_f1)
    assert found.pairs == 20 and found.better == 20 and 0 < found.p < 0.001


def test_heads_without_a_rare_site_take_no_part():
    thalamus = SITE_KEYS.index("thalamus")
    truth, heads = np.array([thalamus, 5, 5]), np.array(["a", "b", "c"])
    counts = count(truth, [truth], heads)
    found = compare(counts, count(truth, [np.array([5, 5, 5])], heads), rare_f1)
    assert (found.pairs, found.difference) == (1, 1)
    nowhere = count(truth[1:], [truth[1:]], heads[1:])
    found = compare(nowhere, nowhere, rare_f1)
    assert found.pairs == found.better == 0
    assert np.isnan([found.difference, found.low, found.high, found.p]).all()
