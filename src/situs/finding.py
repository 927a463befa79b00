"""What situs says about one lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["SIDES", "Finding", "Reference", "Side"]

Side = Literal["left", "right", "midline", "bilateral"]
SIDES: tuple[Side, ...] = ("left", "right", "midline", "bilateral")


@dataclass(frozen=True)
class Reference:
    """A labelled case that a lesion was compared with.

    Attributes:
        id: names the case within its bundle
        site: its site key
        distance: Euclidean distance between the embeddings (no unit); smaller is more alike
    """

    id: str
    site: str
    distance: float


@dataclass(frozen=True)
class Finding:
    """The answer for one lesion.

    Attributes:
        roi_value: the mask value or segment it belongs to
        roi_name: See `roi_value`.
        component: 1 for the largest lesion of its value, 2 for the next, ...
        volume_ml: its volume
        slices: the scan's slices it meets, 0-based k, ascending
        largest_slice: the slice with most of its pixels
        site: the site's key; None if the lesion is too small to be judged
        side: the patient's side
        scores: relation score in [0, 1] for every site, in the order of `SITES`; not probabilities, they
            do not sum to 1. Empty if the lesion could not be judged
        shares: painted share of the lesion in every site, in the order of `SITES`; they sum to 1. Empty if
            the lesion could not be judged, or by a bundle that does not paint
        site_set: keys of the sites that it may lie in, the likeliest first, see `situs.certainty`; empty if
            the lesion could not be judged, or by a bundle that was not calibrated
        not_sure: why `site` is not sure, one sentence each; empty if it is
        references: the nearest labelled cases, nearest first
        notes: what makes the answer doubtful, one sentence each
        evidence: for comparison the nearest references of `site`, nearest first, then those of the site with
            the next highest score; at most 3 and 2. Empty if the lesion could not be judged
    """

    roi_value: int
    roi_name: str
    component: int
    volume_ml: float
    slices: tuple[int, ...]
    largest_slice: int
    site: str | None
    side: Side
    scores: dict[str, float]
    shares: dict[str, float]
    site_set: tuple[str, ...]
    not_sure: tuple[str, ...]
    references: tuple[Reference, ...]
    notes: tuple[str, ...]
    evidence: tuple[Reference, ...] = ()
