"""Smooth random fields, for outlines, tissue and shapes that no two heads share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth_noise", "stretch"]


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of zero mean and about unit variance at its nodes.

    Args:
        shape: (3,) of the noise.
        scale: How many voxels the nodes are apart; between them the noise is trilinear.
        rng: Draws the noise.
    """
    coarse = tuple(max(2, int(np.ceil(n / scale)) + 1) for n in shape)
    return stretch(rng.standard_normal(coarse, dtype=np.float32), shape)


def stretch(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A 3-D array at another shape, trilinear, corners kept.

    It uses torch, which is thirty times faster than scipy's spline zoom.
    """
    from torch import from_numpy
    from torch.nn.functional import interpolate

    fine = interpolate(from_numpy(values)[None, None], size=shape, mode="trilinear", align_corners=True)
    return np.asarray(fine[0, 0].numpy())
