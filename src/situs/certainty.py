"""How sure an answer is: which sites it may be, and whether it should be looked at twice.

A lesion's *site set* holds every site whose share of the relation scores is not lower than nearly all lesions
of that site have it, on patients that the networks did not see: a split conformal set, calibrated for every
site by itself (Mondrian, Vovk et al. 2005; least ambiguous sets, Sadinle et al. 2019). Patients are left
out by training on the others, in turns (cross-conformal, Vovk 2015), so that the bundle itself may learn from
all.

Sites are in the order of `situs.anatomy.SITES`. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES

__all__ = ["LEVEL", "Certainty", "Coverage", "Judgement", "calibrate_certainty", "coverage"]

LEVEL = 0.9
# Of the calibration's lesions, so many lie nearer to a reference, and so many lie more inside the sites.
_ALMOST_ALL = 0.99
_FEWEST = 10  # lesions of a site; with fewer its threshold is that of all sites together

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Judgement:
    """What is said about one lesion.

    Attributes:
        site_set: keys of the sites that it may lie in, the likeliest first; never empty
        reasons: why it is not sure, one sentence each; empty if it is
    """

    site_set: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Certainty:
    """What a calibration found.

    Attributes:
        level: share of a site's lesions whose set holds the site
        thresholds: (15,) the least share of the relation scores with which a site is in the set
        farthest: distance to the nearest reference that almost no lesion exceeded
        least_inside: share of a lesion that lies in any site; almost none had less
        regions: how many were calibrated on
        patients: See `regions`.
    """

    level: float
    thresholds: NDArray[np.float64]
    farthest: float
    least_inside: float
    regions: int
    patients: int

    def judge(self, scores: Floats, distance: float, inside: float | None) -> Judgement:
        """What can be said about a lesion with relation scores (15,).

        Args:
            distance: to the nearest reference, the mean over the slices by area
            inside: share of the lesion in any site, likewise; None where the bundle does not say
        """
        part = score_shares(scores)
        order = np.argsort(-part, kind="stable")
        chosen = [n for place, n in enumerate(order) if place == 0 or part[n] >= self.thresholds[n]]
        reasons = []
        if len(chosen) > 1:
            names = [SITES[n].name for n in chosen]
            reasons.append(f"More than one site fits: {', '.join(names[:-1])} or {names[-1]}.")
        if distance > self.farthest:
            reasons.append("It is unlike the references: the nearest is farther than almost all ever were.")
        if inside is not None and inside < self.least_inside:
            reasons.append("Much of it seems to lie in none of the 15 sites.")
        return Judgement(tuple(SITE_KEYS[n] for n in chosen), tuple(reasons))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {
            "level": self.level,
            "thresholds": dict(zip(SITE_KEYS, self.thresholds.round(6).tolist(), strict=True)),
            "farthest": self.farthest,
            "least_inside": self.least_inside,
            "regions": self.regions,
            "patients": self.patients,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Certainty:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if `values` are not what it gives
        """
        thresholds = np.array([float(values["thresholds"][key]) for key in SITE_KEYS])
        return cls(
            float(values["level"]),
            thresholds,
            float(values["farthest"]),
            float(values["least_inside"]),
            int(values["regions"]),
            int(values["patients"]),
        )


@dataclass(frozen=True)
class Coverage:
    """How a bundle's certainty does on ROIs.

    Attributes:
        level: what each site's coverage shall be
        overall: share of the ROIs, of all and by site, whose set of sites holds theirs
        sites: See `overall`.
        mean_size: sites in a set
        sure: share of the ROIs that are answered without a reason for doubt
        right_if_sure: share of right answers among these and the others; None without any
        right_if_not: See `right_if_sure`.
    """

    level: float
    overall: float
    sites: dict[str, float]
    mean_size: float
    sure: float
    right_if_sure: float | None
    right_if_not: float | None

    def text(self) -> str:
        """For people."""
        worst = min(self.sites, key=lambda key: self.sites[key])
        name = SITES[SITE_INDEX[worst]].name
        right = [
            f"{share:.3f} of {what} right"
            for share, what in ((self.right_if_sure, "the sure are"), (self.right_if_not, "the others"))
            if share is not None
        ]
        return (
            f"Certainty (ROIs): the set of sites holds the true one in {self.overall:.3f}, of {name} in "
            f"{self.sites[worst]:.3f} (the least);\nmean size {self.mean_size:.2f}; "
            f"{self.sure:.3f} are sure; {', '.join(right)}."
        )


def coverage(judged: Sequence[Judgement], truth: NDArray[np.integer], level: float) -> Coverage:
    """How judgements of ROIs do against their sites (n,), n at least 1."""
    held = np.array([SITE_KEYS[t] in j.site_set for t, j in zip(truth, judged, strict=True)])
    right = np.array([SITE_KEYS[t] == j.site_set[0] for t, j in zip(truth, judged, strict=True)])
    sure = np.array([not j.reasons for j in judged])
    return Coverage(
        level=level,
        overall=float(held.mean()),
        sites={key: float(held[truth == s].mean()) for s, key in enumerate(SITE_KEYS) if (truth == s).any()},
        mean_size=float(np.mean([len(j.site_set) for j in judged])),
        sure=float(sure.mean()),
        right_if_sure=float(right[sure].mean()) if sure.any() else None,
        right_if_not=float(right[~sure].mean()) if not sure.all() else None,
    )


def score_shares(scores: Floats) -> NDArray[np.float64]:
    """Relation scores (..., 15) as parts of their sum."""
    scores = np.asarray(scores, dtype=np.float64) + 1e-9
    return np.asarray(scores / scores.sum(axis=-1, keepdims=True))


def calibrate_certainty(
    scores: Floats,
    truth: NDArray[np.integer],
    distances: Floats,
    inside: Floats | None,
    patients: NDArray[np.str_],
    level: float = LEVEL,
) -> Certainty:
    """Thresholds from lesions of patients that the networks that scored them did not see.

    Args:
        scores: (n, 15) relation scores; n at least 1
        truth: (n,) int, index into `SITES`
        distances: (n,) see `Certainty.judge`
        inside: See `distances`.
        patients: (n,) whose the lesions are
        level: share of every site's lesions whose set shall hold the site, in (0, 1)

    Raises:
        ValueError: for no lesions, lengths that differ or a level out of range
    """
    n = len(truth)
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"level: expected lesions and a level in (0, 1), got {n} and {level}")
    if scores.shape != (n, len(SITE_KEYS)) or len(distances) != n or len(patients) != n:
        raise ValueError(f"scores: expected {n} lesions, one for each site in truth, got {scores.shape}")
    own = score_shares(scores)[np.arange(n), truth]
    whole = _lower_quantile(own, level)
    counts = np.bincount(truth, minlength=len(SITE_KEYS))
    thresholds = [
        _lower_quantile(own[truth == site], level) if counts[site] >= _FEWEST else whole
        for site in range(len(SITE_KEYS))
    ]
    return Certainty(
        level,
        np.array(thresholds),
        float(np.quantile(distances, _ALMOST_ALL)),
        0.0 if inside is None else float(np.quantile(inside, 1 - _ALMOST_ALL)),
        n,
        len(np.unique(patients)),
    )


def _lower_quantile(values: Floats, level: float) -> float:
    """The largest threshold that a new value reaches with the probability `level`: the k-th smallest of n,
    k = floor((n + 1) (1 - level)); 0 where n is too small for it."""
    k = int(np.floor((len(values) + 1) * (1 - level) + 1e-9))
    return 0.0 if k < 1 else float(np.sort(values)[k - 1])
