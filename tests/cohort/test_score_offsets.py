"""The offsets of new sites: as large as the sites that were trained allow."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from situs.cohort.score_offsets import MOST_LOSS, largest_offset


def macro_f1(truth, answers):
    """Over the sites that the truth has."""
    return f1_score(truth, answers, labels=np.unique(truth), average="macro", zero_division=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_offset_costs_at_most_the_limit_and_a_larger_one_costs_more(seed):
    rng = np.random.default_rng(seed)
    n, m = 400, 5
    truth = rng.integers(m, size=n)
    logits = rng.normal(size=(n, m)) + 3 * np.eye(m)[truth]
    new = rng.normal(-2, 2, size=n)
    lead = logits.max(axis=1) - new

    def loss(offset):
        answers = np.where(new + offset > logits.max(axis=1), m, logits.argmax(axis=1))
        return macro_f1(truth, logits.argmax(axis=1)) - macro_f1(truth, answers)

    offset = largest_offset(logits, new, truth)
    assert loss(offset) <= MOST_LOSS
    next_target = lead[lead > offset].min()
    assert loss(next_target + 1e-9) > MOST_LOSS


def test_a_site_that_is_in_no_ones_way_is_bounded():
    logits = np.array([[9.0, -9.0], [-9.0, 9.0]])
    assert largest_offset(logits, np.array([-9.0, -9.0]), np.array([0, 1])) == 10


def test_a_site_that_takes_too_much_is_held_back():
    """100 targets of two sites, of which a new one would take all without an offset."""
    truth = np.repeat([0, 1], 50)
    logits = np.eye(2)[truth]
    lead = np.linspace(-2, -1, 100)
    offset = largest_offset(logits, logits.max(axis=1) - lead, truth)
    # the first target lost costs 1 - 98 / 99 of one F1: half of that, .005, of both; the second costs .010
    assert lead[0] < offset <= lead[1]
