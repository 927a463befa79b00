"""What a file is, told from its first bytes, for messages about files that cannot be read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from situs.errors import RoiError
from situs.io.stream import ByteStream, is_folder

__all__ = [
    "METAIMAGE",
    "NRRD",
    "ROI_FILES",
    "ZIP",
    "dicom_kind",
    "file_kind",
    "is_shapes",
    "no_scan_text",
    "roi_kind",
]

NRRD = "an NRRD file"
METAIMAGE = "a MetaImage file (.mha, .mhd)"
ZIP = "a zip file"
ROI_FILES = "the mask, segmentation (SEG) or structure set (RTSTRUCT)"
_STARTS = {
    b"NRRD": NRRD,
    b"ObjectType": METAIMAGE,
    b"NDims": METAIMAGE,
    b"\x00\x00\x00\x01": "an MGH file (.mgh, .mgz)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "an HDF5 file",
    b"PK": ZIP,
    b"%PDF": "a PDF file",
}
_MODALITIES = {
    "SEG": "a DICOM segmentation (SEG)",
    "RTSTRUCT": "a DICOM structure set (RTSTRUCT)",
    "RTDOSE": "a DICOM dose (RTDOSE)",
    "RTPLAN": "a DICOM treatment plan (RTPLAN)",
    "SR": "a DICOM report (SR)",
    "PR": "a DICOM presentation state (PR)",
    "KO": "a DICOM list of key images (KO)",
    "DOC": "a DICOM document (DOC)",
    "CT": "a DICOM image (CT)",
}
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."  # PDF and others, whatever their Modality
_MASKS = (_MODALITIES["SEG"], _MODALITIES["RTSTRUCT"])
_MOST_FIRST_LINE = 4096
_SHAPES_COLUMNS = {b"shape", b"space", b"x", b"y", b"z"}
_DICOM_MARK = slice(128, 132)
_ANALYZE_BYTES = 348
_ANALYZE_STARTS = (_ANALYZE_BYTES.to_bytes(4, "little"), _ANALYZE_BYTES.to_bytes(4, "big"))


def file_kind(start: bytes) -> str | None:
    """What a file that is not NIfTI is.

    Args:
        start: Its first 348 bytes, fewer if there are no more, unpacked if the file is gzip.

    Returns:
        Its kind with an article, for example ``an NRRD file``; None if it is not known here.

    >>> file_kind(b"NRRD0004\\ntype: uchar")
    'an NRRD file'
    """
    if start[_DICOM_MARK] == b"DICM":
        return "a DICOM file"
    if start[:4] in _ANALYZE_STARTS and len(start) >= _ANALYZE_BYTES:
        return "an Analyze 7.5 header, which does not tell left from right"
    return next((kind for mark, kind in _STARTS.items() if start.startswith(mark)), None)


def dicom_kind(file: Path | BinaryIO) -> str:
    """What a DICOM file is, by its Modality: ``a DICOM segmentation (SEG)``."""
    from pydicom import dcmread  # for a message alone

    try:
        header = dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Modality", "SOPClassUID"])
        is_document = str(header.get("SOPClassUID")).startswith(_DOCUMENTS)
        return _MODALITIES.get("DOC" if is_document else str(header.get("Modality")), "a DICOM file")
    except Exception:  # a damaged file can set off anything inside pydicom
        return "a DICOM file"


def roi_kind(path: Path) -> str:
    """What a file of regions is: ``SEG``, ``RTSTRUCT``, ``shapes``, or ``mask`` for anything else.

    Raises:
        RoiError: There is no such file, or it is a folder or empty.
    """
    if is_folder(path, RoiError):
        raise RoiError(f"{path}: is a folder, expected one file of regions: give {ROI_FILES} in it")
    with ByteStream(path, RoiError) as stream:
        start = stream.peek(_MOST_FIRST_LINE)
    if is_shapes(start):
        return "shapes"
    if file_kind(start) != "a DICOM file":
        return "mask"
    kind = dicom_kind(path)
    return next((modality for modality in ("SEG", "RTSTRUCT") if kind == _MODALITIES[modality]), "mask")


def is_shapes(start: bytes) -> bool:
    """Whether a file that starts so is meant to hold boxes and points (JSON or CSV).

    >>> is_shapes(b"shape,space,x,y,z,radius_mm\\npoint,ras,1,2,3,5")
    True
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    columns = {name.strip() for name in text.partition(b"\n")[0].split(b",")}
    return text.startswith(b"{") or columns >= _SHAPES_COLUMNS


def no_scan_text(kinds: Collection[str], in_folder: bool) -> str:
    """What is wrong with DICOM files that are no images, given as the scan.

    Args:
        kinds: Their kinds, see `dicom_kind`.
        in_folder: Whether a folder or zip was given, not the one file.

    >>> no_scan_text(["a DICOM report (SR)"], in_folder=False)
    'is a DICOM report (SR), expected a CT: give the folder of the CT series'
    """
    text = f"{'holds no CT but' if in_folder else 'is'} {' and '.join(sorted(set(kinds)))}, expected a CT: "
    if set(kinds) <= set(_MASKS):
        return f"{text}give the CT as the scan, and this with --roi"
    return f"{text}give the folder of the CT series"
