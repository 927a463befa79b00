"""Methods compared on the same heads with the same seeds: means, bootstrap intervals and paired tests.

Slices of a head resemble each other, so heads are drawn and compared, not slices. What one method says is
its *counts*: confusion matrices (seeds, heads, 15, 15), row the true site. A *measure* makes numbers
(..., any) of confusion matrices (..., 15, 15).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX
from situs.cohort.scores import Counts, Measure, all_scores, bootstrap, macro_f1, weighted_f1
from situs.cohort.scores import count_confusions as count

__all__ = [
    "RARE",
    "Comparison",
    "Counts",
    "Measure",
    "all_scores",
    "bootstrap",
    "compare",
    "count",
    "macro_f1",
    "rare_f1",
    "weighted_f1",
]

Array = NDArray[np.float64]

# The six sites with the fewest slices in the paper's Table 1: 51 to 254 of 15,425.
RARE = tuple(
    SITE_INDEX[key]
    for key in ("thalamus", "brainstem", "ethmoidal", "gangliocapsular_region", "cerebellum", "sphenoid")
)
_INTERVAL = (0.025, 0.975)
_EXACT = 14  # pairs: up to 16,384 ways to flip their signs are all tried


def rare_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 of those of the `RARE` sites that occur in the truth; NaN if none does."""
    f1 = all_scores(confusion)[..., 2, RARE]
    n = (~np.isnan(f1)).sum(axis=-1)
    return np.asarray(np.where(n > 0, np.nansum(f1, axis=-1) / np.maximum(n, 1), np.nan))


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
