"""How often a bundle is right on a cohort: BaseNet's own answer, and the Relation Network's.

One example is one axial slice of one ROI, as in the paper. The same with one ROI as one example stands beside
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.bundle import read_bundle
from situs.certainty import Calibration
from situs.cohort.answers import Answers, answer_slices, average_answers, average_slices, judge
from situs.cohort.coverage import Coverage, measure_coverage
from situs.cohort.groups import Examples, GroupScores, groups_to_dict, score_groups
from situs.cohort.manifest import describe_cohort, read_manifest
from situs.cohort.scores import ScoreTable, count_confusions, macro_f1, score_table
from situs.cohort.slices import Slices, open_slices
from situs.errors import ManifestError, did_you_mean
from situs.progress import Progress, silent
from situs.tables import text_table

__all__ = ["Evaluation", "evaluate"]

SPANNING = 0.95  # a ROI with more than this share in one site does not span several


@dataclass(frozen=True, eq=False)
class Evaluation:
    """BaseNet's own answer and the Relation Network's, on the same examples.

    Attributes:
        relation: The Relation Network's scores; an example is one slice of one ROI.
        basenet: BaseNet's scores; an example is one slice of one ROI.
        relation_rois: The Relation Network's scores; an example is one ROI (a row of the manifest). The
            scores of a ROI are the mean of its slices', weighted by area, as those of a lesion in use.
        basenet_rois: BaseNet's scores; an example is one ROI, likewise.
        other_joins: Macro F1 over ROIs if the relation scores of their slices are joined in other ways than
            by area, by the name of the way.
        coverage: How the bundle's site sets do; None for a bundle that was not calibrated.
        share_error: Error of the painted shares of ROIs, see `_share_error`. None where the bundle does not
            paint or the cohort has no site maps.
        share_rois: The number of ROIs that `share_error` is the mean of.
        upright: Whether turned heads were looked at upright, see `situs.cohort.examples`.
        bundle: Name and version of the bundle.
        n_neighbors: How many references of each site a slice was compared with.
        n_patients: Number of patients of the cohort.
        known_patients: How many of these patients are among the bundle's references. Unless it is 0, the
            scores are not a test, because the networks were trained on those patients. (Those that were added
            later are the exception.) No slice was compared with references of its own patient.
        unknown_sites: Names of the sites of the cohort that the bundle has no reference of.
        data: What a rendered cohort was rendered from; empty for any other cohort.
        groups: The Relation Network's scores by the groups of the sites, for each grouping.
    """

    relation: ScoreTable
    basenet: ScoreTable
    relation_rois: ScoreTable
    basenet_rois: ScoreTable
    other_joins: dict[str, float]
    coverage: Coverage | None
    share_error: float | None
    share_rois: int
    upright: bool
    bundle: str
    n_neighbors: int
    n_patients: int
    known_patients: int
    unknown_sites: tuple[str, ...]
    data: str = ""
    groups: tuple[GroupScores, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as a dictionary for JSON.

        The Relation Network's table stands at the top, BaseNet's under ``basenet``. Both with ROIs as
        examples stand under ``rois``.
        """
        by_slice = groups_to_dict({scores.grouping: scores.slices for scores in self.groups})
        by_roi = groups_to_dict({scores.grouping: scores.rois for scores in self.groups})
        rois = {"basenet": self.basenet_rois.to_dict(), "groups": by_roi}
        return {
            "bundle": self.bundle,
            "n_neighbors": self.n_neighbors,
            "patients": self.n_patients,
            "known_patients": self.known_patients,
            "unknown_sites": list(self.unknown_sites),
            "upright": self.upright,
            "shares": {"error": self.share_error, "rois": self.share_rois},
            "certainty": None if self.coverage is None else self.coverage.to_dict(),
            "other_joins": self.other_joins,
            **self.relation.to_dict(),
            "basenet": self.basenet.to_dict(),
            "rois": {**self.relation_rois.to_dict(), **rois},
            "groups": by_slice,
        }

    def text(self) -> str:
        """The comparison for people."""
        counts = (
            (self.relation.confusion.sum(), "ROI slices"),
            (self.relation_rois.confusion.sum(), "ROIs"),
            (self.relation.n_scans, "scans"),
            (self.n_patients, "patients"),
        )
        parts = [
            f"{self.bundle} on {', '.join(f'{n} {name}' for n, name in counts)}",
            "Compared: BaseNet's own answer, and that of the Relation Network (RN) with the "
            f"{self.n_neighbors} nearest references of each site.",
            *self._remarks(),
            "",
            _comparison("an example is a slice", self.basenet, self.relation),
            "",
            _comparison("an example is a ROI", self.basenet_rois, self.relation_rois, sites=False),
            "",
            "The scores of a ROI are the mean of its slices' scores, weighted by area. RN's macro F1 is",
            ", ".join(f"{f1:.3f} with {name}" for name, f1 in self.other_joins.items()) + ".",
            "",
            *(line for scores in self.groups for line in (scores.text(), "")),
            *([] if self.coverage is None else [self.coverage.text(), ""]),
            *self._shares_text(),
            "Means leave out sites without an example. Intervals: 95 %, bootstrap over scans.",
        ]
        return "\n".join(parts)

    def _remarks(self) -> list[str]:
        """What a reader must know before the numbers."""
        remarks = []
        if self.upright:
            remarks.append(
                "Turned heads are looked at upright. The turn is read from the cohort's distances to the "
                "midline, or from the head's symmetry."
            )
        if self.known_patients:
            remarks.append(
                f"NOT A TEST: {self.known_patients} of the {self.n_patients} patients are among the bundle's "
                "references.\nTheir own references are left out here, but the networks were trained on them."
            )
        if self.unknown_sites:
            remarks.append(
                f"Always missed, because the bundle has no reference: {', '.join(self.unknown_sites)}."
            )
        return remarks

    def _shares_text(self) -> list[str]:
        if self.share_error is None:
            return []
        return [
            f"Shares of {self.share_rois} ROIs that span several sites: mean error {self.share_error:.3f} "
            "(half the summed absolute difference from the site map).",
            "",
        ]


