"""Scores against scikit-learn and hand counting; intervals against draws made the slow way."""

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.cohort.scores import (
    all_scores,
    bootstrap,
    count_confusions,
    macro_f1,
    score_table,
    weighted_f1,
)

M = 15  # sites


def _examples(seed, n=600, n_scans=40, absent=()):
    rng = np.random.default_rng(seed)
    present = np.setdiff1d(np.arange(15), absent)
    truth = rng.choice(present, n)
    predicted = np.where(rng.random(n) < 0.6, truth, rng.integers(0, 15, n))
    return truth, predicted, rng.integers(0, n_scans, n)


@pytest.mark.parametrize("absent", [(), (0, 7)])
def test_scores_equal_scikit_learn(absent):
    truth, predicted, scans = _examples(1, absent=absent)
    table = score_table(truth, predicted, scans, n_boot=10)
    present = np.setdiff1d(np.arange(15), absent)
    want = precision_recall_fscore_support(truth, predicted, labels=np.arange(15), zero_division=0)
    np.testing.assert_allclose([table.precision, table.recall, table.f1], want[:3])
    np.testing.assert_array_equal(table.support, want[3])
    for mean, average in ((table.weighted, "weighted"), (table.macro, "macro")):
        expected = precision_recall_fscore_support(
            truth, predicted, labels=present, average=average, zero_division=0
        )
        np.testing.assert_allclose([mean.precision, mean.recall, mean.f1], expected[:3])
    np.testing.assert_array_equal(table.confusion, confusion_matrix(truth, predicted, labels=np.arange(15)))


