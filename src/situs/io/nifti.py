"""NIfTI files: single ones (.nii, .nii.gz) and pairs (.hdr and .img). World frame RAS+ in mm.

The header is judged before a voxel is read.
"""

from __future__ import annotations

from pathlib import Path

from situs.errors import InputError, RoiError, ScanError
from situs.io.arrays import Convert, FileGrid, StoredArray, check_axes, file_grid, read_values
from situs.io.kinds import METAIMAGE, NRRD, ROI_FILES, ZIP, dicom_kind, file_kind
from situs.io.nifti_header import HEADER_BYTES, HeaderError, is_nifti, parse_header
from situs.io.stream import ByteStream

__all__ = ["read_nifti_grid"]


def read_nifti_grid(path: Path, error: type[InputError], to_labels: Convert | None = None) -> FileGrid:
    """The numbers of a NIfTI file and where they lie.

    Args:
        path: A single file (.nii, .nii.gz), or either file of a pair (.hdr and .img).
        error: What a file that cannot be read raises.
        to_labels: For a mask, which may have a fourth axis of channels: makes labels of a piece of its
            numbers, given the distance between neighbouring values that the file can hold.

    Raises:
        InputError: The class given.
    """
    header_path = _header_path(path, error)
    with ByteStream(header_path, error) as stream:
        start = stream.peek(HEADER_BYTES)
        if not is_nifti(start):
            raise error(f"{path}: {_other_kind(path, start, error)}")
        try:
            header = parse_header(start)
        except HeaderError as problem:
            raise error(f"{path}: {problem}") from problem
        check_axes(header.shape, path, error, to_labels)
        stored = StoredArray(header.shape, header.dtype, header.offset, header.slope, header.inter)
        if not header.paired:
            values = read_values(stream, stored, to_labels)
    if header.paired:
        with ByteStream(_image_path(header_path, error), error) as stream:
            values = read_values(stream, stored, to_labels)
    return file_grid(values, header.affine, header.oriented, header.others, header.notes)


def _other_kind(path: Path, start: bytes, error: type[InputError]) -> str:
    """What is wrong with a file that is not NIfTI."""
    kind, expected = file_kind(start), "NIfTI (.nii, .nii.gz)"
    if kind == "a DICOM file":
        kind = dicom_kind(path)
    if kind in (NRRD, METAIMAGE):
        return f"is {kind} that is packed as a whole (gzip): unpack it with gunzip"
    if issubclass(error, RoiError) and kind == ZIP:
        return f"is {kind}, expected one file of regions: unpack it and give {ROI_FILES} in it"
    if issubclass(error, RoiError):
        others = "NRRD, MetaImage, DICOM (SEG, RTSTRUCT), or boxes and points (JSON, CSV)"
        return (
            f"is {kind or 'of an unknown kind'}, expected regions as {expected}, {others}: save it as .nii.gz"
        )
    if issubclass(error, ScanError):
        expected += ", NRRD, MetaImage or DICOM"
    return f"is {kind or 'of an unknown kind'}, expected {expected}: save it as .nii.gz"


def _header_path(path: Path, error: type[InputError]) -> Path:
    """The file that holds the header: the .hdr file of a pair that is given by its .img file."""
    name = path.name.removesuffix(".gz")
    if not name.lower().endswith(".img"):
        return path
    with ByteStream(path, error) as stream:
        if is_nifti(stream.peek(HEADER_BYTES)):
            return path
    for other in _siblings(path.with_name(name), ".hdr"):
        return other
    raise error(f"{path}: its header file (.hdr) is missing: put it into the same folder")


def _image_path(path: Path, error: type[InputError]) -> Path:
    for other in _siblings(path.with_name(path.name.removesuffix(".gz")), ".img"):
        return other
    raise error(f"{path}: the file with its voxels (.img) is missing: put it into the same folder")


def _siblings(path: Path, suffix: str) -> list[Path]:
    names = [path.with_suffix(ending) for ending in (suffix, suffix.upper())]
    return [p for name in names for p in (name, name.with_name(name.name + ".gz")) if p.is_file()]
