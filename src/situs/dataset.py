"""From a cohort's manifest to the slices that networks are trained on: views, painting targets, sampling.

A cohort is a folder with ``manifest.csv``: a row for every region of interest (``scan, roi, value, site,
patient``; optional ``side, kind, sites, lateral``; paths relative to the manifest). Every slice that a region
meets is one example. Views are made by `situs.views` and kept as bytes in ``COHORT/.cache``.

Painting targets are at half the view's size: the site map (0 none, site index + 1, `SITE_UNKNOWN`) and the
signed distance to the midline (mm, positive to the patient's left, `LATERAL_UNKNOWN`).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.errors import ManifestError, OutputError
from situs.geometry import Geometry
from situs.views import Place, ViewSpec, extract_views, sample_slice
from situs.volume import Roi, union_mask

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LATERAL_UNKNOWN",
    "MANIFEST",
    "SITE_UNKNOWN",
    "Batch",
    "Row",
    "Slices",
    "augment",
    "balanced_indices",
    "open_slices",
    "read_manifest",
    "split_patients",
]

MANIFEST = "manifest.csv"
SITE_UNKNOWN = 255
LATERAL_UNKNOWN = 127

# Part of the cache's name: raise it when the bytes that are made from the same files change.
_CACHE_VERSION = 1
_SAME_GRID_MM = 0.1
_COLUMNS = ("scan", "roi", "value", "site", "patient")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One region of interest of a cohort.

    scan, roi : the scan, and a mask on a grid of the same patient
    value : of the mask
    site : index into `situs.anatomy.SITES`
    patient : whose scan it is; for rendered scans, the head
    side, kind : as the manifest says, or empty
    sites, lateral : NIfTI files on the scan's grid: site map, and distance to the midline; None if not given
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


@dataclass(frozen=True, eq=False)
class Batch:
    """Views and painting targets of n examples; size s, targets at half of it.

    global_view, local_view : (n, channels, s, s) uint8
    site : (n,) int64, index into `SITES`
    global_sites, local_sites : (n, s / 2, s / 2) uint8; None if the cohort has no site maps
    global_lateral, local_lateral : (n, s / 2, s / 2) int8; likewise
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

    site : (n,) int64, index into `SITES`
    patient, scan, id : (n,) str; an id is ``scan/roi/value/k``
    row : (n,) int64, of the manifest
    k : (n,) int64, slice of the scan
    spec : how the views were made
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

    def batch(self, indices: NDArray[np.integer]) -> Batch:
        """A copy in memory of the examples `indices` (n,)."""
        maps = {name: getattr(self, name) for name in _TARGETS}
        return Batch(
            self.global_view[indices],
            self.local_view[indices],
            self.site[indices],
            **{name: None if whole is None else whole[indices] for name, whole in maps.items()},
        )


_TARGETS = ("global_sites", "local_sites", "global_lateral", "local_lateral")


def read_manifest(cohort: Path) -> list[Row]:
    """The rows of a cohort's manifest, checked, in its order.

    Raises
    ------
    ManifestError : if the file, a column or a file it names is missing, or a value is none
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


def open_slices(
    cohort: Path,
    spec: ViewSpec,
    max_slices: int | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Slices:
    """The examples of a cohort, from its cache; what the cache lacks is made first.

    A run that was stopped continues where it was. Memory stays at a few scans, whatever the cohort's size.

    Parameters
    ----------
    cohort : the folder
    spec : how slices become views
    max_slices : at most this many slices of each region, spread evenly over its area; None for all
    jobs : processes
    progress : is called with (scans done, scans in all)

    Raises
    ------
    ManifestError : if the manifest, or a file it names, cannot be used
    OutputError : if the cache cannot be written
    """
    cohort = Path(cohort)
    rows = read_manifest(cohort)
    by_scan: dict[Path, list[int]] = {}
    for index, row in enumerate(rows):
        by_scan.setdefault(row.scan, []).append(index)
    painted = all(row.sites and row.lateral for row in rows)
    folder = cohort / ".cache" / _cache_key(cohort, rows, spec, max_slices)
    try:
        with _only_one(folder):
            _fill_cache(folder, list(by_scan.values()), rows, spec, max_slices, painted, jobs, progress)
        return _open_cache(folder, rows, spec, painted)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: the cache cannot be written ({error.strerror or error})") from error


def split_patients(
    patients: Iterable[str], test: float | Sequence[str], seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The patients to train on and those to test on, sorted; none is on both sides.

    Parameters
    ----------
    patients : of every example or row
    test : the share of the patients to test on (at least one, at most all but one), or their names
    seed : of the random choice, where a share is given

    Raises
    ------
    ManifestError : if a name is none of the patients, or a side would be empty
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
            raise ManifestError(f"no patient {unknown[0]!r} in the cohort{_did_you_mean(unknown[0], names)}")
    train = tuple(name for name in names if name not in chosen)
    if not train:
        raise ManifestError("no patient is left to train on")
    return train, tuple(sorted(chosen))


def balanced_indices(
    sites: NDArray[np.integer], n: int, rng: np.random.Generator, power: float = 1.0
) -> NDArray[np.int64]:
    """Indices (n,) into `sites` in random order, minority sites over-sampled, majority ones under-sampled.

    The paper, section 3.4. Within a site no example comes again before all have come.

    Parameters
    ----------
    sites : (m,) site of every example
    power : 1 for equally many of every site that there is, 0 for the cohort's own frequencies; a site of
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


