"""How certain an answer is: the set of sites a lesion may be in, and whether the answer is sure.

The *normalised relation score* of a site is its relation score divided by the sum over all sites.
The *site set* of a lesion holds each site whose normalised relation score reaches that site's threshold.
Thresholds come from patients the networks have not seen, so that 90 % of the lesions of each site have it in
their set.

These are split conformal sets (least ambiguous sets, Sadinle et al. 2019). They are calibrated for each site
by itself (Mondrian, Vovk et al. 2005). Patients the networks have not seen come from other trainings of the
same recipe, each without some patients (cross-conformal, Vovk 2015). So the bundle itself may learn from all
patients.

Sites are in the order of the bundle's list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, SiteList
from situs.sentences import Sentence, english, list_either

__all__ = ["FEWEST_SLICES", "LEVEL", "Calibration", "Judgement", "fit_calibration", "normalise_scores"]

LEVEL = 0.9
# Limits that this fraction of the calibration's lesions keeps: in distance to the nearest reference, and in
# how much of the lesion lies in any site.
_NEARLY_ALL = 0.99
# A scan with fewer slices shows too little around them: its lesions are judged as slices alone.
FEWEST_SLICES = 5
_MIN_LESIONS = 10  # of a site; with fewer its threshold is that of all sites together

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Judgement:
    """The site set of one lesion, and whether its answer is sure.

    Attributes:
        site_set: Keys of the sites that the lesion may be in, the likeliest first; never empty.
        reasons: Why the answer is not sure, one sentence each; empty if it is sure.
        notes: What was assumed, one sentence each.
    """

    site_set: tuple[str, ...]
    reasons: tuple[Sentence, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """The thresholds of a bundle's site sets, and the limits beyond which an answer is not sure.

    Attributes:
        level: Fraction of each site's lesions whose site set shall hold that site.
        thresholds: (sites,) float, the least normalised relation score with which a site is in the set.
        pooled: The threshold of all sites together. Sites that were not calibrated have it.
        farthest: Distance to the nearest reference that 99 % of the calibration's lesions do not exceed.
        least_inside: Fraction of the lesion inside the sites that 99 % of them reach.
        regions: Number of lesions that the calibration rests on.
        patients: Number of their patients.
        alone: The calibration for slices without neighbours, from the same lesions, each on its largest slice
            alone; None if there is none.
        sites: The sites that the thresholds are of.
        uncalibrated: The keys of those of which no lesion was there.
        folds: In what the training of the bundles that answered differed from this one's.
    """

    level: float
    thresholds: NDArray[np.float64]
    pooled: float
    farthest: float
    least_inside: float
    regions: int
    patients: int
    alone: Calibration | None = None
    sites: SiteList = SITES
    uncalibrated: frozenset[str] = frozenset()
    folds: tuple[str, ...] = ()

    def for_scan(self, n_slices: int) -> Calibration | None:
        """The calibration for a scan with so many slices; None if it has too few and there is none for it."""
        return self if n_slices >= FEWEST_SLICES else self.alone

    def judge(self, scores: Floats, distance: float, inside: float | None) -> Judgement:
        """The site set of a lesion, and why its answer is not sure.

        Args:
            scores: (sites,) relation scores.
            distance: Distance to the nearest reference, averaged over the slices by area.
            inside: Fraction of the lesion inside the sites, averaged likewise. None if the bundle does not
                paint sites.
        """
        normalised = normalise_scores(scores)
        order = np.argsort(-normalised, kind="stable")
        chosen = [n for rank, n in enumerate(order) if rank == 0 or normalised[n] >= self.thresholds[n]]
        reasons = []
        if len(chosen) > 1:
            names = [self.sites[n].name for n in chosen]
            reasons.append(Sentence("doubt.several_sites", sites=list_either(names, english())))
        if distance > self.farthest:
            reasons.append(Sentence("doubt.unlike_references"))
        if inside is not None and inside < self.least_inside:
            reasons.append(Sentence("doubt.no_site", count=str(len(self.sites))))
        notes = [
            f"The bundle is not calibrated for {self.sites[n].name}: it has the threshold of all sites."
            for n in chosen
            if self.sites[n].key in self.uncalibrated
        ]
        return Judgement(tuple(self.sites[n].key for n in chosen), tuple(reasons), tuple(notes))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `from_dict` reads it."""
        thresholds = zip(self.sites.keys, self.thresholds.round(6).tolist(), strict=True)
        values = {
            "level": self.level,
            "thresholds": {key: value for key, value in thresholds if key not in self.uncalibrated},
            "pooled": round(self.pooled, 6),
            "farthest": self.farthest,
            "least_inside": self.least_inside,
            "regions": self.regions,
            "patients": self.patients,
        }
        if self.folds:
            values["folds"] = list(self.folds)
        return values if self.alone is None else {**values, "alone": self.alone.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], sites: SiteList = SITES) -> Calibration:
        """The calibration that `to_dict` wrote.

        Args:
            values: What it wrote. The first calibrations have no pooled threshold; the mean of all stands
                for it.
            sites: The bundle's sites.

        Raises:
            KeyError, TypeError, ValueError: If `values` are something else.
        """
        known: Mapping[str, float] = values["thresholds"]
        if not known:
            raise ValueError("thresholds: expected at least one")
        if unknown := sorted(set(known) - set(sites.keys)):
            raise ValueError(f"thresholds: no site {unknown[0]!r}")
        pooled = float(values["pooled"] if "pooled" in values else np.mean(list(known.values())))
        return cls(
            float(values["level"]),
            np.array([float(known.get(key, pooled)) for key in sites.keys]),
            pooled,
            float(values["farthest"]),
            float(values["least_inside"]),
            int(values["regions"]),
            int(values["patients"]),
            cls.from_dict(values["alone"], sites) if values.get("alone") is not None else None,
            sites,
            frozenset(sites.keys) - set(known),
            tuple(values.get("folds", ())),
        )


