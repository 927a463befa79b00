"""Small pictures of the slices of a cohort that become references of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.bundle.pictures import ReferencePicture, can_draw, draw_picture, encode_picture
from situs.cohort.manifest import describe_cohort
from situs.cohort.sampling import check_ids
from situs.cohort.slices import Slices
from situs.errors import InputError

__all__ = ["draw_pictures", "wants_pictures"]


def wants_pictures(cohort: Path, slices: Slices, of_patients: bool) -> bool:
    """Whether the examples of a cohort get pictures as references (see `situs.bundle.pictures`).

    Those of rendered scans, which show no patient, get pictures if their views allow it. Those of patients'
    scans get them only if asked for.

    Args:
        cohort: The folder.
        slices: Its examples.
        of_patients: Whether pictures of patients' scans were asked for.

    Raises:
        InputError: If they were, and the views do not show what a picture is made of.
        ManifestError: If an id comes twice, so that a picture could be of the wrong example.
    """
    drawable = can_draw(slices.spec)
    if of_patients and not drawable:
        raise InputError("pictures: the views of this recipe do not show the outline; leave --pictures out")
    if not drawable or not (of_patients or describe_cohort(cohort, slices.patient.tolist())):
        return False
    check_ids(slices.id)
    return True


def draw_pictures(
    cohort: Path, slices: Slices, examples: NDArray[np.integer] | None = None
) -> dict[str, ReferencePicture]:
    """The pictures of examples of a cohort; ask `wants_pictures` first.

    Args:
        cohort: The folder.
        slices: Its examples.
        examples: (n,) indices of those to draw; None for all.

    Returns:
        Picture by the example's id.
    """
    rendered = bool(describe_cohort(cohort, slices.patient.tolist()))
    drawn = {}
    for n in range(len(slices)) if examples is None else examples:
        (view,) = slices.batch(np.array([n])).global_view
        drawn[str(slices.id[n])] = ReferencePicture(encode_picture(draw_picture(view, slices.spec)), rendered)
    return drawn
