"""The examples of a cohort, and their cache.

Every slice that a region of the manifest meets is one example. `situs.cohort.examples` makes them. They are
kept as bytes in ``COHORT/.cache``.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, Site, SiteList
from situs.cohort.examples import Extraction, iter_scans
from situs.cohort.manifest import MANIFEST, Row, read_cohort_sites, read_manifest
from situs.errors import InputError, ManifestError, OutputError
from situs.files import locked, replacing, stem
from situs.progress import Progress, silent
from situs.records import take_rows
from situs.views import ViewSpec

__all__ = ["Batch", "Slices", "open_slices"]

# Part of the cache's name: raise it when the bytes that are made from the same files change.
_CACHE_VERSION = 6

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Batch:
    """Views and painting targets of n examples; size s, targets at half of it.

    Attributes:
        global_view: (n, channels, s, s) uint8, see `situs.views.Views`.
        local_view: (n, channels, s, s) uint8.
        site: (n,) int64, the number of the site in the cohort's list.
        global_sites: (n, s / 2, s / 2) uint8, the site map over the global view, see `situs.cohort.examples`;
            None if the cohort has no site maps.
        local_sites: (n, s / 2, s / 2) uint8, the site map over the local view, or None.
        global_lateral: (n, s / 2, s / 2) int8, the distance to the midline over the global view, or None.
        local_lateral: (n, s / 2, s / 2) int8, the distance to the midline over the local view, or None.
    """

    global_view: Bytes
    local_view: Bytes
    site: NDArray[np.int64]
    global_sites: Bytes | None = None
    local_sites: Bytes | None = None
    global_lateral: NDArray[np.int8] | None = None
    local_lateral: NDArray[np.int8] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Slices(Batch):
    """The n examples of a cohort. Views and targets are files that are mapped into memory.

    Attributes:
        patient: (n,) str, the manifest's name of the patient.
        scan: (n,) str, the scan's file name without its ending.
        row: (n,) int64, row of the manifest, from 0.
        k: (n,) int64, slice of the scan, from 0.
        id: (n,) str, ``scan/roi/value/k``.
        spec: How the views were made.
        sites: The cohort's sites.
    """

    patient: NDArray[np.str_]
    scan: NDArray[np.str_]
    row: NDArray[np.int64]
    k: NDArray[np.int64]
    id: NDArray[np.str_]
    spec: ViewSpec
    sites: SiteList = SITES

    def __len__(self) -> int:
        return len(self.site)

    def numbers_in(self, sites: SiteList) -> NDArray[np.int64]:
        """(256,) the number in another list of each of the cohort's sites, by its number; -1 for none.

        Raises:
            ManifestError: If an example is of a site that the other list lacks, or a site that both have is
                another there.
        """
        numbers = np.full(256, -1, dtype=np.int64)
        occurring = set(np.unique(self.site).tolist())
        for own, site in enumerate(self.sites):
            try:
                numbers[own] = other = sites.number(site.key)
            except InputError as error:
                if own in occurring:
                    raise ManifestError(f"the bundle has {error}") from error
                continue
            if sites[other].name != site.name or sites[other].paired != site.paired:
                raise ManifestError(
                    f"site {site.key}: is {site.name!r} in the cohort, {sites[other].name!r} in the bundle: "
                    "give one of them another key"
                )
        return numbers

    def count_scans(self, indices: NDArray[np.integer]) -> int:
        """The number of scans that the examples `indices` (n,) are of.

        Scans of two patients may have one name.
        """
        return len(set(zip(self.patient[indices].tolist(), self.scan[indices].tolist(), strict=True)))

    def batch(self, indices: NDArray[np.integer]) -> Batch:
        """A copy in memory of the examples `indices` (n,)."""
        whole = Batch(**{field.name: getattr(self, field.name) for field in fields(Batch)})
        copy = take_rows(whole, indices)
        _release(whole)
        return copy


def open_slices(
    cohort: Path,
    spec: ViewSpec,
    max_slices: int | None = None,
    jobs: int = 1,
    progress: Progress = silent,
    training: bool = False,
    others: Sequence[Site] = (),
) -> Slices:
    """The examples of a cohort, from its cache; what the cache lacks is made first.

    A run that was stopped continues where it was. Memory stays at a few scans, whatever the cohort's size.

    Args:
        cohort: The folder.
        spec: How slices become views.
        max_slices: At most this many slices of each region, see `situs.volume.choose_slices`; None for all.
        jobs: Number of processes.
        progress: Called with the stage ``scans`` while the cache is filled.
        training: Whether the views are for training, see `situs.cohort.examples.Extraction`.
        others: See `situs.cohort.manifest.read_cohort_sites`.

    Raises:
        ManifestError: If the manifest, or a file it names, cannot be used.
        OutputError: If the cache cannot be written.
    """
    cohort = Path(cohort)
    rows, sites = read_manifest(cohort, others), read_cohort_sites(cohort, others)
    by_scan: dict[Path, list[tuple[int, Row]]] = {}
    for index, row in enumerate(rows):
        by_scan.setdefault(row.scan, []).append((index, row))
    how = Extraction(spec, max_slices, all(row.sites and row.lateral for row in rows), training)
    folder = cohort / ".cache" / _cache_key(cohort, rows, how)
    try:
        with locked(folder, wait=True):
            _fill_cache(folder, list(by_scan.values()), how, jobs, progress)
        return _open_cache(folder, rows, sites, how)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: the cache cannot be written ({error.strerror or error})") from error


_INDEX = "index.json"
_SCANS_A_SAVE = 50


def _cache_key(cohort: Path, rows: list[Row], how: Extraction) -> str:
    """A name for the cache: another one for another manifest, other sizes of its files, or other views."""
    files = dict.fromkeys(
        path for row in rows for path in (row.scan, row.roi, row.sites, row.lateral) if path
    )
    sizes = [path.stat().st_size for path in files]
    text = json.dumps([_CACHE_VERSION, how.spec.to_dict(), how.max_slices, how.training, sizes])
    return hashlib.sha256(text.encode() + (cohort / MANIFEST).read_bytes()).hexdigest()[:16]


def _fill_cache(
    folder: Path, scans: list[list[tuple[int, Row]]], how: Extraction, jobs: int, progress: Progress
) -> None:
    """Append what is missing, scan by scan in order.

    The index says how much of the files is valid. It is renamed into place after every `_SCANS_A_SAVE` scans,
    so that a killed run goes on from there.
    """
    sizes = {name: int(np.prod(_shape(name, how.spec))) for name in how.names}
    index = _read_index(folder, sizes)
    missing = scans[index["scans"] :]
    if not missing:
        return
    files: dict[str, BinaryIO] = {}
    try:
        for name, size in sizes.items():
            files[name] = (folder / name).open("ab")
            files[name].truncate(len(index["row"]) * size)
        for arrays, entries in iter_scans(missing, how, jobs):
            for name, file in files.items():
                file.write(np.ascontiguousarray(arrays[name]).data)
            for field in ("row", "k", "id"):
                index[field].extend(entry[field] for entry in entries)
            index["scans"] += 1
            if index["scans"] % _SCANS_A_SAVE == 0:
                for file in files.values():
                    file.flush()
                _write_index(folder, index)
            progress("scans", index["scans"], len(scans), f"of {folder.parents[1].resolve().name}")
    finally:
        for file in files.values():
            file.close()
        _write_index(folder, index)


def _open_cache(folder: Path, rows: list[Row], sites: SiteList, how: Extraction) -> Slices:
    index = _read_index(folder, {})
    row = np.array(index["row"], dtype=np.int64)
    arrays = {
        name: np.memmap(folder / name, _dtype(name), "r", shape=(len(row), *_shape(name, how.spec)))
        for name in how.names
    }
    return Slices(
        site=np.array([sites.numbers[rows[n].site] for n in row], dtype=np.int64),
        patient=np.array([rows[n].patient for n in row], dtype=np.str_),
        scan=np.array([stem(rows[n].scan) for n in row], dtype=np.str_),
        row=row,
        k=np.array(index["k"], dtype=np.int64),
        id=np.array(index["id"], dtype=np.str_),
        spec=how.spec,
        sites=sites,
        **arrays,
    )


def _release(batch: Batch) -> None:
    """Give back the memory of mapped files, or a training's grows to the size of its cohort.

    The system keeps the bytes as long as it has room for them.
    """
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        for field in fields(Batch):
            mapped = getattr(getattr(batch, field.name), "base", None)
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)


def _shape(name: str, spec: ViewSpec) -> tuple[int, ...]:
    s = spec.size_px
    return (len(spec.channels), s, s) if name.endswith("view") else (s // 2, s // 2)


def _dtype(name: str) -> type[np.generic]:
    return np.int8 if name.endswith("lateral") else np.uint8


def _read_index(folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """The index; an empty one if a file holds less than it says, at `sizes` bytes an example."""
    try:
        index = dict(json.loads((folder / _INDEX).read_text(encoding="utf-8")))
        if all((folder / name).stat().st_size >= len(index["row"]) * size for name, size in sizes.items()):
            return index
    except FileNotFoundError:
        pass
    return {"scans": 0, "row": [], "k": [], "id": []}


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    with replacing(folder / _INDEX) as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
