"""What is added to the relation scores of sites that a bundle was not trained on.

The networks have seen hundreds of lesions of every trained site, and know them from many references. Of a new
site there are some, and its lesions were learned as lesions of the sites around it. So its scores come out
too low, even for its own lesions, and rest on distances to which the features that tell it from its
surroundings add little.

Two things mend this. A linear function of the embedding, fitted by logistic regression of the new site's
references against those of all other sites, is added to its logits. And an offset: as large as it can be
while the references of the trained sites, each compared with those of other patients, keep their sites but
for `MOST_LOSS` of their macro F1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from situs.bundle import Bundle
from situs.bundle.change import ScoreCorrection
from situs.cohort.sampling import choose_evenly
from situs.progress import Progress, silent
from situs.runtime import Runtime, relate_to_nearest

__all__ = ["MOST_LOSS", "Asked", "fit_correction", "fit_score_corrections", "largest_offset", "to_logits"]

# Of the macro F1 of the trained sites, for each new site.
MOST_LOSS = 0.01
# Where a new site is not in the way of any other, nothing else bounds its offset.
_MOST_OFFSET = 10.0
_TARGETS = 100  # references of each site that are asked
_BATCH = 128  # of them at a time; their reference sets take some tens of MB
_LEAST_SCORE = 1e-7
# Of the squared weights of standardised features, beside the mean loss of both sides.
_RIDGE = 0.066
_FOLDS = 3

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Asked:
    """References of all sites, asked about the m trained sites.

    Attributes:
        embeddings: (n, width).
        sites: (n,) the numbers of their sites. Those from m on are new.
        patients: (n,) whose they are; empty where unknown.
        logits: (n, m) relation logits with the trained sites, none by a reference of the same patient. Those
            of references of new sites do not count.
    """

    embeddings: Floats
    sites: NDArray[np.integer]
    patients: NDArray[np.str_]
    logits: Floats


def fit_score_corrections(bundle: Bundle, progress: Progress = silent) -> dict[str, ScoreCorrection]:
    """The corrections of all new sites of a bundle that have references, by their keys.

    Args:
        bundle: Has the references. Its own corrections do not count.
        progress: Called with the stage ``offsets``.

    Raises:
        BundleError: If the inference engine cannot load the networks.
    """
    references, trained = bundle.references, bundle.n_trained_sites
    new = [n for n in np.unique(references.sites).tolist() if n >= trained]
    if not new or not (references.sites < trained).any():
        return {}
    chosen = choose_evenly(references.sites, references.patients, _TARGETS, np.random.default_rng(0))
    embeddings = references.embeddings[chosen].astype(np.float32)
    sites, patients = references.sites[chosen], references.patients[chosen]
    runtime, parts = Runtime(bundle, corrected=False), []
    for a in range(0, len(chosen), _BATCH):
        part = slice(a, a + _BATCH)
        parts.append(relate_to_nearest(runtime, bundle, embeddings[part], patients[part])[1])
        progress("offsets", min(a + _BATCH, len(chosen)), len(chosen))
    logits = to_logits(np.concatenate(parts))
    asked = Asked(embeddings, sites, patients, logits[:, :trained])
    return {bundle.sites.keys[n]: fit_correction(asked, n, logits[:, n]) for n in new}


def fit_correction(asked: Asked, site: int, new: Floats) -> ScoreCorrection:
    """The correction of one new site.

    Args:
        asked: References of the site, and of at least one other.
        site: Its number.
        new: (n,) their relation logits with the site.
    """
    X, own = asked.embeddings.astype(np.float64), asked.sites == site
    centre, spread = X.mean(axis=0), X.std(axis=0)
    X = (X - centre) / np.where(spread > 0, spread, 1)
    known = asked.sites < asked.logits.shape[1]
    # A regression fits its own examples, so that no reference is asked by one that has seen its patient.
    new = new.astype(np.float64)
    for out in _folds(asked.patients):
        kept = ~out if len(np.unique(own[~out])) == 2 else np.ones_like(out)
        line = _fit_line(X[kept], own[kept])
        new[out] += X[out] @ line[:-1] + line[-1]
    offset = largest_offset(asked.logits[known], new[known], asked.sites[known])
    line = _fit_line(X, own)
    weights = line[:-1] / np.where(spread > 0, spread, 1)
    return ScoreCorrection(float(offset + line[-1] - weights @ centre), weights)


def largest_offset(logits: Floats, new: Floats, truth: NDArray[np.integer]) -> float:
    """The largest offset of a new site's logits that costs the others at most `MOST_LOSS` of macro F1.

    Args:
        logits: (n, m) of n targets with the m trained sites.
        new: (n,) with the new site.
        truth: (n,) the numbers of the targets' sites, below m.
    """
    m = logits.shape[1]
    answer, lead = logits.argmax(axis=1), logits.max(axis=1) - new
    order = np.argsort(lead, kind="stable")
    counts = np.bincount(truth, minlength=m)
    present = counts > 0
    right = np.bincount(truth[answer == truth], minlength=m)
    said = np.bincount(answer, minlength=m)

    def macro_f1() -> float:
        return float((2 * right[present] / (counts + said)[present]).mean())

    least = macro_f1() - MOST_LOSS
    for target in order.tolist():  # with a rising offset the new site takes them in this order
        site = answer[target]
        said[site] -= 1
        right[site] -= site == truth[target]
        if macro_f1() < least:
            return float(np.clip(lead[target] - 1e-3, -_MOST_OFFSET, _MOST_OFFSET))
    return _MOST_OFFSET


def to_logits(scores: Floats) -> NDArray[np.float64]:
    """The logits of scores, kept finite."""
    return np.asarray(logit(np.clip(scores.astype(np.float64), _LEAST_SCORE, 1 - _LEAST_SCORE)))


def _folds(patients: NDArray[np.str_]) -> list[NDArray[np.bool_]]:
    """Which of n references are left out in each fold: those of a part of the patients."""
    names, numbers = np.unique(patients, return_inverse=True)
    return [numbers % _FOLDS == fold for fold in range(min(_FOLDS, len(names)))]


def _fit_line(X: NDArray[np.float64], own: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic regression: (width + 1,) the weights and the constant.

    Both sides weigh the same, however many they are.

    Args:
        X: (n, width) standardised.
        own: (n,) the side that gets positive values; some are and some are not.
    """
    weights = np.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
    signs = np.where(own, 1.0, -1.0)

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (X @ line[:-1] + line[-1])
        slopes = -weights * signs * expit(-margins)
        value = weights @ np.logaddexp(0, -margins) + _RIDGE / 2 * line[:-1] @ line[:-1]
        return float(value), np.append(slopes @ X + _RIDGE * line[:-1], slopes.sum())

    start = np.zeros(X.shape[1] + 1)
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
