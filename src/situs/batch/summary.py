"""What a batch came to: counts of scans, sites, sides and failures."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from situs.anatomy import SITES, SiteList
from situs.batch.parts import Part
from situs.finding import SIDES
from situs.tables import text_table

__all__ = ["Summary"]

_MOST_REASONS = 10
_KEPT_REASONS = 1000  # different ones that are counted apart; bounds the memory


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
        reasons: Failures by reason, with file names and numbers left out.
    """

    known_sites: SiteList = SITES
    scans: int = 0
    failed: int = 0
    lesions: int = 0
    unsure: int = 0
    sites: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
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

    def format_text(self) -> str:
        """The counts as text for people, which ends in a newline."""
        labelled = self.scans - self.failed
        lines = [
            f"{self.scans} scans: {labelled} labelled, {self.failed} failed; "
            f"{self.lesions} lesions, {self.unsure} not sure"
        ]
        rows = []
        for key, name in [*((site.key, site.name) for site in self.known_sites), (None, "without a site")]:
            counts = [self.sites[key, side] for side in (*SIDES, None)]
            if sum(counts):
                rows.append([name, *counts[:-1], sum(counts)])
        if rows:
            lines += ["", text_table([["site", *SIDES, "all"], *rows])]
        if self.reasons:
            ranked = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
            lines += ["", "failed:", *(f"  {n} x {reason}" for reason, n in ranked[:_MOST_REASONS])]
            if others := sum(n for _, n in ranked[_MOST_REASONS:]):
                lines.append(f"  {others} x other reasons")
        return "\n".join(lines) + "\n"


def _reason(part: Part) -> str:
    """The error without what differs from row to row."""
    text = part.error
    for name, path in (("ROI", part.roi), ("scan", part.scan)):
        text = text.replace(path, name) if path else text
    return re.sub(r"\d+", "#", text)
