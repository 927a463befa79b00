"""The slices of lesions on the way to a finding: looked at, related to the references, joined to a lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.midplane import Midplane
from situs.neighbors import Neighbors, nearest_distances
from situs.records import join_rows
from situs.runtime import Embedded
from situs.views import Views
from situs.volume import Roi

__all__ = ["LesionAnswer", "LesionSlice", "Pose", "SliceAnswer", "SliceLook", "planes_on"]

# Weight of the painted midline of a slice beside that of the whole head's midplane. The painted one knows how
# the midline bends, but is off by more (docs/results.md, "Which side, however the head lies").
_PAINTED_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Pose:
    """How a head lies.

    Attributes:
        midplane: Of the head; None if none was found.
        turn_deg: By how much it is turned in the views that are looked at, clockwise.
    """

    midplane: Midplane | None
    turn_deg: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was corrected, one sentence each."""
        if not self.turn_deg:
            return ()
        way = "clockwise" if self.turn_deg > 0 else "anticlockwise"
        turned = f"turned {abs(self.turn_deg):.0f} degrees {way} in the picture"
        return (f"The head is {turned}; it was looked at upright.",)


@dataclass(frozen=True, eq=False)
class LesionSlice:
    """A lesion on one slice, and how much that slice counts for it."""

    lesion: Roi
    k: int
    weight: float


@dataclass(frozen=True, eq=False)
class SliceLook:
    """What BaseNet makes of a slice of a lesion.

    Attributes:
        embedded: One row, without the painted maps.
        midline: The midline on the slice; if it is not painted, the middle of the global view.
        painted: Whether it is.
    """

    embedded: Embedded
    midline: Midplane
    painted: bool

    @classmethod
    def of(cls, embedded: Embedded, view: Views, geometry: Geometry) -> SliceLook:
        """The look at a slice of a lesion with these views."""
        maps = None if embedded.midline is None else embedded.midline[0]
        midline = Midplane.from_painting(maps, view.places, geometry, view.global_view.shape[-1])
        return cls(replace(embedded, midline=None), midline, maps is not None)


@dataclass(frozen=True, eq=False)
class SliceAnswer:
    """A slice of a lesion, its look, and its relation to the references.

    Attributes:
        neighbors: One row.
        scores: (sites,) relation scores.
    """

    slice: LesionSlice
    look: SliceLook
    neighbors: Neighbors
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LesionAnswer:
    """The answers of a lesion's slices, n rows of `neighbors`; all else is their mean, weighted by area.

    Attributes:
        scores: (sites,)
        shares: (sites,), or None without painting
        inside: Share of the lesion in any site, or None without painting.
        distance: To the nearest reference.
    """

    neighbors: Neighbors
    scores: NDArray[np.float64]
    shares: NDArray[np.float64] | None
    inside: float | None
    distance: float

    @classmethod
    def of(cls, answers: Sequence[SliceAnswer]) -> LesionAnswer:
        """The answers of at least one slice, joined."""
        weights = np.array([answer.slice.weight for answer in answers])
        embedded = join_rows([answer.look.embedded for answer in answers])
        neighbors = join_rows([answer.neighbors for answer in answers])

        def mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.asarray(np.average(rows, axis=0, weights=weights))

        return cls(
            neighbors,
            mean(np.stack([answer.scores for answer in answers])),
            None if embedded.shares is None else mean(embedded.shares),
            None if embedded.inside is None else float(mean(embedded.inside)),
            float(mean(nearest_distances(neighbors))),
        )


def planes_on(
    k: int, look: SliceLook | None, midplane: Midplane | None, geometry: Geometry
) -> list[tuple[Midplane, float]]:
    """What tells left from right on a slice, with weights: the head's midplane, and the painted midline.

    Without both it is the middle of the global view; without a look at the slice, of the picture.

    Args:
        k: The slice.
        look: At a lesion on it, if there is one.
        midplane: Of the head, if one was found.
        geometry: The scan's.
    """
    planes = [(midplane, 1 - _PAINTED_SHARE)] if midplane is not None else []
    if look is not None and (look.painted or not planes):
        planes.append((look.midline, _PAINTED_SHARE))
    if not planes:
        centre = geometry.to_world([[(geometry.shape[0] - 1) / 2, (geometry.shape[1] - 1) / 2, k]])[0]
        planes.append((Midplane(centre, geometry.display_axes[0], 0.0), 1.0))
    return planes
