"""The corrections of new sites: a line that tells their cases, and an offset that the others allow."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from situs.cohort.score_corrections import MOST_LOSS, Asked, fit_correction, largest_offset


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


def asked_of(n=90, m=3, width=6, patients=4, seed=0):
    """`n` references of m trained sites, and 12 of a new one that lies beside the first of them."""
    rng = np.random.default_rng(seed)
    sites = np.concatenate([np.arange(n) % m, np.full(12, m)])
    centres = np.concatenate([np.eye(m, width), np.eye(m, width)[:1] + 0.5])
    X = centres[sites] + rng.normal(0, 0.3, (n + 12, width))
    logits = 4 * np.eye(m + 1)[sites][:, :m] + rng.normal(0, 1, (n + 12, m))
    names = np.array([f"p{number}" for number in rng.integers(patients, size=n + 12)])
    return Asked(X, sites, names, logits), rng.normal(-2, 1, n + 12)


def line(X, own):
    """By the library: the weights and the constant of a logistic regression with equal sides."""
    model = LogisticRegression(C=1 / (0.066 * len(X)), class_weight="balanced", tol=1e-8).fit(X, own)
    return model.coef_[0], model.intercept_[0]


@pytest.mark.parametrize("of_one_patient", [False, True])
def test_the_correction_is_a_logistic_regression_and_the_offset_that_others_allow(of_one_patient):
    """References are asked by a regression without their patient, unless it has all cases of the site."""
    asked, new = asked_of(patients=2)
    own, known = asked.sites == 3, asked.sites < 3
    if of_one_patient:
        asked = replace(asked, patients=np.where(own, "p0", asked.patients))
    X = (asked.embeddings - asked.embeddings.mean(axis=0)) / asked.embeddings.std(axis=0)
    scores = new.copy()
    for patient in ("p0", "p1"):
        out = asked.patients == patient
        everyone = of_one_patient and patient == "p0"
        weights, constant = line(X, own) if everyone else line(X[~out], own[~out])
        scores[out] += X[out] @ weights + constant
    offset = largest_offset(asked.logits[known], scores[known], asked.sites[known])
    weights, constant = line(X, own)
    correction = fit_correction(asked, 3, new)
    added = asked.embeddings @ correction.weights + correction.offset
    np.testing.assert_allclose(added, X @ weights + constant + offset, atol=0.01)


def test_what_is_added_does_not_depend_on_the_unit_of_embeddings():
    """Nor on where their zero is, or on a feature that is the same in all of them."""
    asked, new = asked_of()
    moved = np.column_stack([100 * asked.embeddings + 7, np.full(len(new), 3.0)])
    here, there = (fit_correction(replace(asked, embeddings=X), 3, new) for X in (asked.embeddings, moved))
    added = asked.embeddings @ here.weights + here.offset
    np.testing.assert_allclose(moved @ there.weights + there.offset, added, atol=1e-4)
    assert added[asked.sites == 3].mean() > added[asked.sites < 3].mean() + 1
