"""The 15 anatomical sites of the paper (arXiv 1710.09180, Table 1), read from ``data/sites.csv``.

The order of `SITES` is the paper's (alphabetical) and is the order of every array axis over sites.
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
        key: the name used in files, JSON and columns
        name: the name shown to people
        group: ``parenchyma``, ``csf``, ``extra-axial`` or ``sinus``
        paired: whether there is one on each side of the patient
        snomed_code: SNOMED CT concept, empty where none fits the site as a whole
        snomed_meaning: See `snomed_code`.
    """

    key: str
    name: str
    group: str
    paired: bool
    snomed_code: str
    snomed_meaning: str


def _read_sites() -> tuple[Site, ...]:
    text = resources.files("situs").joinpath("data/sites.csv").read_text(encoding="utf-8")
    return tuple(
        Site(r["key"], r["name"], r["group"], r["paired"] == "1", r["snomed_code"], r["snomed_meaning"])
        for r in csv.DictReader(text.splitlines())
    )


SITES: tuple[Site, ...] = _read_sites()
SITE_KEYS: tuple[str, ...] = tuple(site.key for site in SITES)
SITE_INDEX: dict[str, int] = {key: index for index, key in enumerate(SITE_KEYS)}
