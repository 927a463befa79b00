"""Precision, recall and F1 per site, their means and intervals: plain counting on arrays.

Sites are numbers in a list of m sites. Groups of sites are scored likewise. A *confusion matrix* (m, m)
counts examples: row is the true site, column the predicted one. A *measure* makes numbers (..., any) of such
matrices (..., m, m).

A site that the truth lacks has no recall, so it takes no part in a mean. What was wrongly called by its name
is already missing from the recall of the true site.

Slices of one scan resemble each other. So the bootstrap draws whole scans, not slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from situs.anatomy import SITES
from situs.tables import text_table

__all__ = [
    "Counts",
    "MeanScores",
    "Measure",
    "ScoreTable",
    "all_scores",
    "bootstrap",
    "count_confusions",
    "macro_f1",
    "score_table",
    "weighted_f1",
]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Measure = Callable[[NDArray[Any]], Array]

_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class MeanScores:
    """Precision, recall and F1, averaged over the sites that occur in the truth.

    Attributes:
        precision: Mean precision, in [0, 1].
        recall: Mean recall, in [0, 1].
        f1: Mean F1, in [0, 1].
        f1_interval: 95 % bootstrap interval of `f1` over scans; None with fewer than two scans.
    """

    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The scores of one classifier; every array is in the order of `names`.

    Attributes:
        confusion: (m, m) examples, row the true site, column the predicted one.
        precision: (m,) precision of every site; 0 if the site was never predicted.
        recall: (m,) recall of every site; 0 if the truth lacks it.
        f1: (m,) F1 of every site; 0 if there is neither.
        f1_intervals: (m, 2) 95 % bootstrap interval of `f1`; NaN for a site without an example, and with
            fewer than two scans.
        weighted: Means weighted by the sites' numbers of examples, as in the paper.
        macro: Plain means.
        n_scans: How many scans the examples come from.
        names: The m sites or groups, key to name for people.
    """

    confusion: NDArray[np.int64]
    precision: Array
    recall: Array
    f1: Array
    f1_intervals: Array
    weighted: MeanScores
    macro: MeanScores
    n_scans: int
    names: Mapping[str, str]

    @property
    def support(self) -> NDArray[np.int64]:
        """(m,) examples of every site."""
        return np.asarray(self.confusion.sum(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """The table as a dictionary for JSON: ``sites`` (key to its numbers), both means, the counts."""
        sites = {
            key: {
                "precision": float(self.precision[s]),
                "recall": float(self.recall[s]),
                "f1": float(self.f1[s]),
                "support": int(self.support[s]),
                "f1_interval": _to_interval(self.f1_intervals[s]),
            }
            for s, key in enumerate(self.names)
        }
        return {
            "sites": sites,
            "weighted": asdict(self.weighted),
            "macro": asdict(self.macro),
            "examples": int(self.confusion.sum()),
            "scans": self.n_scans,
            "confusion": self.confusion.tolist(),
        }

    def cells(self) -> list[list[str]]:
        """The rows of a printed table: every site, then the weighted and the macro mean.

        Columns: name, precision, recall, F1, its interval, examples. A site without an example has dashes.
        """
        rows = []
        for s, name in enumerate(self.names.values()):
            n = int(self.support[s])
            numbers = [f"{x[s]:.3f}" if n else "-" for x in (self.precision, self.recall, self.f1)]
            rows.append([name, *numbers, _interval_text(_to_interval(self.f1_intervals[s])), str(n)])
        for title, mean in (("weighted mean", self.weighted), ("macro mean", self.macro)):
            numbers = [f"{x:.3f}" for x in (mean.precision, mean.recall, mean.f1)]
            rows.append([title, *numbers, _interval_text(mean.f1_interval), str(self.confusion.sum())])
        return rows

    def text(self, title: str = "site") -> str:
        """The table for people, aligned with spaces; `title` heads its first column."""
        head = [title, "precision", "recall", "F1", "95 % interval", "examples"]
        return text_table([head, *self.cells()], rules=(1, 1 + len(self.names)))


def score_table(
    truth: ArrayLike,
    predicted: ArrayLike,
    scans: ArrayLike,
    n_boot: int = 1000,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
) -> ScoreTable:
    """Score predictions against the truth.

    Args:
        truth: (n,) whole numbers of sites; n at least 1.
        predicted: (n,) whole numbers, as `truth`.
        scans: (n,) what names the scan of every example.
        n_boot: How many times scans are drawn for an interval. With 1000 its ends are steady to about 0.01.
        seed: Seed of the draws.
        names: The sites or groups in the order of their numbers, key to name for people. None for the shipped
            sites.

    Raises:
        ValueError: For unequal lengths, no example, or an index that is not a site.
    """
    names = SITES.names if names is None else names
    true, guess, scan = (np.asarray(a) for a in (truth, predicted, scans))
    if not true.shape == guess.shape == scan.shape or true.ndim != 1 or true.size == 0:
        raise ValueError(
            "truth, predicted, scans: expected three arrays of one length of at least 1, "
            f"got shapes {true.shape}, {guess.shape}, {scan.shape}"
        )
    for name, indices in (("truth", true), ("predicted", guess)):
        if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= len(names):
            raise ValueError(f"{name}: expected whole numbers from 0 to {len(names) - 1}")

    counts = count_confusions(true, [guess], scan, len(names))
    confusion = counts.sum(axis=(0, 1))
    precision, recall, f1 = _site_scores(confusion)
    intervals = bootstrap(counts, _f1, n_boot, seed).T  # (m + 2, 2)
    means = all_scores(confusion)[:, -2:].T.tolist()
    weighted, macro = (
        MeanScores(precision=p, recall=r, f1=f, f1_interval=_to_interval(interval))
        for (p, r, f), interval in zip(means, intervals[-2:], strict=True)
    )
    return ScoreTable(
        confusion=confusion,
        precision=precision,
        recall=recall,
        f1=f1,
        f1_intervals=intervals[: len(names)],
        weighted=weighted,
        macro=macro,
        n_scans=counts.shape[1],
        names=names,
    )


def count_confusions(
    truth: NDArray[Any], predictions: Sequence[NDArray[Any]], scans: NDArray[Any], m: int = len(SITES)
) -> Counts:
    """Confusion matrices (seeds, scans, m, m) of one method.

    Args:
        truth: (n,) the true site of every example.
        predictions: (n,) the predicted site of every example, for every seed of the method.
        scans: (n,) what names the scan of every example, or whatever else is drawn together; they are counted
            in the order of `numpy.unique`.
        m: How many sites there are.
    """
    names, which = np.unique(scans, return_inverse=True)
    flat = [np.bincount((which * m + truth) * m + p, minlength=len(names) * m * m) for p in predictions]
    return np.stack(flat).reshape(len(flat), len(names), m, m)


def all_scores(confusion: NDArray[Any]) -> Array:
    """Precision, recall and F1 of every site, then their weighted and their macro mean: (..., 3, m + 2).

    A site that the truth lacks is NaN.
    """
    support = confusion.sum(axis=-1)[..., None, :].astype(np.float64)
    scores = _site_scores(confusion)
    means = [(scores * w).sum(axis=-1) / np.maximum(w.sum(axis=-1), 1) for w in (support, support > 0)]
    return np.concatenate([np.where(support > 0, scores, np.nan), np.stack(means, axis=-1)], axis=-1)


def weighted_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 (...), weighted by the sites' numbers of true examples, as in the paper."""
    return np.asarray(_f1(confusion)[..., -2])


def macro_f1(confusion: NDArray[Any]) -> Array:
    """Mean F1 (...) of the sites that occur in the truth."""
    return np.asarray(_f1(confusion)[..., -1])


def bootstrap(counts: Counts, measure: Measure, n_boot: int = 1000, seed: int = 0) -> Array:
    """The 95 % interval of a measure, averaged over the seeds, when scans are drawn with replacement.

    Args:
        counts: (seeds, scans, m, m) confusion matrices, see `count_confusions`.
        measure: What is made of each draw's confusion matrices.
        n_boot: How many draws.
        seed: Seed of the draws.

    Returns:
        (2, ...) lower and upper end. NaN where no draw has what is measured, and everywhere with one scan.
    """
    n_scans = counts.shape[1]
    # How often each scan is drawn is multinomial, so that all draws are one matrix product of counts.
    draws = np.random.default_rng(seed).multinomial(n_scans, np.full(n_scans, 1 / n_scans), size=n_boot)
    drawn = np.moveaxis(np.tensordot(draws.astype(np.float64), counts, axes=(1, 1)), 1, 0)
    values = np.asarray(measure(drawn)).mean(axis=0)
    empty = np.isnan(values).all(axis=0) | (n_scans < 2)
    ends = np.nanquantile(np.where(empty, 0, values), _INTERVAL, axis=0)
    return np.where(empty, np.nan, ends)


def _site_scores(confusion: NDArray[Any]) -> Array:
    """Precision, recall and F1 (..., 3, m) of every site; 0 where there is nothing to divide by."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    pairs = ((right, predicted), (right, true), (2 * right, true + predicted))
    return np.stack(
        [np.divide(over, under, out=np.zeros_like(over), where=under > 0) for over, under in pairs], axis=-2
    )


def _f1(confusion: NDArray[Any]) -> Array:
    """F1 of every site, then its weighted and its macro mean: (..., m + 2)."""
    return np.asarray(all_scores(confusion)[..., 2, :])


def _to_interval(ends: Array) -> tuple[float, float] | None:
    return None if np.isnan(ends).any() else (float(ends[0]), float(ends[1]))


def _interval_text(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"