def augment(batch: Batch, spec: ViewSpec, rng: np.random.Generator) -> Batch:
    """The batch with a random change of every example, as a new patient or scanner would make it.

    Half of the examples are mirrored left to right, with their targets. Gray values (not the region's
    mask) get another contrast, offset and gamma, some noise or blur; the local view is shifted by up
    to 8 pixels, in steps of two so that targets at half the size shift exactly.
    """
    batch = _mirror(batch, rng.random(len(batch.site)) < 0.5)
    batch = _shift_local(batch, rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1, (len(batch.site), 2)))
    gray = [c for c, name in enumerate(spec.channels) if name != "roi"]
    return replace(
        batch,
        global_view=_change_gray(batch.global_view, gray, rng),
        local_view=_change_gray(batch.local_view, gray, rng),
    )


# --- augmentation ---------------------------------------------------------------------------------------

_MAX_SHIFT = 4  # pixels of the targets, two of the view


def _mirror(batch: Batch, which: NDArray[np.bool_]) -> Batch:
    """The examples `which` (n,) mirrored left to right."""
    changed = {}
    for name in ("global_view", "local_view", *_TARGETS):
        maps = getattr(batch, name)
        if maps is None:
            continue
        maps = maps.copy()
        flipped = maps[which][..., ::-1]
        if name.endswith("lateral"):
            flipped = np.where(flipped == LATERAL_UNKNOWN, flipped, -flipped)
        maps[which] = flipped
        changed[name] = maps
    return replace(batch, **changed)


def _shift_local(batch: Batch, steps: NDArray[np.integer]) -> Batch:
    """The local view and its targets moved by `steps` (n, 2) target pixels down and to the right."""
    fills = {"local_view": (2, 0), "local_sites": (1, SITE_UNKNOWN), "local_lateral": (1, LATERAL_UNKNOWN)}
    changed = {}
    for name, (scale, fill) in fills.items():
        maps = getattr(batch, name)
        if maps is None:
            continue
        moved = np.full_like(maps, fill)
        for n, (down, right) in enumerate((steps * scale).tolist()):
            (to_r, from_r), (to_c, from_c) = _overlap(down), _overlap(right)
            moved[n][..., to_r, to_c] = maps[n][..., from_r, from_c]
        changed[name] = moved
    return replace(batch, **changed)


def _overlap(step: int) -> tuple[slice, slice]:
    """Where the kept part of an axis goes, and where it came from, when it moves by `step`."""
    if step >= 0:
        return slice(step, None), slice(None, -step or None)
    return slice(None, step), slice(-step, None)


