"""The manifest of a cohort: a folder with ``manifest.csv``, one row for every region of interest.

The columns are the fields of `Row`: ``scan, roi, value, site, patient``, and ``side, kind, sites, lateral,
mask_space``, which may be empty or absent. Paths are relative to the folder. Rendered cohorts and those of
users are read alike. A cohort of other sites than the shipped ones has its list in ``sites.csv``, see
`situs.anatomy.read_sites`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from situs.anatomy import SITES, Site, SiteList, read_sites, sites_csv
from situs.errors import InputError, ManifestError
from situs.files import read_whole, write_file
from situs.tables import csv_text

if TYPE_CHECKING:
    from situs.io.binding import MaskSpace

__all__ = [
    "MANIFEST",
    "Row",
    "describe_cohort",
    "read_cohort_sites",
    "read_manifest",
    "write_cohort_sites",
    "write_manifest",
]

MANIFEST, _SITES = "manifest.csv", "sites.csv"
_MOST_BYTES = 2**28  # a million rows


@dataclass(frozen=True)
class Row:
    """One region of interest of a cohort.

    Attributes:
        scan: The scan.
        roi: A mask of the same patient; it may lie on another grid than the scan.
        value: The region's value in the mask.
        site: The key of the site.
        patient: Name of the patient; for rendered scans, the head.
        side: Side of the region, in the manifest's words; empty if not given.
        kind: Kind of lesion, in the manifest's words; empty if not given.
        sites: NIfTI file with the site map, on the scan's grid; None if not given.
        lateral: NIfTI file with the distance to the midline, on the scan's grid; None if not given.
        mask_space: ``index`` or ``world``, see `situs.io.read_rois`; empty if the headers decide.
    """

    scan: Path
    roi: Path
    value: int
    site: str
    patient: str
    side: str = ""
    kind: str = ""
    sites: Path | None = None
    lateral: Path | None = None
    mask_space: MaskSpace | Literal[""] = ""


_COLUMNS = tuple(field.name for field in fields(Row))
_REQUIRED = _COLUMNS[:5]
_FILES = ("scan", "roi", "sites", "lateral")


def read_cohort_sites(cohort: Path, others: Sequence[Site] = ()) -> SiteList:
    """The sites of a cohort: those of its ``sites.csv``; without one the shipped list.

    Args:
        cohort: The folder.
        others: Sites that the cohort may name too, such as a bundle's. They join the list unless it has them.

    Raises:
        ManifestError: If the list cannot be used.
    """
    path = Path(cohort) / _SITES
    try:
        sites = read_sites(path) if path.exists() else SITES
        new = [replace(site, parent="") for site in others if site.key not in sites.numbers]
        return SiteList([*sites, *new]) if new else sites
    except InputError as error:
        raise ManifestError(str(error)) from error


def write_cohort_sites(cohort: Path, sites: SiteList) -> None:
    """Write the list of a cohort; the folder must exist.

    Raises:
        OutputError: If it cannot be written.
    """
    write_file(Path(cohort) / _SITES, sites_csv(sites).encode())


def read_manifest(cohort: Path, others: Sequence[Site] = ()) -> list[Row]:
    """The rows of a cohort's manifest, checked, in its order.

    Args:
        cohort: The folder.
        others: See `read_cohort_sites`.

    Raises:
        ManifestError: If the manifest, a column or a file it names is missing, or a value is not valid.
    """
    path = Path(cohort) / MANIFEST
    sites = read_cohort_sites(cohort, others)
    try:
        text = read_whole(path, _MOST_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = reader.fieldnames or []
        entries = [(reader.line_num, entry) for entry in reader]
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}); a cohort is a folder with a {MANIFEST}"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
    if missing := [name for name in _REQUIRED if name not in names]:
        raise ManifestError(f"{path}: lacks the column {missing[0]!r}; expected {', '.join(_REQUIRED)}")
    if not entries:
        raise ManifestError(f"{path}: has no rows; expected one for every region of interest")
    existing: set[Path] = set()
    return [_read_row(entry, f"{path}, line {line}", path.parent, sites, existing) for line, entry in entries]


def write_manifest(cohort: Path, rows: Iterable[Row]) -> Path:
    """Write the manifest of a cohort and return its path; the folder must exist.

    Raises:
        OutputError: If it cannot be written.
    """

    def to_text(name: str, value: Any) -> str:
        if name in _FILES:
            return "" if value is None else Path(os.path.relpath(value, cohort)).as_posix()
        return str(value)

    path, rows = Path(cohort) / MANIFEST, list(rows)
    columns = _COLUMNS if any(row.mask_space for row in rows) else _COLUMNS[:-1]
    lines = [[to_text(name, getattr(row, name)) for name in columns] for row in rows]
    write_file(path, csv_text(columns, lines).encode())
    return path


def describe_cohort(cohort: Path, patients: Iterable[str]) -> dict[str, str]:
    """What a model card says about a rendered cohort.

    Args:
        cohort: The folder.
        patients: The patients of its manifest.

    Returns:
        The texts ``data`` and ``attribution``. Empty for a cohort that was not rendered, and for one that has
        other patients than the rendered heads.
    """
    try:
        settings = json.loads(read_whole(cohort / "cohort.json", _MOST_BYTES))
        heads = [name.partition(".")[0] for name in settings["heads"]]
        data = (
            f"Rendered scans only, no patient's: `situs synth` from {len(heads)} head label maps "
            f"({', '.join(heads)}), seed {settings['seed']}, sites {settings['sites']}."
        )
    except (OSError, ValueError, KeyError):
        return {}
    if not set(patients) <= set(heads):
        return {}
    return {"data": data, "attribution": "The label maps' origins and licences: `NOTICE` of situs."}


def _read_row(entry: dict[str, Any], where: str, folder: Path, sites: SiteList, existing: set[Path]) -> Row:
    """One row, checked.

    Args:
        entry: Column to text.
        where: Names the row in an error.
        folder: The cohort.
        sites: Those of the cohort.
        existing: Files that are known to exist; those that are found join them.
    """
    texts = {name: (entry.get(name) or "").strip() for name in _COLUMNS}
    for name in _REQUIRED:
        if not texts[name]:
            raise ManifestError(f"{where}: {name} is empty")
    try:
        value = int(texts["value"])
    except ValueError as error:
        raise ManifestError(f"{where}: value: expected a whole number, got {texts['value']!r}") from error
    try:
        sites.number(texts["site"])
    except InputError as error:
        raise ManifestError(f"{where}: {error}") from error
    if texts["mask_space"] not in ("", "index", "world"):
        raise ManifestError(
            f"{where}: mask_space: expected 'index', 'world' or nothing, got {texts['mask_space']!r}"
        )
    files = {name: folder / texts[name] if texts[name] else None for name in _FILES}
    for name, path in files.items():
        if path is not None and path not in existing:
            if not path.exists():
                raise ManifestError(f"{where}: {name}: no such file: {path}")
            existing.add(path)
    return Row(**{**texts, **files, "value": value})  # type: ignore[arg-type]
