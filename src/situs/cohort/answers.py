"""What a bundle says about the slices of a cohort, and joined, about its ROIs. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle
from situs.certainty import Calibration, Judgement
from situs.cohort.slices import Slices
from situs.neighbors import nearest_distances
from situs.runtime import Runtime, relate_to_nearest
from situs.views import ViewSpec

__all__ = [
    "Answers",
    "answer_slices",
    "average_slices",
    "join_answers",
    "join_slices",
    "judge",
    "region_areas",
]

_BATCH = 256  # slices answered at a time; their reference sets take some tens of MB


@dataclass(frozen=True, eq=False)
class Answers:
    """What a bundle says about n slices, or n ROIs.

    Attributes:
        basenet: (n, 15) BaseNet's probabilities and the relation scores
        relation: See `basenet`.
        shares: (n, 15) and (n,), see `situs.runtime.Embedded`; None where the bundle does not paint
        inside: See `shares`.
        distances: (n,) to the nearest reference
        areas: (n,) what the region covers of each local view
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
    runtime = Runtime(bundle)
    parts: list[Answers] = []
    for a in range(0, len(chosen), _BATCH):
        which = chosen[a : a + _BATCH]
        views = slices.global_view[which], slices.local_view[which]
        found = runtime.embed(*views)
        neighbors, scores = relate_to_nearest(runtime, bundle, found.embedding, slices.patient[which])
        parts.append(
            Answers(
                found.site_probability,
                scores,
                found.shares,
                found.inside,
                nearest_distances(neighbors),
                region_areas(views[1], bundle.spec),
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


def join_slices(said: Answers, row: NDArray[np.int64]) -> Answers:
    """What is said about ROIs, ascending by their numbers `row` (n,): the mean of their slices', by area."""

    def whole(name: str) -> Any:
        values = getattr(said, name)
        return None if values is None else average_slices(values, said.areas, row)

    return Answers(*(whole(field.name) for field in fields(Answers)))


def average_slices(
    values: NDArray[np.floating], weights: NDArray[np.float64], row: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Weighted means (n_rois, ...) of the values (n, ...) of every ROI."""
    _, roi = np.unique(row, return_inverse=True)
    flat = values.reshape(len(values), -1)
    sums = np.zeros((roi.max() + 1, flat.shape[1]))
    np.add.at(sums, roi, flat * weights[:, None])
    means = sums / np.maximum(np.bincount(roi, weights=weights), 1e-9)[:, None]
    return np.asarray(means.reshape(-1, *values.shape[1:]))


def judge(calibration: Calibration, said: Answers) -> list[Judgement]:
    """What can be said about every ROI of `said`."""
    return [
        calibration.judge(
            scores, float(said.distances[n]), None if said.inside is None else float(said.inside[n])
        )
        for n, scores in enumerate(said.relation)
    ]


def region_areas(local_views: NDArray[np.uint8], spec: ViewSpec) -> NDArray[np.float64]:
    """(n,) what the region covers of each local view; all alike where the views do not show the region."""
    if "roi" not in spec.channels:
        return np.ones(len(local_views))
    region = local_views[:, spec.channels.index("roi")]
    return np.maximum(region.sum(axis=(1, 2), dtype=np.float64), 1)
