"""The pictures that a cohort's examples get as references, if they get any (see `situs.bundle.pictures`)."""

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

    Those of rendered scans, which show no patient, always do if their views allow; others only if asked for.

    Args:
        cohort: the folder
        slices: its examples
        of_patients: whether pictures of patients' scans were asked for

    Raises:
        InputError: if they were, and the views do not show what a picture is made of
        ManifestError: if an id comes twice, which would show the wrong picture
    """
    drawable = can_draw(slices.spec)
    if of_patients and not drawable:
        raise InputError("pictures: the views of this recipe do not show the outline; leave --pictures out")
    if not drawable or not (of_patients or describe_cohort(cohort)):
        return False
    check_ids(slices.id)
    return True


def draw_pictures(
    cohort: Path, slices: Slices, which: NDArray[np.integer] | None = None
) -> dict[str, ReferencePicture]:
    """The pictures of the examples `which` (n,) of a cohort, or of all, by id; ask `wants_pictures` first."""
    rendered = bool(describe_cohort(cohort))
    indices = np.arange(len(slices)) if which is None else which
    return {
        str(slices.id[n]): ReferencePicture(
            encode_picture(draw_picture(slices.global_view[n], slices.spec)), rendered
        )
        for n in indices
    }
