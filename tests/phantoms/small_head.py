"""A small head with site maps, built directly, for tests of virtual lesions, scans and cohorts.

Arrays run (x, y, z), x to the patient's right, y to the front, z up, 1 mm; a point is in mm from the middle
of the grid, which lies between voxels. The head is its own mirror image but for left and right labels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from situs.anatomy import SITE_INDEX
from situs.synth.heads import Head
from situs.synth.pose import ScanPlan, draw_plan

SHAPE = (72, 80, 72)
# World mm of voxel (0, 0, 0): not symmetric, so that a mix-up of voxels and mm shows.
CORNER = (-33.0, -42.0, -30.0)
BONE, CSF, WHITE, VENTRICLE, THALAMUS = 515, 24, (2, 41), (4, 43), (10, 49)
# Half-axes of the ellipsoids that bound scalp, skull, fluid and brain.
SCALP, SKULL, FLUID, BRAIN = ((34, 38, 34), (32, 36, 32), (29, 33, 29), (26, 30, 26))
# Every site the head has, in the order of `SITE_KEYS`.
PRESENT = (
    "along_falx_tentorium",
    "basal_cisterns",
    "brainstem",
    "frontal_region",
    "maxillary",
    "parietal_region",
    "sulcal_spaces",
    "thalamus",
    "ventricular_system",
)


def code(key: str) -> int:
    """The value that stands for a site in a site map."""
    return SITE_INDEX[key] + 1


def voxel(x: float, y: float, z: float) -> tuple[int, int, int]:
    """The voxel of the grid that a point lies in."""
    i, j, k = (int(np.floor(p + n / 2)) for p, n in zip((x, y, z), SHAPE, strict=True))
    return i, j, k


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and z of every voxel's centre: three arrays of `SHAPE`."""
    x, y, z = (a + 0.5 - n / 2 for a, n in zip(np.indices(SHAPE, dtype=np.float32), SHAPE, strict=True))
    return x, y, z


@cache
def small_head(name: str = "small") -> Head:
    """The head: scalp, skull, fluid, two hemispheres with a fissure between them, two maxillary sinuses.

    It is made once for all tests of a process; its arrays are read-only.
    """
    x, y, z = points()
    ax = np.abs(x)

    def ball(axes: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
        squares = ((p - c) / a for p, c, a in zip((ax, y, z), centre, axes, strict=True))
        return np.asarray(sum(s**2 for s in squares) <= 1)

    labels = np.zeros(SHAPE, dtype=np.int16)
    sites = np.zeros(SHAPE, dtype=np.uint8)

    def put(where: np.ndarray, left: int, right: int, site: str | None = None) -> None:
        labels[where] = np.where(x[where] < 0, left, right)
        sites[where] = code(site) if site else 0

    face = (ax < 24) & (y > 16) & (y < 39) & (z < -14) & (z > -35)
    put(ball(SCALP) | face, 507, 507)
    put(face & (ax > 3) & (ax < 21) & (y < 35) & (z < -18), 0, 0, "maxillary")
    put(ball(SKULL), BONE, BONE)
    put(ball(FLUID), CSF, CSF, "sulcal_spaces")
    brain = ball(BRAIN) & (ax > 1)
    put(brain & (y >= 0), 1028, 2028, "frontal_region")
    put(brain & (y < 0), 1029, 2029, "parietal_region")
    white = ball((22, 26, 22)) & (ax > 5)
    put(white & (y >= 0), *WHITE, "frontal_region")
    put(white & (y < 0), *WHITE, "parietal_region")
    for middle in (14, -18):  # two deep sulci a side
        furrow = ball(FLUID) & (np.abs(y - middle) < 2.1) & (ax > 9) & (z > -6) & (z < 20)
        put(furrow, CSF, CSF, "sulcal_spaces")
    put(ball(BRAIN) & (ax < 12) & (np.abs(y) < 13) & (z < -5), CSF, CSF, "basal_cisterns")
    put(ball(BRAIN) & (ax < 7) & (np.abs(y) < 7) & (z < -4), 16, 16, "brainstem")
    put(ball((5, 7, 5), (8, -4, 1)), *THALAMUS, "thalamus")
    put(ball((4, 15, 4), (7, 0, 10)), *VENTRICLE, "ventricular_system")
    fissure = ball(FLUID) & (ax < 1) & (z > 2)
    put(fissure, CSF, CSF, "along_falx_tentorium")
    put(brain & (ax < 3) & (z > 15), 1028, 2028, "along_falx_tentorium")
    sheet = (fissure & (z > 15)).astype(np.uint8)

    tissue = ball(BRAIN) & (labels != CSF)
    to_tissue = _distance(tissue)
    csf_depth = np.where(labels == CSF, np.clip(10 * to_tissue, 0, 255), 0).astype(np.uint8)
    beneath = np.where(y >= 0, code("frontal_region"), code("parietal_region"))
    extra_axial = np.where(sites == code("sulcal_spaces"), beneath, sites).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, 3] = CORNER
    frame = np.eye(4)
    frame[:3, 3] = -(np.array(CORNER) + np.array(SHAPE) / 2 - 0.5)
    lateral = np.trunc(-x).astype(np.int8)
    for array in (labels, sites, extra_axial, lateral, csf_depth, sheet):
        array.flags.writeable = False
    return Head(name, labels, affine, sites, extra_axial, lateral, csf_depth, sheet, frame)


def mirrored(head: Head) -> Head:
    """The head seen in a mirror: left and right change places, labels stay with their tissue."""
    flip = {f: np.ascontiguousarray(getattr(head, f)[::-1]) for f in ("labels", "sites", "extra_axial")}
    flip |= {f: np.ascontiguousarray(getattr(head, f)[::-1]) for f in ("csf_depth_mm", "sheet")}
    lateral = np.ascontiguousarray(-head.lateral_mm[::-1])
    return Head(head.name, affine=head.affine, lateral_mm=lateral, frame=head.frame, **flip)


def level_plan(head: Head, gap_mm: int = 1, bottom: float = 0, narrowing_mm: float = 0.0) -> ScanPlan:
    """A plan that turns and scales nothing: scan[i, j, k] is head[nx-1-i, ny-1-j, bottom + gap_mm * k]."""
    nx, ny, nz = head.labels.shape
    affine = np.diag([-1.0, -1.0, gap_mm, 1.0])
    affine[:3, 3] = head.affine[:3, 3] + [nx - 1, ny - 1, bottom]
    count = int((nz - 1 - bottom) // gap_mm) + 1
    to_head = np.linalg.inv(head.affine)
    return ScanPlan(affine, (nx, ny, count), to_head, narrowing_mm, 0.35 * narrowing_mm)


def _distance(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask))


def draw_small_plan(head: Head, rng: np.random.Generator) -> ScanPlan:
    """The drawn pose, in a grid as large as the small heads."""
    plan = draw_plan(head, rng)
    affine = np.diag([-1.25, -1.25, 6.0, 1.0])
    affine[:3, 3] = [45, 60, -33]
    return replace(plan, affine=affine, shape=(72, 80, 12))
