"""The results of `situs reproduce`: the logits of every method with every seed, and what follows from them.

One rule makes every prediction: it is the argmax of the logits, to which the logarithm of a prior may be
added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.cohort.scores import Counts, count_confusions

__all__ = ["METHODS", "PRIOR_ADJUSTED", "Results", "predict_sites"]

METHODS = ("BaseNet", "BaseNet+RN", "BaseNet+RN+NN")  # as in the paper's Table 2
PRIOR_ADJUSTED = ", prior-adjusted"  # after the method's name


def predict_sites(
    logits: NDArray[np.floating], site_frequencies: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """The sites (n,) with the largest logits (n, 15); of equal ones the first.

    All methods are trained as if every site were equally frequent. Where `site_frequencies` (15,) are given,
    in any unit, the logarithm of each is added to its site's logit (logit adjustment, Menon et al. 2021).
    Equal frequencies add exactly 0.
    """
    if site_frequencies is not None:
        with np.errstate(divide="ignore"):  # a site that does not occur
            logits = logits + np.log(site_frequencies / site_frequencies.max())
    return logits.argmax(axis=1).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Results:
    """The results of all methods on the test slices, with every seed. Cohorts are ``test`` and ``balanced``.

    Attributes:
        truth: Cohort -> the true sites (n,).
        heads: Cohort -> the head of every slice (n,).
        site_frequencies: Cohort -> how frequent each site is (15,), in any unit.
        logits: Cohort -> method -> for every seed (n, 15). `METHODS` come first, then the baselines.
        curves: Cohort -> Relation Network -> for every seed the sites predicted after every epoch
            (epochs, n).
        seconds: Relation Network -> for every seed the seconds of training until the end of every epoch
            (epochs,).
        train_sites: The sites (n,) of the slices that BaseNet was trained on.
        n_related: How many of these slices the Relation Networks were trained on.
        scans: Cohort, ``train`` too -> its number of scans.
    """

    truth: dict[str, NDArray[np.int64]]
    heads: dict[str, NDArray[np.str_]]
    site_frequencies: dict[str, NDArray[Any]]
    logits: dict[str, dict[str, list[NDArray[Any]]]]
    curves: dict[str, dict[str, list[NDArray[Any]]]]
    seconds: dict[str, list[NDArray[np.float64]]]
    train_sites: NDArray[np.int64]
    n_related: int
    scans: dict[str, int]

    @cached_property
    def untrained(self) -> list[str]:
        """The names of the sites that are tested on, but of which there was nothing to train on."""
        tested = np.unique(np.concatenate(list(self.truth.values())))
        return [SITES[site].name for site in np.setdiff1d(tested, self.train_sites)]

    @cached_property
    def counts(self) -> dict[str, dict[str, Counts]]:
        """Cohort -> method -> counts; after all methods come all again, prior-adjusted."""
        counts: dict[str, dict[str, Counts]] = {}
        for cohort, methods in self.logits.items():
            priors = {"": None, PRIOR_ADJUSTED: self.site_frequencies[cohort]}
            counts[cohort] = {
                method + suffix: self._count(cohort, [predict_sites(logits, prior) for logits in seeds])
                for suffix, prior in priors.items()
                for method, seeds in methods.items()
            }
        return counts

    def after_epoch(self, cohort: str, method: str, epoch: int) -> Counts:
        """The counts of a Relation Network after an epoch, from 1; after the last where there are fewer."""
        curves = self.curves[cohort][method]
        return self._count(cohort, [curve[min(epoch, len(curve)) - 1] for curve in curves])

    def at_equal_time(self, cohort: str, method: str, other: str, epoch: int) -> Counts:
        """The counts of a Relation Network when the other one, with the same seed, ends an epoch.

        These are the counts after the last epoch that `method` has finished by then, or after its first.
        """
        predictions = []
        for curve, own, others in zip(
            self.curves[cohort][method], self.seconds[method], self.seconds[other], strict=True
        ):
            finished = int((own <= others[min(epoch, len(others)) - 1]).sum())
            predictions.append(curve[max(finished, 1) - 1])
        return self._count(cohort, predictions)

    def _count(self, cohort: str, predictions: list[NDArray[Any]]) -> Counts:
        return count_confusions(self.truth[cohort], predictions, self.heads[cohort])
