"""The header of a NIfTI file: what its voxels are and where they lie. World frame RAS+ in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.io.limits import most_voxels
from situs.io.nifti_fields import HEADER_DTYPES, OTHER_KINDS, VOXEL_DTYPES, read_fields

__all__ = [
    "HEADER_BYTES",
    "HeaderError",
    "NiftiHeader",
    "check_affine",
    "check_voxels",
    "is_nifti",
    "parse_header",
]

HEADER_BYTES = (
    544  # of the longer of both versions, in a single file; the shorter one's first voxel is at 352
)

_VERSIONS = {b"n+1\0": (1, False), b"ni1\0": (1, True), b"n+2\0": (2, False), b"ni2\0": (2, True)}
_FIRST_VOXEL = {1: 352, 2: 544}  # in a single file
_MOST_OFFSET = 2**28
_VOXEL_MM = (0.02, 50.0)  # beyond these a header is wrong, or in other units
_LONGEST_MM = 3000.0  # longer than any patient
_FARTHEST_MM = 1e6
_FLATTEST = 1e-3  # volume of a voxel, as a part of its edges' product; gantry tilt of 30 degrees leaves 0.87
_UNITS_MM = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
_QUATERNION_ROUNDING = 0.01  # by so much the squares of b, c and d may sum to more than 1
_SAME_PLACE_MM = 1.0

Array = NDArray[np.float64]


class HeaderError(ValueError):
    """A header cannot be used; its text says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a NIfTI header says.

    Attributes:
        shape: Sizes of the axes, at least three; further axes of size 1 are left out.
        dtype: How a number is stored.
        offset: Bytes before the first voxel, in the file that holds the voxels.
        paired: Whether the voxels are in a file of their own (.img).
        slope: A stored number times `slope` plus `inter` is the value.
        inter: See `slope`.
        affine: (4, 4) voxel to world, RAS+ mm.
        oriented: False if the header has no orientation, so that `affine` is a guess.
        others: (4, 4) each; further affines that the header gives.
        notes: One sentence for everything that was assumed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    paired: bool
    slope: float
    inter: float
    affine: Array
    oriented: bool
    others: tuple[Array, ...]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many numbers the file holds."""
        return math.prod(self.shape)


def is_nifti(start: bytes) -> bool:
    """Whether a file that starts so has a NIfTI header."""
    return _version(start) is not None


def parse_header(start: bytes) -> NiftiHeader:
    """Read a header.

    Args:
        start: The first `HEADER_BYTES` bytes of a file for which `is_nifti` is true, or all that there are.

    Raises:
        HeaderError: The header is damaged, or says what cannot be so.
    """
    version = _version(start)
    assert version is not None
    number, paired = version
    size = HEADER_DTYPES[number].itemsize
    if len(start) < size:
        raise HeaderError(f"its header ends after {len(start)} of {size} bytes: copy or export it again")
    header = read_fields(start, number)
    shape, notes = _shape(header)
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise HeaderError(f"its scl_inter is {inter}, expected a number: export it again")
    affine, oriented, others, affine_notes = _affines(header, shape[:3])
    return NiftiHeader(
        shape=shape,
        dtype=_dtype(header),
        offset=_offset(header, number, paired),
        paired=paired,
        slope=slope,
        inter=inter,
        affine=affine,
        oriented=oriented,
        others=others,
        notes=(*notes, *affine_notes),
    )


def _version(start: bytes) -> tuple[int, bool] | None:
    return _VERSIONS.get(start[344:348]) or _VERSIONS.get(start[4:8])


def _shape(header: Any) -> tuple[tuple[int, ...], list[str]]:
    sizes = [int(n) for n in header["dim"]]
    count = sizes[0]
    if not 1 <= count <= 7:
        raise HeaderError(f"its header is damaged (dim[0] is {count}, expected 1 to 7): export it again")
    shape = [n or int(axis >= 3) for axis, n in enumerate(sizes[1 : count + 1])]  # some writers leave 0 for 1
    check_voxels(shape)
    kept = (*shape[:3], *(n for n in shape[3:] if n != 1))
    notes = ["Further axes of the file, all of length 1, were left out."] if len(kept) < count else []
    return kept + (1,) * (3 - len(kept)), notes


def check_voxels(shape: Sequence[int]) -> None:
    """Refuse an array without voxels, or with more than any scan has."""
    text = "x".join(map(str, shape))
    if min(shape) < 1:
        raise HeaderError(
            f"its header says {text} voxels, expected at least one along each axis: export it again"
        )
    if math.prod(shape) > (most := most_voxels()):
        raise HeaderError(f"its header says {text} voxels, expected at most {most:,}: crop it to the head")


def _dtype(header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in OTHER_KINDS:
        raise HeaderError(f"holds {OTHER_KINDS[code]}, expected one number per voxel: export gray values")
    if code not in VOXEL_DTYPES:
        raise HeaderError(f"its header is damaged (datatype {code} is unknown): export it again")
    return VOXEL_DTYPES[code].newbyteorder(header["dim"].dtype.byteorder)


def _offset(header: Any, number: int, paired: bool) -> int:
    offset = float(header["vox_offset"])
    least = 0 if paired else _FIRST_VOXEL[number]
    if not least <= offset <= _MOST_OFFSET:
        raise HeaderError(
            f"its header puts the voxels at byte {offset:.0f} (vox_offset), expected at least {least}: "
            "export it again"
        )
    return int(offset)


def _affines(header: Any, shape: tuple[int, ...]) -> tuple[Array, bool, tuple[Array, ...], list[str]]:
    """The affine to be used, whether it is more than a guess, the header's others, and notes.

    The sform comes first, then the qform, then what the voxel sizes alone suggest.
    """
    forms, notes = [], []
    reasons = []
    for name, code, form in (("sform", "sform_code", _sform), ("qform", "qform_code", _qform)):
        if int(header[code]) <= 0:
            continue
        try:
            forms.append(_in_mm(form(header), header, shape))
        except ValueError as problem:
            reasons.append(f"its {name} cannot be used ({problem})")
    if not forms and reasons:
        raise HeaderError(f"{reasons[0]}: export it again")
    if not forms:
        try:
            affine, unit_notes = _in_mm(_without_codes(header, shape), header, shape)
        except ValueError as problem:
            raise HeaderError(f"its voxel sizes cannot be used ({problem}): export it again") from problem
        note = (
            "The header has no orientation (sform and qform codes are 0): i was taken to grow to the "
            "patient's left, j to the front, k to the top."
        )
        return affine, False, (), [*unit_notes, note]
    affine, unit_notes = forms[0]
    notes += unit_notes
    others = tuple(other for other, _ in forms[1:])
    for other in others:
        off = _distance_mm(affine, other, shape)
        if off > _SAME_PLACE_MM:
            notes.append(f"sform and qform of the header differ by up to {off:.0f} mm; the sform was used.")
    if reasons and reasons[0].startswith("its sform"):
        notes.append("The header's sform cannot be used; the qform was used.")
    return affine, True, others, notes


def _sform(header: Any) -> Array:
    affine = np.eye(4)
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        affine[row] = header[name]
    return affine


def _qform(header: Any) -> Array:
    """The affine of the quaternion, which may be longer than 1 by rounding."""
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    squares = b * b + c * c + d * d
    if not squares <= 1 + _QUATERNION_ROUNDING:
        raise ValueError("its quaternion is none")
    a = math.sqrt(max(0.0, 1 - squares))
    b, c, d = (x / max(1.0, math.sqrt(squares)) for x in (b, c, d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    if not np.isfinite(sizes).all():
        raise ValueError("pixdim holds NaN or infinite numbers")
    sizes[2] *= -1 if header["pixdim"][0] < 0 else 1
    affine = np.eye(4)
    affine[:3, :3] = rotation * sizes
    affine[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return affine


def _without_codes(header: Any, shape: tuple[int, ...]) -> Array:
    sizes = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * [-1, 1, 1]
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -sizes * (np.array(shape) - 1) / 2
    return affine


def _in_mm(affine: Array, header: Any, shape: tuple[int, ...]) -> tuple[Array, list[str]]:
    """An affine in mm, whatever the header's unit is, and a note if it is another one.

    Raises:
        ValueError: It is no affine of a scan.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNITS_MM:
        check_affine(affine, shape)
        return affine, []
    name, factor = _UNITS_MM[unit]
    scaled = np.diag([factor, factor, factor, 1.0]) @ affine
    try:
        check_affine(scaled, shape)
    except ValueError:
        check_affine(affine, shape)  # the unit is wrong, not the numbers
        return affine, [f"The header's unit is {name}, but its numbers are millimetres; so they were taken."]
    return scaled, [f"The header's unit is {name}; it was converted to millimetres."]


def check_affine(affine: Array, shape: tuple[int, ...]) -> None:
    """Refuse an affine that is none of a scan.

    Raises:
        ValueError: The text says why.
    """
    if not np.isfinite(affine).all():
        raise ValueError("it holds NaN or infinite numbers")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    text = " x ".join(f"{size:.3g}" for size in sizes)
    if sizes.min() < _VOXEL_MM[0] or sizes.max() > _VOXEL_MM[1]:
        raise ValueError(f"voxels of {text} mm, expected {_VOXEL_MM[0]:g} to {_VOXEL_MM[1]:g} mm")
    if abs(np.linalg.det(affine[:3, :3])) < _FLATTEST * sizes.prod():
        raise ValueError("its axes lie in one plane")
    longest = float((sizes * shape).max())
    if longest > _LONGEST_MM:
        raise ValueError(f"it spans {longest / 1000:.3g} m, expected a patient")
    if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        raise ValueError("the first voxel lies kilometres away")


def _distance_mm(a: Array, b: Array, shape: tuple[int, ...]) -> float:
    """The largest distance between the same voxels by two affines."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    return float(np.linalg.norm((a - b)[:3, :3] @ corners + (a - b)[:3, 3:], axis=0).max())
