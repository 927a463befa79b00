"""How often a bundle names the right group: its answers as sites, scored by the groups of these sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SiteList
from situs.cohort.scores import ScoreTable, score_table
from situs.tables import text_table

__all__ = ["NO_GROUP", "Examples", "GroupScores", "groups_to_dict", "score_groups"]

NO_GROUP = "none"  # the group of sites that a grouping has in no group, so that all examples count

# True sites (n,), predicted sites (n,) and the name of the scan (n,) of n examples.
Examples = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.str_]]


@dataclass(frozen=True, eq=False)
class GroupScores:
    """The scores of a bundle by the groups of one grouping.

    Attributes:
        grouping: The name of the grouping.
        slices: The scores where an example is one slice of one ROI.
        rois: The scores where an example is one ROI.
    """

    grouping: str
    slices: ScoreTable
    rois: ScoreTable

    def text(self) -> str:
        """Both tables side by side, for people."""
        numbers = ["prec.", "recall", "F1", "95 % interval"]
        rows = [[self.grouping, "slices", *numbers, "ROIs", *numbers]]
        for (name, *of_slices), (_, *of_rois) in zip(self.slices.cells(), self.rois.cells(), strict=True):
            rows.append([name, of_slices[-1], *of_slices[:-1], of_rois[-1], *of_rois[:-1]])
        return text_table(rows, rules=(1, len(rows) - 2))


def score_groups(
    sites: SiteList, slices: Examples, rois: Examples, n_boot: int = 1000
) -> tuple[GroupScores, ...]:
    """The scores by group, a `GroupScores` for each grouping of a list.

    Args:
        sites: The list of sites.
        slices: The answers to n slices of ROIs.
        rois: The answers to ROIs.
        n_boot: See `situs.cohort.scores.score_table`.
    """
    scores = []
    for grouping in sites.groupings:
        of_site = [site.groups[grouping] or NO_GROUP for site in sites]
        groups = sorted(set(of_site), key=lambda name: (name == NO_GROUP, of_site.index(name)))
        number = np.array([groups.index(name) for name in of_site])
        tables = (
            score_table(
                number[truth], number[predicted], scans, n_boot, names={name: name for name in groups}
            )
            for truth, predicted, scans in (slices, rois)
        )
        scores.append(GroupScores(grouping, *tables))
    return tuple(scores)


def groups_to_dict(tables: Mapping[str, ScoreTable]) -> dict[str, Any]:
    """Tables of groups by grouping as a dictionary for JSON; ``groups`` stands for their ``sites``."""
    found = {}
    for grouping, table in tables.items():
        told = table.to_dict()
        found[grouping] = {"groups": told.pop("sites"), **told}
    return found
