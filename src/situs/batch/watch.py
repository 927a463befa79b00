"""Scans that arrive while a batch runs: a manifest that grows by those that are there whole.

A scan is whole when two looks in succession find the same files of it and of its mask, with the same sizes
and times, and each of them opens. So the pause between two looks is how long a file that is still being
written may stand still.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from situs.batch.manifest import match_pairs
from situs.files import write_file
from situs.tables import csv_text

__all__ = ["Arrivals"]

_COLUMNS = ("id", "scan", "roi", "seen")


class Arrivals:
    """Keeps the manifest of a watched batch. A scan keeps its row for good.

    The column ``seen`` of the manifest tells whether the files of a row have changed since they were read.

    Args:
        patterns: Of the scans and of their regions, see `situs.batch.manifest.find_pairs`.
        manifest: The file. It is written with the first scans.
    """

    def __init__(self, patterns: tuple[str, str], manifest: Path) -> None:
        self._patterns, self._manifest = patterns, manifest
        self._rows: dict[str, list[str]] = {}  # by id, in the manifest's order
        self._before: dict[str, str] = {}  # what the last look saw of scans that may be incomplete
        self._settled: set[str] = set()  # ids that are looked at no more
        if manifest.exists():
            with manifest.open(encoding="utf-8", newline="") as file:
                rows = [[row[name] for name in _COLUMNS] for row in csv.DictReader(file)]
            self._rows = {row[0]: row for row in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def look(self, forget_failure: Callable[[int], bool]) -> bool:
        """Look once, and write the manifest with what is whole.

        Args:
            forget_failure: Is called with the number of a row whose files have changed. It answers whether
                labelling it had failed, and sees to it that it is labelled again.

        Returns:
            Whether there is something to label.

        Raises:
            OutputError: The manifest cannot be written.
        """
        numbers = {key: number for number, key in enumerate(self._rows, start=1)}
        seen: dict[str, str] = {}
        changed = False
        for name, files in match_pairs(*self._patterns).items():
            key = _utf8(name)
            if "" in files or key in self._settled or not (state := _state(files)):
                continue
            seen[key] = state
            if key in numbers and self._rows[key][-1] == state:
                continue
            if self._before.get(key) != state:
                continue
            if key in numbers and not forget_failure(numbers[key]):
                self._settled.add(key)
                continue
            self._rows[key] = [key, *map(_utf8, files), state]
            changed = True
        self._before = seen
        if changed:
            write_file(self._manifest, csv_text(_COLUMNS, self._rows.values()).encode())
        return changed


def _utf8(name: str) -> str:
    """A file name as the manifest holds it: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode()


def _state(paths: tuple[str, str]) -> str:
    """A digest of the names, sizes and times of all files of some paths; empty if one cannot be read yet."""
    state = []
    try:
        for path in paths:
            files = sorted(file for file in Path(path).rglob("*") if file.is_file()) or [Path(path)]
            for file in files:
                with file.open("rb") as stream:
                    status = os.fstat(stream.fileno())
                if not status.st_size:
                    return ""
                state.append((os.fspath(file), status.st_size, status.st_mtime_ns))
    except OSError:
        return ""
    return hashlib.blake2b(repr(state).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
