"""How often a bundle is right on a cohort: BaseNet's own answer, and the Relation Network's.

One example is one axial slice of one ROI, as in the paper; the same per ROI stands beside it. Sites are in
the order of `situs.anatomy.SITES`. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.bundle import read_bundle
from situs.cohort.answers import Answers, answer_slices, average_slices, join_slices, judge
from situs.cohort.coverage import Coverage, measure_coverage
from situs.cohort.manifest import read_manifest
from situs.cohort.scores import ScoreTable, count_confusions, macro_f1, score_table
from situs.cohort.slices import Slices, open_slices
from situs.errors import ManifestError
from situs.tables import text_table

__all__ = ["Evaluation", "evaluate"]

Numbers = NDArray[np.float32]
SPANNING = 0.95  # a region with more than this in one site does not span several


@dataclass(frozen=True, eq=False)
class Evaluation:
    """BaseNet's own answer and the Relation Network's, on the same examples.

    Attributes:
        relation: an example is one slice of one ROI
        basenet: See `relation`.
        share_error: how far the painted shares of ROIs are from the exact ones (mean of half the summed
            absolute difference), and of how many ROIs: those of which at most `SPANNING` lie in one site.
            None and 0 where the bundle does not paint or the cohort has no site maps
        share_rois: See `share_error`.
        relation_rois: an example is one ROI (a row of the manifest); the scores of its slices are
            averaged by area, as `situs.labeler` does for a lesion
        basenet_rois: See `relation_rois`.
        other_joins: macro F1 over ROIs if the relation scores of their slices were joined in other ways, by
            name
        coverage: how its site sets do; None for a bundle that was not calibrated
        upright: whether turned heads were looked at upright, see `situs.cohort.examples`
        bundle: what was evaluated
        n_neighbors: See `bundle`.
        n_patients: patients of the cohort
        known_patients: how many of them are among the bundle's references. Those were no neighbours of their
            own patient, but the networks were trained on them unless they were added later, so with any of
            these it is no test
        unknown_sites: names of the sites of the cohort that the bundle has no reference of: always missed
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the Relation Network's table at the top, BaseNet's under ``basenet``, both per ROI under
        ``rois``."""
        return {
            "bundle": self.bundle,
            "n_neighbors": self.n_neighbors,
            "patients": self.n_patients,
            "known_patients": self.known_patients,
            "unknown_sites": list(self.unknown_sites),
            "upright": self.upright,
            "shares": {"error": self.share_error, "rois": self.share_rois},
            "certainty": None if self.coverage is None else asdict(self.coverage),
            "other_joins": self.other_joins,
            **self.relation.to_dict(),
            "basenet": self.basenet.to_dict(),
            "rois": {**self.relation_rois.to_dict(), "basenet": self.basenet_rois.to_dict()},
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
            f"{self.bundle} on {', '.join(f'{n} {what}' for n, what in counts)}",
            "BaseNet's own answer, and the Relation Network's (RN) with the "
            f"{self.n_neighbors} nearest neighbours of each site.",
        ]
        if self.upright:
            parts.append(
                "Heads that lie turned are looked at upright: by the cohort's distances to the midline, or "
                "by their symmetry."
            )
        if self.known_patients:
            parts.append(
                f"NOT A TEST: {self.known_patients} of the {self.n_patients} patients are among the bundle's "
                "references. None was its own neighbour here,\nbut networks trained on them have seen them."
            )
        if self.unknown_sites:
            parts.append(f"Always missed, as the bundle has no reference: {', '.join(self.unknown_sites)}.")
        parts += [
            "",
            _comparison("a slice is an example", self.basenet, self.relation),
            "",
            _comparison("a ROI is an example", self.basenet_rois, self.relation_rois, sites=False),
            "",
            "Joined by area. RN's macro F1 with "
            + ", with ".join(f"{name}: {f1:.3f}" for name, f1 in self.other_joins.items())
            + ".",
            "",
            *([] if self.coverage is None else [self.coverage.text(), ""]),
            *self._shares_text(),
            "Means leave out sites without an example. Intervals: 95 %, bootstrap over scans.",
        ]
        return "\n".join(parts)

    def _shares_text(self) -> list[str]:
        if self.share_error is None:
            return []
        return [
            f"Shares of {self.share_rois} ROIs that span several sites: {self.share_error:.3f} off "
            "(mean of half the summed absolute difference).",
            "",
        ]


def evaluate(
    bundle: str | Path | None,
    cohort: Path,
    patients: Sequence[str] | None = None,
    jobs: int = 1,
    n_boot: int = 1000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Run a bundle over every ROI slice of a cohort.

    Where a patient of the cohort is among the bundle's references, those are no neighbours of its slices.

    Args:
        bundle: its folder; None or ``"shipped"`` for the one inside the package
        cohort: a folder with a manifest; its views are kept in a cache there
        patients: only these (at least one); None for all
        jobs: processes that make views
        n_boot: of the intervals, see `score_table`
        seed: See `n_boot`.
        progress: is called with what is counted (``scans`` or ``slices``), how many are done, and in all

    Raises:
        BundleError, ManifestError, OutputError: if bundle or cohort cannot be used, or the cache not be
            written
    """
    found = read_bundle(bundle)
    rows = read_manifest(cohort)
    if patients is not None and (absent := sorted(set(patients) - {row.patient for row in rows})):
        raise ManifestError(f"patients: {absent[0]!r} is none of the cohort {cohort}")
    slices = open_slices(
        cohort, found.spec, jobs=jobs, progress=None if progress is None else partial(progress, "scans")
    )
    chosen = np.arange(len(slices)) if patients is None else np.flatnonzero(np.isin(slices.patient, patients))
    if chosen.size == 0:
        raise ManifestError(f"{cohort}: no slice to evaluate; name at least one patient")
    said = answer_slices(found, slices, chosen, progress)
    row, truth = slices.row[chosen], slices.site[chosen]
    joined = join_slices(said, row)
    # The manifest's path: two scans in folders of their own may have one file name.
    scans = np.array([str(rows[n].scan) for n in row])
    one_each = np.unique(row, return_index=True)[1]

    def per_slice(scores: NDArray[np.float32]) -> ScoreTable:
        return score_table(truth, scores.argmax(axis=1), scans, n_boot, seed)

    def per_roi(scores: NDArray[np.floating]) -> ScoreTable:
        return score_table(truth[one_each], scores.argmax(axis=1), scans[one_each], n_boot, seed)

    share_error, share_rois = None, 0
    if joined.shares is not None and slices.local_sites is not None:
        exact, region = _exact_shares(slices, chosen)
        truth_of_rois = average_slices(exact, region, row)
        spanning = (truth_of_rois.sum(axis=1) > 0) & (truth_of_rois.max(axis=1) <= SPANNING)
        off = np.abs(joined.shares - truth_of_rois)[spanning].sum(axis=1) / 2
        share_rois = int(spanning.sum())
        share_error = float(off.mean()) if share_rois else None
    people = set(slices.patient[chosen].tolist())
    calibration = found.calibration
    return Evaluation(
        relation=per_slice(said.relation),
        basenet=per_slice(said.basenet),
        relation_rois=per_roi(joined.relation),
        basenet_rois=per_roi(joined.basenet),
        other_joins=_other_joins(said, row, truth[one_each]),
        coverage=None
        if calibration is None
        else measure_coverage(judge(calibration, joined), truth[one_each], calibration.level),
        share_error=share_error,
        share_rois=share_rois,
        upright=found.spec.upright,
        bundle=f"{found.name} {found.version}",
        n_neighbors=found.n_neighbors,
        n_patients=len(people),
        known_patients=len((people & set(found.references.patients.tolist())) - {""}),
        unknown_sites=tuple(SITES[n].name for n in np.setdiff1d(truth, found.references.sites)),
    )


