"""The paranasal sinuses of a head label map: air inside the head, cut at the ostia.

Arrays run (x, y, z) in RAS voxel order with 1 mm voxels. The *face frame* has its origin mid-way between
the eyes: x to the patient's right, y to the front, z up, mm, pitched so that the eyes lie 30 degrees
below the thalami, as they do in most heads (the brain may lie tilted in its skull).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX
from situs.synth.head_frame import distance_mm
from situs.volume import bounding_box

__all__ = ["face_coordinates", "inner_air", "map_sinuses"]

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Range = tuple[float, float]

_EYES_BELOW_DEG = 30.0
_EYE, _AIR = 506, 0
# A wall is air, other soft tissue, mucosa or bone; never the eye, its muscles and nerve, or a vessel.
_WALL_LABELS = (0, 507, 509, 515, 516)
_WALL_MM = 2.0
# Bone in the maps holds specks of air; no sinus is as small.
_SPECK_MM3 = 700

# Where the middle of a space lies in the face frame: |x|, y, z from and to, mm: seeds for the flood. Read off
# 16 heads, whose eyes lie 31 +- 2 mm from the midline. "nose" stands for all that is no sinus.
_SEEDS: tuple[tuple[str, Range, Range, Range], ...] = (
    ("ethmoidal", (0, 12), (-26, 0), (-7, 12)),
    ("sphenoid", (0, 14), (-58, -34), (-14, 8)),
    ("maxillary", (18, 40), (-28, 0), (-45, -16)),
    ("nose", (0, 10), (-28, 40), (-70, -22)),
    ("nose", (0, 16), (-75, -28), (-80, -26)),
    ("nose", (0, 16), (-75, -36), (-26, -20)),
    ("nose", (0, 40), (-6, 40), (17, 60)),
    ("nose", (32, 99), (-120, -40), (-60, 40)),
)
# How far a sinus may reach at most.
_REACH: dict[str, tuple[Range, Range, Range]] = {
    "ethmoidal": ((0, 17), (-36, 7), (-13, 18)),
    "sphenoid": ((0, 26), (-70, -24), (-19, 14)),
    "maxillary": ((12, 52), (-38, 18), (-60, -8)),
}


def map_sinuses(labels: NDArray[np.int16], cranial: Mask, x: Float, y: Float, z: Float) -> NDArray[np.uint8]:
    """Site codes (index + 1) of the sinuses with their walls, 0 elsewhere.

    The face is found by its eyes: without two eyes in view all codes are 0.

    Args:
        labels: (nx, ny, nz) CHARM numbers around the brain.
        cranial: (nx, ny, nz) the inside of the skull, which is no sinus's wall.
        x: (nx, ny, nz) head frame, mm, to the patient's right.
        y: (nx, ny, nz) head frame, mm, to the front.
        z: (nx, ny, nz) head frame, mm, up.

    Returns:
        (nx, ny, nz) codes.
    """
    out = np.zeros(labels.shape, dtype=np.uint8)
    eye = labels == _EYE
    if not (eye & (x < 0)).any() or not (eye & (x > 0)).any():
        return out
    fx, fy, fz = face_coordinates(eye, x, y, z)
    box = bounding_box((fx > -60) & (fx < 60) & (fy > -80) & (fy < 45) & (fz > -75) & (fz < 45))
    air = inner_air(labels)[box]
    fx, fy, fz = np.abs(fx[box]), fy[box], fz[box]
    part = _flood(air, _seeds(air, fx, fy, fz))
    codes = np.zeros(air.shape, dtype=np.uint8)
    for key, reach in _REACH.items():
        value = SITE_INDEX[key] + 1
        codes[_without_specks((part == value) & _within(reach, fx, fy, fz))] = value
    out[box] = _with_walls(codes, np.isin(labels[box], _WALL_LABELS) & ~cranial[box])
    return out


def face_coordinates(eye: Mask, x: Float, y: Float, z: Float) -> tuple[Float, Float, Float]:
    """Face frame coordinates (mm) from the head frame's, by the mid-point of both eyes.

    Args:
        eye: (nx, ny, nz) bool, both eyes.
        x: (nx, ny, nz) head frame, mm.
        y: (nx, ny, nz) head frame, mm.
        z: (nx, ny, nz) head frame, mm.
    """
    sides = [eye & (x < 0), eye & (x > 0)]
    cx, cy, cz = (float(np.mean([c[side].mean() for side in sides])) for c in (x, y, z))
    turn = -np.radians(_EYES_BELOW_DEG) - np.arctan2(cz, cy)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dy, dz = y - np.float32(cy), z - np.float32(cz)
    return x - np.float32(cx), c * dy - s * dz, s * dy + c * dz


def inner_air(labels: NDArray[np.int16]) -> Mask:
    """(nx, ny, nz) bool, the air inside the head.

    A disc of 10 mm radius moves in through the air from beyond the skin. What it reaches lies outside, and so
    does air within 16 mm of that (the folds of the face). It moves in axial slices, because the lower edge of
    a label map may cut sinuses open from below.
    """
    from scipy import ndimage

    radius = 5  # in voxels of 2 mm
    solid = np.pad(labels[::2, ::2, ::2] != _AIR, ((radius + 3,) * 2, (radius + 3,) * 2, (0, 0)), mode="edge")
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[:, 1, 1] = in_plane[1, :, 1] = True
    parts, count = ndimage.label(_in_plane_distance(solid) > radius, in_plane)
    outer = np.zeros(count + 1, dtype=bool)
    for face in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        outer[np.unique(face)] = True
    outer[0] = False
    reached = _in_plane_distance(outer[parts]) <= radius
    reached = ndimage.binary_dilation(reached, in_plane, iterations=8, mask=~solid | reached)
    crop = slice(radius + 3, -radius - 3)
    inside = ~reached[crop, crop].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return np.asarray((labels == _AIR) & inside[: labels.shape[0], : labels.shape[1], : labels.shape[2]])


def _in_plane_distance(mask: Mask) -> Float:
    """Distance in voxels to the nearest voxel of the mask in the same axial slice."""
    from scipy import ndimage

    far = 1e3  # slices so far apart that none is nearest in another
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=(1, 1, far)), dtype=np.float32)


def _within(zone: tuple[Range, Range, Range], *coordinates: Float) -> Mask:
    inside = np.ones(coordinates[0].shape, dtype=bool)
    for (low, high), c in zip(zone, coordinates, strict=True):
        inside &= (c >= low) & (c <= high)
    return inside


def _seeds(air: Mask, x: Float, y: Float, z: Float) -> NDArray[np.uint8]:
    seeds = np.zeros(air.shape, dtype=np.uint8)
    for key, *zone in _SEEDS:
        value = SITE_INDEX[key] + 1 if key in SITE_INDEX else len(SITE_INDEX) + 1
        seeds[air & _within((zone[0], zone[1], zone[2]), x, y, z)] = value
    return seeds


def _flood(air: Mask, seeds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grow seeds through the air, wide places first, so that they meet in the narrow ones (the ostia)."""
    from scipy import ndimage

    width = distance_mm(~air)
    part = seeds.copy()
    for level in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0):
        spaces, _ = ndimage.label(width >= level)
        seeded = np.zeros(spaces.max() + 1, dtype=bool)
        seeded[np.unique(spaces[part > 0])] = True
        seeded[0] = False
        grow = seeded[spaces] & (part == 0)
        if grow.any():
            index = ndimage.distance_transform_edt(part == 0, return_distances=False, return_indices=True)
            part = np.where(grow, part[tuple(index)], part)
    return part


def _without_specks(mask: Mask) -> Mask:
    """The parts of a mask of at least `_SPECK_MM3`."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    large = np.bincount(parts.ravel()) >= _SPECK_MM3
    large[0] = False
    return np.asarray(large[parts])


def _with_walls(codes: NDArray[np.uint8], may_be_wall: Mask) -> NDArray[np.uint8]:
    from scipy import ndimage

    if not codes.any():
        return codes
    distance, index = ndimage.distance_transform_edt(codes == 0, return_indices=True)
    return np.where((codes == 0) & may_be_wall & (distance <= _WALL_MM), codes[tuple(index)], codes)
