"""A cohort: a folder of virtual scans with virtual lesions and a manifest, made from head label maps.

Files: ``manifest.csv`` (a row per lesion), ``scans/`` (HU), ``rois/`` (masks; a reader marks one or a few
lesions at a time, so a scan has several), ``sites/`` and ``lateral/`` (what BaseNet learns to paint),
``cohort.json`` (the settings), ``sites.csv`` (the list of sites, if it is not the shipped one). Scan number n
depends on the seed, n, the list and the heads alone, not on the number of processes or on what was rendered
before it; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, SiteList, sites_csv
from situs.cohort.manifest import Row, write_cohort_sites, write_manifest
from situs.errors import InputError
from situs.files import claim_folder, locked, make_folder, sweep, write_file
from situs.progress import Progress, silent

if TYPE_CHECKING:
    from situs.synth.heads import Head
    from situs.synth.lesion import Lesion
    from situs.synth.lesions import LesionGrower
    from situs.synth.pose import ScanPlan
    from situs.synth.render import RenderedScan

__all__ = ["SiteFrequencies", "paper_slices", "render_cohort"]

SiteFrequencies = Literal["paper", "balanced"]

_FORMAT = "situs.cohort/6"
_NOTE = "cohort.json"
_FOLDERS = ("scans", "rois", "sites", "lateral", "rows")
_LESIONS_PER_SCAN = 14
_MIN_PIXELS = 6  # a lesion whose largest slice has fewer teaches nothing
# How many of a scan's lesions one reader marks: mostly one, seldom all. The others stay in the picture
# unmarked.
_MARKED_TOGETHER, _P_MARKED = (1, 2, 3, 5, 14), (0.52, 0.2, 0.12, 0.1, 0.06)
# Old brains have lost tissue around sulci and ventricles.
_ATROPHY_MM, _P_ATROPHY = (0.0, 0.7, 1.4), (0.45, 0.3, 0.25)
_BATCH = 8  # scans of one head in a row: its distance maps are the dearest to compute


def render_cohort(
    heads: Sequence[Path],
    out: Path,
    scans: int,
    seed: int = 0,
    sites: SiteFrequencies | SiteList = "balanced",
    jobs: int = 1,
    progress: Progress = silent,
    lesions: int = _LESIONS_PER_SCAN,
    note: Callable[[str], object] = lambda line: None,
) -> Path:
    """Render virtual scans of heads into a folder, or go on with what is there.

    Args:
        heads: Label map files (`situs.synth.heads.find_heads`). Scan n shows head ``(n // 8) % len(heads)``.
        out: The folder. It is made unless it is there.
        scans: How many.
        seed: Of everything that is random.
        sites: How often each of the 15 sites gets a lesion: ``balanced``, equally often, or ``paper``, as
            often as in the paper's Table 1. Or a list of other sites, which get lesions equally often, see
            `situs.synth.site_list`.
        jobs: Processes.
        progress: Is told the number of ``scans`` that are done.
        lesions: How many are tried in every scan. Those that would overlap are left out.
        note: Is told, in a line each, which site is too small in which head, so that it was left out there.

    Returns:
        The path of ``manifest.csv``.

    Raises:
        InputError: For no heads, a wrong number or word, or a list that cannot be rendered.
        OutputError: If `out` holds a cohort of other settings, another run is writing it, or it cannot be
            written.
    """
    from joblib import Parallel, delayed

    from situs.synth.heads import read_labels
    from situs.synth.site_list import check_labels, check_list

    if not heads:
        raise InputError("heads: expected at least one head label map, got none")
    if scans < 1:
        raise InputError(f"scans: expected at least 1, got {scans}")
    settings = {"heads": [head.name for head in heads], "seed": seed, "sites": sites, "lesions": lesions}
    listed, frequencies = SITES, sites
    if isinstance(sites, SiteList):
        listed, frequencies = sites, "balanced"
        check_list(listed)
        check_labels(listed, (read_labels(head)[0] for head in heads))
        settings |= {"sites": "listed in sites.csv", "list": sites_csv(listed).splitlines()}
    elif sites not in get_args(SiteFrequencies):
        raise InputError(f"sites: expected 'paper' or 'balanced', got {sites!r}")
    run = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    folders = [out / name for name in _FOLDERS]
    with locked(out):
        # A cohort that does not say how many lesions was made when there was no choice.
        claim_folder(out, _NOTE, {"format": _FORMAT, **settings}, defaults={"lesions": _LESIONS_PER_SCAN})
        for folder in folders:
            make_folder(folder)
        if listed != SITES:
            write_cohort_sites(out, listed)
        todo = [n for n in range(scans) if not _rows_file(out, n).exists()]
        batches = [todo[a : a + _BATCH] for a in range(0, len(todo), _BATCH)]
        done, told = scans - len(todo), set[str]()
        tasks = (
            delayed(_render_scans)(list(heads), out, batch, seed, listed, frequencies, lesions)
            for batch in batches
        )
        try:
            for count, lines in run(tasks):
                done += count
                progress("scans", done, scans)
                for line in sorted(set(lines) - told):
                    note(line)
                told.update(lines)
        finally:
            sweep(*folders)  # of processes that joblib ended
        return _write_manifest(out, scans)


def paper_slices() -> dict[str, int]:
    """Slices per site in the paper's data (arXiv 1710.09180, Table 1), by the site's key."""
    text = resources.files("situs").joinpath("data/paper_table1.csv").read_text(encoding="utf-8")
    return {row["site"]: int(row["slices"]) for row in csv.DictReader(text.splitlines())}


def _render_scans(
    heads: list[Path],
    out: Path,
    numbers: list[int],
    seed: int,
    listed: SiteList,
    frequencies: SiteFrequencies,
    lesions: int,
) -> tuple[int, list[str]]:
    """Render the scans of one batch, which show one head; how many they are, and the lines to tell of."""
    import torch

    torch.set_num_threads(1)
    for n in numbers:
        head, atrophy_mm = heads[(n // _BATCH) % len(heads)], _draw_atrophy(seed, n // _BATCH)
        grower = _grower(head, atrophy_mm, listed)
        _render_one(grower, out, n, np.random.default_rng([seed, n]), frequencies, lesions)
    small = [key for key in grower.head.listed.keys if key not in grower.sites()]
    return len(numbers), [
        f"{grower.head.name}: {key} is too small there, so it gets no lesion" for key in small
    ]


@lru_cache(maxsize=1)
def _grower(path: Path, atrophy_mm: float, listed: SiteList) -> LesionGrower:
    from situs.synth.heads import read_head
    from situs.synth.lesions import LesionGrower

    return LesionGrower(read_head(path, atrophy_mm=atrophy_mm, listed=listed))


def _draw_atrophy(seed: int, batch: int) -> float:
    """How many mm the brain of a batch's head has lost; a few steps, so that their site maps can be kept."""
    return float(np.random.default_rng([seed, batch, 0]).choice(_ATROPHY_MM, p=_P_ATROPHY))


def _render_one(
    grower: LesionGrower,
    out: Path,
    n: int,
    rng: np.random.Generator,
    frequencies: SiteFrequencies,
    count: int,
) -> None:
    """Render scan number n with up to `count` lesions and write its files, the rows of the manifest last."""
    from situs.synth.pose import draw_plan
    from situs.synth.render import render_scan

    plan = draw_plan(grower.head, rng)
    lesions = _grow_lesions(grower, plan, _draw_sites(grower.sites(), frequencies, rng, count), rng)
    scan = render_scan(grower.head, lesions, plan, rng)
    for folder, data in (("scans", scan.hu), ("sites", scan.sites), ("lateral", scan.lateral_mm)):
        _write_image(data, plan.affine, out / _image(folder, n))
    rows = _write_rois(scan, lesions, plan, grower.head, out, n, rng)
    write_file(_rows_file(out, n), json.dumps(rows).encode())


def _grow_lesions(
    grower: LesionGrower, plan: ScanPlan, sites: Sequence[str], rng: np.random.Generator
) -> list[Lesion]:
    """A lesion of each site; those that miss it or overlap an earlier one are left out."""
    lesions: list[Lesion] = []
    taken = np.zeros(grower.head.labels.shape, dtype=bool)
    rule_of = grower.head.rule_of
    # Casts of ventricles are the largest: they would seldom find room after the others.
    for site in sorted(sites, key=lambda key: rule_of[key] != "ventricular_system"):
        cistern = rule_of[site] == "basal_cisterns"
        narrowing_mm = plan.cistern_narrowing_mm if cistern else plan.sulcal_narrowing_mm
        lesion = grower.grow(site, rng, narrowing_mm, plan.window)
        if lesion is not None and not (taken[lesion.box] & lesion.mask).any():
            taken[lesion.box] |= lesion.mask
            lesions.append(lesion)
    return lesions


def _write_rois(
    scan: RenderedScan,
    lesions: Sequence[Lesion],
    plan: ScanPlan,
    head: Head,
    out: Path,
    n: int,
    rng: np.random.Generator,
) -> list[list[Any]]:
    """Write the masks of the lesions that the scan shows; the rows of the manifest."""
    from situs.side import side_of_distances

    shown = [
        i for i, (_, mask) in enumerate(scan.drawn) if mask.sum(axis=(0, 1)).max(initial=0) >= _MIN_PIXELS
    ]
    rows = []
    for part, group in enumerate(_split_groups(shown, rng)):
        roi = np.zeros(scan.hu.shape, dtype=np.uint8, order="F")
        file = f"rois/{n:05d}_{part}.nii.gz"
        for value, i in enumerate(group, start=1):
            box, mask = scan.drawn[i]
            roi[box][mask] = value
        for value, i in enumerate(group, start=1):
            box, _ = scan.drawn[i]
            lateral = scan.lateral_mm[box][roi[box] == value].astype(float)
            if not lateral.size:  # lost under another mask that was drawn generously
                continue
            site = lesions[i].site
            crosses = head.listed.site(site).crosses_midline
            side = side_of_distances(lateral, np.ones(lateral.size), crosses)
            what = [value, site, head.name, side, lesions[i].kind]
            rows.append([_image("scans", n), file, *what, _image("sites", n), _image("lateral", n)])
        _write_image(roi, plan.affine, out / file)
    return rows


def _draw_sites(
    available: Sequence[str], frequencies: SiteFrequencies, rng: np.random.Generator, count: int
) -> list[str]:
    """The sites of `count` lesions, among those that a head has."""
    if frequencies == "balanced":
        rounds = -(-count // len(available)) + 1
        order = [site for _ in range(rounds) for site in rng.permutation(available)]
        return order[:count]
    slices = paper_slices()
    weights = np.array([slices[site] for site in available], dtype=float)
    return list(rng.choice(available, size=count, p=weights / weights.sum()))


def _split_groups(items: list[int], rng: np.random.Generator) -> list[list[int]]:
    """All items, in groups that are marked in one file."""
    order = list(rng.permutation(items)) if items else []
    groups = []
    while order:
        size = int(rng.choice(_MARKED_TOGETHER, p=_P_MARKED))
        groups.append([int(i) for i in order[:size]])
        order = order[size:]
    return groups


def _write_manifest(out: Path, scans: int) -> Path:
    rows = [
        Row(out / scan, out / roi, value, site, patient, side, kind, out / sites, out / lateral)
        for n in range(scans)
        for scan, roi, value, site, patient, side, kind, sites, lateral in json.loads(
            _rows_file(out, n).read_text(encoding="utf-8")
        )
    ]
    return write_manifest(out, rows)


def _image(folder: str, n: int) -> str:
    """The name of an image of scan number n, relative to the cohort."""
    return f"{folder}/{n:05d}.nii.gz"


def _rows_file(out: Path, n: int) -> Path:
    """The rows of scan number n; it is written when all else of the scan is."""
    return out / "rows" / f"{n:05d}.json"


def _write_image(data: NDArray[np.generic], affine: NDArray[np.float64], file: Path) -> None:
    import nibabel
    from isal import igzip  # four times faster than zlib

    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    write_file(file, igzip.compress(image.to_bytes(), 1, mtime=0))
