"""Cross-conformal calibration: a bundle's thresholds, from patients that bundles like it have not seen.

A *fold* is a bundle that was trained like this one without some patients of the cohort, and answers for
those. So the bundle itself may learn from all patients. See `situs.certainty`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SiteList
from situs.bundle import Bundle, read_bundle
from situs.bundle.change import replace_calibration
from situs.bundle.folder import output_folder
from situs.certainty import LEVEL, Calibration, Judgement, fit_calibration
from situs.cohort.answers import Answers, answer_slices, average_answers, judge
from situs.cohort.coverage import Coverage, measure_coverage
from situs.cohort.slices import open_slices
from situs.errors import BundleError, ManifestError
from situs.progress import Progress, silent
from situs.records import join_rows, take_rows

__all__ = ["calibrate"]

# The settings of a recipe in which a fold may differ from the bundle: how long and how gently it was trained.
_LENGTHS = ("name", "paint_samples", "basenet_samples", "relation_samples", "learning_rate")


def calibrate(
    bundle: str | Path,
    cohort: Path,
    folds: Sequence[str | Path],
    out: str | Path | None = None,
    level: float = LEVEL,
    jobs: int = 1,
    progress: Progress = silent,
) -> tuple[Calibration, Coverage | None]:
    """Calibrate a bundle and write it again, for whole scans and for slices alone.

    Each fold answers for the ROIs of those patients of the cohort of whom it has no reference. A patient whom
    two folds left out counts twice.

    Args:
        bundle: The bundle to calibrate. It does not answer itself.
        cohort: A folder with a manifest. Each fold left some of its patients out (``situs train
            --test-patient``).
        folds: Bundles of the same networks, views and sites. They may have been trained for another length: a
            bundle that went on from others has no fold of its own length. The card says so then.
        out: See `situs.bundle.folder.output_folder`.
        level: Fraction of each site's lesions whose site set shall hold that site.
        jobs: Processes that make views.
        progress: Reports the stages ``scans`` and ``slices``.

    Returns:
        The calibration, and its coverage: that of each patient by a calibration on all others; None for one
        patient.

    Raises:
        BundleError: If a bundle cannot be used or changed, or a fold is of other networks.
        ManifestError: If the cohort cannot be used, or a fold left none of its patients out.
        OutputError: If the bundle cannot be written.
    """
    whole = read_bundle(bundle)
    folder = output_folder(whole, out)
    fold_bundles = [read_bundle(fold) for fold in folds]
    for fold in fold_bundles:
        _check_alike(whole, fold)
    slices = open_slices(cohort, whole.spec, jobs=jobs, progress=progress, others=whole.sites)
    parts: list[Answers] = []
    alone: list[Answers] = []
    rois = []  # an example of each
    for fold in fold_bundles:
        chosen = np.flatnonzero(~np.isin(slices.patient, fold.references.patients))
        if not chosen.size:
            raise ManifestError(
                f"{fold.path}: has references of every patient of {cohort}; give a bundle that was trained "
                "without some of them"
            )
        row = slices.row[chosen]
        answers = answer_slices(fold, slices, chosen, progress)
        parts.append(average_answers(answers, row))
        alone.append(answer_slices(fold, slices, chosen[_largest(answers.areas, row)], progress, alone=True))
        rois.append(chosen[np.unique(row, return_index=True)[1]])
    first = np.concatenate(rois)
    answers, patients = join_rows(parts), slices.patient[first]
    truth = slices.numbers_in(whole.sites)[slices.site[first]]
    of_slices = _fit(join_rows(alone), truth, patients, level, whole.sites)
    differences = sorted({text for fold in fold_bundles for text in _differences(whole, fold)})
    fitted = _fit(answers, truth, patients, level, whole.sites)
    calibration = replace(fitted, alone=of_slices, folds=tuple(differences))
    replace_calibration(whole, calibration, folder)
    return calibration, _leave_one_patient_out(answers, truth, patients, level, whole.sites)


def _largest(areas: NDArray[np.float64], row: NDArray[np.int64]) -> NDArray[np.intp]:
    """The slice of each ROI with the largest area, by ascending number of the ROI.

    Args:
        areas: (n,) of the slices.
        row: (n,) number of the ROI that each slice is of.
    """
    order = np.lexsort((-areas, row))
    return order[np.unique(row[order], return_index=True)[1]]


def _leave_one_patient_out(
    answers: Answers,
    truth: NDArray[np.integer],
    patients: NDArray[np.str_],
    level: float,
    sites: SiteList,
) -> Coverage | None:
    """The coverage of each patient's ROIs by a calibration on all other patients; None for one patient."""
    names = np.unique(patients)
    if len(names) < 2:
        return None
    judgements: list[Judgement] = []
    for name in names:
        own, others = np.flatnonzero(patients == name), np.flatnonzero(patients != name)
        calibration = _fit(take_rows(answers, others), truth[others], patients[others], level, sites)
        judgements += judge(calibration, take_rows(answers, own))
    return measure_coverage(judgements, truth[np.argsort(patients, kind="stable")], level, sites)


def _fit(
    answers: Answers,
    truth: NDArray[np.integer],
    patients: NDArray[np.str_],
    level: float,
    sites: SiteList,
) -> Calibration:
    return fit_calibration(answers.relation, truth, answers.distances, answers.inside, patients, level, sites)


def _check_alike(bundle: Bundle, fold: Bundle) -> None:
    """Refuse a fold that is of another kind than the bundle."""
    kinds = [{key: value for key, value in b.recipe.items() if key not in _LENGTHS} for b in (bundle, fold)]
    for what, same in (
        ("another recipe", kinds[0] == kinds[1]),
        ("other views", bundle.spec == fold.spec),
        ("other sites", bundle.sites == fold.sites),
        ("another number of neighbours", bundle.n_neighbors == fold.n_neighbors),
    ):
        if not same:
            raise BundleError(
                f"{fold.path}: has {what} than {bundle.path}; train the fold by the same recipe"
            )


def _differences(bundle: Bundle, fold: Bundle) -> list[str]:
    """In what a fold's training differs from that of the bundle."""
    return [
        f"{key} {fold.recipe.get(key)} instead of {bundle.recipe.get(key)}"
        for key in _LENGTHS
        if fold.recipe.get(key) != bundle.recipe.get(key)
    ]
