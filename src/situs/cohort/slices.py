"""The examples of a cohort, and their cache.

Every slice that a region of the manifest meets is one example. They are made by `situs.cohort.examples` and
kept as bytes in ``COHORT/.cache``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from situs.cohort.examples import TARGETS, Extraction, iter_scans
from situs.cohort.manifest import MANIFEST, Row, read_manifest
from situs.errors import OutputError
from situs.files import replacing, stem
from situs.views import ViewSpec

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Batch", "Slices", "open_slices"]

# Part of the cache's name: raise it when the bytes that are made from the same files change.
_CACHE_VERSION = 6

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Batch:
    """Views and painting targets of n examples; size s, targets at half of it.

    Attributes:
        global_view: (n, channels, s, s) uint8
        local_view: See `global_view`.
        site: (n,) int64, index into `SITES`
        global_sites: (n, s / 2, s / 2) uint8; None if the cohort has no site maps
        local_sites: See `global_sites`.
        global_lateral: (n, s / 2, s / 2) int8; likewise
        local_lateral: See `global_lateral`.
    """

    global_view: Bytes
    local_view: Bytes
    site: NDArray[np.int64]
    global_sites: Bytes | None = None
    local_sites: Bytes | None = None
    global_lateral: NDArray[np.int8] | None = None
    local_lateral: NDArray[np.int8] | None = None


@dataclass(frozen=True, eq=False)
class Slices:
    """The examples of a cohort; the views and targets are files mapped into memory, see `Batch`.

    Attributes:
        site: (n,) int64, index into `SITES`
        patient: (n,) str; an id is ``scan/roi/value/k``
        scan: See `patient`.
        id: See `patient`.
        row: (n,) int64, of the manifest
        k: (n,) int64, slice of the scan
        spec: how the views were made
    """

    global_view: Bytes
    local_view: Bytes
    site: NDArray[np.int64]
    patient: NDArray[np.str_]
    scan: NDArray[np.str_]
    row: NDArray[np.int64]
    k: NDArray[np.int64]
    id: NDArray[np.str_]
    spec: ViewSpec
    global_sites: Bytes | None = None
    local_sites: Bytes | None = None
    global_lateral: NDArray[np.int8] | None = None
    local_lateral: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.site)

    def count_scans(self, indices: NDArray[np.integer]) -> int:
        """Of how many scans the examples `indices` (n,) are; scans of two patients may have one name."""
        return len(set(zip(self.patient[indices].tolist(), self.scan[indices].tolist(), strict=True)))

    def batch(self, indices: NDArray[np.integer]) -> Batch:
        """A copy in memory of the examples `indices` (n,)."""
        maps = {name: getattr(self, name) for name in TARGETS}
        return Batch(
            self.global_view[indices],
            self.local_view[indices],
            self.site[indices],
            **{name: None if whole is None else whole[indices] for name, whole in maps.items()},
        )


def open_slices(
    cohort: Path,
    spec: ViewSpec,
    max_slices: int | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    training: bool = False,
) -> Slices:
    """The examples of a cohort, from its cache; what the cache lacks is made first.

    A run that was stopped continues where it was. Memory stays at a few scans, whatever the cohort's size.

    Args:
        cohort: the folder
        spec: how slices become views
        max_slices: see `situs.cohort.examples.Extraction`
        jobs: processes
        progress: is called with (scans done, scans in all)
        training: see `situs.cohort.examples.Extraction`

    Raises:
        ManifestError: if the manifest, or a file it names, cannot be used
        OutputError: if the cache cannot be written
    """
    cohort = Path(cohort)
    rows = read_manifest(cohort)
    by_scan: dict[Path, list[int]] = {}
    for index, row in enumerate(rows):
        by_scan.setdefault(row.scan, []).append(index)
    how = Extraction(spec, max_slices, all(row.sites and row.lateral for row in rows), training)
    folder = cohort / ".cache" / _cache_key(cohort, rows, how)
    try:
        with _only_one(folder):
            _fill_cache(folder, list(by_scan.values()), rows, how, jobs, progress)
        return _open_cache(folder, rows, how)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: the cache cannot be written ({error.strerror or error})") from error


# --- cache ----------------------------------------------------------------------------------------------

_INDEX = "index.json"


def _cache_key(cohort: Path, rows: list[Row], how: Extraction) -> str:
    """A name that changes with the manifest, with the files it names (by their size) and with the views."""
    files = dict.fromkeys(
        path for row in rows for path in (row.scan, row.roi, row.sites, row.lateral) if path
    )
    sizes = [path.stat().st_size for path in files]
    text = json.dumps([_CACHE_VERSION, how.spec.to_dict(), how.max_slices, how.training, sizes])
    return hashlib.sha256(text.encode() + (cohort / MANIFEST).read_bytes()).hexdigest()[:16]


def _fill_cache(
    folder: Path,
    scans: list[list[int]],
    rows: list[Row],
    how: Extraction,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Append what is missing, scan by scan in order; the index is renamed into place after every few scans,
    and says how much of the files is valid, so that a killed run goes on from there."""
    sizes = {name: int(np.prod(_shape(name, how.spec))) for name in how.names}
    index = _read_index(folder, sizes)
    done = index["scans"]
    if done == len(scans):
        return
    files: dict[str, BinaryIO] = {}
    try:
        for name, size in sizes.items():
            files[name] = (folder / name).open("ab")
            files[name].truncate(len(index["row"]) * size)
        missing = [[(n, rows[n]) for n in scan] for scan in scans[done:]]
        for arrays, entries in iter_scans(missing, how, jobs):
            for name, file in files.items():
                file.write(np.ascontiguousarray(arrays[name]).data)
            for field in ("row", "k", "id"):
                index[field].extend(entry[field] for entry in entries)
            done = index["scans"] = done + 1
            if done % 50 == 0:
                for file in files.values():
                    file.flush()
                _write_index(folder, index)
            if progress is not None:
                progress(done, len(scans))
    finally:
        for file in files.values():
            file.close()
        _write_index(folder, index)


def _open_cache(folder: Path, rows: list[Row], how: Extraction) -> Slices:
    index = _read_index(folder, {})
    row = np.array(index["row"], dtype=np.int64)
    arrays = {
        name: np.memmap(folder / name, _dtype(name), "r", shape=(len(row), *_shape(name, how.spec)))
        for name in how.names
    }
    return Slices(
        site=np.array([rows[n].site for n in row], dtype=np.int64),
        patient=np.array([rows[n].patient for n in row], dtype=np.str_),
        scan=np.array([stem(rows[n].scan) for n in row], dtype=np.str_),
        row=row,
        k=np.array(index["k"], dtype=np.int64),
        id=np.array(index["id"], dtype=np.str_),
        spec=how.spec,
        **arrays,
    )


def _shape(name: str, spec: ViewSpec) -> tuple[int, ...]:
    s = spec.size_px
    return (len(spec.channels), s, s) if name.endswith("view") else (s // 2, s // 2)


def _dtype(name: str) -> type[np.generic]:
    return np.int8 if name.endswith("lateral") else np.uint8


def _read_index(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """The index, or an empty one if a file with `sizes` bytes an example holds less than it says."""
    try:
        index = dict(json.loads((folder / _INDEX).read_text(encoding="utf-8")))
        if all((folder / name).stat().st_size >= len(index["row"]) * size for name, size in sizes.items()):
            return index
    except FileNotFoundError:
        pass
    return {"scans": 0, "row": [], "k": [], "id": []}


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Waits until no other process fills the same cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    with replacing(folder / _INDEX) as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
