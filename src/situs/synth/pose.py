"""How a head lies in its scan: the grid, the pose, and the smooth map from the scan to the head.

The scan's grid is axial, RAS+ mm, indices (i, j, k) with i towards the patient's left and j to the back, as
CT is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from situs.synth.heads import Head
from situs.synth.lesion import Lesion
from situs.synth.noise import smooth_noise, stretch
from situs.synth.shapes import Window

__all__ = ["ScanPlan", "draw_plan", "map_to_head", "nearest_voxels"]

Array = NDArray[np.float64]

_MATRIX = 256  # pixels along each side; the label maps have no more detail than about 1 mm
_MAX_SLICES = 36
_OLD_NARROWING = 0.3  # of what fluid is narrowed by in a brain that has lost none
_NODES = 65  # in-plane nodes on which the smooth map is computed exactly
_STIFF_MM = 12.0  # so near the bone, mass effect gives way to it
_BEYOND_MM, _YIELD_MM = 35.0, 25.0


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """The random choices of one scan that its lesions must know.

    Attributes:
        affine: (4, 4) voxel of the scan to world, RAS+ mm.
        shape: (3,) of the scan's grid.
        to_head: (4, 4) world mm of the scan to voxels of the head, before bending.
        sulcal_narrowing_mm: How far cortex grows into the sulci. Label maps come from MRI and show the fluid
            wider than CT does.
        cistern_narrowing_mm: How far tissue grows into the basal cisterns.
    """

    affine: Array
    shape: tuple[int, int, int]
    to_head: Array
    sulcal_narrowing_mm: float
    cistern_narrowing_mm: float

    @property
    def pixel_mm(self) -> np.float64:
        """Size of a pixel in the plane."""
        return np.float64(-self.affine[0, 0])

    @property
    def gap_mm(self) -> np.float64:
        """Distance between two slices."""
        return np.float64(self.affine[2, 2])

    @property
    def window(self) -> Window:
        """The slices that the scan shows, before bending; see `situs.synth.shapes.Window`."""
        return np.linalg.inv(self.to_head @ self.affine)[2], self.shape[2]


def draw_plan(head: Head, rng: np.random.Generator) -> ScanPlan:
    """A random pose and grid for a scan of `head`."""
    field_mm = rng.uniform(205, 275)
    pixel = field_mm / _MATRIX
    gap = float(
        rng.choice([5.0, rng.uniform(4, 7), rng.uniform(2.5, 4), rng.uniform(0.8, 2.5), rng.uniform(7, 10)],
                   p=[0.35, 0.35, 0.15, 0.08, 0.07])
    )  # fmt: skip
    bottom, top = rng.uniform(-92, -40), rng.uniform(75, 100)
    if rng.random() < 0.1:  # only a part of the head was scanned
        bottom, top = sorted((rng.uniform(-85, 80), rng.uniform(-85, 80)))
    count = int(np.clip((top - bottom) / gap, 4, _MAX_SLICES))
    bottom += rng.uniform(0, max(0.0, top - bottom - (count - 1) * gap))
    affine = np.diag([-pixel, -pixel, gap, 1.0])
    centre = np.array([*rng.normal(0, 7, 2), 0.0])
    affine[:3, 3] = np.array([field_mm / 2, field_mm / 2, bottom]) + centre

    yaw = rng.choice([rng.normal(0, 9), rng.uniform(-45, 45), 180 + rng.normal(0, 15)], p=[0.67, 0.3, 0.03])
    pitch, roll = rng.uniform(-24, 24), rng.normal(0, 4)
    scale = rng.uniform(0.88, 1.15) * rng.normal(1, 0.03, 3)
    # The mid-point of a head lies a little behind and above the thalami.
    to_frame = np.eye(4)
    to_frame[:3, :3] = _rotation(pitch, roll, yaw) / scale
    to_frame[:3, 3] = [0.0, 12.0, 0.0] if abs(yaw) < 90 else [0.0, 0.0, 0.0]
    to_head = np.linalg.inv(head.affine) @ np.linalg.inv(head.frame) @ to_frame
    sulcal = rng.choice([rng.uniform(0, 2.8), rng.uniform(0, 0.7)], p=[0.7, 0.3])
    if head.atrophy_mm > 0:
        sulcal *= _OLD_NARROWING
    return ScanPlan(affine, (_MATRIX, _MATRIX, count), to_head, sulcal, 0.35 * sulcal)


def map_to_head(
    head: Head, lesions: Sequence[Lesion], plan: ScanPlan, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The head's voxel (nk, 3, nj, ni) that each voxel of the scan shows.

    The map is the plan's pose, bent by two smooth random fields and by the mass effect of the lesions.
    """
    ni, nj, nk = plan.shape
    i, j = np.linspace(0, ni - 1, _NODES), np.linspace(0, nj - 1, _NODES)
    k, jj, ii = np.meshgrid(np.arange(nk), j, i, indexing="ij")
    full = plan.to_head @ plan.affine
    nodes = np.asarray(np.stack([ii, jj, k], axis=-1) @ full[:3, :3].T + full[:3, 3], dtype=np.float64)
    node_mm = plan.pixel_mm * (ni - 1) / (_NODES - 1)
    for scale_mm, size_mm in ((30.0, rng.uniform(0.5, 2.2)), (80.0, rng.uniform(1.0, 4.5))):
        # Nodes of about the same size along all axes.
        shape = (max(2, int(nk * plan.gap_mm / 5)), _NODES, _NODES)
        for axis in range(3):
            noise = smooth_noise(shape, scale_mm / node_mm, rng)
            nodes[..., axis] += (size_mm * stretch(noise, (nk, _NODES, _NODES))).astype(nodes.dtype)
    _push_aside(nodes, head, lesions)
    return stretch(nodes.transpose(0, 3, 1, 2).astype(np.float32), (nj, ni))


