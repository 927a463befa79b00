"""A head of a few voxels with three lesions, and made-up findings about them, for tests of what is shown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from situs.anatomy import SITE_KEYS
from situs.finding import Finding, Reference
from situs.geometry import Geometry
from situs.volume import Roi, Volume, split_lesions

SHAPE = (60, 72, 6)
# RAS: i to the patient's right, j to the front; 3 x 3 x 5 mm; the world's x = 0 is the middle of the grid.
AFFINE = np.array([[3.0, 0, 0, -88.5], [0, 3.0, 0, -106.5], [0, 0, 5.0, 0], [0, 0, 0, 1]])


def head_hu() -> np.ndarray:
    """(60, 72, 6) int16: an ellipse of brain in a ring of bone, symmetric but for a dark spot on the left."""
    i, j = np.meshgrid(np.arange(SHAPE[0]) - 29.5, np.arange(SHAPE[1]) - 35.5, indexing="ij")
    radius = np.hypot(i / 25, j / 30)
    plane = np.where(radius < 0.9, 35, np.where(radius < 1, 900, -1000)).astype(np.int16)
    plane[14:18, 44:50] = 5  # i below the middle: the patient's left
    return np.repeat(plane[:, :, None], SHAPE[2], axis=2)


def lesion_mask() -> np.ndarray:
    """(60, 72, 6) uint8: value 1 has two parts, both on the patient's left; value 7 has one, on the right."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:18, 30:40, 1:4] = 1
    mask[18, 30:40, 2] = 1  # so that one slice is the largest
    mask[20:22, 50:52, 5] = 1
    mask[40:46, 30:34, 2] = 7
    return mask


def volume(name: str = "scan", hu: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Volume:
    hu = head_hu() if hu is None else hu
    geometry = Geometry.from_affine(hu.shape, affine)
    return Volume(hu, geometry, name, ("The scan was clipped.",))


def rois(geometry: Geometry, mask: np.ndarray | None = None) -> list[Roi]:
    mask = lesion_mask() if mask is None else mask
    names = {1: "blood, left", 7: ""}
    return [Roi.from_mask(mask == value, geometry, value, names[value]) for value in (1, 7)]


def findings(regions: list[Roi]) -> list[Finding]:
    """One made-up finding a lesion; the second lesion is too small to be judged."""
    lesions = [lesion for roi in regions for lesion in split_lesions(roi)]
    return [finding(lesion, judged=number != 1) for number, lesion in enumerate(lesions)]


def outside() -> Finding:
    """A made-up finding about a lesion outside the scan."""
    inside = finding(rois(volume().geometry)[0], judged=False)
    nowhere = {"component": 3, "slices": (), "largest_slice": None, "side": None}
    return replace(inside, doubts=("It lies outside the scan.",), **nowhere)


def finding(lesion: Roi, judged: bool = True) -> Finding:
    areas = lesion.areas_px
    scores = {key: 0.05 * index for index, key in enumerate(SITE_KEYS)} | {"thalamus": 0.9371}
    references = [Reference("head_01/3", "thalamus", 0.25), Reference("head_02/9", "brainstem", 0.5)]
    return Finding(
        roi_value=lesion.value,
        roi_name=lesion.name,
        component=lesion.component,
        volume_ml=lesion.volume_ml,
        slices=tuple(areas),
        largest_slice=max(areas, key=lambda k: areas[k]),
        site="thalamus" if judged else None,
        side="left" if lesion.value == 1 else "right",
        doubts=("More than one site fits: thalamus or brainstem.",)
        if judged
        else ("Too small to be judged.",),
        site_set=("thalamus", "brainstem") if judged else (),
        scores=scores if judged else {},
        shares={key: 0.0 for key in SITE_KEYS} | {"thalamus": 0.75, "brainstem": 0.25} if judged else {},
        nearest=tuple(references) if judged else (),
        comparison=tuple(references) if judged else (),
        notes=("The mask was resampled.",),
        bundle_name="compact",
        bundle_version="3",
    )


class FakeLabeler:
    """Stands for the networks: answers with `findings`."""

    bundle = SimpleNamespace(name="fake", version="1", pictures={}, picture=lambda reference_id: None)

    @classmethod
    def load(cls, bundle=None):
        return cls()

    def label(self, volume, rois, progress=None):
        return findings(rois)
