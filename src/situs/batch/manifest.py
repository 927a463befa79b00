"""The manifest of a batch: a CSV or Parquet file with a row for each scan, read as a stream.

The columns are ``scan`` and ``roi``, and ``id``, ``series`` and ``mask_space``, which may be empty or absent;
others are ignored. Paths are relative to the manifest's folder. A row that cannot be used is a `Case` with an
error: it never stops the others.
"""

from __future__ import annotations

import csv
import glob
import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from situs.errors import InputError, ManifestError
from situs.tables import csv_text

__all__ = ["Case", "Manifest", "find_pairs", "match_pairs"]

_COLUMNS = ("id", "scan", "roi", "series", "mask_space")
_REQUIRED = ("scan", "roi")
_BATCH_ROWS = 1000  # of a Parquet file that are in memory together
_UNREADABLE = "\ufffd"  # what stands for bytes that are no UTF-8


@dataclass(frozen=True)
class Case:
    """A row of the manifest.

    Attributes:
        number: The number of the row, from 1.
        id: The user's name for it; may be empty.
        scan: The scan, as the manifest has it.
        roi: The regions of interest, as the manifest has them.
        series: The DICOM series, see `situs.io.read_volume`; empty without one.
        mask_space: ``index`` or ``world``, see `situs.io.read_rois`; empty if the headers decide.
        error: Why the row cannot be used; empty if it can.
    """

    number: int
    id: str = ""
    scan: str = ""
    roi: str = ""
    series: str = ""
    mask_space: str = ""
    error: str = ""


class Manifest:
    """The rows of a manifest, which is read anew for each iteration; 16 bytes a row stay in memory.

    Args:
        path: A CSV file in UTF-8, or a Parquet file, told apart by content.

    Attributes:
        folder: What the paths of the rows are relative to.

    Raises:
        ManifestError: It cannot be read, lacks a column, or has no rows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.parent
        if not path.is_file():
            raise ManifestError(f"{path}: is not a file; expected a manifest, CSV or Parquet")
        hashes = {"id": array("Q"), "files": array("Q")}
        self._length = 0
        for number, entry in enumerate(_entries(path), start=1):
            self._length = number
            for name, key in _keys(_to_case(number, entry)).items():
                hashes[name].append(_hash(key))
        if not self._length:
            raise ManifestError(f"{path}: has no rows; expected one for each scan")
        self._repeated = frozenset(value for each in hashes.values() for value in _repeated(each))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Case]:
        first: dict[tuple[str, ...], int] = {}  # the row of each key that may be repeated
        for number, entry in enumerate(_entries(self._path), start=1):
            case = _to_case(number, entry)
            for name, key in _keys(case).items():
                if _hash(key) not in self._repeated:
                    continue
                before = first.setdefault(key, number)
                if before != number and not case.error:
                    what = f"id {case.id!r}" if name == "id" else "the same scan and ROI"
                    error = f"is a duplicate: {what} stands in row {before} too; leave one of them"
                    case = Case(**{**vars(case), "error": error})
            yield case


def find_pairs(scans: str, rois: str) -> str:
    """The manifest of the files that match two patterns, ascending by what the ``*`` stands for, as CSV.

    Its column ``id`` holds what the ``*`` stands for. A file without a partner has a row too.

    Args:
        scans: Pattern with one ``*``, for example ``scans/*.nii.gz``. The ``*`` stands for no slash.
        rois: Likewise.

    Raises:
        InputError: A pattern has not one ``*``, or no file matches either.
    """
    pairs = match_pairs(scans, rois)
    if not pairs:
        raise InputError(f"--scans {scans} --rois {rois}: no file matches either; check the patterns")
    return csv_text(_COLUMNS[:3], [[key, *pair] for key, pair in pairs.items()])


def match_pairs(scans: str, rois: str) -> dict[str, tuple[str, str]]:
    """The scan and the regions that match two patterns, by what the ``*`` stands for, ascending.

    One of the two is empty if there is none. See `find_pairs`.

    Raises:
        InputError: A pattern has not one ``*``.
    """
    found = [_match(option, pattern) for option, pattern in (("--scans", scans), ("--rois", rois))]
    return {key: (found[0].get(key, ""), found[1].get(key, "")) for key in sorted({*found[0], *found[1]})}


def _match(option: str, pattern: str) -> dict[str, str]:
    """The files that match a pattern, by what the ``*`` stands for."""
    if pattern.count("*") != 1:
        raise InputError(f"{option} {pattern}: expected one '*' in it, such as 'scans/*.nii.gz'")
    before, after = pattern.split("*")
    files = glob.iglob(f"{glob.escape(before)}*{glob.escape(after)}")  # noqa: PTH207  # Path's needs a root
    return {file[len(before) : len(file) - len(after)]: str(Path(file).absolute()) for file in files}


def _entries(path: Path) -> Iterator[dict[str, str] | str]:
    """The cells of each row by column; of a row that cannot be read, why."""
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        yield from _parquet_entries(path) if is_parquet else _csv_entries(path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error})") from error


def _csv_entries(path: Path) -> Iterator[dict[str, str] | str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        try:
            _check_columns(path, reader.fieldnames or [])
        except csv.Error as error:
            raise ManifestError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
        while True:
            try:
                entry: dict[Any, Any] = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"the row cannot be read ({error})"
                continue
            yield "the row has more cells than the header" if None in entry else entry


def _parquet_entries(path: Path) -> Iterator[dict[str, str]]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            columns = [name for name in _COLUMNS if name in names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                for entry in batch.to_pylist():
                    yield {name: "" if cell is None else str(cell) for name, cell in entry.items()}
    except pa.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise ManifestError(f"{path}: expected a whole Parquet file ({reason})") from error


def _check_columns(path: Path, names: Any) -> None:
    for name in _REQUIRED:
        if name not in names:
            raise ManifestError(f"{path}: lacks the column {name!r}; expected {', '.join(_REQUIRED)}")


def _to_case(number: int, entry: dict[str, str] | str) -> Case:
    if isinstance(entry, str):
        return Case(number, error=entry)
    cells = {name: (entry.get(name) or "").strip() for name in _COLUMNS}
    error = ""
    if missing := [name for name in _REQUIRED if not cells[name]]:
        error = f"{missing[0]} is empty; expected a file"
    elif any(_UNREADABLE in cell or "\0" in cell for cell in cells.values()):
        error = "the row is not UTF-8 text"
    elif cells["mask_space"] not in ("", "index", "world"):
        error = f"mask_space: expected 'index', 'world' or nothing, got {cells['mask_space']!r}"
    return Case(number, **cells, error=error)


def _keys(case: Case) -> dict[str, tuple[str, ...]]:
    """What no other row may have."""
    if case.error:
        return {}
    keys: dict[str, tuple[str, ...]] = {"files": (case.scan, case.roi, case.series, case.mask_space)}
    return {"id": (case.id,), **keys} if case.id else keys


def _hash(key: tuple[str, ...]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(key).encode(), digest_size=8).digest())


def _repeated(hashes: array[int]) -> list[int]:
    """The numbers that stand more than once."""
    if not hashes:
        return []
    values = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    return [int(value) for value in np.unique(values[1:][values[1:] == values[:-1]])]
