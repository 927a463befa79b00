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
# Atrophy differs from place to place: between (1 - _VARY) and (1 + _VARY) of its mean.
_PATCH_MM, _VARY = 25.0, 0.7
# Over the convexity the fluid becomes hardly thicker.
_CONVEXITY_MM, _CONVEXITY_SHARE = 7.0, 0.3


def shrink_brain(labels: Labels, mm: float, seed: int = 0) -> Labels:
    """The labels after a loss of tissue: cortex that lies near the fluid around it is fluid, and white matter
    near the lateral ventricles is ventricle.

    Args:
        labels: (nx, ny, nz) FreeSurfer and CHARM numbers, 1 mm voxels
        mm: how far, in the mean; 0 for the labels as they are
        seed: of where more is lost, and where less
    """
    cortex = labels >= _CORTEX
    if mm <= 0 or not cortex.any():
        return labels
    box = bounding_box(cortex, 12)
    here = labels[box]
    shape = (here.shape[0], here.shape[1], here.shape[2])
    noise = smooth_noise(shape, _PATCH_MM, np.random.default_rng(seed))
    reach = mm * (1 + _VARY * np.clip(noise, -1, 1))
    deep = ndimage.distance_transform_edt(~np.isin(here, _SKULL)) >= _CONVEXITY_MM
    in_sulci = np.where(deep, reach, _CONVEXITY_SHARE * reach)
    old = labels.copy()
    old[box][(here >= _CORTEX) & _within(here == _FLUID, in_sulci)] = _FLUID
    for ventricle, white in _VENTRICLES.items():
        if (here == ventricle).any():
            old[box][(here == white) & _within(here == ventricle, reach)] = ventricle
    return old


def _within(part: Mask, reach: NDArray[np.floating]) -> Mask:
    """What lies within `reach` (mm) of a part's surface, which is half a mm off the middle of its voxels."""
    return np.asarray(ndimage.distance_transform_edt(~part) - 0.5 <= reach)
