"""What a batch came to: counts of scans, sites, sides and failures."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from situs.anatomy import SITES, SiteList
from situs.batch.parts import Part
from situs.finding import SIDES
from situs.tables import text_table

__all__ = ["VOLUMES_ML", "Summary"]

VOLUMES_ML = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # where one range of volumes ends and the next begins

_MOST_REASONS = 10
_KEPT_REASONS = 1000  # different ones that are counted apart; bounds the memory


@dataclass(frozen=True)
class SiteCounts:
    """The findings of one site.

    Attributes:
        name: The site's name.
        sides: Findings by `situs.finding.SIDES`, and then those without a side.
        unsure: Those that are not sure.
    """

    name: str
    sides: tuple[int, ...]
    unsure: int


@dataclass
class Summary:
    """Counts over the parts of a batch.

    Attributes:
        known_sites: The sites of the bundle that answered.
        scans: Rows of the manifest.
        failed: Those that were not labelled.
        lesions: Findings.
        unsure: Findings that are not sure.
        sites: Findings by site and side; the site or the side may be None.
        unsure_sites: Findings that are not sure by site, which may be None.
        volumes: Findings by volume: key n counts those between `VOLUMES_ML` n - 1 and n.
        reasons: Failures by reason, with file names and numbers left out.
    """

    known_sites: SiteList = SITES
    scans: int = 0
    failed: int = 0
    lesions: int = 0
    unsure: int = 0
    sites: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    unsure_sites: Counter[str | None] = field(default_factory=Counter)
    volumes: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, part: Part) -> None:
        """Count a part."""
        self.scans += 1
        if part.report is None:
            self.failed += 1
            reason = _reason(part)
            full = len(self.reasons) >= _KEPT_REASONS and reason not in self.reasons
            self.reasons["other reasons" if full else reason] += 1
            return
        for finding in part.report["findings"]:
            self.lesions += 1
            self.unsure += not finding["sure"]
            self.sites[finding["site"], finding["side"]] += 1
            self.unsure_sites[finding["site"]] += not finding["sure"]
            self.volumes[bisect_right(VOLUMES_ML, finding["volume_ml"])] += 1

    def rows(self) -> list[SiteCounts]:
        """The counts of each site that the bundle knows, and of the findings without a site."""
        named = [*((site.key, site.name) for site in self.known_sites), (None, "without a site")]
        return [
            SiteCounts(name, tuple(self.sites[key, side] for side in (*SIDES, None)), self.unsure_sites[key])
            for key, name in named
        ]

    def ranked_reasons(self) -> list[tuple[str, int]]:
        """The commonest reasons why scans failed, with their counts; the others together come last."""
        ranked = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        others = sum(count for _, count in ranked[_MOST_REASONS:])
        return ranked[:_MOST_REASONS] + [("other reasons", others)] * bool(others)

    def format_text(self) -> str:
        """The counts as text for people, which ends in a newline."""
        labelled = self.scans - self.failed
        lines = [
            f"{self.scans} scans: {labelled} labelled, {self.failed} failed; "
            f"{self.lesions} lesions, {self.unsure} not sure"
        ]
        rows = [[row.name, *row.sides[:-1], sum(row.sides)] for row in self.rows() if sum(row.sides)]
        if rows:
            lines += ["", text_table([["site", *SIDES, "all"], *rows])]
        if reasons := self.ranked_reasons():
            lines += ["", "failed:", *(f"  {count} x {reason}" for reason, count in reasons)]
        return "\n".join(lines) + "\n"


def _reason(part: Part) -> str:
    """The error without what differs from row to row."""
    text = part.error
    for name, path in (("ROI", part.roi), ("scan", part.scan)):
        text = text.replace(path, name) if path else text
    return re.sub(r"\d+", "#", text)
