"""From a head label map to a virtual head CT: random pose, shape, tissue values, slices and noise.

The scan's grid is axial, RAS+ mm, indices (i, j, k) with i towards the patient's left and j to the back,
as CT is stored. Every voxel is looked up in the head through one smooth map, so that HU, site map,
distance to the midline and lesions stay together. Needs torch for the look-up (one `grid_sample`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from situs.anatomy import SITE_INDEX
from situs.synth.artifacts import add_artifacts, open_skull
from situs.synth.heads import Head
from situs.synth.lesions import Lesion
from situs.synth.noise import smooth_noise, stretch

__all__ = ["RenderedScan", "ScanPlan", "draw_plan", "render_scan"]

Array = NDArray[np.float64]

_AIR_HU = -1000.0
_MATRIX = 256  # pixels along each side; the label maps have no more detail than about 1 mm
_MAX_SLICES = 36
# Of a mask in a slice, the part in the lesion's site: a sulcus among as much tissue is not what is meant.
_LEAST_OF_SLICE, _LEAST_OF_SLICE_OF = 0.4, {"sulcal_spaces": 0.6}
_STIFF_MM = 12.0  # so near the bone, mass effect gives way to it
_BEYOND_MM, _YIELD_MM = 35.0, 25.0
_NODES = 65  # in-plane nodes on which the smooth map is computed exactly
# Mean and spread (between scans) of tissue values in HU; textbook ranges of unenhanced head CT.
_TISSUE_HU: dict[tuple[int, ...], tuple[float, float]] = {
    (2, 41): (27, 2.5),
    (25, 57): (19, 3),
    (4, 5, 14, 15, 24, 43, 44, 72): (6, 3),
    (7, 46): (28, 2.5),
    (8, 47): (35, 3),
    (10, 49, 11, 50, 12, 51, 13, 52, 26, 58): (36, 2.5),
    (17, 18, 53, 54): (34, 2.5),
    (16, 28, 60, 85, 512): (30, 2.5),
    (30, 62, 502): (42, 5),
    (136, 137, 163, 164): (28, 8),
    (506,): (12, 5),
    (508, 530): (42, 6),
    (509,): (35, 10),
    (511,): (15, 20),
    (514,): (56, 5),
    (515,): (950, 200),
    (516,): (450, 130),
}
_CORTEX_HU = (36, 2.5)
_MUSCLE_HU, _FAT_HU = 52.0, -85.0
_SOFT_TISSUE = 507
_DEEP = ("gangliocapsular_region", "thalamus")
_CHOROID = (136, 137, 163, 164)
_ENHANCING = (*_CHOROID, 30, 62, 502, 514)
_OLD_NARROWING = 0.3  # of what fluid is narrowed by in a brain that has lost none
_CONTRAST, _SKULL_DEFECT = 0.1, 0.06  # shares of all scans
_CSF = 24


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """The random choices of one scan that its lesions must know.

    Attributes:
        affine: (4, 4) voxel to world, RAS+ mm, of the scan's grid
        shape: (3,) of the scan's grid
        to_head: (4, 4) scan world mm to voxels of the head, before bending
        sulcal_narrowing_mm: how far tissue is let grow into the CSF, which label maps
            from MRI show wider than CT does
        cistern_narrowing_mm: See `sulcal_narrowing_mm`.
    """

    affine: Array
    shape: tuple[int, int, int]
    to_head: Array
    sulcal_narrowing_mm: float
    cistern_narrowing_mm: float

    @property
    def window(self) -> tuple[Array, int]:
        """(4,) the map from a voxel of the head to its slice, before bending, and the number of slices."""
        return np.linalg.inv(self.to_head @ self.affine)[2], self.shape[2]


@dataclass(frozen=True, eq=False)
class RenderedScan:
    """A virtual scan on the plan's grid.

    Attributes:
        hu: (ni, nj, nk) int16
        masks: one (ni, nj, nk) bool per lesion, as a reader would have drawn it; may be empty
        sites: (ni, nj, nk) uint8, 0 none, else SITE_INDEX + 1
        lateral_mm: (ni, nj, nk) int8, signed distance to the midline, positive on the patient's left
    """

    hu: NDArray[np.int16]
    masks: list[NDArray[np.bool_]]
    sites: NDArray[np.uint8]
    lateral_mm: NDArray[np.int8]


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
    scale = rng.uniform(0.9, 1.12) * rng.normal(1, 0.03, 3)
    # The mid-point of a head lies a little behind and above the thalami.
    pose = _rotation(pitch, roll, yaw) / scale
    to_frame = np.eye(4)
    to_frame[:3, :3] = pose
    to_frame[:3, 3] = [0.0, 12.0, 0.0] if abs(yaw) < 90 else [0.0, 0.0, 0.0]
    to_head = np.linalg.inv(head.affine) @ np.linalg.inv(head.frame) @ to_frame
    sulcal = rng.choice([rng.uniform(0, 2.8), rng.uniform(0, 0.7)], p=[0.7, 0.3])
    if head.atrophy_mm > 0:
        sulcal *= _OLD_NARROWING
    return ScanPlan(affine, (_MATRIX, _MATRIX, count), to_head, sulcal, 0.35 * sulcal)


def render_scan(
    head: Head, lesions: Sequence[Lesion], plan: ScanPlan, rng: np.random.Generator
) -> RenderedScan:
    """Render `head` with its lesions as planned."""
    number = np.zeros(head.labels.shape, dtype=np.uint8)
    for n, lesion in enumerate(lesions, start=1):
        number[lesion.box][lesion.mask] = n
    hu = _tissue_hu(head, plan, rng)
    _paint_lesions(hu, head, lesions, rng)
    coordinates, through = _look_up(head, lesions, plan, rng)
    nearest = _nearest(coordinates, head.labels.shape)
    scan = _acquire(_sample(hu, coordinates, through, plan), plan, rng)

    def take(volume: NDArray[np.generic], outside: int) -> NDArray[np.generic]:
        values = np.where(nearest >= 0, volume.ravel()[np.maximum(nearest, 0)], outside).astype(volume.dtype)
        return np.ascontiguousarray(values.transpose(2, 1, 0))

    numbers = take(number, 0)
    sites, extra_axial = take(head.sites, 0), take(head.extra_axial, 0)
    for n, lesion in enumerate(lesions, start=1):
        if lesion.kind in ("tissue", "crescent"):
            sites = np.where(numbers == n, extra_axial, sites)
    masks = [_as_drawn(numbers == n, lesion, sites, rng) for n, lesion in enumerate(lesions, start=1)]
    lateral = take(head.lateral_mm, 127)
    return RenderedScan(
        np.ascontiguousarray(scan.transpose(2, 1, 0)), masks, sites.astype(np.uint8), lateral.astype(np.int8)
    )


def _tissue_hu(head: Head, plan: ScanPlan, rng: np.random.Generator) -> NDArray[np.float32]:
    """(nx, ny, nz) HU of the head without lesions."""
    table = np.full(2100, _AIR_HU, dtype=np.float32)
    cortex = rng.normal(*_CORTEX_HU)
    table[1000:2100] = cortex
    for tissue, (mean, spread) in _TISSUE_HU.items():
        table[list(tissue)] = rng.normal(mean, spread)
    table[_SOFT_TISSUE] = _MUSCLE_HU
    labels = head.labels
    hu = table[labels]

    soft = labels == _SOFT_TISSUE
    texture = smooth_noise(labels.shape, 7.0, rng)
    if rng.random() < _CONTRAST:  # after an injection: vessels and plexus first, the brain hardly
        hu[np.isin(labels, _ENHANCING)] += rng.uniform(40, 160)
        hu[(labels < 500) & (hu > 15) & (hu < 60)] += rng.uniform(0, 5)
    if rng.random() < _SKULL_DEFECT:
        open_skull(hu, labels, rng)
    hu[soft & (texture > rng.uniform(-0.5, 0.8))] = _FAT_HU
    csf = labels == _CSF
    narrowing = np.where(
        head.sites[csf] == SITE_INDEX["basal_cisterns"] + 1,
        plan.cistern_narrowing_mm, plan.sulcal_narrowing_mm,
    )  # fmt: skip
    openness = np.clip(head.csf_depth_mm[csf] / 10 - narrowing + 0.5, 0, 1)
    hu[csf] = cortex + openness * (table[_CSF] - cortex)
    for sheet, where in ((1, csf | (labels >= 1000)), (2, labels < 500)):
        dura = (head.sheet == sheet) & where  # thinner than a voxel: seldom at its full 50 to 70 HU
        hu[dura] += rng.uniform(0.15, 0.9) * (rng.uniform(50, 70) - hu[dura])
    _calcify(hu, head, texture, rng)
    return np.asarray(hu)


def _calcify(
    hu: NDArray[np.float32], head: Head, texture: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """The calcifications that most adults have: choroid plexus, pineal gland, now and then the falx."""
    if rng.random() < 0.7:
        hu[np.isin(head.labels, _CHOROID) & (texture > rng.uniform(-0.5, 0.8))] = rng.uniform(80, 350)
    if rng.random() < 0.65:
        frame_to_voxel = np.linalg.inv(head.affine) @ np.linalg.inv(head.frame)
        centre = frame_to_voxel @ [*rng.normal([0, -17, -2], 1.0), 1.0]
        _ball(hu, centre[:3], rng.uniform(1.5, 3.2), rng.uniform(90, 300))
    if rng.random() < 0.2:
        hu[(head.sheet == 1) & (texture > rng.uniform(0.5, 1.5))] = rng.uniform(100, 400)


def _ball(hu: NDArray[np.float32], centre: Array, radius: float, value: float) -> None:
    box = tuple(slice(max(0, int(c - radius)), int(c + radius) + 2) for c in centre)
    grid = np.meshgrid(
        *(np.arange(b.start, min(b.stop, n)) for b, n in zip(box, hu.shape, strict=True)), indexing="ij"
    )
    inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
    hu[box][inside] = value


def _paint_lesions(
    hu: NDArray[np.float32], head: Head, lesions: Sequence[Lesion], rng: np.random.Generator
) -> None:
    """Lesions as the scan shows them, in place. Many stay invisible: their masks cover normal anatomy."""
    for lesion in lesions:
        normal = lesion.kind == "structure" and lesion.site != "ventricular_system"  # that may be a cast
        if rng.random() < 0.4 or normal:
            continue
        pad = 7
        box = tuple(
            slice(max(0, b.start - pad), min(n, b.stop + pad))
            for b, n in zip(lesion.box, hu.shape, strict=True)
        )
        margins = [(i.start - o.start, o.stop - i.stop) for i, o in zip(lesion.box, box, strict=True)]
        mask = np.pad(lesion.mask, margins)
        part, sites = hu[box], head.sites[box]
        outside = ndimage.distance_transform_edt(~mask)
        # The mask that a network is given is rarely the lesion: what it leaves outside stays visible.
        extent = rng.choice([0.0, rng.uniform(0.5, 3.0)], p=[0.6, 0.4])
        if lesion.kind == "sinus":
            part[mask & (sites > 0)] = rng.uniform(5, 60)
        elif lesion.kind == "tissue" and rng.random() < 0.35:  # infarct, oedema, scar
            part[(outside <= extent) & (sites > 0)] = rng.uniform(8, 24)
        else:
            if lesion.kind == "tissue" and rng.random() < 0.5:  # oedema around a bleed
                rim = (outside <= rng.uniform(2, 7)) & (sites > 0) & (part > 15) & (part < 45)
                part[rim] -= rng.uniform(4, 13)
            same = (
                sites == SITE_INDEX[lesion.site] + 1 if lesion.kind in ("fluid", "structure") else sites > 0
            )
            part[(outside <= extent) & same] = rng.uniform(48, 82)
            if lesion.site in _DEEP and rng.random() < 0.2:
                _bleed_into_ventricles(hu, head, lesion, rng)


def _bleed_into_ventricles(
    hu: NDArray[np.float32], head: Head, lesion: Lesion, rng: np.random.Generator
) -> None:
    """Blood in the ventricles beside a bleed, layered in the supine patient or clotted in some parts."""
    ventricles = np.nonzero(head.sites == SITE_INDEX["ventricular_system"] + 1)
    if rng.random() < 0.5:
        filled = ventricles[1] < lesion.start[1] + rng.uniform(-30, 20)
    else:
        filled = smooth_noise(hu.shape, 25.0, rng)[ventricles] > rng.uniform(-1, 0.7)
    hu[tuple(axis[filled] for axis in ventricles)] = rng.uniform(48, 78)


def _look_up(
    head: Head, lesions: Sequence[Lesion], plan: ScanPlan, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Array]:
    """Head voxel (nk, nj, ni, 3) of every scan voxel, and the step (3,) there per mm through the slice."""
    ni, nj, nk = plan.shape
    i, j = np.linspace(0, ni - 1, _NODES), np.linspace(0, nj - 1, _NODES)
    k, jj, ii = np.meshgrid(np.arange(nk), j, i, indexing="ij")
    full = plan.to_head @ plan.affine
    nodes = np.asarray(np.stack([ii, jj, k], axis=-1) @ full[:3, :3].T + full[:3, 3], dtype=np.float64)
    gap = plan.affine[2, 2]
    node_mm = -plan.affine[0, 0] * (ni - 1) / (_NODES - 1)
    for scale_mm, size_mm in ((30.0, rng.uniform(0.5, 2.2)), (80.0, rng.uniform(1.0, 4.5))):
        shape = (max(2, int(nk * gap / 5)), _NODES, _NODES)  # nodes of about the same size along all axes
        for axis in range(3):
            noise = smooth_noise(shape, scale_mm / node_mm, rng)
            nodes[..., axis] += (size_mm * stretch(noise, (nk, _NODES, _NODES))).astype(nodes.dtype)
    _push_aside(nodes, head, lesions)
    coarse = torch.from_numpy(np.ascontiguousarray(nodes.transpose(0, 3, 1, 2), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(nj, ni), mode="bilinear", align_corners=True)
    return fine.permute(0, 2, 3, 1).numpy(), plan.to_head[:3, 2].copy()


def _push_aside(nodes: Array, head: Head, lesions: Sequence[Lesion]) -> None:
    """Mass effect, in place: what lies around a lesion that swells is looked up nearer to its middle.

    Inside, the map is linear; outside, what moves in is what moves out (per plane, not per ball: the skull
    does not give way, so it goes farther), and nothing moves at the bone.
    """
    nearest = _nearest(nodes, head.labels.shape)
    depth = np.where(nearest >= 0, head.depth_mm.ravel()[np.maximum(nearest, 0)], 0)
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
    """The brain under a crescent is pushed in, in place, most at its middle: a lens, and less with depth."""
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


def _sample(
    hu: NDArray[np.float32], coordinates: NDArray[np.float32], through: Array, plan: ScanPlan
) -> NDArray[np.float32]:
    """(nk, nj, ni) HU, averaged through each slice's thickness."""
    gap = plan.affine[2, 2]
    count = int(np.clip(round(gap / 2), 1, 3))
    volume = torch.from_numpy(hu - np.float32(_AIR_HU))[None, None]  # so that "outside" is air
    size = torch.tensor(hu.shape[::-1], dtype=torch.float32)
    total = torch.zeros(coordinates.shape[:3])
    points = torch.from_numpy(coordinates)
    step = torch.tensor(through, dtype=torch.float32)
    for offset in (np.arange(count) - (count - 1) / 2) * gap / count:
        grid = (points + float(offset) * step).flip(-1) * (2 / (size - 1)) - 1
        total += torch.nn.functional.grid_sample(volume, grid[None], align_corners=True)[0, 0]
    return (total / count + _AIR_HU).numpy()


