"""The parts of a batch: what became of each row of the manifest, a JSON file each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from situs.batch.manifest import Case
from situs.errors import OutputError
from situs.files import write_file

__all__ = ["PER_FOLDER", "Part", "numbered", "page_path", "part_path", "read_part", "write_part"]

PER_FOLDER = 1000  # larger folders are slow on many file systems


@dataclass(frozen=True)
class Part:
    """What became of one row.

    Attributes:
        row: The number of the row, from 1.
        id: As the manifest has it.
        scan: As the manifest has it.
        roi: As the manifest has it.
        error: Why the scan was not labelled; empty if it was.
        report: The findings, see `situs.report.to_json_object`; None after an error.
    """

    row: int
    id: str
    scan: str
    roi: str
    error: str
    report: dict[str, Any] | None


def numbered(folder: Path, row: int) -> Path:
    """The JSON file of a row in a folder of folders of `PER_FOLDER` rows each."""
    return folder / f"{(row - 1) // PER_FOLDER:06d}" / f"{row:09d}.json"


def part_path(out: Path, row: int) -> Path:
    """The part of a row in the folder of a batch."""
    return numbered(out / "parts", row)


def page_path(out: Path, row: int) -> Path:
    """The page of a row for people in the folder of a batch."""
    return numbered(out / "html", row).with_suffix(".html")


def write_part(out: Path, case: Case, report: dict[str, Any] | None, error: str = "") -> None:
    """Write what became of a case, whole or not at all.

    Raises:
        OutputError: It cannot be written.
        ValueError: A number is infinite or not a number.
    """
    part = Part(case.number, case.id, case.scan, case.roi, " ".join(error.split()), report)
    text = json.dumps(asdict(part), separators=(",", ":"), allow_nan=False)
    write_file(part_path(out, case.number), text.encode())


def read_part(out: Path, row: int) -> Part:
    """Read what became of a row.

    Raises:
        OutputError: The part is missing or damaged.
    """
    path = part_path(out, row)
    try:
        return Part(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path}: is missing or damaged: delete it and run the command again") from error