def normalise_scores(scores: Floats) -> NDArray[np.float64]:
    """Relation scores (..., sites), divided by their sum over the sites."""
    scores = np.asarray(scores, dtype=np.float64) + 1e-9
    return np.asarray(scores / scores.sum(axis=-1, keepdims=True))


def fit_calibration(
    scores: Floats,
    truth: NDArray[np.integer],
    distances: Floats,
    inside: Floats | None,
    patients: NDArray[np.str_],
    level: float = LEVEL,
    sites: SiteList = SITES,
) -> Calibration:
    """A calibration from n lesions of patients that the networks have not seen, n at least 1.

    Args:
        scores: (n, sites) relation scores.
        truth: (n,) int, numbers of sites.
        distances: (n,) distances to the nearest reference, see `Calibration.judge`.
        inside: (n,) fractions of the lesions inside the sites, or None if the bundle does not paint sites.
        patients: (n,) names of the patients.
        level: Fraction of each site's lesions whose site set shall hold that site, in (0, 1).
        sites: The bundle's sites.

    Raises:
        ValueError: If there is no lesion, lengths differ, or the level is out of range.
    """
    n = len(truth)
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"level: expected lesions and a level in (0, 1), got {n} and {level}")
    if scores.shape != (n, len(sites)) or len(distances) != n or len(patients) != n:
        raise ValueError(f"scores: expected {n} lesions, one for each site in truth, got {scores.shape}")
    own = normalise_scores(scores)[np.arange(n), truth]
    of_all_sites = _conformal_threshold(own, level)
    counts = np.bincount(truth, minlength=len(sites))
    thresholds = [
        _conformal_threshold(own[truth == site], level) if counts[site] >= _MIN_LESIONS else of_all_sites
        for site in range(len(sites))
    ]
    return Calibration(
        level,
        np.array(thresholds),
        of_all_sites,
        float(np.quantile(distances, _NEARLY_ALL)),
        0.0 if inside is None else float(np.quantile(inside, 1 - _NEARLY_ALL)),
        n,
        len(np.unique(patients)),
        sites=sites,
        uncalibrated=frozenset(key for key, count in zip(sites.keys, counts, strict=True) if not count),
    )


def _conformal_threshold(values: Floats, level: float) -> float:
    """The largest threshold that a new value reaches with a probability of at least `level`.

    It is the k-th smallest of the n values, k = floor((n + 1) (1 - level)), or 0 if k is 0.
    """
    k = int(np.floor((len(values) + 1) * (1 - level) + 1e-9))
    return 0.0 if k < 1 else float(np.sort(values)[k - 1])
