"""Site maps by a list of one's own: which of its sites a voxel of a head is.

A site of the list is defined by labels of the head label maps (`situs.anatomy.Site.labels`) or, without
labels, by the package's rule for the site of its key, which is one of the 15 (`situs.synth.site_map`). A
voxel with a label of a listed site is that site; what is left of the others goes by the rules. A *code* is 0
for no site, else the number of the site in the list + 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS, Site, SiteList
from situs.errors import InputError, did_you_mean
from situs.synth.site_map import LABELS

__all__ = ["check_labels", "check_list", "label_numbers", "list_codes", "main_rules"]

Codes = NDArray[np.uint8]


def label_numbers(site: Site) -> tuple[int, ...]:
    """The numbers in `Site.labels`.

    Raises:
        InputError: If a word there is no whole number.
    """
    words = site.labels.split()
    if wrong := [word for word in words if not word.isdecimal()]:
        raise InputError(
            f"site {site.key}: labels: expected whole numbers with spaces between, got {wrong[0]!r}"
        )
    return tuple(map(int, words))


def check_list(sites: SiteList) -> None:
    """Check that each site of a list is defined, by labels or by a rule.

    Raises:
        InputError: If a site has neither labels nor the key of one of the 15, or a label is not known to head
            label maps, or comes twice.
    """
    owner: dict[int, str] = {}
    for site in sites:
        numbers = label_numbers(site)
        if not numbers and site.key not in SITE_INDEX:
            raise InputError(
                f"site {site.key}: has no labels, and there is no rule for this key"
                f"{did_you_mean(site.key, SITE_KEYS)}"
            )
        for number in numbers:
            if number not in LABELS:
                raise InputError(
                    f"site {site.key}: head label maps know no label {number}; expected FreeSurfer's or "
                    "CHARM's numbers"
                )
            if number in owner:
                raise InputError(f"site {site.key}: label {number} is given already, to {owner[number]}")
            owner[number] = site.key


def check_labels(sites: SiteList, heads: Iterable[NDArray[np.int16]]) -> None:
    """Refuse a list with a label that no head has. Heads are looked at until every label was found.

    Args:
        sites: The list.
        heads: Label maps.

    Raises:
        InputError: With the site and the label.
    """
    left = {number: site.key for site in sites for number in label_numbers(site)}
    if not left:
        return
    for labels in heads:
        for number in np.unique(labels).tolist():
            left.pop(number, None)
        if not left:
            return
    for number, key in left.items():
        raise InputError(f"site {key}: no head has the label {number}; leave it out of the list")


def list_codes(ruled: Codes, labels: NDArray[np.int16], sites: SiteList) -> Codes:
    """A site map of the 15 sites as one of a list.

    Args:
        ruled: (nx, ny, nz) codes of the 15 sites.
        labels: (nx, ny, nz) the label map.
        sites: The list.
    """
    by_rule = np.zeros(len(SITE_KEYS) + 1, dtype=np.uint8)
    by_label = np.zeros(max(LABELS) + 1, dtype=np.uint8)
    for code, site in enumerate(sites, start=1):
        if numbers := label_numbers(site):
            by_label[list(numbers)] = code
        else:
            by_rule[SITE_INDEX[site.key] + 1] = code
    labelled = by_label[labels]
    return np.where(labelled > 0, labelled, by_rule[ruled])


def main_rules(codes: Codes, ruled: Codes, sites: SiteList) -> dict[str, str]:
    """The key of the one of the 15 that most voxels of each site of a list are by the rules; "" for none.

    Args:
        codes: (nx, ny, nz) codes of the list.
        ruled: (nx, ny, nz) codes of the 15 sites.
        sites: The list.
    """
    keys, width = ("", *SITE_KEYS), len(SITE_KEYS) + 1
    where = np.flatnonzero(codes)
    pairs = codes.ravel()[where].astype(np.int64) * width + ruled.ravel()[where]
    counts = np.bincount(pairs, minlength=width * (len(sites) + 1)).reshape(-1, width)
    return {
        site.key: keys[counts[code].argmax()] if site.labels else site.key
        for code, site in enumerate(sites, start=1)
    }
