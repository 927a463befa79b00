"""Files in, volumes and regions out. World frame RAS+ in mm; LPS exists only inside the DICOM code.

What a file is, is decided by its content, not by its name: a folder, a zip or a DICOM file is read by
`situs.io.dicom`, everything else by `situs.io.nifti`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError, ScanError
from situs.geometry import Geometry
from situs.io.stream import is_folder
from situs.volume import OutsideRoi, Roi, Volume

if TYPE_CHECKING:
    from situs.io.binding import MaskSpace

__all__ = ["read_rois", "read_volume"]


def read_volume(path: str | Path, series: str | None = None, roi: str | Path | None = None) -> Volume:
    """Read a head CT.

    Args:
        path: A NIfTI file (.nii, .nii.gz), a folder or a zip of DICOM files, or one DICOM file. A DICOMDIR
            stands for its folder.
        series: SeriesNumber or SeriesInstanceUID of the DICOM series to read. By default the plain axial head
            CT is chosen, and `Volume.assumptions` names the choice.
        roi: The mask that will be bound to the scan. Of several DICOM series, those that it meets come first.

    Returns:
        Volume of shape (ni, nj, nk), the slice axis (the one nearest to feet-head) last; int16 or float32.

    Raises:
        ScanError: The scan cannot be read, or its values cannot be HU or a window of them.
        RoiError: The mask is needed to choose a series and cannot be read.
    """
    path = Path(path)
    if is_folder(path, ScanError) or _is_dicom(path):
        from situs.io.dicom import read_dicom  # pydicom only for DICOM

        return read_dicom(path, series, None if roi is None else _meets(Path(roi)))
    if series is not None:
        raise ScanError(f"{path}: series={series!r} was asked for, but this is not DICOM: leave it out")
    from situs.io.nifti import read_nifti

    return read_nifti(path)


def read_rois(
    path: str | Path, volume: Volume, mask_space: MaskSpace | None = None
) -> list[Roi | OutsideRoi]:
    """Read a mask and bind it to a scan: one region for every value above 0, ascending.

    Args:
        path: A NIfTI mask of whole numbers, 0 where there is no lesion, or one with a channel a region. It is
            bound voxel by voxel or through patient space, as both headers suggest (`situs.io.binding`);
            `Roi.notes` and `Roi.doubts` say how.
        volume: The scan, shape (ni, nj, nk).
        mask_space: ``index`` binds the mask voxel by voxel, ``world`` through patient space, whatever the
            headers suggest.

    Returns:
        The regions, and then for each value the lesions that lie wholly outside the scan.

    Raises:
        RoiError: The mask cannot be read, is empty, is no mask, or does not meet the scan.
    """
    from situs.io.rois import read_mask

    if mask_space not in (None, "index", "world"):
        raise RoiError(f"mask_space: expected 'index', 'world' or None, got {mask_space!r}")
    return read_mask(Path(path), volume, mask_space)


def _meets(roi: Path) -> Callable[[Geometry], float]:
    """The share of a mask that lies in a stack of slices; the mask is read when that is first asked."""

    @cache
    def positions() -> NDArray[np.float64]:
        from situs.io.rois import mask_positions

        return mask_positions(roi)

    def meets(geometry: Geometry) -> float:
        from situs.io.grids import is_inside

        return float(is_inside(positions(), geometry).mean()) if positions().size else 0.0

    return meets


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise ScanError(f"{path}: cannot be opened ({error.strerror})") from error
    is_zip = head[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return is_zip or head[128:] == b"DICM" or path.suffix.lower() == ".dcm"
