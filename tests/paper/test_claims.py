"""Paired tests by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from situs.anatomy import SITE_KEYS, SITES
from situs.cohort.scores import count_confusions as count
from situs.cohort.scores import macro_f1, weighted_f1
from situs.paper.claims import RARE, compare, rare_f1
from situs.synth.cohort import paper_slices

M = len(SITES)


def made_up(n=600, right=0.6, seed=0, sites=range(M)):
    """Sites, predictions of two seeds that are right as often as `right`, and heads."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(list(sites), n)
    predictions = [np.where(rng.random(n) < right, truth, rng.integers(0, M, n)) for _ in range(2)]
    return truth, predictions, rng.choice(["h1", "h2", "h3"], n)


def test_rare_sites_are_the_paper_s_six_smallest():
    slices = paper_slices()
    assert {SITE_KEYS[i] for i in RARE} == set(sorted(slices, key=slices.get)[:6])


def test_the_mean_of_rare_sites_leaves_out_absent_ones():
    truth, predictions, heads = made_up(sites=range(3, M))
    counts = count(truth, predictions, heads).sum(axis=1)
    rare = [i for i in RARE if i >= 3]
    expected = [f1_score(truth, p, labels=rare, average="macro", zero_division=0) for p in predictions]
    np.testing.assert_allclose(rare_f1(counts), expected)


def test_one_head_has_no_interval():
    truth, predictions, _ = made_up()
    counts = count(truth, predictions, np.array(["a"] * len(truth)))
    result = compare(counts, count(truth, [truth, truth], np.array(["a"] * len(truth))), macro_f1)
    assert np.isnan([result.low, result.high]).all() and result.difference < 0 and result.pairs == 2


def test_the_sign_test_is_exact():
    """Three heads and one seed, always ahead: 2 of the 8 ways to flip the signs are as extreme."""
    truth, heads = np.array([4, 4, 4, 4, 4, 4]), np.array(["a", "a", "b", "b", "c", "c"])
    better, worse = [truth], [np.array([4, 0, 4, 0, 4, 0])]
    result = compare(count(truth, better, heads), count(truth, worse, heads), weighted_f1)
    # Half of a head right, none wrongly called: F1 is 2 / (2 + 1).
    assert result.difference == pytest.approx(1 - 2 / 3)
    assert (result.low, result.high) == pytest.approx((1 / 3, 1 / 3))
    assert result.p == pytest.approx(2 / 8)
    assert (result.pairs, result.better) == (3, 3)
    back = compare(count(truth, worse, heads), count(truth, better, heads), weighted_f1)
    assert (back.difference, back.p, back.better) == (pytest.approx(-1 / 3), result.p, 0)


def test_p_of_differences_of_both_signs_by_hand():
    """Four heads with the differences 5, 3, 2 and -1, whose sum is 9. Of the 16 ways to choose the signs two
    have a sum of at least 9 (all plus, or as it is), two of at most -9."""
    first = np.zeros((1, 4, M, M), int)
    first[0, :, 0, 0] = [5, 3, 2, -1]
    result = compare(first, np.zeros_like(first), lambda confusion: confusion[..., 0, 0])
    assert (result.difference, result.pairs, result.better) == (9 / 4, 4, 3)
    assert result.p == pytest.approx(4 / 16)


def test_the_same_methods_do_not_differ():
    truth, predictions, heads = made_up()
    counts = count(truth, predictions, heads)
    result = compare(counts, counts, macro_f1)
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_many_pairs_are_sampled():
    truth, predictions, heads = made_up(2000)
    heads = np.array([f"h{i % 10}" for i in range(2000)])
    worse = [np.where(np.arange(2000) % 3 == 0, 0, p) for p in predictions]
    result = compare(count(truth, predictions, heads), count(truth, worse, heads), macro_f1)
    assert result.pairs == 20 and result.better == 20 and 0 < result.p < 0.001


def test_heads_without_a_rare_site_take_no_part():
    thalamus = SITE_KEYS.index("thalamus")
    truth, heads = np.array([thalamus, 5, 5]), np.array(["a", "b", "c"])
    counts = count(truth, [truth], heads)
    result = compare(counts, count(truth, [np.array([5, 5, 5])], heads), rare_f1)
    assert (result.pairs, result.difference, result.p) == (1, 1, 1)
    nowhere = count(truth[1:], [truth[1:]], heads[1:])
    result = compare(nowhere, nowhere, rare_f1)
    assert result.pairs == result.better == 0
    assert np.isnan([result.difference, result.low, result.high, result.p]).all()