def _change_gray(view: Bytes, channels: list[int], rng: np.random.Generator) -> Bytes:
    """The gray channels of (n, c, s, s) with random contrast, offset, gamma, and sometimes blur or noise."""
    if not channels:
        return view
    out = view.copy()
    n = len(view)
    pixels = view.shape[-1] ** 2
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    for c in channels:
        contrast = rng.uniform(0.8, 1.25, (n, 1))
        offset = rng.uniform(-0.12, 0.12, (n, 1))
        gamma = np.exp(rng.uniform(-0.25, 0.25, (n, 1)))
        curve = np.clip((levels**gamma - 0.5) * contrast + 0.5 + offset, 0, 1)
        tables = np.rint(curve * 255).astype(np.uint8)
        for i, table in enumerate(tables):
            out[i, c] = table[view[i, c]]
    blurred = np.flatnonzero(rng.random(n) < 0.2)
    for c in channels:
        out[blurred, c] = _blur(out[blurred, c])
    # One pool of normal numbers for the batch: a new one for every pixel would cost more than the rest.
    pool = rng.standard_normal(4 * pixels, dtype=np.float32)
    for i in np.flatnonzero(rng.random(n) < 0.5).tolist():
        amplitude = rng.uniform(2, 14)
        for c in channels:
            start = int(rng.integers(3 * pixels))
            noise = pool[start : start + pixels].reshape(view.shape[-2:]) * np.float32(amplitude)
            np.clip(out[i, c] + noise, 0, 255, out=noise)
            out[i, c] = noise
    return out


def _blur(planes: Bytes) -> Bytes:
    """(n, s, s) smoothed by (1, 2, 1) / 4 along rows and columns; the border stays."""
    wide = planes.astype(np.uint16)
    wide[:, 1:-1] = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2 >> 2
    wide[:, :, 1:-1] = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:] + 2 >> 2
    return wide.astype(np.uint8)


# --- manifest -------------------------------------------------------------------------------------------


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
        raise ManifestError(f"{where}: no site {site!r}{_did_you_mean(site, SITE_KEYS)}")
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


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(known)}"


# --- slices of one scan ---------------------------------------------------------------------------------


def _extract_scan(
    rows: list[tuple[int, Row]], spec: ViewSpec, max_slices: int | None, painted: bool
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """The examples of one scan: arrays by name, and for each example its row, k and id."""
    from situs.io import read_rois, read_volume

    volume = read_volume(rows[0][1].scan)
    maps = _read_maps(rows[0][1], volume.geometry) if painted else None
    arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in _names(painted)}
    entries = []
    files: dict[Path, tuple[dict[int, Roi], NDArray[np.bool_]]] = {}
    for index, row in rows:
        if row.roi not in files:  # as in use: all regions of one mask file are given, and filled, together
            rois = read_rois(row.roi, volume)
            files[row.roi] = {roi.value: roi for roi in rois}, union_mask(rois, volume.geometry)
        by_value, fill = files[row.roi]
        if row.value not in by_value:
            raise ManifestError(f"{row.roi}: has no value {row.value}; its values are {sorted(by_value)}")
        roi = by_value[row.value]
        for k in _choose_slices(roi.areas_px, max_slices):
            mask = roi.slice_mask(k)
            views = extract_views(volume, k, mask, fill[:, :, k], spec)
            arrays["global_view"].append(views.global_view)
            arrays["local_view"].append(views.local_view)
            if maps is not None:
                for view, place in zip(("global", "local"), views.places, strict=True):
                    targets = _targets(maps, volume.geometry, k, place, spec)
                    arrays[f"{view}_sites"].append(targets[0])
                    arrays[f"{view}_lateral"].append(targets[1])
            entries.append(
                {"row": index, "k": k, "id": f"{_stem(row.scan)}/{_stem(row.roi)}/{row.value}/{k}"}
            )
    return {name: np.stack(planes) for name, planes in arrays.items()}, entries


def _read_maps(row: Row, geometry: Geometry) -> tuple[NDArray[Any], NDArray[Any]]:
    """Site map and distance to the midline on the scan's grid."""
    from situs.io.nifti import read_nifti_grid

    maps = []
    for path in (row.sites, row.lateral):
        assert path is not None  # only asked for where every row has both
        grid = read_nifti_grid(path, ManifestError)
        if not _same_grid(grid.geometry, geometry):
            raise ManifestError(f"{path}: is not on the grid of its scan {row.scan.name}")
        maps.append(grid.values)
    return maps[0], maps[1]


def _same_grid(a: Geometry, b: Geometry) -> bool:
    if a.shape != b.shape:
        return False
    ends = [[0, 0, 0], [a.shape[0] - 1, 0, 0], [0, a.shape[1] - 1, 0], [0, 0, a.shape[2] - 1]]
    return bool(np.abs(a.to_world(ends) - b.to_world(ends)).max() < _SAME_GRID_MM)


