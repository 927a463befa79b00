"""How often a bundle is right on a cohort: BaseNet's own answer, and the Relation Network's.

One example is one axial slice of one ROI, as in the paper; the same per ROI stands beside it. Sites are in
the order of `situs.anatomy.SITES`. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.bundle import Bundle, read_bundle
from situs.certainty import Certainty, Judgement
from situs.dataset import Slices, open_slices
from situs.errors import ManifestError
from situs.manifest import read_manifest
from situs.neighbors import nearest, nearest_distances, reference_sets
from situs.runtime import Runtime
from situs.scores import Table, score_table, site_scores, text_table
from situs.views import ViewSpec

__all__ = [
    "Answers",
    "Coverage",
    "Evaluation",
    "answer_slices",
    "coverage",
    "evaluate",
    "join_answers",
    "join_slices",
    "judge",
]

Numbers = NDArray[np.float32]
SPANNING = 0.95  # a region with more than this in one site does not span several
_BATCH = 256  # slices answered at a time; their reference sets take some tens of MB


@dataclass(frozen=True)
class Coverage:
    """How a bundle's certainty does on ROIs.

    level : what each site's coverage shall be
    overall, sites : share of the ROIs, of all and by site, whose set of sites holds theirs
    mean_size : sites in a set
    sure : share of the ROIs that are answered without a reason for doubt
    right_if_sure, right_if_not : share of right answers among these and the others; None without any
    """

    level: float
    overall: float
    sites: dict[str, float]
    mean_size: float
    sure: float
    right_if_sure: float | None
    right_if_not: float | None

    def text(self) -> str:
        """For people."""
        worst = min(self.sites, key=lambda key: self.sites[key])
        name = SITES[SITE_INDEX[worst]].name
        right = [
            f"{share:.3f} of {what} right"
            for share, what in ((self.right_if_sure, "the sure are"), (self.right_if_not, "the others"))
            if share is not None
        ]
        return (
            f"Certainty (ROIs): the set of sites holds the true one in {self.overall:.3f}, of {name} in "
            f"{self.sites[worst]:.3f} (the least);\nmean size {self.mean_size:.2f}; "
            f"{self.sure:.3f} are sure; {', '.join(right)}."
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """BaseNet's own answer and the Relation Network's, on the same examples.

    relation, basenet : an example is one slice of one ROI
    share_error, share_rois : how far the painted shares of ROIs are from the exact ones (mean of half the
        summed absolute difference), and of how many ROIs: those of which at most `SPANNING` lie in one site.
        None and 0 where the bundle does not paint or the cohort has no site maps
    relation_rois, basenet_rois : an example is one ROI (a row of the manifest); the scores of its slices are
        averaged by area, as `situs.labeler` does for a lesion
    other_joins : macro F1 over ROIs if the relation scores of their slices were joined in other ways, by name
    coverage : how its certainty does; None for a bundle that was not calibrated
    bundle, n_neighbors : what was evaluated
    n_patients : patients of the cohort
    known_patients : how many of them are among the bundle's references. Those were no neighbours of their
        own patient, but the networks were trained on them unless they were added later, so with any of these
        it is no test
    """

    relation: Table
    basenet: Table
    relation_rois: Table
    basenet_rois: Table
    other_joins: dict[str, float]
    coverage: Coverage | None
    share_error: float | None
    share_rois: int
    bundle: str
    n_neighbors: int
    n_patients: int
    known_patients: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the Relation Network's table at the top, BaseNet's under ``basenet``, both per ROI under
        ``rois``."""
        return {
            "bundle": self.bundle,
            "n_neighbors": self.n_neighbors,
            "patients": self.n_patients,
            "known_patients": self.known_patients,
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
        if self.known_patients:
            parts.append(
                f"NOT A TEST: {self.known_patients} of the {self.n_patients} patients are among the bundle's "
                "references. None was its own neighbour here,\nbut networks trained on them have seen them."
            )
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

    Parameters
    ----------
    bundle : its folder; None or ``"shipped"`` for the one inside the package
    cohort : a folder with a manifest; its views are kept in a cache there
    patients : only these (at least one); None for all
    jobs : processes that make views
    n_boot, seed : of the intervals, see `score_table`
    progress : is called with what is counted (``scans`` or ``slices``), how many are done, and in all

    Raises
    ------
    BundleError, ManifestError, OutputError : if bundle or cohort cannot be used, or the cache not be written
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

    def per_slice(scores: NDArray[np.float32]) -> Table:
        return score_table(truth, scores.argmax(axis=1), scans, n_boot, seed)

    def per_roi(scores: NDArray[np.floating]) -> Table:
        return score_table(truth[one_each], scores.argmax(axis=1), scans[one_each], n_boot, seed)

    share_error, share_rois = None, 0
    if joined.shares is not None and slices.local_sites is not None:
        exact, region = _exact_shares(slices, chosen)
        truth_of_rois = _average(exact, region, row)
        spanning = (truth_of_rois.sum(axis=1) > 0) & (truth_of_rois.max(axis=1) <= SPANNING)
        off = np.abs(joined.shares - truth_of_rois)[spanning].sum(axis=1) / 2
        share_rois = int(spanning.sum())
        share_error = float(off.mean()) if share_rois else None
    people = set(slices.patient[chosen].tolist())
    sure = found.certainty
    return Evaluation(
        relation=per_slice(said.relation),
        basenet=per_slice(said.basenet),
        relation_rois=per_roi(joined.relation),
        basenet_rois=per_roi(joined.basenet),
        other_joins=_other_joins(said, row, truth[one_each]),
        coverage=None if sure is None else coverage(judge(sure, joined), truth[one_each], sure.level),
        share_error=share_error,
        share_rois=share_rois,
        bundle=f"{found.name} {found.version}",
        n_neighbors=found.n_neighbors,
        n_patients=len(people),
        known_patients=len((people & set(found.references.patients.tolist())) - {""}),
    )


def _other_joins(said: Answers, row: NDArray[np.int64], truth: NDArray[np.integer]) -> dict[str, float]:
    """Macro F1 over ROIs, if their slices were joined in other ways."""
    _, roi = np.unique(row, return_inverse=True)
    ascending = np.argsort(said.areas, kind="stable")
    largest = np.zeros(len(truth), dtype=np.int64)
    largest[roi[ascending]] = ascending  # the last one stays
    answers: dict[str, NDArray[np.floating]] = {
        "the largest slice alone": said.relation[largest],
        "all slices alike": _average(said.relation, np.ones(len(row)), row),
    }
    f1 = {}
    for name, joined in answers.items():
        confusion = np.zeros((len(SITE_KEYS), len(SITE_KEYS)), dtype=np.int64)
        np.add.at(confusion, (truth, joined.argmax(axis=1)), 1)
        f1[name] = float(site_scores(confusion)[2][confusion.sum(axis=1) > 0].mean())
    return f1


def judge(certainty: Certainty, said: Answers) -> list[Judgement]:
    """What can be said about every ROI of `said`."""
    return [
        certainty.judge(
            scores, float(said.distances[n]), None if said.inside is None else float(said.inside[n])
        )
        for n, scores in enumerate(said.relation)
    ]


def coverage(judged: Sequence[Judgement], truth: NDArray[np.integer], level: float) -> Coverage:
    """How judgements of ROIs do against their sites (n,), n at least 1."""
    held = np.array([SITE_KEYS[t] in j.site_set for t, j in zip(truth, judged, strict=True)])
    right = np.array([SITE_KEYS[t] == j.site_set[0] for t, j in zip(truth, judged, strict=True)])
    sure = np.array([not j.reasons for j in judged])
    return Coverage(
        level=level,
        overall=float(held.mean()),
        sites={key: float(held[truth == s].mean()) for s, key in enumerate(SITE_KEYS) if (truth == s).any()},
        mean_size=float(np.mean([len(j.site_set) for j in judged])),
        sure=float(sure.mean()),
        right_if_sure=float(right[sure].mean()) if sure.any() else None,
        right_if_not=float(right[~sure].mean()) if not sure.all() else None,
    )


@dataclass(frozen=True, eq=False)
class Answers:
    """What a bundle says about n slices, or n ROIs.

    basenet, relation : (n, 15) BaseNet's probabilities and the relation scores
    shares, inside : (n, 15) and (n,), see `situs.runtime.Embedded`; None where the bundle does not paint
    distances : (n,) to the nearest reference
    areas : (n,) what the region covers of each local view
    """

    basenet: NDArray[np.floating]
    relation: NDArray[np.floating]
    shares: NDArray[np.floating] | None
    inside: NDArray[np.floating] | None
    distances: NDArray[np.floating]
    areas: NDArray[np.float64]

    def take(self, which: NDArray[np.integer]) -> Answers:
        """The examples `which` (m,) alone."""

        def some(name: str) -> Any:
            values = getattr(self, name)
            return None if values is None else values[which]

        return Answers(*(some(field.name) for field in fields(Answers)))


def answer_slices(
    bundle: Bundle,
    slices: Slices,
    chosen: NDArray[np.intp],
    progress: Callable[[str, int, int], None] | None = None,
) -> Answers:
    """What a bundle says about the `chosen` slices (n,); no reference is of a slice's own patient."""
    runtime, references = Runtime(bundle), bundle.references
    parts: list[Answers] = []
    for a in range(0, len(chosen), _BATCH):
        which = chosen[a : a + _BATCH]
        views = slices.global_view[which], slices.local_view[which]
        found = runtime.embed(*views)
        neighbors = nearest(
            found.embedding, references, bundle.n_neighbors, exclude_patient=slices.patient[which]
        )
        scores = runtime.relate(found.embedding, reference_sets(references, neighbors), neighbors.present)
        parts.append(
            Answers(
                found.site_probability,
                scores,
                found.shares,
                found.inside,
                nearest_distances(neighbors),
                _areas(views[1], bundle.spec),
            )
        )
        if progress is not None:
            progress("slices", a + len(which), len(chosen))
    return join_answers(parts)


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The examples of all parts, at least one, in their order."""

    def whole(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return Answers(*(whole(field.name) for field in fields(Answers)))


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


def _areas(local_views: NDArray[np.uint8], spec: ViewSpec) -> NDArray[np.float64]:
    """(n,) what the region covers of each local view; all alike where the views do not show the region."""
    if "roi" not in spec.channels:
        return np.ones(len(local_views))
    region = local_views[:, spec.channels.index("roi")]
    return np.maximum(region.sum(axis=(1, 2), dtype=np.float64), 1)


def join_slices(said: Answers, row: NDArray[np.int64]) -> Answers:
    """What is said about ROIs, ascending by their numbers `row` (n,): the mean of their slices', by area."""

    def whole(name: str) -> Any:
        values = getattr(said, name)
        return None if values is None else _average(values, said.areas, row)

    return Answers(*(whole(field.name) for field in fields(Answers)))


def _average(
    values: NDArray[np.floating], weights: NDArray[np.float64], row: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Weighted means (n_rois, ...) of the values (n, ...) of every ROI."""
    _, roi = np.unique(row, return_inverse=True)
    flat = values.reshape(len(values), -1)
    sums = np.zeros((roi.max() + 1, flat.shape[1]))
    np.add.at(sums, roi, flat * weights[:, None])
    means = sums / np.maximum(np.bincount(roi, weights=weights), 1e-9)[:, None]
    return np.asarray(means.reshape(-1, *values.shape[1:]))


def _comparison(title: str, basenet: Table, relation: Table, sites: bool = True) -> str:
    """Both tables' numbers side by side; without `sites` only the means."""
    head = ["examples", "BaseNet prec.", "recall", "F1", "RN prec.", "recall", "F1", "95 % interval"]
    rows = [[title, *head]]
    for left, right in zip(basenet.cells(), relation.cells(), strict=True):
        name, *numbers, _, examples = left
        rows.append([name, examples, *numbers, *right[1:-1]])
    if not sites:
        del rows[1:-2]
    return text_table(rows, rules=(1, len(rows) - 2) if sites else (1,))
