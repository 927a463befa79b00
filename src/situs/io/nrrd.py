"""The header of an NRRD file, and of the segmentations (.seg.nrrd) of 3D Slicer.

The format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from situs.io.arrays import (
    NO_DIRECTIONS,
    ArrayHeader,
    NamedSegment,
    StoredArray,
    check_data_file,
    check_place,
)
from situs.io.nifti_header import HeaderError, check_voxels

__all__ = ["parse_nrrd"]

_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_PACKED = {"raw": False, "gzip": True, "gz": True}
# From the axes of a space to RAS.
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
_VECTOR = re.compile(r"\([^()]*\)|none")
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")
_MOST_SEGMENTS = 10_000

Array = NDArray[np.float64]


def parse_nrrd(start: bytes) -> ArrayHeader:
    """Read a header.

    Args:
        start: The first bytes of the file, with the whole header.

    Raises:
        HeaderError: It says what cannot be so, or what cannot be read here.
        ValueError: Something that should be a number is none.
    """
    fields, keys, end = _fields(start)
    sizes = [int(n) for n in fields.get("sizes", "").split()]
    if not sizes or len(sizes) != int(fields.get("dimension", "0")):
        raise HeaderError("its header is damaged (dimension and sizes differ): export it again")
    check_voxels(sizes)
    encoding = fields.get("encoding", "").lower()
    if encoding not in _PACKED:
        raise HeaderError("its encoding is neither raw nor gzip: save it so")
    affine, oriented, spatial, notes = _place(fields, sizes)
    channels = [axis for axis in range(len(sizes)) if axis not in spatial and sizes[axis] > 1]
    kept = sorted([*spatial, *channels])
    shape = tuple(sizes[axis] for axis in kept)
    data_file = fields.get("data file", fields.get("datafile"))
    if data_file is not None:
        check_data_file(data_file)
    if int(fields.get("line skip", fields.get("lineskip", "0"))) != 0:
        raise HeaderError("lines are to be skipped before its voxels (line skip): save it as one file")
    skip = int(fields.get("byte skip", fields.get("byteskip", "0")))
    if skip < 0:
        raise HeaderError("its voxels are to be counted from the end (byte skip): save it as one file")
    return ArrayHeader(
        StoredArray(shape, _dtype(fields), skip),
        affine,
        oriented,
        start=0 if data_file is not None else end,
        packed=_PACKED[encoding],
        data_file=data_file,
        channel_axis=kept.index(channels[0]) if channels else 3,
        segments=_segments(keys),
        notes=tuple(notes),
    )


def _fields(start: bytes) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields, the keys with their values, and the byte after the header."""
    end = re.search(rb"\r?\n\r?\n", start)
    stop, after = (end.start(), end.end()) if end else (len(start), len(start))
    fields, keys = {}, {}
    for line in start[:stop].decode("utf-8", errors="replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        key, mark, value = line.partition(":=")
        if mark:
            keys[key] = value
        else:
            key, mark, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    if end is None and "data file" not in fields and "datafile" not in fields:
        raise HeaderError("its header has no end: copy or export it again")
    return fields, keys, after


def _dtype(fields: dict[str, str]) -> np.dtype[np.generic]:
    kind = _DTYPES.get(fields.get("type", "").lower())
    if kind is None:
        raise HeaderError("its type is no kind of number: save gray values")
    endian = fields.get("endian", "little" if kind.endswith("1") else "").lower()
    if endian not in ("little", "big"):
        raise HeaderError("its header has no byte order (endian): export it again")
    return np.dtype(kind).newbyteorder("<" if endian == "little" else ">")


def _place(fields: dict[str, str], sizes: list[int]) -> tuple[Array, bool, list[int], list[str]]:
    """The affine, whether it is more than a guess, the axes of space, and notes."""
    columns = _VECTOR.findall(fields.get("space directions", ""))
    space = _SPACES.get(fields.get("space", "").lower().removesuffix("-time").removesuffix("t"))
    if not columns:
        return _without_directions(fields, sizes)
    spatial = [axis for axis, text in enumerate(columns) if text != "none"]
    if len(columns) != len(sizes) or len(spatial) != 3:
        raise HeaderError("its space directions are not those of three axes: export it again")
    affine = np.eye(4)
    affine[:3, :3] = np.stack([_numbers(columns[axis]) for axis in spatial], axis=1)
    if "space origin" in fields:
        affine[:3, 3] = _numbers(fields["space origin"])
    notes = []
    if space is None:
        notes.append("The header has no space of the patient; left-posterior-superior was taken.")
    affine[:3] *= np.array(space or _SPACES["lps"])[:, None]
    check_place(affine, [sizes[axis] for axis in spatial], "its space directions")
    return affine, space is not None, spatial, notes


def _without_directions(fields: dict[str, str], sizes: list[int]) -> tuple[Array, bool, list[int], list[str]]:
    if len(sizes) != 3:
        raise HeaderError(f"has {len(sizes)} axes without space directions, expected three: export it again")
    spacings = [float(v) for v in fields.get("spacings", "1 1 1").split()]
    affine = np.diag([*(spacings * np.array([-1.0, -1.0, 1.0])), 1.0])
    check_place(affine, sizes, "its spacings")
    return affine, False, [0, 1, 2], [NO_DIRECTIONS]


def _numbers(text: str) -> list[float]:
    """``(1,2,3)`` as three numbers."""
    found = [float(v) for v in text.strip("() ").split(",")]
    if len(found) != 3:
        raise ValueError("not three numbers")
    return found


def _segments(keys: dict[str, str]) -> tuple[NamedSegment, ...]:
    """The segments of 3D Slicer, in its order."""
    found: dict[int, dict[str, str]] = {}
    for key, value in keys.items():
        if match := _SEGMENT.fullmatch(key):
            found.setdefault(int(match[1]), {})[match[2]] = value.strip()
    if len(found) > _MOST_SEGMENTS:
        raise HeaderError(f"holds {len(found)} segments, expected at most {_MOST_SEGMENTS}: remove some")
    # Before labels and layers, each segment had a channel of its own.
    return tuple(
        NamedSegment(
            int(s.get("Layer", "0" if "LabelValue" in s else n)),
            int(s.get("LabelValue", "1")),
            s.get("Name", ""),
        )
        for n, (_, s) in enumerate(sorted(found.items()))
    )
