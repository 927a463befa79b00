"""The anatomical sites: a list of them, read from a table, and the 15 of the paper.

A `SiteList` travels in every bundle. Its order is the order of every array axis over sites. The shipped list,
`SITES`, is the paper's (arXiv 1710.09180, Table 1; alphabetical), read from ``data/sites.csv``.
``docs/sites.md`` describes both.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from situs.errors import InputError, did_you_mean
from situs.files import read_whole
from situs.tables import csv_text

__all__ = ["SITES", "SITE_INDEX", "SITE_KEYS", "Site", "SiteList", "read_sites", "sites_csv"]

MOST_SITES = 250  # site maps hold a byte for each voxel
_MOST_BYTES = 2**20
_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TEXT_LENGTH = 200
_MOST_GROUPINGS = 20
_GROUP_COLUMN = "group_"  # a column of the table that begins so is a grouping


@dataclass(frozen=True)
class Site:
    """One anatomical site.

    Attributes:
        key: The name used in files, JSON and columns: small letters, digits and ``_``, a letter first.
        name: The name shown to people.
        paired: Whether there is one on each side of the patient.
        code_scheme: The DICOM coding scheme of the code: ``SCT`` for SNOMED CT, or ``99SITUS``, which is
            private to situs; empty for a site without a code.
        code: The code value within that scheme.
        code_meaning: What the code means, in the words of its source.
        code_source: Where the code comes from: a context group of DICOM PS3.16, or ``situs``.
        parent: The key of the site that it is a part of; empty for none.
        labels: The numbers of the head label maps' labels that are the site, with spaces between; empty where
            the package's rules name it (`situs.synth.site_list`).
        groups: The group of the site by the name of each grouping; empty for none.
    """

    key: str
    name: str
    paired: bool = False
    code_scheme: str = ""
    code: str = ""
    code_meaning: str = ""
    code_source: str = ""
    parent: str = ""
    labels: str = ""
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def crosses_midline(self) -> bool:
        """Whether it is one place on both sides: it is not paired, or a ventricle, open to the other one."""
        return not self.paired or self.groups.get("compartment") == "ventricular"


_COLUMNS = tuple(column.name for column in fields(Site) if column.name != "groups")


class SiteList(tuple[Site, ...]):
    """The sites that a bundle or a cohort knows. Every site has an entry for every grouping of the list.

    Raises:
        InputError: When it is made: a key is odd or comes twice, two names are alike, a site has a code
            without its scheme or the reverse, a parent is missing or its own ancestor, or there are more
            than `MOST_SITES` sites or none. The line names the site.
    """

    def __new__(cls, sites: Iterable[Site]) -> SiteList:
        listed = list(sites)
        no_groups = dict.fromkeys((name for site in listed for name in site.groups), "")
        self = super().__new__(cls, (replace(site, groups={**no_groups, **site.groups}) for site in listed))
        self._check()
        return self

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys, in order."""
        return tuple(site.key for site in self)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The name of each site for people by its key, in order."""
        return {site.key: site.name for site in self}

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each site by its key: its place on an axis over sites."""
        return {key: number for number, key in enumerate(self.keys)}

    @cached_property
    def groupings(self) -> tuple[str, ...]:
        """The names of the groupings, in the order of the table."""
        return tuple(self[0].groups)

    def shared_groups(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The group that all of some sites are in, by grouping; None if they are in several or in none.

        Args:
            keys: The keys of the sites, at least one; all are in the list.
        """
        found = {name: {self.site(key).groups[name] for key in keys} for name in self.groupings}
        return {name: (min(groups) or None) if len(groups) == 1 else None for name, groups in found.items()}

    def number(self, key: str) -> int:
        """The number of the site of a key.

        Raises:
            InputError: If there is no such site; with the key that may be meant.
        """
        if key not in self.numbers:
            raise InputError(f"no site {key!r}{did_you_mean(key, self.keys)}")
        return self.numbers[key]

    def site(self, key: str) -> Site:
        """The site of a key that is in the list."""
        return self[self.numbers[key]]

    def _check(self) -> None:
        if not 1 <= len(self) <= MOST_SITES:
            raise InputError(f"sites: expected 1 to {MOST_SITES} sites, got {len(self)}")
        names: dict[str, str] = {}
        parents = {site.key: site.parent for site in self}
        for site in self:
            if not _KEY.fullmatch(site.key):
                raise InputError(
                    f"site {site.key!r}: expected a key of small letters, digits and '_', a letter first"
                )
            for grouping in site.groups:
                if not _KEY.fullmatch(grouping):
                    raise InputError(
                        f"site {site.key}: grouping {grouping!r}: expected small letters, digits and '_'"
                    )
            texts = [*vars(site).values(), *site.groups.values()]
            if long := [text for text in texts if isinstance(text, str) and len(text) > _TEXT_LENGTH]:
                start = long[0][:20]
                raise InputError(f"site {site.key}: {start!r}... is longer than {_TEXT_LENGTH} letters")
            if not site.name.strip():
                raise InputError(f"site {site.key}: name is empty")
            other = names.setdefault(site.name.strip().casefold(), site.key)
            if other != site.key:
                raise InputError(f"sites {other} and {site.key} have the same name, {site.name!r}")
            if bool(site.code) != bool(site.code_scheme):
                raise InputError(f"site {site.key}: a code needs a code_scheme, and a code_scheme a code")
            if site.parent and site.parent not in parents:
                raise InputError(
                    f"site {site.key}: no parent {site.parent!r}{did_you_mean(site.parent, list(parents))}"
                )
            above = site.parent
            for _ in parents:
                above = parents.get(above, "")
            if above:
                raise InputError(f"site {site.key}: its parents form a circle")
        if len(self.groupings) > _MOST_GROUPINGS:
            raise InputError(
                f"sites: expected at most {_MOST_GROUPINGS} groupings, got {len(self.groupings)}"
            )
        if len(parents) < len(self):
            twice = next(key for n, key in enumerate(self.keys) if key in self.keys[:n])
            raise InputError(f"site {twice}: the key comes twice")


def read_sites(path: Path) -> SiteList:
    """The list of sites in a CSV file in UTF-8 with a header.

    The columns are the fields of `Site`: ``key``, and the others, which may be empty or absent. A site
    without a name is called by its key. Each column ``group_WORD`` is the grouping WORD.

    Raises:
        InputError: If the file cannot be read, lacks the column ``key``, has a column ``group``, or is no
            valid list.
    """
    try:
        text = read_whole(path, _MOST_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if "key" not in (reader.fieldnames or []):
            raise InputError(f"{path}: lacks the column 'key'; expected {', '.join(_COLUMNS)}")
        if "group" in (reader.fieldnames or []):
            raise InputError(f"{path}: column 'group': call it group_WORD, such as group_compartment")
        rows = list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
    try:
        return SiteList(map(_to_site, rows))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def sites_csv(sites: Iterable[Site]) -> str:
    """The table that `read_sites` reads."""
    listed = SiteList(sites)
    rows = [
        [
            *(getattr(site, name) if name != "paired" else int(site.paired) for name in _COLUMNS),
            *site.groups.values(),
        ]
        for site in listed
    ]
    return csv_text([*_COLUMNS, *(_GROUP_COLUMN + name for name in listed.groupings)], rows)


def _to_site(row: Mapping[str, Any]) -> Site:
    cells = {name: (row.get(name) or "").strip() for name in _COLUMNS}
    if cells["paired"] not in ("", "0", "1"):
        raise InputError(f"site {cells['key']}: paired: expected 0 or 1, got {cells['paired']!r}")
    texts = {**cells, "name": cells["name"] or cells["key"].replace("_", " ")}
    groups = {
        column.removeprefix(_GROUP_COLUMN): (cell or "").strip()
        for column, cell in row.items()
        if column is not None and column.startswith(_GROUP_COLUMN)
    }
    return Site(**{**texts, "paired": cells["paired"] == "1"}, groups=groups)  # type: ignore[arg-type]


SITES = read_sites(Path(str(resources.files("situs").joinpath("data/sites.csv"))))
SITE_KEYS: tuple[str, ...] = SITES.keys
SITE_INDEX: Mapping[str, int] = SITES.numbers
