"""From a cohort's manifest to the slices that networks are trained on: examples, their cache, sampling.

Every slice that a region of the manifest meets is one example. They are made by `situs.cohort.examples` and
kept as bytes in ``COHORT/.cache``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.cohort.examples import TARGETS, Extraction, iter_scans
from situs.cohort.manifest import MANIFEST, Row, read_manifest
from situs.errors import ManifestError, OutputError, did_you_mean
from situs.files import replacing, stem
from situs.views import ViewSpec

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Batch",
    "Slices",
    "balanced_indices",
    "check_ids",
    "check_sites",
    "choose_evenly",
    "open_slices",
    "split_patients",
]

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


def split_patients(
    patients: Iterable[str], test: float | Sequence[str], seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The patients to train on and those to test on, sorted; none is on both sides.

    Args:
        patients: of every example or row
        test: the share of the patients to test on (at least one, at most all but one), or their names
        seed: of the random choice, where a share is given

    Raises:
        ManifestError: if a name is none of the patients, or a side would be empty
    """
    names = sorted(set(patients))
    if isinstance(test, float | int):
        if not 0 < test < 1 or len(names) < 2:
            raise ManifestError(
                f"test: expected a share between 0 and 1 of at least two patients, got {test} of {len(names)}"
            )
        n = min(len(names) - 1, max(1, round(test * len(names))))
        chosen = set(np.random.default_rng(seed).permutation(names)[:n].tolist())
    else:
        chosen = set(test)
        if unknown := sorted(chosen - set(names)):
            raise ManifestError(f"no patient {unknown[0]!r} in the cohort{did_you_mean(unknown[0], names)}")
    train = tuple(name for name in names if name not in chosen)
    if not train:
        raise ManifestError("no patient is left to train on")
    return train, tuple(sorted(chosen))


def balanced_indices(
    sites: NDArray[np.integer], n: int, rng: np.random.Generator, power: float = 1.0
) -> NDArray[np.int64]:
    """Indices (n,) into `sites` in random order, minority sites over-sampled, majority ones under-sampled.

    The paper, section 3.4. Within a site no example comes again before all have come.

    Args:
        sites: (m,) site of every example
        power: 1 for equally many of every site that there is, 0 for the cohort's own frequencies; a site of
            c examples is drawn in proportion to ``c ** (1 - power)``
    """
    present, counts = np.unique(sites, return_counts=True)
    share = counts.astype(np.float64) ** (1 - power)
    quota = np.floor(share / share.sum() * n).astype(int)
    rest = rng.choice(len(present), n - quota.sum(), p=share / share.sum())
    quota += np.bincount(rest, minlength=len(present))
    drawn = []
    for site, wanted in zip(present, quota, strict=True):
        members = np.flatnonzero(sites == site)
        rounds = [rng.permutation(members) for _ in range(-(-int(wanted) // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[:wanted])
    return np.asarray(rng.permutation(np.concatenate(drawn)), dtype=np.int64)


def choose_evenly(
    sites: NDArray[np.integer],
    patients: NDArray[np.str_],
    n: int | NDArray[np.integer],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Indices, ascending, of at most `n` examples of every site, spread evenly over the patients.

    Args:
        sites: (m,) of every example
        patients: See `sites`.
        n: one number for all sites, or (15,) of each
    """
    most = np.broadcast_to(n, len(SITES))
    turn = np.empty(len(sites), dtype=np.int64)  # 0 for the first example of a patient and site, and so on
    order = rng.permutation(len(sites))
    _, group = np.unique(
        np.stack([np.unique(patients, return_inverse=True)[1], sites]), axis=1, return_inverse=True
    )
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    turn[by_group] = np.concatenate([np.arange(size) for size in sizes])
    chosen = []
    for site in np.unique(sites):
        members = order[sites[order] == site]
        chosen.append(members[np.argsort(turn[members], kind="stable")][: most[site]])
    return np.asarray(np.sort(np.concatenate(chosen)), dtype=np.int64)


def check_sites(sites: NDArray[np.integer]) -> None:
    """Refuse to train on examples (n,) of a single site.

    Raises:
        ManifestError: with its name
    """
    present = np.unique(sites).tolist()
    if len(present) < 2:
        raise ManifestError(
            f"every slice to train on is of one site, {SITES[present[0]].name}: at least two are needed"
        )


def check_ids(ids: NDArray[np.str_]) -> None:
    """Refuse examples whose ids (n,) could not be told apart; they are made of file names.

    Raises:
        ManifestError: if an id comes twice
    """
    names, counts = np.unique(ids, return_counts=True)
    twice = names[counts > 1].tolist()
    if twice:
        raise ManifestError(
            f"the reference {twice[0]!r} would come from two rows of the manifest: give each scan and mask "
            "file a name of its own"
        )


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
