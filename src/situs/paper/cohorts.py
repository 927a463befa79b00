"""The cohorts of the paper's experiment: rendered scans with its counts, no head on both sides.

``train``, ``test``  scans of some heads to train on and of the others to test on, with the paper's number of
                     slices of every site: scans are rendered until a choice of them has enough
``balanced``         more scans of the heads to test on, with every site as often
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.cohort.manifest import read_manifest
from situs.cohort.sampling import check_sites, choose_evenly, split_patients
from situs.cohort.slices import Slices, open_slices
from situs.errors import InputError, ManifestError
from situs.files import make_folder, replacing
from situs.learn.loop import Progress
from situs.learn.recipe import Recipe
from situs.synth.cohort import MANIFEST_COLUMNS, paper_slices, render_cohort

__all__ = [
    "PAPER_SCALE",
    "SEED",
    "SMALL_SCALE",
    "TESTS",
    "Part",
    "Scale",
    "check_apart",
    "choose_scans",
    "open_parts",
    "split_heads",
]

TESTS = ("test", "balanced")
# The paper has 71 slices a scan, of thick slices: more lesions than in a scan that is rendered to train on.
_LESIONS = 24
_POOL = 2  # scans rendered for every scan wanted; then, while a site has too few slices, as many times more
_LARGEST_POOL = 16
_TEST_SHARE = 0.2  # of every site's slices, as of the paper's scans
SEED = 1710_09180  # of scans and of choices among slices; the same for all seeds of the networks


@dataclass(frozen=True)
class Scale:
    """How large a run is.

    Attributes:
        train_scans: the paper's 216, split 80:20 by scan
        test_scans: See `train_scans`.
        slices: of every site, both parts together
        balanced_scans: of the test heads, every site as often
        samples: share of the recipe's examples that BaseNet sees
        epochs: of the Relation Networks
        test_share: share of the heads that are tested on
    """

    train_scans: int = 173
    test_scans: int = 43
    slices: dict[str, int] = field(default_factory=paper_slices)
    balanced_scans: int = 160
    samples: float = 1.0
    epochs: int = 15
    test_share: float = 0.25

    @property
    def counts(self) -> NDArray[np.int64]:
        """(15,) `slices` in the order of `situs.anatomy.SITES`."""
        return np.array([self.slices.get(key, 0) for key in SITE_KEYS], dtype=np.int64)


PAPER_SCALE = Scale()
SMALL_SCALE = Scale(
    train_scans=16,
    test_scans=6,
    slices={key: max(5, n // 20) for key, n in paper_slices().items()},
    balanced_scans=16,
    samples=0.015,
    epochs=8,
)


@dataclass(frozen=True)
class Part:
    """Slices of a cohort that take part.

    Attributes:
        slices: their cohort's examples
        chosen: (n,) which of them; `site`, `patient` and `id` are (n,) too
    """

    slices: Slices
    chosen: NDArray[np.int64]

    @property
    def site(self) -> NDArray[np.int64]:
        return self.slices.site[self.chosen]

    @property
    def patient(self) -> NDArray[np.str_]:
        return self.slices.patient[self.chosen]

    @property
    def id(self) -> NDArray[np.str_]:
        return self.slices.id[self.chosen]

    @property
    def scans(self) -> int:
        return self.slices.count_scans(self.chosen)

    def few(self, n: int | NDArray[np.integer], of: NDArray[np.str_] | None = None) -> Part:
        """Of every site at most `n`, spread evenly over the patients, or over what else `of` (n,) names."""
        names = self.patient if of is None else of
        kept = choose_evenly(self.site, names, n, np.random.default_rng(SEED))
        return Part(self.slices, self.chosen[kept])


def open_parts(
    work: Path,
    heads: tuple[list[Path], list[Path]],
    recipe: Recipe,
    scale: Scale,
    jobs: int,
    say: Progress,
    train_cohort: Path | None = None,
) -> dict[str, Part]:
    """The parts ``train``, ``test`` and ``balanced``, rendered where they are not there yet.

    Args:
        work: the folder for the scans
        heads: to train on, and to test on
        recipe: how slices become views, and how many
        scale: See `recipe`.
        jobs: processes that render and read scans
        train_cohort: is trained on instead, without its scans of the heads to test on and with at most the
            recipe's number of slices of a region

    Raises:
        InputError: if the counts cannot be met
        ManifestError: if a patient is on both sides, or `train_cohort` cannot be used or has one site alone
        OutputError: if something cannot be written
    """
    parts = {}
    for name, some_heads in zip(("train", "test"), heads, strict=True):
        if name == "test" or train_cohort is None:
            cohort, need = _paper_cohort(work, name, some_heads, scale, jobs, say)
            whole = _open(cohort, recipe, jobs, say, training=name == "train")
            parts[name] = whole.few(need, whole.slices.scan)
    cohort = work / "balanced"
    render_cohort(
        heads[1], cohort, scale.balanced_scans, SEED, "balanced", jobs,
        lambda _, done, n, __="": say("render", done, n, "scans for the balanced test"),
    )  # fmt: skip
    parts["balanced"] = _open(cohort, recipe, jobs, say)
    if train_cohort is not None:
        whole = _open(train_cohort, recipe, jobs, say, training=True, max_slices=recipe.max_slices)
        tested = {name for test in TESTS for name in parts[test].patient.tolist()}
        kept, _ = split_patients(whole.patient.tolist(), sorted(tested & set(whole.patient.tolist())))
        parts["train"] = Part(whole.slices, np.flatnonzero(np.isin(whole.slices.patient, kept)))
    check_sites(parts["train"].site)
    for test in TESTS:
        check_apart(parts["train"], parts[test])
    return parts


def check_apart(train: Part, test: Part) -> None:
    """Refuse parts that share a patient.

    Raises:
        ManifestError: with the names of those who are in both
    """
    if both := sorted(set(train.patient.tolist()) & set(test.patient.tolist())):
        raise ManifestError(
            f"patient {', '.join(map(repr, both))}: in the training and in the test cohort; leave one out"
        )


def choose_scans(slices: NDArray[np.integer], need: NDArray[np.integer], n: int) -> NDArray[np.int64] | None:
    """`n` scans that have enough slices of every site together; None if they are not found.

    One after the other, the scan is taken that gives most of what is still missing, as shares of each site's
    need; of equals the first.

    Args:
        slices: (scans, 15) slices of every site in every scan
        need: (15,) wanted in all
    """
    missing = need.astype(np.int64)
    taken: list[int] = []
    for _ in range(n):
        gain = (np.minimum(slices, missing) / np.maximum(need, 1)).sum(axis=1)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        missing = np.maximum(missing - slices[taken[-1]], 0)
    return None if missing.any() else np.array(sorted(taken), dtype=np.int64)


def split_heads(heads: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """The heads to train on, and the last ones by name, a `share` of all, to test on.

    Raises:
        InputError: for fewer than two heads
    """
    ordered = sorted(heads)
    n = max(1, round(share * len(ordered)))
    if len(ordered) < 2:
        raise InputError(f"heads: expected at least two, to train on and to test on, got {len(ordered)}")
    return ordered[:-n], ordered[-n:]


def _open(
    cohort: Path,
    recipe: Recipe,
    jobs: int,
    say: Progress,
    training: bool = False,
    max_slices: int | None = None,
) -> Part:
    """All examples of a cohort."""
    slices = open_slices(
        cohort,
        recipe.spec,
        max_slices,
        jobs,
        lambda done, n: say("slices", done, n, f"of {cohort.name}"),
        training=training,
    )
    return Part(slices, np.arange(len(slices)))


def _paper_cohort(
    work: Path, name: str, heads: list[Path], scale: Scale, jobs: int, say: Progress
) -> tuple[Path, NDArray[np.int64]]:
    """The cohort of one side, with its number of scans, and the slices of every site that it must have."""
    need, n = _wanted(scale, name), scale.test_scans if name == "test" else scale.train_scans
    cohort, pool = work / name, work / f"{name}_pool"
    if (cohort / "manifest.csv").exists():
        return cohort, need
    size = n
    while True:
        size *= _POOL
        if size > _LARGEST_POOL * n:
            raise InputError(f"{pool}: {size} scans do not hold {n} with the wanted slices of every site")
        render_cohort(
            heads, pool, size, SEED + (name == "test"), "paper", jobs,
            lambda _, done, total, __="": say("render", done, total, f"scans to {name} on"), _LESIONS,
        )  # fmt: skip
        scans, slices = _count_slices(pool, say)
        chosen = choose_scans(slices, need, n)
        if chosen is not None:
            break
    _write_part(cohort, pool, {scans[i].name for i in chosen})
    return cohort, need


def _wanted(scale: Scale, name: str) -> NDArray[np.int64]:
    """How many slices of every site one side has, of those of both."""
    of_test = np.rint(scale.counts * _TEST_SHARE).astype(np.int64)
    return of_test if name == "test" else scale.counts - of_test


def _count_slices(cohort: Path, say: Progress) -> tuple[list[Path], NDArray[np.int64]]:
    """The scans of a cohort, and how many slices of every site each has (scans, 15)."""
    from situs.io.nifti import read_nifti_grid

    rows = read_manifest(cohort)
    scans = list(dict.fromkeys(row.scan for row in rows))
    counts = np.zeros((len(scans), len(SITES)), dtype=np.int64)
    masks: dict[Path, NDArray[Any]] = {}
    for done, row in enumerate(rows, start=1):
        if row.roi not in masks:  # the rows of one file follow each other
            masks = {row.roi: read_nifti_grid(row.roi, ManifestError).values}
        slices = (masks[row.roi] == row.value).any(axis=(0, 1))
        counts[scans.index(row.scan), row.site] += int(slices.sum())
        say("choose", done, len(rows), "counting slices")
    return scans, counts


def _write_part(cohort: Path, pool: Path, names: set[str]) -> None:
    """The rows of a pool whose scan is among `names`, as a cohort that points to the same files."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(MANIFEST_COLUMNS)
    with (pool / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if Path(row["scan"]).name in names:
                files = {c: f"../{pool.name}/{row[c]}" for c in ("scan", "roi", "sites", "lateral")}
                writer.writerow([{**row, **files}[column] for column in MANIFEST_COLUMNS])
    make_folder(cohort)
    with replacing(cohort / "manifest.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
