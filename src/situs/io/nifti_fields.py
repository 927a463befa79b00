"""Where the fields of a NIfTI header lie, as the standard says (nifti.nimh.nih.gov).

nibabel has these tables too. Its import takes longer than reading a scan, because it brings pydicom along.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["HEADER_DTYPES", "OTHER_KINDS", "VOXEL_DTYPES", "read_fields"]

_FORMS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_ROWS = ("srow_x", "srow_y", "srow_z")


def _header_dtype(size: int, **fields: tuple[str, int]) -> np.dtype[Any]:
    """The fields of a header of `size` bytes, each with its numbers and its first byte; little-endian."""
    formats, offsets = zip(*fields.values(), strict=True)
    kind = np.dtype({"names": [*fields], "formats": [*formats], "offsets": [*offsets], "itemsize": size})
    return kind.newbyteorder("<")


# By version: the fields that a scan is read with.
HEADER_DTYPES = {
    1: _header_dtype(
        348,
        dim=("8i2", 40),
        datatype=("i2", 70),
        pixdim=("8f4", 76),
        vox_offset=("f4", 108),
        scl_slope=("f4", 112),
        scl_inter=("f4", 116),
        xyzt_units=("u1", 123),
        qform_code=("i2", 252),
        sform_code=("i2", 254),
        **{name: ("f4", 256 + 4 * n) for n, name in enumerate(_FORMS)},
        **{name: ("4f4", 280 + 16 * n) for n, name in enumerate(_ROWS)},
    ),
    2: _header_dtype(
        540,
        datatype=("i2", 12),
        dim=("8i8", 16),
        pixdim=("8f8", 104),
        vox_offset=("i8", 168),
        scl_slope=("f8", 176),
        scl_inter=("f8", 184),
        qform_code=("i4", 344),
        sform_code=("i4", 348),
        **{name: ("f8", 352 + 8 * n) for n, name in enumerate(_FORMS)},
        **{name: ("4f8", 400 + 32 * n) for n, name in enumerate(_ROWS)},
        xyzt_units=("i4", 500),
    ),
}
# By the code in `datatype`: real numbers, and what else there is.
_WHOLE = {2: "u1", 4: "i2", 8: "i4", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
VOXEL_DTYPES = {code: np.dtype(kind) for code, kind in {**_WHOLE, 16: "f4", 64: "f8"}.items()}
OTHER_KINDS = {
    **dict.fromkeys((128, 2304), "RGB colours"),
    **dict.fromkeys((32, 1792, 2048), "complex numbers"),
    1536: "128-bit floats",
}


def read_fields(start: bytes, version: int) -> Any:
    """The fields of a header by name, in either byte order.

    Args:
        start: The file's first bytes, at least ``HEADER_DTYPES[version].itemsize``.
        version: 1 or 2.
    """
    kind = HEADER_DTYPES[version]
    header = np.frombuffer(start, kind, count=1)[0]
    if 0 <= header["dim"][0] <= 7:
        return header
    return np.frombuffer(start, kind.newbyteorder(), count=1)[0]
