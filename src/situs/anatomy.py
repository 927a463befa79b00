"""The 15 anatomical sites of the paper (arXiv 1710.09180, Table 1), read from ``data/sites.csv``.

The order of `SITES` is the paper's (alphabetical) and is the order of every array axis over sites.
``docs/sites.md`` describes the sites and their codes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

__all__ = ["SITES", "SITE_INDEX", "SITE_KEYS", "Site"]


@dataclass(frozen=True)
class Site:
    """One anatomical site.

    Attributes:
        key: The name used in files, JSON and columns.
        name: The name shown to people.
        group: ``parenchyma``, ``csf``, ``extra-axial`` or ``sinus``.
        paired: Whether there is one on each side of the patient.
        code_scheme: The DICOM coding scheme of the code: ``SCT`` for SNOMED CT, or ``99SITUS``, which is
            private to situs.
        code: The code value within that scheme.
        code_meaning: What the code means, in the words of its source.
        code_source: Where the code comes from: a context group of DICOM PS3.16, or ``situs``.
    """

    key: str
    name: str
    group: str
    paired: bool
    code_scheme: str
    code: str
    code_meaning: str
    code_source: str


def _read_sites() -> tuple[Site, ...]:
    text = resources.files("situs").joinpath("data/sites.csv").read_text(encoding="utf-8")
    return tuple(
        Site(
            key=row["key"],
            name=row["name"],
            group=row["group"],
            paired=row["paired"] == "1",
            code_scheme=row["code_scheme"],
            code=row["code"],
            code_meaning=row["code_meaning"],
            code_source=row["code_source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


SITES: tuple[Site, ...] = _read_sites()
SITE_KEYS: tuple[str, ...] = tuple(site.key for site in SITES)
SITE_INDEX: dict[str, int] = {key: index for index, key in enumerate(SITE_KEYS)}
