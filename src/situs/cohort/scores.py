"""Precision, recall and F1 per site, their means and intervals: plain counting on arrays.

Sites are indices in the order of `situs.anatomy.SITES`. Intervals are bootstrap intervals over scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.tables import text_table

__all__ = ["Mean", "Table", "score_table", "site_scores"]

Array = NDArray[np.float64]

_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Mean:
    """Precision, recall and F1 averaged over the sites that occur in the truth.

    Attributes:
        f1_interval: 95 % bootstrap interval over scans; None with fewer than two scans
    """

    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "f1_interval": None if self.f1_interval is None else list(self.f1_interval),
        }


@dataclass(frozen=True, eq=False)
class Table:
    """The scores of one classifier; every array is in the order of `SITES`.

    Attributes:
        confusion: (15, 15) examples, row the true site, column the predicted one
        precision: (15,), 0 where the denominator is 0
        recall: See `precision`.
        f1: See `precision`.
        f1_intervals: (15, 2) 95 % bootstrap interval; NaN for a site with no example or fewer than 2 scans
        weighted: means over the sites with at least one example, weighted by their number of examples, and
            plain. A site that the truth lacks has no recall, so it takes no part in either; what was wrongly
            called by its name is already missing from the recall of the true site.
        macro: See `weighted`.
        n_scans: scans that the examples come from
    """

    confusion: NDArray[np.int64]
    precision: Array
    recall: Array
    f1: Array
    f1_intervals: Array
    weighted: Mean
    macro: Mean
    n_scans: int

    @property
    def support(self) -> NDArray[np.int64]:
        """(15,) examples of every site."""
        return np.asarray(self.confusion.sum(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``sites`` (site key to its numbers), ``weighted``, ``macro``, and the counts."""
        sites = {
            key: {
                "precision": float(self.precision[s]),
                "recall": float(self.recall[s]),
                "f1": float(self.f1[s]),
                "support": int(self.support[s]),
                "f1_interval": _interval_list(self.f1_intervals[s]),
            }
            for s, key in enumerate(SITE_KEYS)
        }
        return {
            "sites": sites,
            "weighted": self.weighted.to_dict(),
            "macro": self.macro.to_dict(),
            "examples": int(self.confusion.sum()),
            "scans": self.n_scans,
            "confusion": self.confusion.tolist(),
        }

    def cells(self) -> list[list[str]]:
        """For a printed table: a row for every site, then the weighted and the macro mean; name, precision,
        recall, F1, its interval, examples. A site without an example has dashes."""
        rows = []
        for s, site in enumerate(SITES):
            n = int(self.support[s])
            numbers = [f"{x[s]:.3f}" if n else "-" for x in (self.precision, self.recall, self.f1)]
            rows.append([site.name, *numbers, _interval_text(_interval_list(self.f1_intervals[s])), str(n)])
        for name, mean in (("weighted mean", self.weighted), ("macro mean", self.macro)):
            numbers = [f"{x:.3f}" for x in (mean.precision, mean.recall, mean.f1)]
            rows.append([name, *numbers, _interval_text(mean.f1_interval), str(self.confusion.sum())])
        return rows

    def text(self, title: str = "site") -> str:
        """The table for people, aligned with spaces."""
        head = [title, "precision", "recall", "F1", "95 % interval", "examples"]
        return text_table([head, *self.cells()], rules=(1, 1 + len(SITES)))


