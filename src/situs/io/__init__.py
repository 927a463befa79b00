"""Files in, volumes and regions out. World frame RAS+ in mm; LPS exists only inside the DICOM code.

What a file is, is decided by its content, not by its name: a folder, a zip or a DICOM file is read by
`situs.io.dicom`, everything else by `situs.io.nifti`.
"""

from __future__ import annotations

from pathlib import Path

from situs.errors import ScanError
from situs.volume import Roi, Volume

__all__ = ["read_rois", "read_volume"]


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Read a head CT.

    Args:
        path: a NIfTI file (.nii, .nii.gz), a folder or a zip of DICOM files, or one DICOM file
        series: SeriesNumber or SeriesInstanceUID of the DICOM series to read; by default the axial head
            CT is chosen and the choice is said in `Volume.assumptions`

    Returns:
        Volume of shape (ni, nj, nk), the slice axis (the one nearest to feet-head) last; int16 or float32

    Raises:
        ScanError: the scan cannot be read, or its values cannot be HU or a window of them
    """
    path = Path(path)
    if not path.exists():
        raise ScanError(f"{path}: no such file or folder")
    if _is_dicom(path):
        from situs.io.dicom import read_dicom  # pydicom only for DICOM

        return read_dicom(path, series)
    if series is not None:
        raise ScanError(f"{path}: series={series!r} was asked for, but this is not DICOM: leave it out")
    from situs.io.nifti import read_nifti

    return read_nifti(path)


def read_rois(path: str | Path, volume: Volume) -> list[Roi]:
    """Read a mask and bind it to a scan: one region for every value that is not zero, ascending.

    Args:
        path: a NIfTI mask of whole numbers, 0 where there is no lesion; on the scan's grid, or on another
            grid of the same patient space, through which it is then resampled (said in `Roi.notes`)
        volume: the scan, shape (ni, nj, nk)

    Raises:
        RoiError: the mask cannot be read, is empty, is no mask, or does not meet the scan
    """
    from situs.io.rois import read_mask

    return read_mask(Path(path), volume)


def _is_dicom(path: Path) -> bool:
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise ScanError(f"{path}: cannot be opened ({error.strerror})") from error
    is_zip = head[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return is_zip or head[128:] == b"DICM" or path.suffix.lower() == ".dcm"
