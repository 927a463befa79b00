"""Files in, volumes and regions out. World frame RAS+ in mm; LPS exists only inside the DICOM code.

What a file is, is decided by its content, not by its name: a folder, a zip or a DICOM file is read by
`situs.io.dicom.read`, everything else by `situs.io.grid_files`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from situs.errors import RoiError, ScanError
from situs.io.kinds import roi_kind
from situs.io.stream import is_folder
from situs.volume import OutsideRoi, Roi, Volume

if TYPE_CHECKING:
    from situs.io.binding import MaskSpace
    from situs.io.dicom.rois import References
    from situs.io.dicom.series import Meets
    from situs.io.dicom.stacks import Stack

__all__ = ["read_rois", "read_volume"]


def read_volume(
    path: str | Path, series: str | None = None, roi: str | Path | None = None, ask: bool = False
) -> Volume:
    """Read a head CT.

    Args:
        path: A NIfTI file (.nii, .nii.gz), NRRD or MetaImage, a folder or a zip of DICOM files, or one DICOM
            file. A DICOMDIR stands for its folder.
        series: SeriesNumber or SeriesInstanceUID of the DICOM series to read. By default the plain axial head
            CT is chosen, and `Volume.assumptions` names the choice.
        roi: The mask that will be bound to the scan. Of several DICOM series, those that it meets come first.
        ask: Whether somebody can be asked which of several head CT series to read.

    Returns:
        Volume of shape (ni, nj, nk), the slice axis (the one nearest to feet-head) last; int16 or float32.

    Raises:
        ScanError: The scan cannot be read, or its values cannot be HU or a window of them.
        SeveralSeriesError: With `ask`, if there are several and none was asked for.
        RoiError: The mask is needed to choose a series and cannot be read.
    """
    path = Path(path)
    if is_folder(path, ScanError) or _is_dicom(path):
        from situs.io.dicom.read import read_dicom  # pydicom only for DICOM

        return read_dicom(path, series, None if roi is None else _meets(Path(roi)), ask)
    if series is not None:
        raise ScanError(f"{path}: series={series!r} was asked for, but this is not DICOM: leave it out")
    from situs.io.grid_files import read_grid_volume

    return read_grid_volume(path)


def read_rois(
    path: str | Path,
    volume: Volume,
    mask_space: MaskSpace | None = None,
    threshold: float | None = None,
) -> list[Roi | OutsideRoi]:
    """Read regions and bind them to a scan: one for every value or segment, ascending.

    What the file is, is told from its content.

    Args:
        path: One of these files. `Roi.notes` and `Roi.doubts` say how it was bound.

            - A mask (NIfTI, NRRD, MetaImage) of whole numbers, 0 where there is no lesion, or one with a
              channel a region. It is bound voxel by voxel or through patient space, as both headers suggest
              (`situs.io.binding`). With `threshold`, a map of probabilities. Segments of 3D Slicer
              (.seg.nrrd) keep their names.
            - A DICOM segmentation (SEG), bound by its UIDs and its frames' positions
              (`situs.io.dicom.segments`).
            - A DICOM structure set (RTSTRUCT), bound by its UIDs and its contours' points
              (`situs.io.dicom.contours`).
            - Boxes and points (JSON, CSV), in voxel indices or in millimetres of the patient
              (`situs.io.shapes`).
        volume: The scan, shape (ni, nj, nk).
        mask_space: ``index`` binds the mask voxel by voxel, ``world`` through patient space, whatever headers
            and UIDs suggest.
        threshold: For a map of probabilities or a fractional DICOM segmentation: the probability, in (0, 1],
            from which on a voxel belongs to the region. None for 0.5 of a DICOM segmentation; a mask then
            must hold whole numbers.

    Returns:
        The regions, and then for each value the lesions that lie wholly outside the scan.

    Raises:
        RoiError: The file cannot be read, is empty, holds no regions, or does not belong to the scan.
    """
    if mask_space not in (None, "index", "world"):
        raise RoiError(f"mask_space: expected 'index', 'world' or None, got {mask_space!r}")
    if threshold is not None and not 0 < threshold <= 1:
        raise RoiError(f"threshold: expected more than 0 and at most 1, got {threshold:g}")
    path = Path(path)
    kind = roi_kind(path)
    if kind in ("RTSTRUCT", "shapes") and threshold is not None:
        raise RoiError(f"{path}: --threshold is for probabilities, this holds none: leave it out")
    spaces = {"mask": ("index", "world"), "shapes": ()}.get(kind, ("world",))
    if mask_space is not None and mask_space not in spaces:
        raise RoiError(f"{path}: --mask-space {mask_space} is for masks, this has positions: leave it out")
    if kind == "shapes":
        from situs.io.shapes import read_shapes

        return read_shapes(path, volume)
    if kind == "SEG":
        from situs.io.dicom.segments import read_segments

        return read_segments(path, volume, mask_space == "world", threshold)
    if kind == "RTSTRUCT":
        from situs.io.dicom.contours import read_contours

        return read_contours(path, volume, mask_space == "world")
    from situs.io.rois import read_mask

    return read_mask(path, volume, mask_space, threshold)


def _meets(roi: Path) -> Meets:
    """How well a ROI fits a stack of slices; the ROI is read when that is first asked."""

    @cache
    def references() -> References | None:
        kind = roi_kind(roi)
        if kind == "SEG":
            from situs.io.dicom.segmentation import segment_references

            return segment_references(roi)
        if kind == "RTSTRUCT":
            from situs.io.dicom.contours import contour_references

            return contour_references(roi)
        if kind == "shapes":
            from situs.io.shapes import shape_references

            return shape_references(roi)
        return None

    @cache
    def positions() -> NDArray[np.float64]:
        kind = roi_kind(roi)
        if kind == "SEG":
            from situs.io.dicom.segmentation import segment_positions

            return segment_positions(roi)
        if kind == "RTSTRUCT":
            from situs.io.dicom.contours import contour_positions

            return contour_positions(roi)
        if kind == "shapes":
            from situs.io.shapes import shape_positions

            return shape_positions(roi)
        from situs.io.rois import mask_positions

        return mask_positions(roi)

    def meets(stack: Stack) -> float:
        from situs.io.dicom.rois import names_share
        from situs.io.dicom.stacks import stack_geometry
        from situs.io.grids import is_inside

        named = references()
        if named is not None and (share := names_share(named, stack)):
            return share
        inside = is_inside(positions(), stack_geometry(stack.frames))
        return float(inside.mean()) if inside.size else 0.0

    return meets


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise ScanError(f"{path}: cannot be opened ({error.strerror})") from error
    is_zip = head[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return is_zip or head[128:] == b"DICM" or path.suffix.lower() == ".dcm"
