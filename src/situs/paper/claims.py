"""Methods compared on the same heads with the same seeds: means, bootstrap intervals and paired tests.

Slices of a head resemble each other, so heads are drawn and compared, not slices. What one method says is
its *counts*: confusion matrices (seeds, heads, 15, 15), row the true site. A *measure* makes numbers
(..., any) of confusion matrices (..., 15, 15).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITES
from situs.cohort.scores import site_scores

__all__ = [
    "RARE",
    "Comparison",
    "Counts",
    "all_scores",
    "bootstrap",
    "compare",
    "count",
    "macro_f1",
    "rare_f1",
    "weighted_f1",
]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Measure = Callable[[NDArray[Any]], Array]

# The six sites with the fewest slices in the paper's Table 1: 51 to 254 of 15,425.
RARE = tuple(
    SITE_INDEX[key]
    for key in ("thalamus", "brainstem", "ethmoidal", "gangliocapsular_region", "cerebellum", "sphenoid")
)
_INTERVAL = (0.025, 0.975)
_EXACT = 14  # pairs: up to 16,384 ways to flip their signs are all tried


def count(truth: NDArray[Any], answers: Sequence[NDArray[Any]], heads: NDArray[np.str_]) -> Counts:
    """The counts of a method: truth (n,), its answers (n,) with every seed, and the heads (n,)."""
    m = len(SITES)
    names, which = np.unique(heads, return_inverse=True)
    flat = [np.bincount((which * m + truth) * m + said, minlength=len(names) * m * m) for said in answers]
    return np.stack(flat).reshape(len(flat), len(names), m, m)


def all_scores(confusion: NDArray[Any]) -> Array:
    """Precision, recall and F1 of every site, then their weighted and their macro mean: (..., 3, 17).

    A site that the truth lacks is NaN and takes no part in the means.
    """
    support = confusion.sum(axis=-1)[..., None, :].astype(np.float64)
    scores = np.stack(site_scores(confusion), axis=-2)
    means = [(scores * w).sum(axis=-1) / np.maximum(w.sum(axis=-1), 1) for w in (support, support > 0)]
    return np.concatenate([np.where(support > 0, scores, np.nan), np.stack(means, axis=-1)], axis=-1)


def weighted_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 weighted by the sites' numbers of true examples, as in the paper."""
    return np.asarray(all_scores(confusion)[..., 2, -2])


def macro_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 of the sites that occur in the truth."""
    return np.asarray(all_scores(confusion)[..., 2, -1])


def rare_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 of those of the `RARE` sites that occur in the truth; NaN if none does."""
    f1 = all_scores(confusion)[..., 2, RARE]
    n = (~np.isnan(f1)).sum(axis=-1)
    return np.asarray(np.where(n > 0, np.nansum(f1, axis=-1) / np.maximum(n, 1), np.nan))


def bootstrap(counts: Counts, measure: Measure, n_boot: int = 1000, seed: int = 0) -> Array:
    """The 95 % interval (2, ...) of a measure, averaged over the seeds, when heads are drawn with
    replacement; NaN where no draw has what is measured, and everywhere with a single head."""
    n_heads = counts.shape[1]
    draws = np.random.default_rng(seed).multinomial(n_heads, np.full(n_heads, 1 / n_heads), size=n_boot)
    found = np.asarray(measure(np.einsum("bh,shij->bsij", draws, counts))).mean(axis=1)
    empty = np.isnan(found).all(axis=0) | (n_heads < 2)
    ends = np.nanquantile(np.where(empty, 0, found), _INTERVAL, axis=0)
    return np.where(empty, np.nan, ends)


@dataclass(frozen=True)
class Comparison:
    """One method against another, paired by head and seed.

    Attributes:
        difference: mean over heads and seeds of the first method's measure less the second's
        low: its 95 % interval when heads and seeds are drawn with replacement; NaN with a single head
        high: See `low`.
        p: of a difference at least as large, either way, if the sign of every pair were chance
        pairs: heads times seeds that have what is measured
        better: of them, those where the first method is ahead
    """

    difference: float
    low: float
    high: float
    p: float
    pairs: int
    better: int


def compare(first: Counts, second: Counts, measure: Measure, n_boot: int = 2000, seed: int = 0) -> Comparison:
    """Compare two methods on the same heads and seeds; all NaN where no pair has what is measured."""
    rng = np.random.default_rng(seed)
    gaps = np.asarray(measure(first) - measure(second))
    if np.isnan(gaps).all():
        return Comparison(np.nan, np.nan, np.nan, np.nan, 0, 0)
    n_seeds, n_heads = gaps.shape
    seeds, heads = (rng.integers(n, size=(n_boot, n)) for n in (n_seeds, n_heads))
    drawn = gaps[seeds[:, :, None], heads[:, None, :]].reshape(n_boot, -1)
    drawn = drawn[~np.isnan(drawn).all(axis=1)]
    low, high = np.nanquantile(np.nanmean(drawn, axis=1), _INTERVAL) if n_heads > 1 else (np.nan, np.nan)
    pairs = gaps[~np.isnan(gaps)]
    if len(pairs) <= _EXACT:
        signs = np.array(list(product((1, -1), repeat=len(pairs))))
    else:
        signs = np.vstack([np.ones(len(pairs)), rng.choice((1, -1), size=(9999, len(pairs)))])
    flipped = np.abs((signs * pairs).mean(axis=1))
    p = float((flipped >= flipped[0] - 1e-12).mean())
    return Comparison(float(pairs.mean()), float(low), float(high), p, len(pairs), int((pairs > 0).sum()))
