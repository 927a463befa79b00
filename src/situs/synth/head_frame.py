"""The frame of a head label map: its mid-sagittal surface, its rigid frame, and the dura that the maps lack.

Arrays run (x, y, z) in RAS voxel order with 1 mm voxels; world is RAS+ mm. The *head frame* is a rigid
frame fitted to the head: origin mid-way between the thalami, x to the patient's right, y to the front,
z up, mm. Distances across the midline are positive to the patient's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FALX",
    "LEFT",
    "RIGHT",
    "TENTORIUM",
    "distance_mm",
    "fit_frame",
    "frame_coordinates",
    "lateral_distance",
]

Array = NDArray[np.float64]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Values of the dura sheet.
FALX, TENTORIUM = 1, 2

# Labels that lie on one side (FreeSurfer aseg, then the parcels of the cortex); RIGHT in the same order.
_PARCELS = tuple(n for n in range(1001, 1036) if n != 1004)
LEFT: tuple[int, ...] = (2, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 25, 26, 28, 136, 137, *_PARCELS)
RIGHT: tuple[int, ...] = (41, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 57, 58, 60, 163, 164)
RIGHT += tuple(n + 1000 for n in _PARCELS)

# Height and depth (y, z) in mm of structures of the MNI152 space, mid-way between left and right: what
# "level" means. Read off public atlases to about 1 mm; only their common rotation is used.
_MNI_YZ = {
    (10, 49): (-18, 7),  # thalamus
    (11, 50): (10, 10),  # caudate
    (12, 51): (2, 0),  # putamen
    (13, 52): (-4, -1),  # pallidum
    (17, 53): (-22, -14),  # hippocampus
    (18, 54): (-4, -19),  # amygdala
    (26, 58): (12, -7),  # accumbens
    (28, 60): (-15, -10),  # ventral diencephalon
    (8, 47): (-64, -34),  # cerebellar cortex
}


def distance_mm(mask: Mask) -> Float:
    """Distance (mm) of every voxel to the nearest voxel of a mask; inf where the mask is empty."""
    from scipy import ndimage

    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float32)


def fit_frame(labels: NDArray[np.int16], affine: ArrayLike, left: Float, right: Float) -> Array:
    """Rigid world-to-head-frame transform (4, 4), mm.

    The plane x = 0 is the least-squares plane through the points mid-way between left and right
    structures; the pitch is that of MNI152, from the mid-points of the deep paired structures.

    Args:
        labels: (nx, ny, nz) label map.
        affine: (4, 4) voxel to world, RAS+ mm.
        left: (nx, ny, nz) distance of every voxel to the nearest structure labelled left, mm.
        right: (nx, ny, nz) distance to the nearest structure labelled right, mm.

    Raises:
        ValueError: If a thalamus is missing, or left and right cannot be told apart.
    """
    a = np.asarray(affine, dtype=np.float64)
    thalami = [_centroid(labels, n, a) for n in (10, 49)]
    if thalami[0] is None or thalami[1] is None:
        raise ValueError("labels: no thalamus (10 left, 49 right)")
    normal, offset = _midplane(left, right, a)
    origin = (thalami[0] + thalami[1]) / 2
    origin -= (origin @ normal - offset) * normal
    front = np.array([0.0, 1.0, 0.0]) - normal[1] * normal
    front /= np.linalg.norm(front)
    axes = np.stack([normal, front, np.cross(normal, front)])  # rows: right, front, up
    pitch = _pitch(labels, a, axes, origin)
    c, s = np.cos(pitch), np.sin(pitch)
    axes = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ axes
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = axes, -axes @ origin
    return frame


def frame_coordinates(
    shape: tuple[int, int, int], affine: ArrayLike, frame: ArrayLike
) -> tuple[Float, Float, Float]:
    """Head-frame x, y and z (mm) of every voxel of a grid: three arrays of `shape`.

    Args:
        shape: (3,) of the grid.
        affine: (4, 4) voxel to world, RAS+ mm.
        frame: (4, 4) world to head frame, mm.
    """
    m = np.asarray(frame) @ np.asarray(affine)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    x, y, z = ((m[r, 0] * i + m[r, 1] * j + m[r, 2] * k + m[r, 3]).astype(np.float32) for r in range(3))
    return x, y, z


def lateral_distance(left: Float, right: Float, plane_left: Float) -> Float:
    """Signed distance (mm, positive to the patient's left) to the surface mid-way between left and right.

    The surface follows the fissure near the brain and falls back to the plane 6 to 14 mm from it.

    Args:
        left: (nx, ny, nz) distance of every voxel to the nearest structure labelled left, mm.
        right: (nx, ny, nz) distance to the nearest structure labelled right, mm.
        plane_left: (nx, ny, nz) signed distance to the mid-sagittal plane, positive to the left, mm.

    Returns:
        (nx, ny, nz) distances, mm.
    """
    from scipy import ndimage

    near = np.clip((14 - np.minimum(left, right)) / 8, 0, 1)
    balance = np.where(near > 0, right - left, 0) / 2
    # Far from the midline, where left and right labels are intermingled, the plane decides.
    balance = np.where(np.abs(plane_left) > 15, plane_left, balance)
    psi = ndimage.gaussian_filter(near * balance + (1 - near) * plane_left, 2.0)
    is_left = psi > 0
    signed = ndimage.distance_transform_edt(is_left) - ndimage.distance_transform_edt(~is_left)
    return np.asarray(signed - np.where(is_left, 0.5, -0.5), dtype=np.float32)


def _centroid(labels: NDArray[np.int16], value: int, affine: Array) -> Array | None:
    voxels = np.argwhere(labels == value)
    return affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3] if len(voxels) else None


def _midplane(left: Float, right: Float, affine: Array) -> tuple[Array, float]:
    """Unit normal (to the patient's right, world axes) and offset of the mid-sagittal plane."""
    voxels = np.argwhere((np.abs(left - right) <= 1) & (left + right <= 10))
    if len(voxels) < 50:
        raise ValueError("labels: left and right structures do not meet anywhere")
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    normal, offset = np.zeros(3), 0.0
    keep = np.ones(len(points), dtype=bool)
    for _ in range(6):
        centre = points[keep].mean(axis=0)
        normal = np.linalg.svd(points[keep] - centre, full_matrices=False)[2][-1]
        offset = float(normal @ centre)
        off = np.abs(points @ normal - offset)
        keep = off <= max(2.0, 2.5 * float(np.median(off[keep])))
    way = affine[:3, :3] @ (np.argwhere(right == 0).mean(axis=0) - np.argwhere(left == 0).mean(axis=0))
    if abs(way @ normal) < 0.7 * np.linalg.norm(way):
        raise ValueError("labels: left and right structures do not lie on two sides of a plane")
    sign = 1.0 if way @ normal > 0 else -1.0
    return sign * normal, sign * offset


def _pitch(labels: NDArray[np.int16], affine: Array, axes: Array, origin: Array) -> float:
    """Angle (radians) that turns the head's (y, z) onto MNI152's; 0 with fewer than three structures."""
    own, mni = [], []
    for pair, yz in _MNI_YZ.items():
        left, right = (_centroid(labels, n, affine) for n in pair)
        if left is not None and right is not None:
            own.append((axes @ ((left + right) / 2 - origin))[1:])
            mni.append(yz)
    if len(own) < 3:
        return 0.0
    p = np.array(own) - np.mean(own, axis=0)
    q = np.array(mni, dtype=np.float64) - np.mean(mni, axis=0)
    return float(np.arctan2((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum(), (p * q).sum()))
