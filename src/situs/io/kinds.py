"""What a file is, told from its first bytes, for messages about files that cannot be read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["dicom_kind", "file_kind"]

_STARTS = {
    b"NRRD": "an NRRD file",
    b"ObjectType": "a MetaImage file (.mha, .mhd)",
    b"NDims": "a MetaImage file (.mha, .mhd)",
    b"\x00\x00\x00\x01": "an MGH file (.mgh, .mgz)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "an HDF5 file",
    b"PK": "a zip file",
    b"%PDF": "a PDF file",
}
_MODALITIES = {
    "SEG": "a DICOM segmentation (SEG)",
    "RTSTRUCT": "a DICOM structure set (RTSTRUCT)",
    "SR": "a DICOM report (SR)",
    "CT": "a DICOM image (CT)",
}
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


def dicom_kind(path: Path) -> str:
    """What a DICOM file is, by its Modality: ``a DICOM segmentation (SEG)``."""
    from pydicom import dcmread  # for a message alone

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
        return _MODALITIES.get(str(header.get("Modality")), "a DICOM file")
    except Exception:  # a damaged file can set off anything inside pydicom
        return "a DICOM file"