def nearest_voxels(
    coordinates: Sequence[NDArray[np.floating]] | NDArray[np.floating], shape: Sequence[int], margin: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The voxels of a grid that are nearest to places.

    Args:
        coordinates: (3, ...) of the places, in voxels.
        shape: (3,) of the grid.
        margin: The voxels of the grid before the places' own voxel 0, along each axis.

    Returns:
        Their flat index (...), the first axis fastest, and whether (...) they lie in the grid; elsewhere the
        index is 0.
    """
    index = np.zeros(coordinates[0].shape, dtype=np.int64)
    inside, step = np.ones(index.shape, dtype=bool), 1
    for places, n in zip(coordinates, shape, strict=True):
        nearest = np.rint(places).astype(np.int32) + np.int32(margin)
        inside &= nearest.view(np.uint32) < n  # negative ones are larger than any n
        index += np.multiply(nearest, step, dtype=np.int64)
        step *= n
    index *= inside
    return index, inside


def _push_aside(nodes: Array, head: Head, lesions: Sequence[Lesion]) -> None:
    """Mass effect, in place: what lies around a lesion that swells is looked up nearer to its middle.

    Inside, the map is linear. Outside, as much moves out as moves in, per plane and not per ball: the skull
    does not give way, so the displacement reaches farther. Nothing moves at the bone.
    """
    z_y_x = [nodes[..., axis] for axis in (2, 1, 0)]
    nearest, inside = nearest_voxels(z_y_x, head.labels.shape[::-1])
    depth = head.depth_mm.ravel()[nearest] * inside
    free = np.clip(depth / _STIFF_MM, 0, 1)[..., None]
    for lesion in lesions:
        if lesion.swell <= 1:
            continue
        if lesion.kind == "crescent":
            _indent(nodes, depth, head, lesion)
            continue
        voxels = np.argwhere(lesion.mask) + lesion.start
        away = nodes - voxels.mean(axis=0)
        # Of an even ellipsoid the covariance is a fifth of its squared half-axes: 1 is the outline.
        metric = np.linalg.inv(5 * np.cov(voxels.T) + np.eye(3))
        squared = ((away @ metric) * away).sum(axis=-1, keepdims=True)
        grown = lesion.swell ** (2 / 3)
        nearer = np.sqrt(np.where(squared < grown, 1 / grown, 1 - (grown - 1) / np.maximum(squared, grown)))
        nodes -= free * (1 - nearer) * away


def _indent(nodes: Array, depth: NDArray[np.floating], head: Head, lesion: Lesion) -> None:
    """The brain under a crescent is pushed in, in place: most at the crescent's middle, less with depth."""
    voxels = np.argwhere(lesion.mask) + lesion.start
    middle = voxels.mean(axis=0)
    brain = np.linalg.inv(head.frame @ head.affine)[:3] @ [0.0, 0.0, 15.0, 1.0]
    # Away from a point beyond the midline, so that the midline moves too.
    centre = brain - _BEYOND_MM * _unit(middle - brain)
    outwards, axis = _unit(nodes - centre), _unit(middle - centre)
    edge = (_unit(voxels - centre) @ axis).min()
    rest = head.depth_mm[lesion.box][lesion.mask].max()
    push = rest * (lesion.swell - 1) * np.clip((outwards @ axis - edge) / (1 - edge), 0, 1)
    thick = rest + push
    moved = push * np.minimum(depth / thick, np.exp(-np.maximum(depth - thick, 0) / _YIELD_MM))
    nodes += moved[..., None] * outwards


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> Array:
    """Rotation about x (pitch), then y (roll), then z (yaw)."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([pitch_deg, roll_deg, yaw_deg])) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)
