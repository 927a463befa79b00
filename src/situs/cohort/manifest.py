"""What a cohort holds: a folder with ``manifest.csv``, a row for every region of interest.

Columns ``scan, roi, value, site, patient``; optional ``side, kind, sites, lateral``; paths relative to the
manifest. Rendered or one's own, the same code reads it.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.errors import ManifestError, did_you_mean

__all__ = ["MANIFEST", "Row", "describe_cohort", "read_manifest"]

MANIFEST = "manifest.csv"

_COLUMNS = ("scan", "roi", "value", "site", "patient")


@dataclass(frozen=True)
class Row:
    """One region of interest of a cohort.

    Attributes:
        scan: the scan, and a mask on a grid of the same patient
        roi: See `scan`.
        value: of the mask
        site: index into `situs.anatomy.SITES`
        patient: whose scan it is; for rendered scans, the head
        side: as the manifest says, or empty
        kind: See `side`.
        sites: NIfTI files on the scan's grid: site map, and distance to the midline; None if not given
        lateral: See `sites`.
    """

    scan: Path
    roi: Path
    value: int
    site: int
    patient: str
    side: str = ""
    kind: str = ""
    sites: Path | None = None
    lateral: Path | None = None


def read_manifest(cohort: Path) -> list[Row]:
    """The rows of a cohort's manifest, checked, in its order.

    Raises:
        ManifestError: if the file, a column or a file it names is missing, or a value is none
    """
    path = Path(cohort) / MANIFEST
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            fields = reader.fieldnames or []
            entries = [(reader.line_num, entry) for entry in reader]
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}): a cohort is a folder with it"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    if missing := [name for name in _COLUMNS if name not in fields]:
        raise ManifestError(f"{path}: lacks the column {missing[0]!r}; expected {', '.join(_COLUMNS)}")
    if not entries:
        raise ManifestError(f"{path}: has no rows: every region of interest is one")
    known: set[Path] = set()
    return [_read_row(entry, f"{path}, line {line}", path.parent, known) for line, entry in entries]


def describe_cohort(cohort: Path) -> dict[str, str]:
    """What a model card says about a rendered cohort: ``data`` and ``attribution``; empty for any other, and
    for one whose manifest has been given rows of somebody else."""
    try:
        settings = json.loads((cohort / "cohort.json").read_text(encoding="utf-8"))
        heads = [name.partition(".")[0] for name in settings["heads"]]
        with (cohort / MANIFEST).open(encoding="utf-8-sig", newline="") as stream:
            if not {row["patient"] for row in csv.DictReader(stream)} <= set(heads):
                return {}
        data = (
            f"Rendered scans only, no patient's: `situs synth` from {len(heads)} head label maps "
            f"({', '.join(heads)}), seed {settings['seed']}, sites {settings['sites']}."
        )
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
    return {"data": data, "attribution": "The label maps' origins and licences: `NOTICE` of situs."}


def _read_row(entry: dict[str, Any], where: str, base: Path, known: set[Path]) -> Row:
    texts = {
        name: (entry.get(name) or "").strip() for name in (*_COLUMNS, "side", "kind", "sites", "lateral")
    }
    for name in _COLUMNS:
        if not texts[name]:
            raise ManifestError(f"{where}: {name} is empty")
    try:
        value = int(texts["value"])
    except ValueError as error:
        raise ManifestError(f"{where}: value: expected a whole number, got {texts['value']!r}") from error
    site = texts["site"]
    if site not in SITE_INDEX:
        raise ManifestError(f"{where}: no site {site!r}{did_you_mean(site, SITE_KEYS)}")
    files: dict[str, Path | None] = {}
    for name in ("scan", "roi", "sites", "lateral"):
        files[name] = base / texts[name] if texts[name] else None
        path = files[name]
        if path is not None and path not in known:
            if not path.exists():
                raise ManifestError(f"{where}: {name}: no such file: {path}")
            known.add(path)
    scan, roi = files["scan"], files["roi"]
    assert scan is not None and roi is not None  # neither text is empty
    return Row(
        scan,
        roi,
        value,
        SITE_INDEX[site],
        texts["patient"],
        texts["side"],
        texts["kind"],
        files["sites"],
        files["lateral"],
    )
