"""Paired tests by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from situs.anatomy import SITE_KEYS, SITES
from situs.paper.claims import RARE, compare, count, macro_f1, rare_f1, weighted_f1
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


def test_the_mean_of_rare_sites_leaves_out_absent_ones():
    truth, said, heads = answers(sites=range(3, M))
    counts = count(truth, said, heads).sum(axis=1)
    rare = [i for i in RARE if i >= 3]
    expected = [f1_score(truth, answer, labels=rare, average="macro", zero_division=0) for answer in said]
    np.testing.assert_allclose(rare_f1(counts), expected)


def test_one_head_has_no_interval():
    truth, said, _ = answers()
    counts = count(truth, said, np.array(["a"] * len(truth)))
    found = compare(counts, count(truth, [truth, truth], np.array(["a"] * len(truth))), macro_f1)
    assert np.isnan([found.low, found.high]).all() and found.difference < 0 and found.pairs == 2


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
