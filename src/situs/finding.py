"""The answer for one lesion. Every field has the same name and type here, in the JSON and in the CSV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from situs.anatomy import SITES, SiteList
from situs.sentences import Sentence

__all__ = ["SIDES", "Finding", "Reference", "Side"]

Side = Literal["left", "right", "midline", "bilateral"]
SIDES: tuple[Side, ...] = ("left", "right", "midline", "bilateral")


@dataclass(frozen=True, slots=True)
class Reference:
    """A labelled case that a lesion was compared with.

    Attributes:
        id: Its name within the bundle.
        site: The key of its site.
        distance: Euclidean distance between the two embeddings, without a unit. Smaller is more alike.
    """

    id: str
    site: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer for one lesion. ``docs/output.md`` describes every field.

    A lesion that is too small to be judged, or outside the scan, has neither site nor score; its ``scores``,
    ``shares``, ``site_set``, ``nearest`` and ``comparison`` are empty, and it is not sure.

    Attributes:
        roi_value: The mask value or segment number that the lesion belongs to.
        roi_name: The name of that value or segment. Empty without one.
        component: 1 for the largest lesion of its value, 2 for the next, and so on.
        volume_ml: The volume in millilitres.
        slices: The scan's slices that the lesion meets: 0-based k, ascending. Empty outside the scan.
        largest_slice: The slice with most of the lesion's pixels. None outside the scan.
        site: The key of the site.
        side: The patient's side. None outside the scan.
        doubts: Why the site is not sure, one sentence each. Empty if it is sure.
        site_set: Keys of the sites that the lesion may lie in, the likeliest first (`situs.certainty`). Empty
            for a bundle that was not calibrated.
        scores: Relation score of every site, in [0, 1], in the order of `sites`. The scores are not
            probabilities: they do not sum to 1.
        shares: Painted share of the lesion in every site, in the order of `sites`. The shares sum to 1. Empty
            for a bundle that does not paint.
        nearest: The references nearest to the lesion, of any site, nearest first.
        comparison: The references to compare the lesion with. First the nearest of ``site``, then the nearest
            of the site with the next highest score, at most 3 and 2.
        notes: What was corrected or assumed about this lesion, one sentence each. Never a doubt.
        bundle_name: The name of the bundle that answered.
        bundle_version: The version of that bundle.
        sites: The sites that it knows.
    """

    roi_value: int
    roi_name: str
    component: int
    volume_ml: float
    slices: tuple[int, ...]
    largest_slice: int | None
    site: str | None
    side: Side | None
    doubts: tuple[Sentence, ...]
    site_set: tuple[str, ...]
    scores: dict[str, float]
    shares: dict[str, float]
    nearest: tuple[Reference, ...]
    comparison: tuple[Reference, ...]
    notes: tuple[str, ...]
    bundle_name: str
    bundle_version: str
    sites: SiteList = SITES

    @property
    def sure(self) -> bool:
        """Whether nothing makes the site doubtful. The site of an unsure finding is still the best guess."""
        return not self.doubts

    @property
    def score(self) -> float | None:
        """The relation score of ``site``; None without a site."""
        return None if self.site is None else self.scores[self.site]

    @property
    def groups(self) -> dict[str, str | None]:
        """The group of ``site`` by grouping (`SiteList.groupings`), None for none. Empty without a site."""
        return {} if self.site is None else self.sites.shared_groups([self.site])

    @property
    def shared_groups(self) -> dict[str, str | None]:
        """The group that all sites of ``site_set`` share, by grouping, None for none. Empty if the set is.

        It may be known although the site is not sure.
        """
        return self.sites.shared_groups(self.site_set) if self.site_set else {}

    @property
    def lesion_name(self) -> str:
        """What the lesion is called: ``roi03_lesion1`` is the largest lesion of mask value 3."""
        return f"roi{self.roi_value:02d}_lesion{self.component}"