def _targets(
    maps: tuple[NDArray[Any], NDArray[Any]], geometry: Geometry, k: int, place: Place, spec: ViewSpec
) -> tuple[Bytes, NDArray[np.int8]]:
    half = (spec.size_px // 2, spec.size_px // 2)
    sites, lateral = (
        sample_slice(whole[:, :, k], geometry, k, place.centre_mm, 2 * place.pixel_mm, half, outside)
        for whole, outside in zip(maps, (0, LATERAL_UNKNOWN), strict=True)
    )
    limit = LATERAL_UNKNOWN - 1  # so that the mirrored distance is a byte too
    lateral = np.where(lateral == LATERAL_UNKNOWN, lateral, np.clip(lateral, -limit, limit))
    return sites.astype(np.uint8), lateral.astype(np.int8)


def _choose_slices(areas: dict[int, int], most: int | None) -> list[int]:
    """At most `most` of the slices {k: area}, ascending: those at even steps through the summed area."""
    ks = sorted(areas)
    if most is None or len(ks) <= most:
        return ks
    weights = np.array([areas[k] for k in ks], dtype=np.float64)
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    chosen: list[int] = []
    for quantile in (np.arange(most) + 0.5) / most:
        order = np.argsort(np.abs(middles - quantile), kind="stable")
        chosen.append(next(n for n in order.tolist() if n not in chosen))
    return [ks[n] for n in sorted(chosen)]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


# --- cache ----------------------------------------------------------------------------------------------

_INDEX = "index.json"


def _names(painted: bool) -> tuple[str, ...]:
    return ("global_view", "local_view", *(_TARGETS if painted else ()))


def _cache_key(cohort: Path, rows: list[Row], spec: ViewSpec, max_slices: int | None) -> str:
    """A name that changes with the manifest, with the files it names (by their size) and with the views."""
    files = dict.fromkeys(
        path for row in rows for path in (row.scan, row.roi, row.sites, row.lateral) if path
    )
    sizes = [path.stat().st_size for path in files]
    text = json.dumps([_CACHE_VERSION, spec.to_dict(), max_slices, sizes])
    return hashlib.sha256(text.encode() + (cohort / MANIFEST).read_bytes()).hexdigest()[:16]


def _fill_cache(
    folder: Path,
    scans: list[list[int]],
    rows: list[Row],
    spec: ViewSpec,
    max_slices: int | None,
    painted: bool,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Append what is missing, scan by scan in order; the index is renamed into place after every few scans,
    and says how much of the files is valid, so that a killed run goes on from there."""
    from joblib import Parallel, delayed

    sizes = {name: int(np.prod(_shape(name, spec))) for name in _names(painted)}
    index = _read_index(folder, sizes)
    done = index["scans"]
    if done == len(scans):
        return
    files: dict[str, BinaryIO] = {}
    try:
        for name, size in sizes.items():
            files[name] = (folder / name).open("ab")
            files[name].truncate(len(index["row"]) * size)
        tasks = (
            delayed(_extract_scan)([(n, rows[n]) for n in scan], spec, max_slices, painted)
            for scan in scans[done:]
        )
        results = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2*n_jobs")(tasks)
        for arrays, entries in results:
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


def _open_cache(folder: Path, rows: list[Row], spec: ViewSpec, painted: bool) -> Slices:
    index = _read_index(folder, {})
    row = np.array(index["row"], dtype=np.int64)
    arrays = {
        name: np.memmap(folder / name, _dtype(name), "r", shape=(len(row), *_shape(name, spec)))
        for name in _names(painted)
    }
    return Slices(
        site=np.array([rows[n].site for n in row], dtype=np.int64),
        patient=np.array([rows[n].patient for n in row], dtype=np.str_),
        scan=np.array([_stem(rows[n].scan) for n in row], dtype=np.str_),
        row=row,
        k=np.array(index["k"], dtype=np.int64),
        id=np.array(index["id"], dtype=np.str_),
        spec=spec,
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
    temporary = folder / f"{_INDEX}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(index), encoding="utf-8")
    temporary.replace(folder / _INDEX)
