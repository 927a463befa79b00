"""How often a bundle's site sets hold the true site on labelled ROIs, and how right its sure answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, SiteList
from situs.certainty import Judgement

__all__ = ["Coverage", "measure_coverage"]


@dataclass(frozen=True)
class Coverage:
    """How a bundle's site sets and its sure answers do on labelled ROIs. Fractions are of ROIs.

    Attributes:
        level: The coverage that was aimed at for each site.
        overall: Fraction whose site set holds the true site.
        sites: The same for the ROIs of each site, by its key; sites without a ROI are left out.
        mean_size: Mean number of sites in a set.
        sure: Fraction of sure answers.
        right_if_sure: Fraction of right answers among the sure ones; None if there are none.
        right_if_not: Fraction of right answers among the others; None if there are none.
        known_sites: The bundle's sites.
        groups: By grouping, ``shared``: the fraction of ROIs whose site set shares a group, and
            ``right_if_shared``: the fraction of these whose true site is in it; None if there are none.
    """

    level: float
    overall: float
    sites: dict[str, float]
    mean_size: float
    sure: float
    right_if_sure: float | None
    right_if_not: float | None
    known_sites: SiteList = SITES
    groups: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def worst_site(self) -> str:
        """Key of the site whose ROIs have it in their set least often."""
        return min(self.sites, key=lambda key: self.sites[key])

    @property
    def _worst_name(self) -> str:
        return self.known_sites.site(self.worst_site).name

    def to_dict(self) -> dict[str, Any]:
        """The figures as a dictionary for JSON."""
        return {name: value for name, value in vars(self).items() if name != "known_sites"}

    def facts(self) -> dict[str, float]:
        """The figures by what they are, for a bundle's card."""
        facts = {
            "site set holds the true site: aim for each site": self.level,
            "site set holds the true site: all regions": self.overall,
            f"site set holds the true site: the worst site, {self._worst_name}": self.sites[self.worst_site],
            "sites in a set, mean": self.mean_size,
            "sure answers, fraction": self.sure,
        }
        for name, fraction in (
            ("right among the sure answers", self.right_if_sure),
            ("right among the others", self.right_if_not),
        ):
            if fraction is not None:
                facts[name] = fraction
        return facts

    def text(self) -> str:
        """The figures for people."""
        name = self._worst_name
        right = [
            f"{fraction:.3f} of {which} right"
            for fraction, which in ((self.right_if_sure, "the sure are"), (self.right_if_not, "the others"))
            if fraction is not None
        ]
        groups = "".join(
            f"\nAll sites of the set share a group of {grouping} in {found['shared']:.3f}"
            + (
                "."
                if found["right_if_shared"] is None
                else f"; {found['right_if_shared']:.3f} of these are right."
            )
            for grouping, found in self.groups.items()
        )
        return (
            f"Certainty (ROIs): the site set holds the true site in {self.overall:.3f}, of {name} in "
            f"{self.sites[self.worst_site]:.3f} (the least);\nmean size {self.mean_size:.2f}; "
            f"{self.sure:.3f} are sure; {', '.join(right)}.{groups}"
        )


def measure_coverage(
    judgements: Sequence[Judgement], truth: NDArray[np.integer], level: float, sites: SiteList = SITES
) -> Coverage:
    """Compare judgements of n ROIs with their true sites, n at least 1.

    Args:
        judgements: One for each ROI.
        truth: (n,) int, numbers of the bundle's sites.
        level: The coverage that was aimed at.
        sites: The bundle's sites.
    """
    held = np.array([sites.keys[t] in j.site_set for t, j in zip(truth, judgements, strict=True)])
    right = np.array([sites.keys[t] == j.site_set[0] for t, j in zip(truth, judgements, strict=True)])
    sure = np.array([not j.reasons for j in judgements])
    return Coverage(
        level=level,
        overall=float(held.mean()),
        sites={key: float(held[truth == s].mean()) for s, key in enumerate(sites.keys) if (truth == s).any()},
        mean_size=float(np.mean([len(j.site_set) for j in judgements])),
        sure=float(sure.mean()),
        right_if_sure=float(right[sure].mean()) if sure.any() else None,
        right_if_not=float(right[~sure].mean()) if not sure.all() else None,
        known_sites=sites,
        groups=_shared_groups(judgements, truth, sites),
    )


def _shared_groups(
    judgements: Sequence[Judgement], truth: NDArray[np.integer], sites: SiteList
) -> dict[str, dict[str, float | None]]:
    """How often the sites of a set share a group, and how often that is right; see `Coverage`."""
    shared = [sites.shared_groups(judgement.site_set) for judgement in judgements]
    true = [sites[t].groups for t in truth]
    found: dict[str, dict[str, float | None]] = {}
    for name in sites.groupings:
        right = [of[name] == own[name] for of, own in zip(shared, true, strict=True) if of[name]]
        found[name] = {
            "shared": len(right) / len(shared),
            "right_if_shared": float(np.mean(right)) if right else None,
        }
    return found