def evaluate(
    bundle: str | Path | None,
    cohort: Path,
    patients: Sequence[str] | None = None,
    jobs: int = 1,
    n_boot: int = 1000,
    progress: Progress = silent,
) -> Evaluation:
    """Run a bundle over every ROI slice of a cohort.

    No slice is compared with references of its own patient.

    Args:
        bundle: The bundle's folder; None or ``"shipped"`` for the one inside the package.
        cohort: A folder with a manifest. Its views are kept in a cache there.
        patients: Only these patients, at least one; None for all.
        jobs: Number of processes that make views.
        n_boot: Draws for the intervals, see `situs.cohort.scores.score_table`.
        progress: Called with the stages ``scans`` and ``slices``.

    Raises:
        BundleError: If the bundle cannot be used.
        ManifestError: If the cohort cannot be used, or has no such patient.
        OutputError: If the cache cannot be written.
    """
    asked = read_bundle(bundle)
    rows = read_manifest(cohort, asked.sites)
    all_patients = {row.patient for row in rows}
    tested = all_patients if patients is None else set(patients)
    _check_patients(tested, all_patients, cohort)
    slices = open_slices(cohort, asked.spec, jobs=jobs, progress=progress, others=asked.sites)
    chosen = np.flatnonzero(np.isin(slices.patient, sorted(tested)))
    answers = answer_slices(asked, slices, chosen, progress)
    numbers = slices.numbers_in(asked.sites)
    row, truth = slices.row[chosen], numbers[slices.site[chosen]]
    roi_answers, first_slice = average_answers(answers, row), np.unique(row, return_index=True)[1]
    roi_truth = truth[first_slice]
    # The manifest's path: two scans in folders of their own may have one file name.
    scans = np.array([str(rows[n].scan) for n in row])

    def of_slices(scores: NDArray[np.floating]) -> Examples:
        return truth, scores.argmax(axis=1), scans

    def of_rois(scores: NDArray[np.floating]) -> Examples:
        return roi_truth, scores.argmax(axis=1), scans[first_slice]

    def table(examples: Examples) -> ScoreTable:
        return score_table(*examples, n_boot, names=asked.sites.names)

    share_error, share_rois = _share_error(roi_answers, slices, chosen, numbers)
    return Evaluation(
        relation=table(of_slices(answers.relation)),
        basenet=table(of_slices(answers.basenet)),
        relation_rois=table(of_rois(roi_answers.relation)),
        basenet_rois=table(of_rois(roi_answers.basenet)),
        other_joins=_other_joins(answers, row, roi_truth),
        coverage=_coverage(asked.calibration, roi_answers, roi_truth),
        share_error=share_error,
        share_rois=share_rois,
        upright=asked.spec.upright,
        bundle=f"{asked.name} {asked.version}",
        n_neighbors=asked.n_neighbors,
        n_patients=len(tested),
        known_patients=len((tested & set(asked.references.patients.tolist())) - {""}),
        unknown_sites=tuple(asked.sites[n].name for n in np.setdiff1d(truth, asked.references.sites)),
        data=describe_cohort(cohort, all_patients).get("data", ""),
        groups=score_groups(asked.sites, of_slices(answers.relation), of_rois(roi_answers.relation), n_boot),
    )


def _check_patients(tested: set[str], all_patients: set[str], cohort: Path) -> None:
    """Refuse to evaluate on no patient, or on one that the cohort does not have."""
    if not tested:
        raise ManifestError(f"{cohort}: no slice to evaluate; name at least one patient")
    for name in sorted(tested - all_patients):
        raise ManifestError(f"{cohort}: no patient {name!r}{did_you_mean(name, sorted(all_patients))}")


