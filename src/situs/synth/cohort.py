"""A cohort: a folder of virtual scans with virtual lesions and a manifest, made from head label maps.

Files: ``manifest.csv`` (a row per lesion), ``scans/`` (HU), ``rois/`` (masks; a reader marks one or a few
lesions at a time, so a scan has several), ``sites/`` and ``lateral/`` (what BaseNet learns to paint),
``cohort.json`` (the settings). Scan number n depends on the seed, n and the heads alone, not on the number
of processes or on what was rendered before it; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from situs.errors import InputError, OutputError
from situs.files import replacing, sweep

__all__ = ["MANIFEST_COLUMNS", "SiteMix", "paper_slices", "render_cohort"]

SiteMix = Literal["paper", "balanced"]
MANIFEST_COLUMNS = ("scan", "roi", "value", "site", "patient", "side", "kind", "sites", "lateral")

_FORMAT = "situs.cohort/4"
_LESIONS_PER_SCAN = 14
_MIN_PIXELS = 6  # a lesion whose largest slice has fewer teaches nothing
# How many of a scan's lesions one reader marks: mostly one. The others stay in the picture unmarked.
_MARKED_TOGETHER, _MARKED_SHARES = (1, 2, 3, 5), (0.6, 0.2, 0.12, 0.08)
# Old brains have lost tissue around sulci and ventricles.
_ATROPHY_MM, _ATROPHY_SHARES = (0.0, 0.7, 1.4), (0.45, 0.3, 0.25)
_BATCH = 8  # scans of one head in a row: its distance maps are the dearest to compute


def render_cohort(
    heads: Sequence[Path],
    out: Path,
    scans: int,
    seed: int = 0,
    sites: SiteMix = "balanced",
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    lesions: int = _LESIONS_PER_SCAN,
) -> Path:
    """Render `scans` virtual scans of `heads` into the folder `out`.

    Args:
        heads: label map files (`situs.synth.heads.find_heads`); scan n shows head ``(n // 8) % len(heads)``
        sites: ``balanced``, every site equally often, or ``paper``, as often as in the paper's Table 1
        jobs: processes
        progress: called with (scans done, scans)
        lesions: tried in every scan; those that would overlap are left out

    Returns:
        the path of ``manifest.csv``

    Raises:
        InputError: for no heads, a wrong number, or an `out` that holds a cohort of other settings
        OutputError: if `out` cannot be written
    """
    from joblib import Parallel, delayed

    if not heads or scans < 1:
        raise InputError("heads, scans: expected at least one head and one scan")
    if sites not in ("paper", "balanced"):
        raise InputError(f"sites: expected 'paper' or 'balanced', got {sites!r}")
    _open_folder(out, {"heads": [h.name for h in heads], "seed": seed, "sites": sites, "lesions": lesions})
    todo = [n for n in range(scans) if not (out / "rows" / f"{n:05d}.json").exists()]
    batches = [todo[a : a + _BATCH] for a in range(0, len(todo), _BATCH)]
    done = scans - len(todo)
    run = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    tasks = (delayed(_render_scans)(list(heads), out, batch, seed, sites, lesions) for batch in batches)
    try:
        for count in run(tasks):
            done += count
            if progress:
                progress(done, scans)
        return _write_manifest(out, scans)
    except OSError as e:
        if isinstance(e, OutputError):
            raise
        raise OutputError(f"{out}: cannot be written ({e.strerror or e}); the same call goes on") from e
    finally:
        sweep(out)


def paper_slices() -> dict[str, int]:
    """Slices per site in the paper's data (arXiv 1710.09180, Table 1)."""
    text = resources.files("situs").joinpath("data/paper_table1.csv").read_text(encoding="utf-8")
    return {row["site"]: int(row["slices"]) for row in csv.DictReader(text.splitlines())}


def _open_folder(out: Path, settings: dict[str, Any]) -> None:
    settings = {"format": _FORMAT, **settings}
    file = out / "cohort.json"
    try:
        for folder in ("scans", "rois", "sites", "lateral", "rows"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        if file.exists():
            # A cohort that does not say how many lesions was made when there was no choice.
            if {"lesions": _LESIONS_PER_SCAN, **json.loads(file.read_text())} != settings:
                raise InputError(
                    f"{out}: holds a cohort of other settings; choose another folder or remove it"
                )
        else:
            _write_text(file, json.dumps(settings, indent=1))
    except OSError as e:
        raise OutputError(f"{out}: cannot be written ({e.strerror})") from e


def _render_scans(
    heads: list[Path], out: Path, numbers: list[int], seed: int, sites: SiteMix, lesions: int
) -> int:
    import torch

    torch.set_num_threads(1)
    for n in numbers:
        head, atrophy_mm = heads[(n // _BATCH) % len(heads)], _draw_atrophy(seed, n // _BATCH)
        _render_one(_grower(head, atrophy_mm), out, n, np.random.default_rng([seed, n]), sites, lesions)
    return len(numbers)


@lru_cache(maxsize=1)
def _grower(path: Path, atrophy_mm: float) -> Any:
    from situs.synth.heads import read_head
    from situs.synth.lesions import LesionGrower

    return LesionGrower(read_head(path, atrophy_mm=atrophy_mm))


def _draw_atrophy(seed: int, batch: int) -> float:
    """How many mm the brain of a batch's head has lost; a few steps, so that their site maps can be kept."""
    return float(np.random.default_rng([seed, batch, 0]).choice(_ATROPHY_MM, p=_ATROPHY_SHARES))


def _render_one(grower: Any, out: Path, n: int, rng: np.random.Generator, mix: SiteMix, count: int) -> None:
    from situs.side import side_of_distances
    from situs.synth.render import draw_plan, render_scan

    plan = draw_plan(grower.head, rng)
    lesions: list[Any] = []
    taken = np.zeros(grower.head.labels.shape, dtype=bool)
    for site in _draw_sites(grower.sites(), mix, rng, count):
        cistern = site == "basal_cisterns"
        narrowing_mm = plan.cistern_narrowing_mm if cistern else plan.sulcal_narrowing_mm
        lesion = grower.grow(site, rng, narrowing_mm, plan.window)
        if lesion is not None and not (taken[lesion.box] & lesion.mask).any():
            taken[lesion.box] |= lesion.mask
            lesions.append(lesion)
    scan = render_scan(grower.head, lesions, plan, rng)
    names = {kind: f"{kind}/{n:05d}.nii.gz" for kind in ("scans", "sites", "lateral")}
    _write_image(scan.hu, plan.affine, out / names["scans"])
    _write_image(scan.sites, plan.affine, out / names["sites"])
    _write_image(scan.lateral_mm, plan.affine, out / names["lateral"])
    seen = [
        i for i, mask in enumerate(scan.masks) if mask.any() and mask.sum(axis=(0, 1)).max() >= _MIN_PIXELS
    ]
    rows = []
    for part, group in enumerate(_split_groups(seen, rng)):
        roi = np.zeros(scan.hu.shape, dtype=np.uint8)
        file = f"rois/{n:05d}_{part}.nii.gz"
        for value, i in enumerate(group, start=1):
            roi[scan.masks[i]] = value
        for value, i in enumerate(group, start=1):
            if not (roi == value).any():  # lost under another mask that was drawn generously
                continue
            lateral = scan.lateral_mm[roi == value].astype(float)
            side = side_of_distances(lateral, np.ones(lateral.size))
            what = [value, lesions[i].site, grower.head.name, side, lesions[i].kind]
            rows.append([names["scans"], file, *what, names["sites"], names["lateral"]])
        _write_image(roi, plan.affine, out / file)
    _write_text(out / "rows" / f"{n:05d}.json", json.dumps(rows))


def _draw_sites(available: Sequence[str], mix: SiteMix, rng: np.random.Generator, count: int) -> list[str]:
    if mix == "balanced":
        rounds = -(-count // len(available)) + 1
        order = [site for _ in range(rounds) for site in rng.permutation(available)]
        return order[:count]
    slices = paper_slices()
    weights = np.array([slices[site] for site in available], dtype=float)
    return list(rng.choice(available, size=count, p=weights / weights.sum()))


def _split_groups(items: list[int], rng: np.random.Generator) -> list[list[int]]:
    order = list(rng.permutation(items)) if items else []
    groups = []
    while order:
        size = int(rng.choice(_MARKED_TOGETHER, p=_MARKED_SHARES))
        groups.append([int(i) for i in order[:size]])
        order = order[size:]
    return groups


def _write_manifest(out: Path, scans: int) -> Path:
    file = out / "manifest.csv"
    with (
        replacing(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(MANIFEST_COLUMNS)
        for n in range(scans):
            writer.writerows(json.loads((out / "rows" / f"{n:05d}.json").read_text()))
    return file


def _write_image(data: NDArray[np.generic], affine: NDArray[np.float64], file: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    with replacing(file) as temporary:
        nibabel.save(image, temporary)


def _write_text(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
