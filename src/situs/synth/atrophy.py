"""The brain of an old head, with wide sulci and ventricles: most label maps are of the young."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.synth.noise import smooth_noise
from situs.volume import bounding_box

__all__ = ["shrink_brain"]

Labels = NDArray[np.int16]
Mask = NDArray[np.bool_]

_FLUID, _CORTEX = 24, 1000  # the fluid outside the ventricles; parcels of the cortex from here on
_SKULL = (515, 516)
_VENTRICLES = {4: 2, 43: 41}  # the lateral ones, and the white matter around them
# Atrophy differs from place to place: from (1 - _VARY) to (1 + _VARY) times its mean.
_PATCH_MM, _VARY = 25.0, 0.7
# Over the convexity the fluid becomes hardly thicker.
_CONVEXITY_MM, _CONVEXITY_FRACTION = 7.0, 0.3


def shrink_brain(labels: Labels, mm: float, seed: int = 0) -> Labels:
    """The labels after a loss of tissue.

    Cortex that lies near the fluid around it becomes fluid. White matter near the lateral ventricles becomes
    ventricle.

    Args:
        labels: (nx, ny, nz) FreeSurfer and CHARM numbers, 1 mm voxels.
        mm: The mean thickness that is lost; 0 for the labels as they are.
        seed: Of where more is lost and where less.

    Returns:
        (nx, ny, nz) labels; `labels` itself if nothing is lost.
    """
    cortex = labels >= _CORTEX
    if mm <= 0 or not cortex.any():
        return labels
    box = bounding_box(cortex, 12)
    young = labels[box]
    noise = smooth_noise(young.shape, _PATCH_MM, np.random.default_rng(seed))
    reach = mm * (1 + _VARY * np.clip(noise, -1, 1))
    deep = ndimage.distance_transform_edt(~np.isin(young, _SKULL)) >= _CONVEXITY_MM
    in_sulci = np.where(deep, reach, _CONVEXITY_FRACTION * reach)
    old = labels.copy()
    old[box][(young >= _CORTEX) & _within(young == _FLUID, in_sulci)] = _FLUID
    for ventricle, white in _VENTRICLES.items():
        if (young == ventricle).any():
            old[box][(young == white) & _within(young == ventricle, reach)] = ventricle
    return old


def _within(part: Mask, reach: NDArray[np.floating]) -> Mask:
    """Where the distance to a part's surface is at most `reach` (mm).

    The surface lies half a voxel off the centres of the part's voxels.
    """
    return np.asarray(ndimage.distance_transform_edt(~part) - 0.5 <= reach)
