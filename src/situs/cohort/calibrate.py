"""Cross-conformal calibration: what a bundle can be sure of, found on patients that its like has not seen.

A bundle may learn from all patients of a cohort if each was answered by a bundle that was trained in the same
way on other patients: a fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle, read_bundle, replace_certainty
from situs.certainty import LEVEL, Certainty, Coverage, Judgement, calibrate_certainty, coverage
from situs.cohort.answers import Answers, answer_slices, join_answers, join_slices, judge
from situs.cohort.slices import open_slices
from situs.errors import BundleError, ManifestError

__all__ = ["calibrate"]


def calibrate(
    bundle: str | Path,
    cohort: Path,
    folds: Sequence[str | Path],
    out: str | Path | None = None,
    level: float = LEVEL,
    jobs: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Certainty, Coverage | None]:
    """Write a bundle again with what it can be sure of.

    Every fold answers for the ROIs of those patients of the cohort whom it has no reference of, see
    `situs.certainty`. A patient whom two folds left out counts twice.

    Args:
        bundle: the one to calibrate; it is not asked itself
        cohort: a folder with a manifest, of which each fold left some patients out (``situs train
            --test-patient``)
        folds: bundles of the same recipe
        out: the folder to write to; None for the bundle's own
        level: share of every site's lesions whose set of sites shall hold theirs
        progress: is called with what is counted (``scans`` or ``slices``), how many are done, and in all

    Returns:
        what was found, and how such sets do on each patient if all others are calibrated on; None for one
        patient

    Raises:
        BundleError: if a bundle cannot be used, or a fold is of another recipe
        ManifestError: if the cohort cannot be used, or a fold left none of its patients out
        OutputError: if `out` cannot be written, or holds something else
    """
    asked = [read_bundle(fold) for fold in folds]
    whole = read_bundle(bundle)
    for fold in asked:
        _check_alike(whole, fold)
    slices = open_slices(
        cohort, whole.spec, jobs=jobs, progress=None if progress is None else partial(progress, "scans")
    )
    parts: list[Answers] = []
    rois = []  # an example of each
    for fold in asked:
        chosen = np.flatnonzero(~np.isin(slices.patient, fold.references.patients))
        if not chosen.size:
            raise ManifestError(
                f"{fold.path}: has references of every patient of {cohort}, so it left none out"
            )
        row = slices.row[chosen]
        parts.append(join_slices(answer_slices(fold, slices, chosen, progress), row))
        rois.append(chosen[np.unique(row, return_index=True)[1]])
    first = np.concatenate(rois)
    said, truth, patients = join_answers(parts), slices.site[first], slices.patient[first]
    certainty = _calibrate(said, truth, patients, level)
    replace_certainty(whole, certainty, out)

    return certainty, _leave_out(said, truth, patients, level)


def _leave_out(
    said: Answers, truth: NDArray[np.integer], patients: NDArray[np.str_], level: float
) -> Coverage | None:
    """How sets do on each patient if all others are calibrated on; None for one patient."""
    people = np.unique(patients)
    if len(people) < 2:
        return None
    judged: list[Judgement] = []
    for one in people:
        own, others = (np.flatnonzero(which) for which in (patients == one, patients != one))
        found = _calibrate(said.take(others), truth[others], patients[others], level)
        judged += judge(found, said.take(own))
    return coverage(judged, truth[np.argsort(patients, kind="stable")], level)


def _calibrate(
    said: Answers, truth: NDArray[np.integer], patients: NDArray[np.str_], level: float
) -> Certainty:
    return calibrate_certainty(said.relation, truth, said.distances, said.inside, patients, level)


def _check_alike(bundle: Bundle, fold: Bundle) -> None:
    for what in ("recipe", "views", "n_neighbors"):
        if bundle.description[what] != fold.description[what]:
            raise BundleError(
                f"{fold.path}: its {what} is another than that of {bundle.path}: train it alike"
            )
