"""A bundle's answers to the slices of a cohort and, averaged, to its ROIs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle
from situs.certainty import Calibration, Judgement
from situs.cohort.slices import Slices
from situs.neighbors import nearest_distances
from situs.progress import Progress, silent
from situs.records import join_rows, map_arrays
from situs.runtime import Runtime, relate_to_nearest
from situs.views import OTHER_SLICES, ViewSpec

__all__ = [
    "Answers",
    "answer_slices",
    "average_answers",
    "average_slices",
    "judge",
    "region_areas",
]

_BATCH = 256  # slices answered at a time; their reference sets take some tens of MB


@dataclass(frozen=True, eq=False)
class Answers:
    """A bundle's answers to n slices, or to n ROIs.

    Attributes:
        basenet: (n, sites) BaseNet's probabilities.
        relation: (n, sites) relation scores.
        shares: (n, sites) share of the region in each site; None where the bundle does not paint.
        inside: (n,) share of the region in any site; None where the bundle does not paint.
        distances: (n,) Euclidean distance from the embedding to the nearest reference.
        areas: (n,) area of the region in the local view, see `region_areas`.
    """

    basenet: NDArray[np.floating]
    relation: NDArray[np.floating]
    shares: NDArray[np.floating] | None
    inside: NDArray[np.floating] | None
    distances: NDArray[np.floating]
    areas: NDArray[np.float64]


def answer_slices(
    bundle: Bundle,
    slices: Slices,
    chosen: NDArray[np.intp],
    progress: Progress = silent,
    alone: bool = False,
) -> Answers:
    """Ask a bundle about slices. No slice is compared with references of its own patient.

    Args:
        bundle: The bundle to ask.
        slices: The cohort's slices, made with the bundle's views.
        chosen: (n,) indices of the slices to ask about, n at least 1.
        progress: Called with the stage ``slices``.
        alone: Whether the slices below and above are hidden, as where a scan has only one.

    Raises:
        BundleError: If the inference engine cannot load the networks.
    """
    runtime = Runtime(bundle)
    parts: list[Answers] = []
    for a in range(0, len(chosen), _BATCH):
        which = chosen[a : a + _BATCH]
        batch = slices.batch(which)
        views = batch.global_view, batch.local_view
        for view in views if alone else ():
            for where in OTHER_SLICES:
                view[:, bundle.spec.channels_of(where)] = 0
        embedded = runtime.embed(*views)
        neighbors, scores = relate_to_nearest(runtime, bundle, embedded.embedding, slices.patient[which])
        parts.append(
            Answers(
                embedded.site_probability,
                scores,
                embedded.shares,
                embedded.inside,
                nearest_distances(neighbors),
                region_areas(views[1], bundle.spec),
            )
        )
        progress("slices", a + len(which), len(chosen))
    return join_rows(parts)


def average_answers(answers: Answers, row: NDArray[np.int64]) -> Answers:
    """The answers to ROIs: the mean of the answers to their slices, weighted by area.

    Args:
        answers: Answers to n slices.
        row: (n,) number of the ROI that each slice is of.

    Returns:
        One row for each ROI, by ascending number.
    """
    return map_arrays(answers, lambda values: average_slices(values, answers.areas, row))


def average_slices(
    values: NDArray[np.floating], weights: NDArray[np.float64], row: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Weighted means over the slices of every ROI.

    Args:
        values: (n, ...) values of the slices.
        weights: (n,) their weights.
        row: (n,) number of the ROI that each slice is of.

    Returns:
        (n_rois, ...) means, by ascending number of the ROI.
    """
    _, roi = np.unique(row, return_inverse=True)
    flat = values.reshape(len(values), -1)
    sums = np.zeros((roi.max() + 1, flat.shape[1]))
    np.add.at(sums, roi, flat * weights[:, None])
    means = sums / np.maximum(np.bincount(roi, weights=weights), 1e-9)[:, None]
    return np.asarray(means.reshape(-1, *values.shape[1:]))


def judge(calibration: Calibration, answers: Answers) -> list[Judgement]:
    """The site set of every ROI of `answers`, and whether it is sure."""
    return [
        calibration.judge(
            scores,
            float(answers.distances[n]),
            None if answers.inside is None else float(answers.inside[n]),
        )
        for n, scores in enumerate(answers.relation)
    ]


def region_areas(local_views: NDArray[np.uint8], spec: ViewSpec) -> NDArray[np.float64]:
    """(n,) area of the region in each local view (n, channels, size, size), in 1/255 pixels, at least 1.

    Where no channel shows the region, all areas are 1.
    """
    if spec.roi_channel is None:
        return np.ones(len(local_views))
    region = local_views[:, spec.roi_channel]
    return np.maximum(region.sum(axis=(1, 2), dtype=np.float64), 1)
