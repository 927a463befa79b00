"""Scans and lesions as NIfTI bytes for the viewer, which knows affine grids alone. World frame RAS+ in mm.

A stack of even slices is sent as it is. One of uneven slices is sent on even ones, each a copy of the
nearest, so that positions in mm stay those of the scan.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.volume import Roi, Volume

__all__ = ["mask_file", "scan_file"]

_MOST_SLICES = 512
_LEVEL = 1  # of gzip: the way is short


def scan_file(volume: Volume) -> bytes:
    """A scan as .nii.gz, int16 HU."""
    affine, slices = _even_grid(volume.geometry)
    hu = np.clip(np.rint(volume.hu), -(2**15), 2**15 - 1) if volume.hu.dtype != np.int16 else volume.hu
    return _file(hu[:, :, slices].astype(np.int16), affine)


def mask_file(volume: Volume, lesions: Sequence[Roi]) -> bytes:
    """Lesions as .nii.gz on the grid of `scan_file`: 1, 2, ... in their order."""
    affine, slices = _even_grid(volume.geometry)
    labels = np.zeros(volume.geometry.shape, np.uint8 if len(lesions) < 2**8 else np.uint16)
    for number, lesion in enumerate(lesions, start=1):
        labels[lesion.box][lesion.mask] = number
    return _file(labels[:, :, slices], affine)


def _even_grid(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The (4, 4) affine of even slices, and for each of them the number of the nearest slice."""
    if geometry.is_affine:
        return geometry.affine, np.arange(geometry.shape[2])
    heights = geometry.heights_mm
    extent = float(abs(heights[-1] - heights[0]))
    count = round(min(extent / float(geometry.slice_gaps_mm.min()) + 1, _MOST_SLICES))
    at = np.linspace(heights[0], heights[-1], count)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = geometry.step_i, geometry.step_j, geometry.origins[0]
    affine[:3, 2] = (geometry.origins[-1] - geometry.origins[0]) / (count - 1)
    return affine, np.abs(heights[None, :] - at[:, None]).argmin(axis=1)


def _file(values: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)
