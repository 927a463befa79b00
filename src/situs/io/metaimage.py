"""The header of a MetaImage file (.mha, .mhd), as ITK and ITK-SNAP write it.

The format: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import numpy as np

from situs.io.arrays import NO_DIRECTIONS, ArrayHeader, StoredArray, check_data_file, check_place
from situs.io.nifti_header import HeaderError, check_voxels

__all__ = ["parse_metaimage"]

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LAST = "elementdatafile"  # the header ends with it


def parse_metaimage(start: bytes) -> ArrayHeader:
    """Read a header.

    Args:
        start: The first bytes of the file, with the whole header.

    Raises:
        HeaderError: It says what cannot be so, or what cannot be read here.
        ValueError: Something that should be a number is none.
    """
    fields, end = _fields(start)
    sizes = [int(n) for n in fields.get("dimsize", "").split()]
    count = int(fields.get("ndims", "0"))
    if len(sizes) != count or count not in (3, 4):
        raise HeaderError(f"has {count} axes and {len(sizes)} sizes, expected three: export it again")
    check_voxels(sizes)
    channels = int(fields.get("elementnumberofchannels", "1"))
    if channels > 1 and count == 4:
        raise HeaderError("has channels and a fourth axis, expected one of them: export it again")
    shape = (channels, *sizes) if channels > 1 else tuple(sizes)
    check_voxels(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    data_file = fields[_LAST]
    check_data_file(data_file)
    kind = _DTYPES.get(fields.get("elementtype", "").upper())
    if kind is None or not _is_true(fields.get("binarydata", "True")):
        raise HeaderError("its voxels are no binary numbers (ElementType, BinaryData): export it again")
    big = _is_true(fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "False")))
    skip = int(fields.get("headersize", "0"))
    if skip < 0:
        raise HeaderError("its voxels are to be counted from the end (HeaderSize): save it as .mha")
    affine, oriented = _place(fields, count)
    check_place(affine, sizes[:3], "its place")
    local = data_file.upper() == "LOCAL"
    return ArrayHeader(
        StoredArray(shape, np.dtype(kind).newbyteorder(">" if big else "<"), 0 if local else skip),
        affine,
        oriented,
        start=end if local else 0,
        packed=_is_true(fields.get("compresseddata", "False")),
        data_file=None if local else data_file,
        channel_axis=0 if channels > 1 else 3,
        notes=() if oriented else (NO_DIRECTIONS,),
    )


def _fields(start: bytes) -> tuple[dict[str, str], int]:
    """The fields, and the byte after the header."""
    fields: dict[str, str] = {}
    at = 0
    while _LAST not in fields:
        stop = start.find(b"\n", at)
        if stop < 0:
            raise HeaderError("its header has no end (ElementDataFile): copy or export it again")
        key, _, value = start[at:stop].decode("utf-8", errors="replace").partition("=")
        fields[key.strip().lower()] = value.strip()
        at = stop + 1
    return fields, at


def _place(fields: dict[str, str], count: int) -> tuple[np.ndarray, bool]:
    """The affine, RAS+ mm, and whether the header gives directions. ITK's world is LPS."""

    def numbers(names: tuple[str, ...], default: list[float]) -> np.ndarray:
        text = next((fields[name] for name in names if name in fields), None)
        found = np.array(default if text is None else [float(v) for v in text.split()])
        if found.size != len(default):
            raise ValueError("another number of numbers")
        return found

    directions = ("transformmatrix", "rotation", "orientation")
    # A direction for each axis, one after the other.
    matrix = numbers(directions, [*np.eye(count).ravel()]).reshape(count, count)[:3, :3].T
    spacing = numbers(("elementspacing", "elementsize"), [1.0] * count)[:3]
    affine = np.eye(4)
    affine[:3, :3] = matrix * spacing
    affine[:3, 3] = numbers(("offset", "position", "origin"), [0.0] * count)[:3]
    affine[:2] *= -1
    return affine, any(name in fields for name in directions)


def _is_true(text: str) -> bool:
    return text.strip().upper() in ("TRUE", "T", "1", "YES")
