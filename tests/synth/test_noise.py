"""Smooth fields and blur: against torch's and scipy's own, slower functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import interpolate

from situs.synth.noise import blur_slices, smooth_noise, stretch


@pytest.mark.parametrize(("shape", "wanted"), [((4, 3, 5), (9, 17, 6)), ((2, 2, 2), (2, 31, 4))])
def test_stretch_is_linear_between_the_corners(shape, wanted):
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    cube = interpolate(torch.tensor(values)[None, None], wanted, mode="trilinear", align_corners=True)[0, 0]
    assert stretch(values, wanted) == pytest.approx(cube.numpy(), abs=1e-5)
    planes = interpolate(torch.tensor(values)[None], wanted[1:], mode="bilinear", align_corners=True)[0]
    assert stretch(values, wanted[1:]) == pytest.approx(planes.numpy(), abs=1e-5)


def test_noise_is_the_same_whichever_axis_runs_fastest():
    one = smooth_noise((9, 12, 7), 4.0, np.random.default_rng(1))
    other = smooth_noise((9, 12, 7), 4.0, np.random.default_rng(1), x_fastest=True)
    assert other.flags.f_contiguous and one.flags.c_contiguous
    assert other == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("sigma", [(0.8, 0.8), (3.0, 0.0), (0.05, 2.0)])
def test_blur_is_scipys(sigma):
    scan = np.random.default_rng(2).standard_normal((3, 20, 31), dtype=np.float32)
    assert blur_slices(scan, *sigma) == pytest.approx(ndimage.gaussian_filter(scan, (0, *sigma)), abs=1e-5)