def _nearest(coordinates: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat head index (nk, nj, ni) of the voxel nearest to every scan voxel; -1 outside."""
    index = np.rint(coordinates).astype(np.int32)
    x, y, z = index[..., 0], index[..., 1], index[..., 2]
    inside = (x >= 0) & (y >= 0) & (z >= 0) & (x < shape[0]) & (y < shape[1]) & (z < shape[2])
    return np.where(inside, (x.astype(np.int64) * shape[1] + y) * shape[2] + z, -1)


def _acquire(scan: NDArray[np.float32], plan: ScanPlan, rng: np.random.Generator) -> NDArray[np.int16]:
    """The scanner: sharpness, uneven brightness, noise, the table, and what the archive cut off."""
    blur = rng.uniform(0.0, 0.8)
    scan = ndimage.gaussian_filter(scan, (0, blur, blur))
    scan = add_artifacts(scan, -plan.affine[0, 0], rng)
    shading = smooth_noise((scan.shape[0], 9, 9), 3.0, rng)
    shading = stretch(shading, scan.shape)
    noise = rng.standard_normal(scan.shape, dtype=np.float32)
    grain = rng.uniform(0.3, 1.0)
    noise = ndimage.gaussian_filter(noise, (0, grain, grain))
    scan = scan + (rng.uniform(1.5, 7.0) / noise.std()) * noise + rng.uniform(0, 2.0) * shading
    if rng.random() < 0.7:
        table = _table(scan.shape[1:], -plan.affine[0, 0], rng)
        scan = np.where(table & (scan < -300), np.float32(rng.uniform(50, 400)), scan)
    low, high = ((-1024, 3071), (-20, 100), (0, 80), (-100, 200))[rng.choice(4, p=[0.5, 0.35, 0.07, 0.08])]
    return np.clip(np.rint(scan), low, high).astype(np.int16)


def _table(shape: tuple[int, int], pixel_mm: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(nj, ni) bool, the arc of a table or head holder behind the head."""
    y, x = np.indices(shape, dtype=np.float32) * pixel_mm
    middle = shape[0] * pixel_mm / 2
    radius = rng.uniform(100, 260)
    back = middle + rng.uniform(95, 120)
    distance = np.hypot(x - middle, y - (back - radius))
    thick = rng.uniform(1.5, 5)
    return np.asarray(
        (np.abs(distance - radius) < thick / 2)
        & (np.abs(x - middle) < rng.uniform(50, 130))
        & (y > middle - 40)
    )


def _as_drawn(
    mask: NDArray[np.bool_], lesion: Lesion, sites: NDArray[np.generic], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A mask (ni, nj, nk) as people and detectors draw it: grown, shrunk, ragged or in broad strokes, slice
    by slice; without slices that are hardly in the lesion's site, unless the lesion is a deep bleed, which
    is named by its origin; then its largest piece, since a lesion is connected."""
    flat = np.ones((3, 3, 1), dtype=bool)
    style = rng.random()
    drawn = mask
    if mask.any():
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        box = tuple(slice(max(0, b.start - 3), b.stop + 3) for b in box[:2]) + box[2:]
        part = mask[box]
        thin = lesion.kind in ("fluid", "sheet", "structure")
        if style < (0.1 if thin else 0.25):
            part = ndimage.binary_dilation(part, flat)
        elif style < 0.35 and not thin:
            part = ndimage.binary_erosion(part, flat)
        elif style < 0.65:
            soft = ndimage.gaussian_filter(part.astype(np.float32), (0.8, 0.8, 0))
            edge = 4 * soft * (1 - soft)  # noise on the outline only
            rough = soft + 0.3 * edge * rng.standard_normal(soft.shape, dtype=np.float32)
            part = rough > (0.4 if thin else 0.5)
        elif style < 0.75:
            part = _roughly_drawn(part, rng)
        if lesion.site not in _DEEP:
            own = (part & (sites[box] == SITE_INDEX[lesion.site] + 1)).sum(axis=(0, 1))
            least = _LEAST_OF_SLICE_OF.get(lesion.site, _LEAST_OF_SLICE)
            part = part & (own >= least * part.sum(axis=(0, 1)))
        labels, count = ndimage.label(part, structure=np.ones((3, 3, 3)))
        drawn = np.zeros_like(mask)
        if count:
            drawn[box] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return drawn


def _roughly_drawn(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A box or a convex outline around every slice of a mask, a part of it alone, or holes in it."""
    style = rng.random()
    drawn = mask.copy()
    if style < 0.3:
        for k in np.flatnonzero(mask.any(axis=(0, 1))):
            (box,) = ndimage.find_objects(mask[:, :, k].astype(np.uint8))
            drawn[:, :, k][box] = True
    elif style < 0.55:
        for k in np.flatnonzero(mask.any(axis=(0, 1))):
            drawn[:, :, k] = _convex(mask[:, :, k])
    elif style < 0.8:  # cut along a line
        i, j = np.indices(mask.shape[:2])
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * i + np.sin(angle) * j
        rows = along[mask.any(axis=2)]
        drawn &= (along < rows.min() + rng.uniform(0.4, 0.9) * np.ptp(rows))[..., None]
    else:
        drawn &= smooth_noise((mask.shape[0], mask.shape[1], mask.shape[2]), 6.0, rng) < 1.0
    return drawn


def _convex(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose centres lie in the convex hull of a mask's; the mask itself where it is a line."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(mask)
    try:
        sides = ConvexHull(points).equations
    except (QhullError, ValueError):
        return mask
    i, j = np.indices(mask.shape)
    inside = sides[:, 0, None, None] * i + sides[:, 1, None, None] * j + sides[:, 2, None, None] < 1e-6
    return np.asarray(inside.all(axis=0))


def _rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> Array:
    """Rotation about x (pitch), then y (roll), then z (yaw)."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([pitch_deg, roll_deg, yaw_deg])) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)