def _coverage(
    calibration: Calibration | None, roi_answers: Answers, truth: NDArray[np.integer]
) -> Coverage | None:
    """How the site sets of ROIs do, by their true sites (n_rois,); None without a calibration."""
    if calibration is None:
        return None
    return measure_coverage(judge(calibration, roi_answers), truth, calibration.level, calibration.sites)


def _other_joins(answers: Answers, row: NDArray[np.int64], truth: NDArray[np.integer]) -> dict[str, float]:
    """Macro F1 over ROIs if the relation scores of their slices are joined in other ways than by area.

    Args:
        answers: Answers to n slices.
        row: (n,) number of the ROI that each slice is of.
        truth: (n_rois,) true sites, by ascending number of the ROI.
    """
    _, roi = np.unique(row, return_inverse=True)
    ascending = np.argsort(answers.areas, kind="stable")
    largest = np.zeros(len(truth), dtype=np.int64)
    largest[roi[ascending]] = ascending  # the last one stays
    ways: dict[str, NDArray[np.floating]] = {
        "the largest slice alone": answers.relation[largest],
        "all slices alike": average_slices(answers.relation, np.ones(len(row)), row),
    }
    f1 = {}
    for name, scores in ways.items():
        counts = count_confusions(
            truth, [scores.argmax(axis=1)], np.zeros(len(truth)), answers.relation.shape[1]
        )
        f1[name] = float(macro_f1(counts[0, 0]))
    return f1


def _share_error(
    roi_answers: Answers, slices: Slices, chosen: NDArray[np.intp], numbers: NDArray[np.int64]
) -> tuple[float | None, int]:
    """The error of the painted shares of ROIs, and the number of ROIs that it is the mean of.

    The error of a ROI is half the summed absolute difference from the exact shares. Only ROIs that span
    several sites are counted: no site holds more than `SPANNING` of them.

    Args:
        roi_answers: Answers to the ROIs of the chosen slices, by ascending row of the manifest.
        slices: The cohort's slices.
        chosen: (n,) indices of the slices that were asked about.
        numbers: (256,) see `situs.cohort.slices.Slices.numbers_in`.
    """
    channel = slices.spec.roi_channel
    if roi_answers.shares is None or slices.local_sites is None or channel is None:
        return None, 0
    of_cohort, in_any = _exact_shares(slices, chosen, channel)
    shares = np.zeros((len(chosen), roi_answers.shares.shape[1]))
    known = np.flatnonzero(numbers[: len(slices.sites)] >= 0)
    shares[:, numbers[known]] = of_cohort[:, known]
    exact = average_slices(shares, in_any, slices.row[chosen])
    spanning = (exact.sum(axis=1) > 0) & (exact.max(axis=1) <= SPANNING)
    errors = np.abs(roi_answers.shares - exact)[spanning].sum(axis=1) / 2
    return (float(errors.mean()) if errors.size else None), int(spanning.sum())


def _exact_shares(
    slices: Slices, chosen: NDArray[np.intp], roi_channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of each region in each site, from the site maps over the local views.

    Args:
        slices: The cohort's slices, with site maps.
        chosen: (n,) indices of slices.
        roi_channel: The channel of the views that shows the region.

    Returns:
        Shares (n, sites) by the cohort's numbers of the sites, and how much of each region lies in any site
        (n,), in 1/255 pixels of the site map.
    """
    shares, in_any = np.zeros((len(chosen), len(slices.sites))), np.zeros(len(chosen))
    for row, n in enumerate(chosen.tolist()):
        batch = slices.batch(np.array([n]))
        assert batch.local_sites is not None
        region, sites = batch.local_view[0, roi_channel], batch.local_sites[0]
        half = region.reshape(len(sites), 2, -1, 2).mean(axis=(1, 3))
        counts = np.bincount(sites.ravel(), half.ravel(), minlength=256)[1 : shares.shape[1] + 1]
        in_any[row] = counts.sum()
        shares[row] = counts / max(in_any[row], 1e-9)
    return shares, in_any


def _comparison(title: str, basenet: ScoreTable, relation: ScoreTable, sites: bool = True) -> str:
    """The numbers of both tables side by side; without `sites` only the means."""
    head = ["examples", "BaseNet prec.", "recall", "F1", "RN prec.", "recall", "F1", "95 % interval"]
    rows = [[title, *head]]
    for left, right in zip(basenet.cells(), relation.cells(), strict=True):
        name, *numbers, _, examples = left
        rows.append([name, examples, *numbers, *right[1:-1]])
    if not sites:
        del rows[1:-2]
    return text_table(rows, rules=(1, len(rows) - 2) if sites else (1,))
