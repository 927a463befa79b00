"""The sites and the references of a bundle as text and CSV."""

from __future__ import annotations

from collections import Counter

import numpy as np

from situs.bundle import Bundle
from situs.cohort.references import match_references
from situs.neighbors import References
from situs.records import take_rows
from situs.tables import csv_text, text_table

__all__ = ["format_references_csv", "format_references_text", "format_sites_text"]


def format_sites_text(bundle: Bundle) -> str:
    """The sites of a bundle: key, name, groups, whether paired, code, parent and how they are known."""
    counts = np.bincount(bundle.references.sites, minlength=len(bundle.sites))
    rows = [["key", "name", *bundle.sites.groupings, "paired", "code", "part of", "known from"]]
    for number, site in enumerate(bundle.sites):
        trained = number < bundle.n_trained_sites
        rows.append(
            [
                site.key,
                site.name,
                *site.groups.values(),
                "yes" if site.paired else "no",
                f"{site.code_scheme} {site.code}".strip(),
                site.parent,
                "training" if trained else f"{counts[number]} references",
            ]
        )
    title = f"{bundle.name} {bundle.version}: {len(bundle.sites)} sites"
    return f"{title}\n{text_table(rows, left=tuple(range(len(rows[0]))))}"


def format_references_text(bundle: Bundle, site: str | None = None) -> str:
    """The number of references and of patients of each site; of one site, a list of its references.

    Raises:
        InputError: For a key that is no site's.
    """
    listed = take_rows(bundle.references, match_references(bundle, site=site))
    title = (
        f"{bundle.name} {bundle.version}: {len(listed)} references"
        f"{f' of {site}' if site else ''}, {_count_patients(listed)} patients"
    )
    if site is not None:
        rows = [["id", "patient"], *zip(listed.ids, listed.patients, strict=True)]
        return f"{title}\n{text_table(rows)}"
    counts = Counter(listed.sites.tolist())
    rows = [
        [key, counts[index], _count_patients(take_rows(listed, listed.sites == index))]
        for index, key in enumerate(bundle.sites.keys)
    ]
    lines = [title, text_table([["site", "references", "patients"], *rows])]
    if changes := bundle.description.get("references"):
        lines.append(f"Since the training {changes['added']} were added and {changes['removed']} removed.")
    pictures = bundle.description.get("pictures", {"rendered": 0, "patients": 0})
    if n := sum(pictures.values()):
        lines.append(f"{n} have pictures, {pictures['patients']} of them of patients' scans.")
    return "\n".join(lines)


def format_references_csv(bundle: Bundle, site: str | None = None) -> str:
    """CSV with a row for each reference, of one site or of all, in the bundle's order: id, site, patient.

    Raises:
        InputError: For a key that is no site's.
    """
    listed = take_rows(bundle.references, match_references(bundle, site=site))
    keys = [bundle.sites.keys[index] for index in listed.sites]
    return csv_text(["id", "site", "patient"], zip(listed.ids, keys, listed.patients, strict=True))


def _count_patients(references: References) -> int:
    """The number of named patients."""
    return len(set(references.patients.tolist()) - {""})