def score_table(
    truth: ArrayLike, predicted: ArrayLike, scans: ArrayLike, n_boot: int = 1000, seed: int = 0
) -> Table:
    """Score predictions against the truth.

    Args:
        truth: (n,) whole numbers, indices into `SITES`; n at least 1
        predicted: See `truth`.
        scans: (n,) what names the scan of every example. The interval comes from drawing scans, not examples,
            with replacement: slices of one scan resemble each other and must rise and fall together
        n_boot: draws; with 1000 the ends of the interval are steady to about a hundredth
        seed: of the draws

    Returns:
        Table: in a draw that misses a site, the means leave that site out, as they do in the table itself

    Raises:
        ValueError: for unequal lengths, no example, or an index that is not a site
    """
    true, guess, scan = (np.asarray(a) for a in (truth, predicted, scans))
    if not true.shape == guess.shape == scan.shape or true.ndim != 1 or true.size == 0:
        raise ValueError(
            "truth, predicted, scans: expected three arrays of one length of at least 1, "
            f"got shapes {true.shape}, {guess.shape}, {scan.shape}"
        )
    for name, indices in (("truth", true), ("predicted", guess)):
        if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= len(SITES):
            raise ValueError(f"{name}: expected whole numbers from 0 to {len(SITES) - 1}")

    names, which = np.unique(scan, return_inverse=True)
    n, n_scans = len(SITES), len(names)
    flat = (which * n + true) * n + guess
    per_scan = np.bincount(flat, minlength=n_scans * n * n).reshape(n_scans, n, n)
    confusion = per_scan.sum(axis=0)
    precision, recall, f1 = site_scores(confusion)
    f1_intervals, *mean_intervals = _bootstrap(per_scan, n_boot, seed)
    support = confusion.sum(axis=1)
    weighted, macro = (
        Mean(float(_mean(precision, w)), float(_mean(recall, w)), float(_mean(f1, w)), interval)
        for w, interval in zip((support, support > 0), mean_intervals, strict=True)
    )
    return Table(
        confusion=confusion,
        precision=precision,
        recall=recall,
        f1=f1,
        f1_intervals=f1_intervals,
        weighted=weighted,
        macro=macro,
        n_scans=n_scans,
    )


def site_scores(confusion: ArrayLike) -> tuple[Array, Array, Array]:
    """Precision, recall and F1 (..., 15) of confusion matrices (..., 15, 15); 0 where there is nothing to
    divide by."""
    return _scores(*_counts(np.asarray(confusion)))


def _counts(confusion: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Right, true and predicted examples (..., 15) of confusion matrices (..., 15, 15)."""
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1), confusion.sum(axis=-2)


def _scores(right: ArrayLike, true: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array, Array]:
    """Precision, recall, F1 of counts (..., 15); 0 where there is nothing to divide by."""
    right, true, predicted = (np.asarray(a, dtype=np.float64) for a in (right, true, predicted))
    return _ratio(right, predicted), _ratio(right, true), _ratio(2 * right, true + predicted)


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def _mean(scores: Array, weights: ArrayLike) -> Array:
    """Weighted mean over the last axis."""
    w = np.asarray(weights, dtype=np.float64)
    return np.asarray((scores * w).sum(axis=-1) / w.sum(axis=-1))


def _bootstrap(
    per_scan: NDArray[Any], n_boot: int, seed: int
) -> tuple[Array, tuple[float, float] | None, tuple[float, float] | None]:
    """Intervals of F1 from confusion matrices (n_scans, 15, 15): (15, 2) by site, weighted, macro."""
    intervals = np.full((len(SITES), 2), np.nan)
    n_scans = len(per_scan)
    if n_scans < 2:
        return intervals, None, None
    # How often each scan is drawn is multinomial, so that all draws are one matrix product of counts.
    draws = np.random.default_rng(seed).multinomial(n_scans, np.full(n_scans, 1 / n_scans), size=n_boot)
    right, true, predicted = (draws.astype(np.float64) @ counts for counts in _counts(per_scan))
    f1 = _scores(right, true, predicted)[2]
    for s in range(len(SITES)):
        drawn = f1[true[:, s] > 0, s]
        if drawn.size:
            intervals[s] = np.quantile(drawn, _INTERVAL)
    weighted, macro = (np.quantile(_mean(f1, w), _INTERVAL) for w in (true, true > 0))
    return intervals, (float(weighted[0]), float(weighted[1])), (float(macro[0]), float(macro[1]))


def _interval_list(interval: Array) -> list[float] | None:
    return None if np.isnan(interval).any() else [float(x) for x in interval]


def _interval_text(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"