def _other_joins(said: Answers, row: NDArray[np.int64], truth: NDArray[np.integer]) -> dict[str, float]:
    """Macro F1 over ROIs, if their slices were joined in other ways."""
    _, roi = np.unique(row, return_inverse=True)
    ascending = np.argsort(said.areas, kind="stable")
    largest = np.zeros(len(truth), dtype=np.int64)
    largest[roi[ascending]] = ascending  # the last one stays
    answers: dict[str, NDArray[np.floating]] = {
        "the largest slice alone": said.relation[largest],
        "all slices alike": average_slices(said.relation, np.ones(len(row)), row),
    }
    f1 = {}
    for name, joined in answers.items():
        counts = count_confusions(truth, [joined.argmax(axis=1)], np.zeros(len(truth)))
        f1[name] = float(macro_f1(counts[0, 0]))
    return f1


def _exact_shares(slices: Slices, chosen: NDArray[np.intp]) -> tuple[Numbers, NDArray[np.float64]]:
    """Shares (n, 15) of the regions of the `chosen` slices in each site, from a rendered cohort's site maps
    over the local views, and how much of each region lies in any (n,)."""
    assert slices.local_sites is not None  # only called where they are
    shares, known = np.zeros((len(chosen), len(SITE_KEYS)), np.float32), np.zeros(len(chosen))
    for row, n in enumerate(chosen.tolist()):
        region = slices.local_view[n, slices.spec.channels.index("roi")]
        half = region.reshape(region.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
        counts = np.bincount(slices.local_sites[n].ravel(), half.ravel(), minlength=256)
        counts = counts[1 : len(SITE_KEYS) + 1]
        known[row] = counts.sum()
        shares[row] = counts / max(known[row], 1e-9)
    return shares, known


def _comparison(title: str, basenet: ScoreTable, relation: ScoreTable, sites: bool = True) -> str:
    """Both tables' numbers side by side; without `sites` only the means."""
    head = ["examples", "BaseNet prec.", "recall", "F1", "RN prec.", "recall", "F1", "95 % interval"]
    rows = [[title, *head]]
    for left, right in zip(basenet.cells(), relation.cells(), strict=True):
        name, *numbers, _, examples = left
        rows.append([name, examples, *numbers, *right[1:-1]])
    if not sites:
        del rows[1:-2]
    return text_table(rows, rules=(1, len(rows) - 2) if sites else (1,))