def test_scores_by_hand():
    # Thalamus: 2 of its 3 found, 1 wrongly so called elsewhere. Brainstem: 1 of 2 found, called once rightly
    # and once where the thalamus was.
    t, b = SITE_INDEX["thalamus"], SITE_INDEX["brainstem"]
    table = score_table([t, t, t, b, b], [t, t, b, b, t], ["a", "a", "b", "b", "b"], n_boot=5)
    assert (table.precision[t], table.recall[t], table.f1[t]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (table.precision[b], table.recall[b], table.f1[b]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert table.macro.f1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert table.weighted.f1 == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)
    assert table.n_scans == 2


@pytest.mark.slow
def test_intervals_equal_draws_of_whole_scans():
    truth, predicted, scans = _examples(2, n=300, n_scans=12)
    table = score_table(truth, predicted, scans, n_boot=4000, seed=3)
    rng = np.random.default_rng(99)
    by_scan = [np.flatnonzero(scans == s) for s in range(12)]
    macro, weighted, one_site = [], [], []
    for _ in range(500):
        drawn = np.concatenate([by_scan[s] for s in rng.integers(0, 12, 12)])
        _, _, f1, support = precision_recall_fscore_support(
            truth[drawn], predicted[drawn], labels=np.arange(15), zero_division=0
        )
        macro.append(f1[support > 0].mean())
        weighted.append(np.average(f1, weights=support))
        if support[4]:
            one_site.append(f1[4])
    # The ends of an interval from 500 draws are themselves uncertain: by less than 0.01 for the means and
    # 0.03 for a single site.
    ends = [0.025, 0.975]
    np.testing.assert_allclose(table.macro.f1_interval, np.quantile(macro, ends), atol=0.01)
    np.testing.assert_allclose(table.weighted.f1_interval, np.quantile(weighted, ends), atol=0.01)
    np.testing.assert_allclose(table.f1_intervals[4], np.quantile(one_site, ends), atol=0.03)


def test_scans_are_drawn_whole():
    # Two scans, one all right and one all wrong, 500 examples each: a draw is right in none, half or all of
    # them, so the interval spans [0, 1]; drawing examples would give about 0.5 +- 0.03.
    site, other = SITE_INDEX["maxillary"], SITE_INDEX["sphenoid"]
    truth = np.full(1000, site)
    predicted = np.repeat([site, other], 500)
    table = score_table(truth, predicted, np.repeat(["right", "wrong"], 500))
    assert table.macro.f1_interval == (0.0, 1.0)


def test_one_scan_has_no_interval():
    table = score_table([3, 3], [3, 4], ["only", "only"])
    assert table.macro.f1_interval is None
    assert table.to_dict()["sites"][SITE_KEYS[3]]["f1_interval"] is None


def test_same_seed_same_interval_and_order_of_examples_is_nothing():
    truth, predicted, scans = _examples(4)
    order = np.random.default_rng(0).permutation(len(truth))
    a = score_table(truth, predicted, scans, seed=7).to_dict()
    assert a == score_table(truth[order], predicted[order], scans[order], seed=7).to_dict()


def test_dict_is_json_and_text_is_aligned():
    truth, predicted, scans = _examples(5, absent=(2,))
    table = score_table(truth, predicted, scans, n_boot=50)
    back = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert list(back["sites"]) == list(SITE_KEYS)
    for mean in ("weighted", "macro"):
        assert {"precision", "recall", "f1", "f1_interval"} == set(back[mean])
    assert back["sites"][SITE_KEYS[2]]["support"] == 0
    lines = table.text().splitlines()
    assert len(lines) == 1 + 15 + 2 + 2
    assert len({len(line) for line in lines if not line.startswith("-")}) == 1
    assert lines[-1].startswith("macro mean") and f"{table.macro.f1:.3f}" in lines[-1]


@pytest.mark.parametrize(
    ("truth", "predicted", "scans", "says"),
    [
        ([0, 1], [0], ["a", "b"], "one length"),
        ([], [], [], "one length"),
        ([15], [0], ["a"], "truth"),
        ([0], [-1], ["a"], "predicted"),
        ([0.5], [0], ["a"], "truth"),
    ],
)
def test_wrong_input_is_named(truth, predicted, scans, says):
    with pytest.raises(ValueError, match=says):
        score_table(truth, predicted, scans)


# --- confusion matrices of several seeds ---


def test_counts_by_hand():
    truth, predictions = np.array([0, 0, 3]), [np.array([0, 1, 3]), np.array([0, 0, 0])]
    counts = count_confusions(truth, predictions, np.array(["b", "a", "b"]))
    assert counts.shape == (2, 2, M, M)
    assert counts[0, 0, 0, 1] == 1 and counts[0, 1, 0, 0] == 1 and counts[0, 1, 3, 3] == 1
    assert counts[1, 1, 3, 0] == 1 and counts.sum() == 6


def test_all_scores_equal_scikit_learn():
    truth, predicted, scans = _examples(6, absent=(0, 1, 2))
    counts = count_confusions(truth, [predicted, truth], scans).sum(axis=1)
    scores = all_scores(counts)
    for one, answer in zip(scores, (predicted, truth), strict=True):
        want = precision_recall_fscore_support(truth, answer, labels=np.arange(M), zero_division=0)[:3]
        np.testing.assert_allclose(one[:, 3:M], np.array(want)[:, 3:], rtol=1e-12)
        assert np.isnan(one[:, :3]).all()
        for average, column in (("weighted", M), ("macro", M + 1)):
            want = precision_recall_fscore_support(
                truth, answer, labels=np.arange(3, M), average=average, zero_division=0
            )
            np.testing.assert_allclose(one[:, column], want[:3])
    np.testing.assert_allclose(weighted_f1(counts), scores[:, 2, M])
    np.testing.assert_allclose(macro_f1(counts), scores[:, 2, M + 1])


def test_the_interval_is_that_of_drawing_scans():
    """Two scans, one all right, one all wrong: a draw is all right, half right or all wrong."""
    truth, scans = np.array([4, 4]), np.array(["a", "b"])
    low, high = bootstrap(count_confusions(truth, [np.array([4, 5])], scans), weighted_f1)
    assert (low, high) == (0, 1)
    low, high = bootstrap(count_confusions(truth, [truth], scans), weighted_f1)
    assert (low, high) == (1, 1)
    # Of two seeds, one right and one wrong everywhere, the mean is half right in every draw.
    low, high = bootstrap(count_confusions(truth, [truth, np.array([5, 5])], scans), weighted_f1)
    assert (low, high) == (0.5, 0.5)


def test_the_interval_of_what_is_not_there_is_none():
    truth = np.full(60, 5)
    predicted = np.random.default_rng(0).integers(0, M, 60)
    ends = bootstrap(count_confusions(truth, [predicted], np.arange(60) % 3), all_scores, n_boot=20)
    assert ends.shape == (2, 3, M + 2)
    assert np.isnan(ends[:, :, 4]).all() and not np.isnan(ends[:, :, 5]).any()
    one_scan = count_confusions(truth, [predicted], np.zeros(60))
    assert np.isnan(bootstrap(one_scan, macro_f1)).all()
