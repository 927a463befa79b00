"""Methods compared on the same heads with the same seeds: paired differences, their intervals and tests.

Slices of a head resemble each other, so heads are drawn and compared, not slices. A method's *counts* are its
confusion matrices (seeds, heads, 15, 15), see `situs.cohort.scores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from situs.anatomy import SITE_INDEX
from situs.cohort.scores import Counts, Measure, all_scores

__all__ = ["RARE", "Comparison", "compare", "rare_f1"]

# The six sites with the fewest slices in the paper's Table 1: 51 to 254 of 15,425.
RARE = tuple(
    SITE_INDEX[key]
    for key in ("thalamus", "brainstem", "ethmoidal", "gangliocapsular_region", "cerebellum", "sphenoid")
)
_INTERVAL = (0.025, 0.975)
_FLIPS = 2**14  # with up to 14 pairs all ways to flip their signs are tried, else this many at random


@dataclass(frozen=True)
class Comparison:
    """One method against another, paired by head and seed.

    Attributes:
        difference: Mean over heads and seeds of the first method's measure less the second's.
        low: Lower end of its 95 % interval when heads and seeds are drawn with replacement; NaN with a single
            head.
        high: Upper end of this interval.
        p: Probability of a mean difference at least as large, in either direction, if the sign of every
            pair's difference were random.
        pairs: Heads times seeds in which the measure is defined.
        better: Those of the pairs in which the first method is ahead.
    """

    difference: float
    low: float
    high: float
    p: float
    pairs: int
    better: int


def rare_f1(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Mean F1 (...) of those of the `RARE` sites that occur in the truth; NaN if none does."""
    f1 = all_scores(confusion)[..., 2, RARE]
    n = (~np.isnan(f1)).sum(axis=-1)
    return np.asarray(np.where(n > 0, np.nansum(f1, axis=-1) / np.maximum(n, 1), np.nan))


def compare(first: Counts, second: Counts, measure: Measure, n_boot: int = 2000, seed: int = 0) -> Comparison:
    """Compare two methods by a measure.

    Args:
        first: The counts of one method.
        second: The counts of the other, on the same heads and seeds.
        measure: What is compared; it gives one number for a confusion matrix.
        n_boot: How many times heads and seeds are drawn for the interval.
        seed: Seed of all random numbers.

    Returns:
        The comparison; all NaN where no pair has what is measured.
    """
    rng = np.random.default_rng(seed)
    gaps = np.asarray(measure(first) - measure(second))
    pairs = gaps[~np.isnan(gaps)]
    if not len(pairs):
        return Comparison(np.nan, np.nan, np.nan, np.nan, 0, 0)
    n_seeds, n_heads = gaps.shape
    seeds, heads = (rng.integers(n, size=(n_boot, n)) for n in (n_seeds, n_heads))
    drawn = gaps[seeds[:, :, None], heads[:, None, :]].reshape(n_boot, -1)
    drawn = drawn[~np.isnan(drawn).all(axis=1)]
    low, high = np.nanquantile(np.nanmean(drawn, axis=1), _INTERVAL) if n_heads > 1 else (np.nan, np.nan)
    return Comparison(
        float(pairs.mean()),
        float(low),
        float(high),
        _sign_test(pairs, rng),
        len(pairs),
        int((pairs > 0).sum()),
    )


def _sign_test(pairs: NDArray[np.float64], rng: np.random.Generator) -> float:
    """The probability of a mean at least as far from 0 if the sign of each difference (n,) were random."""
    if len(pairs) == 1:  # scipy takes two or more
        return 1.0
    test = permutation_test(  # of a single sample, `samples` flips the signs
        (pairs,), np.mean, permutation_type="samples", vectorized=True, n_resamples=_FLIPS, random_state=rng
    )
    return float(test.pvalue)
