"""The summary of a batch as one HTML page for people, with plots. It needs nothing but itself."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

from situs import __version__
from situs.batch.summary import VOLUMES_ML, Summary
from situs.finding import SIDES
from situs.report.bars import BARS_CSS, bar_chart
from situs.report.findings import DISCLAIMER
from situs.report.page import package_text, render_page

__all__ = ["format_summary"]


def format_summary(summary: Summary, bundle: str) -> str:
    """The page.

    Args:
        summary: The counts.
        bundle: Name and version of the bundle that answered.
    """
    rows = [row for row in summary.rows() if sum(row.sides)]
    template = resources.files("situs.batch").joinpath("templates/summary.html.j2")
    return render_page(
        template.read_text(encoding="utf-8"),
        package_text("templates/report.css") + BARS_CSS,
        summary=summary,
        bundle=bundle,
        version=__version__,
        disclaimer=DISCLAIMER,
        sides=SIDES,
        rows=rows,
        reasons=summary.ranked_reasons(),
        sides_chart=bar_chart(
            "sides", "Lesions by site and side", SIDES, {row.name: row.sides[:-1] for row in rows}
        ),
        sure_chart=bar_chart(
            "sure",
            "Lesions by site, sure and not sure",
            ("sure", "not sure"),
            {row.name: (sum(row.sides) - row.unsure, row.unsure) for row in rows},
        ),
        volume_chart=bar_chart("volume", "Lesions by volume", ("lesions",), _volume_rows(summary)),
    )


def _volume_rows(summary: Summary) -> dict[str, tuple[int]]:
    """How many lesions are in each range of volumes."""
    names = [f"under {VOLUMES_ML[0]:g} ml"]
    names += [f"{a:g} to {b:g} ml" for a, b in pairwise(VOLUMES_ML)]
    names += [f"{VOLUMES_ML[-1]:g} ml and more"]
    return {name: (summary.volumes[n],) for n, name in enumerate(names)}
