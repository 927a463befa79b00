"""The tables of a batch, made from its parts in the manifest's order: CSV, Parquet, and a JSON each scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from situs.anatomy import SiteList
from situs.batch.parts import PER_FOLDER, Part, numbered
from situs.batch.summary import Summary
from situs.files import make_folder, replacing, write_file
from situs.report.findings import csv_cell, csv_columns, finding_cells, json_text
from situs.tables import csv_text

__all__ = ["write_json_files", "write_tables"]

_CASE_COLUMNS = ("row", "id", "scan", "roi", "error")
CSV_FILE, PARQUET_FILE, JSON_FOLDER = "findings.csv", "findings.parquet", "json"
# The Parquet types; all other columns are text.
_INTEGERS = ("row", "roi_value", "component", "slice_count", "first_slice", "last_slice", "largest_slice")
_LISTS = ("doubts", "site_set", "nearest", "comparison", "notes", "assumptions")
_NUMBERS = ("volume_ml", "score")
_NUMBER_STARTS = ("score_", "share_")

Cells = dict[str, Any]  # the values of a row by column; None where there is none


def write_tables(out: Path, parts: Iterable[Part], sites: SiteList, parquet: bool) -> Summary:
    """Write the findings of all parts as one CSV, and as one Parquet file if that is asked for.

    A scan has a row for each lesion. One that failed, or has no lesion, has one row.

    Args:
        out: The folder of the batch.
        parts: In the order of the rows; they are not kept in memory.
        sites: Those of the bundle that answered.
        parquet: Whether to write the Parquet file. An old one is removed otherwise.

    Raises:
        OutputError: A file cannot be written.
    """
    summary = Summary(sites)
    rows, columns = _rows(parts, summary), (*_CASE_COLUMNS, *csv_columns(sites))
    with replacing(out / CSV_FILE) as temporary, temporary.open("wb") as file:
        file.write(_csv_bytes([columns]))
        with _parquet_writer(out / PARQUET_FILE, columns, parquet) as write_parquet:
            while block := list(islice(rows, PER_FOLDER)):
                file.write(_csv_bytes([[csv_cell(row.get(name)) for name in columns] for row in block]))
                write_parquet(block)
    return summary


def write_json_files(out: Path, parts: Iterable[Part]) -> None:
    """Write the findings of each scan that was labelled as a JSON file, named by its row.

    Raises:
        OutputError: A file cannot be written.
    """
    folder = None
    for part in parts:
        if part.report is not None:
            path = numbered(out / JSON_FOLDER, part.row)
            if path.parent != folder:
                folder = path.parent
                make_folder(folder)
            write_file(path, json_text(part.report).encode())


def _rows(parts: Iterable[Part], summary: Summary) -> Iterator[Cells]:
    for part in parts:
        summary.add(part)
        case = {name: getattr(part, name) for name in _CASE_COLUMNS}
        if part.report is None or not part.report["findings"]:
            yield case
            continue
        for finding in part.report["findings"]:
            yield {**case, **finding_cells(part.report, finding)}


def _csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    return csv_text(rows[0], rows[1:]).encode("utf-8", "replace")


@contextmanager
def _parquet_writer(
    path: Path, columns: Sequence[str], wanted: bool
) -> Iterator[Callable[[list[Cells]], None]]:
    """A function that appends rows to a Parquet file, which is renamed when it is whole."""
    if not wanted:
        path.unlink(missing_ok=True)
        yield lambda rows: None
        return
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    def type_of(name: str) -> pa.DataType:
        if name in _INTEGERS:
            return pa.int64()
        if name in _NUMBERS or name.startswith(_NUMBER_STARTS):
            return pa.float64()
        if name in _LISTS:
            return pa.list_(pa.string())
        return pa.bool_() if name == "sure" else pa.string()

    schema = pa.schema([(name, type_of(name)) for name in columns])
    with replacing(path) as temporary, ParquetWriter(temporary, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
