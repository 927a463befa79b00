"""The cohorts of the paper's experiment: rendered scans with its counts, no head on both sides.

``train``, ``test``  scans of some heads to train on and of the others to test on, with the paper's number of
                     slices of every site; scans are rendered until a choice of them has enough
``balanced``         more scans of the heads to test on, every site equally frequent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.cohort.manifest import MANIFEST, Row, read_manifest, write_manifest
from situs.cohort.sampling import check_sites, choose_evenly, split_patients
from situs.cohort.slices import Slices, open_slices
from situs.errors import InputError, ManifestError
from situs.files import make_folder
from situs.io.nifti import read_nifti_grid
from situs.learn.recipe import Recipe
from situs.progress import Progress
from situs.synth.cohort import paper_slices, render_cohort

__all__ = [
    "PAPER_SIZE",
    "SEED",
    "SMALL_SIZE",
    "TESTS",
    "ExperimentSize",
    "SliceSubset",
    "check_disjoint",
    "choose_scans",
    "open_subsets",
    "split_heads",
]

TESTS = ("test", "balanced")
# The paper has 71 slices a scan, of thick slices. That takes more lesions than a scan of `situs synth` has.
_LESIONS = 24
# Twice as many scans are rendered as needed, and again twice as many each time a site has too few slices.
_POOL_GROWTH, _LARGEST_POOL = 2, 16
_TEST_FRACTION = 0.2  # of every site's slices, as of the paper's scans
SEED = 1710_09180  # of the scans and the choice of slices, the same for all seeds of the networks


@dataclass(frozen=True)
class ExperimentSize:
    """How large a run is; by default as large as the paper's experiment.

    Attributes:
        train_scans: Scans to train on; the paper's 216 are split 80:20.
        test_scans: Scans to test on.
        slices: Slices of every site, of both together.
        balanced_scans: Scans of the test heads in which every site is equally frequent.
        samples: The fraction of the recipe's examples that BaseNet sees.
        epochs: Epochs of the Relation Networks.
        test_fraction: The fraction of the heads that are tested on.
    """

    train_scans: int = 173
    test_scans: int = 43
    slices: dict[str, int] = field(default_factory=paper_slices)
    balanced_scans: int = 160
    samples: float = 1.0
    epochs: int = 15
    test_fraction: float = 0.25

    @property
    def counts(self) -> NDArray[np.int64]:
        """(15,) `slices` in the order of `situs.anatomy.SITES`."""
        return np.array([self.slices.get(key, 0) for key in SITE_KEYS], dtype=np.int64)


PAPER_SIZE = ExperimentSize()
SMALL_SIZE = ExperimentSize(
    train_scans=16,
    test_scans=6,
    slices={key: max(5, n // 20) for key, n in paper_slices().items()},
    balanced_scans=16,
    samples=0.015,
    epochs=8,
)


@dataclass(frozen=True, eq=False)
class SliceSubset:
    """Some slices of a cohort.

    Attributes:
        slices: All examples of the cohort.
        chosen: The indices (n,) of those that take part.
    """

    slices: Slices
    chosen: NDArray[np.int64]

    @property
    def site(self) -> NDArray[np.int64]:
        """(n,) indices into `situs.anatomy.SITES`."""
        return self.slices.site[self.chosen]

    @property
    def patient(self) -> NDArray[np.str_]:
        """(n,) the patient of every slice."""
        return self.slices.patient[self.chosen]

    @property
    def id(self) -> NDArray[np.str_]:
        """(n,) the name of every slice."""
        return self.slices.id[self.chosen]

    @property
    def scans(self) -> int:
        """How many scans the slices are of."""
        return self.slices.count_scans(self.chosen)

    def subsample(self, n: int | NDArray[np.integer], groups: NDArray[np.str_] | None = None) -> SliceSubset:
        """At most `n` slices of every site, or `n` (15,), spread evenly over the `groups` (n,) of slices.

        The groups are the patients unless others are given.
        """
        groups = self.patient if groups is None else groups
        kept = choose_evenly(self.site, groups, n, np.random.default_rng(SEED))
        return SliceSubset(self.slices, self.chosen[kept])


def open_subsets(
    work: Path,
    heads: tuple[list[Path], list[Path]],
    recipe: Recipe,
    size: ExperimentSize,
    jobs: int,
    progress: Progress,
    train_cohort: Path | None = None,
) -> dict[str, SliceSubset]:
    """The slices to train and to test on: ``train``, ``test`` and ``balanced``. Missing scans are rendered.

    Args:
        work: The folder for the scans.
        heads: Label maps to train on, and to test on.
        recipe: How slices become views, and how many of them are used.
        size: How many scans and slices there are.
        jobs: Processes that render and read scans.
        progress: Is told of every scan.
        train_cohort: A cohort to train on instead, without its scans of the heads to test on and with at most
            the recipe's number of slices of a region.

    Raises:
        InputError: If the counts cannot be met.
        ManifestError: If a patient is on both sides, or `train_cohort` cannot be used or has only one site.
        OutputError: If something cannot be written.
    """
    subsets = {}
    for name, its_heads in zip(("train", "test"), heads, strict=True):
        if name == "test" or train_cohort is None:
            cohort, need = _paper_cohort(work, name, its_heads, size, jobs, progress)
            whole = _open(cohort, recipe, jobs, progress, training=name == "train")
            subsets[name] = whole.subsample(need, whole.slices.scan)
    cohort = work / "balanced"
    report = _relabeled(progress, "render", "scans for the balanced test")
    render_cohort(heads[1], cohort, size.balanced_scans, SEED, "balanced", jobs, report)
    subsets["balanced"] = _open(cohort, recipe, jobs, progress)
    if train_cohort is not None:
        whole = _open(train_cohort, recipe, jobs, progress, training=True, max_slices=recipe.max_slices)
        tested = {name for test in TESTS for name in subsets[test].patient.tolist()}
        kept, _ = split_patients(whole.patient.tolist(), sorted(tested & set(whole.patient.tolist())))
        subsets["train"] = SliceSubset(whole.slices, np.flatnonzero(np.isin(whole.slices.patient, kept)))
    check_sites(subsets["train"].site, SITES)
    for test in TESTS:
        check_disjoint(subsets["train"], subsets[test])
    return subsets


def check_disjoint(train: SliceSubset, test: SliceSubset) -> None:
    """Refuse subsets that share a patient.

    Raises:
        ManifestError: With the names of the patients who are in both.
    """
    if both := sorted(set(train.patient.tolist()) & set(test.patient.tolist())):
        raise ManifestError(
            f"patient {', '.join(map(repr, both))}: in the training and in the test cohort; remove them "
            "from one"
        )


def choose_scans(slices: NDArray[np.integer], need: NDArray[np.integer], n: int) -> NDArray[np.int64] | None:
    """Choose `n` scans that have enough slices of every site together.

    Scans are taken one after the other: each time the one that gives most of what is still missing, as
    fractions of each site's need; of equal ones the first.

    Args:
        slices: The slices (scans, 15) of every site in every scan.
        need: The slices (15,) of every site that are needed.
        n: How many scans are chosen.

    Returns:
        The indices (n,) of the scans, ascending; None if these scans do not have enough slices.
    """
    missing = need.astype(np.int64)
    taken: list[int] = []
    for _ in range(n):
        gain = (np.minimum(slices, missing) / np.maximum(need, 1)).sum(axis=1)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        missing = np.maximum(missing - slices[taken[-1]], 0)
    return None if missing.any() else np.array(sorted(taken), dtype=np.int64)


def split_heads(heads: Sequence[Path], fraction: float) -> tuple[list[Path], list[Path]]:
    """The heads to train on, and the last ones by name, a `fraction` of all, to test on.

    Raises:
        InputError: For fewer than two heads.
    """
    ordered = sorted(heads)
    n = max(1, round(fraction * len(ordered)))
    if len(ordered) < 2:
        raise InputError(f"heads: expected at least two, to train on and to test on, got {len(ordered)}")
    return ordered[:-n], ordered[-n:]


def _open(
    cohort: Path,
    recipe: Recipe,
    jobs: int,
    progress: Progress,
    training: bool = False,
    max_slices: int | None = None,
) -> SliceSubset:
    """All examples of a cohort."""
    report = _relabeled(progress, "slices", f"of {cohort.name}")
    slices = open_slices(cohort, recipe.spec, max_slices, jobs, report, training=training)
    return SliceSubset(slices, np.arange(len(slices)))


def _paper_cohort(
    work: Path, name: str, heads: list[Path], size: ExperimentSize, jobs: int, progress: Progress
) -> tuple[Path, NDArray[np.int64]]:
    """The cohort of one side, with its number of scans, and the slices of every site that it must have."""
    need, n = _needed(size, name), size.test_scans if name == "test" else size.train_scans
    cohort, pool = work / name, work / f"{name}_pool"
    if (cohort / MANIFEST).exists():
        return cohort, need
    rendered, report = n, _relabeled(progress, "render", f"scans to {name} on")
    while True:
        rendered *= _POOL_GROWTH
        if rendered > _LARGEST_POOL * n:
            raise InputError(
                f"{pool}: no {n} of {rendered // _POOL_GROWTH} scans have the needed slices of every site: "
                "give more heads"
            )
        render_cohort(heads, pool, rendered, SEED + (name == "test"), "paper", jobs, report, _LESIONS)
        rows = read_manifest(pool)
        scans, slices = _count_slices(rows, progress)
        chosen = choose_scans(slices, need, n)
        if chosen is not None:
            break
    its_scans = {scans[i] for i in chosen}
    make_folder(cohort)
    write_manifest(cohort, [row for row in rows if row.scan in its_scans])
    return cohort, need


def _needed(size: ExperimentSize, name: str) -> NDArray[np.int64]:
    """How many slices of every site one side has, of those of both."""
    of_test = np.rint(size.counts * _TEST_FRACTION).astype(np.int64)
    return of_test if name == "test" else size.counts - of_test


def _count_slices(rows: Sequence[Row], progress: Progress) -> tuple[list[Path], NDArray[np.int64]]:
    """The scans of a cohort, and how many slices of every site each has (scans, 15)."""
    scans = list(dict.fromkeys(row.scan for row in rows))
    counts = np.zeros((len(scans), len(SITES)), dtype=np.int64)
    masks: dict[Path, NDArray[Any]] = {}
    for done, row in enumerate(rows, start=1):
        if row.roi not in masks:  # the rows of one file follow each other
            masks = {row.roi: read_nifti_grid(row.roi, ManifestError).values}
        slices = (masks[row.roi] == row.value).any(axis=(0, 1))
        counts[scans.index(row.scan), SITE_INDEX[row.site]] += int(slices.sum())
        progress("choose", done, len(rows), "counting slices")
    return scans, counts


def _relabeled(progress: Progress, stage: str, message: str) -> Progress:
    """A `Progress` that passes counts on under this stage's name, with this message."""

    def report(_: str, done: int, total: int, __: str = "", /) -> None:
        progress(stage, done, total, message)

    return report
