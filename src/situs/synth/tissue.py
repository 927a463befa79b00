"""What every tissue of a head and its lesions look like on CT, in HU, on the head's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from situs.anatomy import SITE_INDEX
from situs.synth.artifacts import open_skull
from situs.synth.head_frame import FALX, TENTORIUM
from situs.synth.heads import Head
from situs.synth.lesion import Lesion
from situs.synth.masses import DEEP_SITES
from situs.synth.noise import smooth_noise
from situs.synth.pose import ScanPlan
from situs.synth.shapes import Box

__all__ = ["AIR_HU", "paint_lesions", "tissue_hu"]

Array = NDArray[np.float64]
Hu = NDArray[np.float32]
Voxels = NDArray[np.intp]

AIR_HU = -1000.0
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
_SOFT_TISSUE, _CSF = 507, 24
_CHOROID = (136, 137, 163, 164)
_ENHANCING = (*_CHOROID, 30, 62, 502, 514)
_P_CONTRAST, _P_SKULL_DEFECT = 0.1, 0.06
# Of the lesions, those whose masks cover normal anatomy. Most casts are blood.
_P_INVISIBLE, _P_INVISIBLE_OF = 0.4, {"cast": 0.1}
_P_DARK = {"tissue": 0.35, "cortex": 0.65}  # of these lesions; the others are blood
_P_OTHER = 0.06  # of the lesions that are seen: anything, from fat to a tumour that takes up contrast
# Of the bleeds into ventricles so many fill a part of their mask. Readers mark the fluid above blood with it.
_P_PARTLY_BLOOD = 0.4
_SUBARACHNOID = ("basal_cisterns", "sulcal_spaces")
_FLUID_HU = 18.0  # fluid without blood has less
_PAD = 7  # voxels around a lesion that oedema and blood beyond its mask may reach


def tissue_hu(head: Head, plan: ScanPlan, rng: np.random.Generator) -> Hu:
    """(nx, ny, nz) HU of the head without lesions, x fastest."""
    table = np.full(2100, AIR_HU, dtype=np.float32)
    cortex = rng.normal(*_CORTEX_HU)
    table[1000:2100] = cortex
    for tissue, (mean, spread) in _TISSUE_HU.items():
        table[list(tissue)] = rng.normal(mean, spread)
    table[_SOFT_TISSUE] = _MUSCLE_HU
    parts = _parts(head)
    flat = table[parts.labels]
    hu = flat.reshape(head.labels.shape, order="F")  # a view; x runs fastest, as it does in a scan
    texture = smooth_noise(hu.shape, 7.0, rng, x_fastest=True)
    if rng.random() < _P_CONTRAST:  # after an injection: vessels and plexus first, the brain hardly
        flat[parts.enhancing] += rng.uniform(40, 160)
        hu[(head.labels < 500) & (hu > 15) & (hu < 60)] += rng.uniform(0, 5)
    if rng.random() < _P_SKULL_DEFECT:
        open_skull(hu, head.labels, rng)
    texture_of = texture.ravel("F")
    flat[parts.soft[texture_of[parts.soft] > rng.uniform(-0.5, 0.8)]] = _FAT_HU
    narrowing = np.where(parts.csf_in_cisterns, plan.cistern_narrowing_mm, plan.sulcal_narrowing_mm)
    openness = np.clip(parts.csf_depth_mm - narrowing + 0.5, 0, 1)
    flat[parts.csf] = cortex + openness * (table[_CSF] - cortex)
    for dura in (parts.falx, parts.tentorium):  # thinner than a voxel: seldom at its full 50 to 70 HU
        flat[dura] += rng.uniform(0.15, 0.9) * (rng.uniform(50, 70) - flat[dura])
    _calcify(hu, head, texture_of, rng)
    return hu


class _Parts(NamedTuple):
    """What of a head every scan paints anew: its labels, and flat indices (n,) of voxels; x fastest."""

    labels: NDArray[np.int16]
    soft: Voxels
    enhancing: Voxels
    csf: Voxels
    csf_in_cisterns: NDArray[np.bool_]
    csf_depth_mm: Array
    falx: Voxels
    tentorium: Voxels
    choroid: Voxels
    sheet: Voxels  # of the falx, whatever lies there
    ventricles: Voxels


@lru_cache(maxsize=1)
def _parts(head: Head) -> _Parts:
    labels = head.labels.ravel("F")
    rules, sheet, depth = (a.ravel("F") for a in (head.rules, head.sheet, head.csf_depth_mm))
    csf = labels == _CSF
    return _Parts(
        labels=labels,
        soft=np.flatnonzero(labels == _SOFT_TISSUE),
        enhancing=np.flatnonzero(np.isin(labels, _ENHANCING)),
        csf=np.flatnonzero(csf),
        csf_in_cisterns=rules[csf] == SITE_INDEX["basal_cisterns"] + 1,
        csf_depth_mm=depth[csf] / 10,
        falx=np.flatnonzero((sheet == FALX) & (csf | (labels >= 1000))),
        tentorium=np.flatnonzero((sheet == TENTORIUM) & (labels < 500)),
        choroid=np.flatnonzero(np.isin(labels, _CHOROID)),
        sheet=np.flatnonzero(sheet == FALX),
        ventricles=np.flatnonzero(rules == SITE_INDEX["ventricular_system"] + 1),
    )


def paint_lesions(hu: Hu, head: Head, lesions: Sequence[Lesion], rng: np.random.Generator) -> None:
    """Paint lesions as the scan shows them, in place. Many stay invisible.

    Args:
        hu: (nx, ny, nz) HU of the head; changed in place.
        head: The head.
        lesions: What is painted, in this order.
        rng: Chooses what each lesion is: invisible, blood, infarct or fluid.
    """
    for lesion in lesions:
        rule = head.rule_of[lesion.site]
        normal = lesion.kind == "structure" and rule != "ventricular_system"  # that may be a cast
        if rng.random() < _P_INVISIBLE_OF.get(lesion.kind, _P_INVISIBLE) or normal:
            continue
        box = _padded(lesion, _PAD, hu.shape)
        margins = [
            (inner.start - outer.start, outer.stop - inner.stop)
            for inner, outer in zip(lesion.box, box, strict=True)
        ]
        is_blood = _paint_lesion(hu[box], head, box, np.pad(lesion.mask, margins), lesion, rng)
        if not is_blood:
            continue
        if (lesion.site in DEEP_SITES and rng.random() < 0.2) or (
            lesion.kind == "cast" and rng.random() < 0.4
        ):
            _bleed_into_ventricles(hu, head, lesion, rng)
        if lesion.kind == "fluid" and rule in _SUBARACHNOID and rng.random() < 0.5:
            _bleed_into_cisterns(hu, head, lesion, rng)


def _padded(lesion: Lesion, reach: int, shape: tuple[int, ...]) -> Box:
    """The box of a lesion and what lies within `reach` voxels of it, as far as the grid goes."""
    x, y, z = (
        slice(max(0, b.start - reach), min(n, b.stop + reach)) for b, n in zip(lesion.box, shape, strict=True)
    )
    return x, y, z


def _paint_lesion(
    hu: Hu, head: Head, box: Box, mask: NDArray[np.bool_], lesion: Lesion, rng: np.random.Generator
) -> bool:
    """Paint one lesion into its surroundings, a box (mx, my, mz), in place; whether it is blood."""
    inside = head.inside(box)
    # The mask that a network is given is rarely the lesion: what it leaves outside stays visible.
    extent = rng.choice([0.0, rng.uniform(0.5, 3.0)], p=[0.6, 0.4])
    if lesion.kind == "sinus":
        hu[mask & inside] = rng.uniform(5, 60)
        return False
    if rng.random() < _P_OTHER:
        hu[_within(mask, extent) & inside] = rng.uniform(-20, 110)
        return False
    if rng.random() < _P_DARK.get(lesion.kind, 0.0):  # infarct, oedema, scar
        dark = _within(mask, extent) & inside
        hu[dark] = _uneven(hu.shape, rng.uniform(8, 28), 3.0, rng)[dark]
        return False
    if lesion.kind == "tissue" and rng.random() < 0.5:  # oedema around a bleed
        rim = _within(mask, rng.uniform(2, 7)) & inside & (hu > 15) & (hu < 45)
        hu[rim] -= rng.uniform(4, 13)
    follows_site = lesion.kind in ("fluid", "cast", "structure")
    same = head.sites[box] == head.code(lesion.site) if follows_site else inside
    blood = _within(mask, extent) & same
    if head.rule_of[lesion.site] == "ventricular_system" and rng.random() < _P_PARTLY_BLOOD:
        hu[blood] = rng.uniform(5, 32)  # fluid, mixed with blood
        blood &= _settled(blood, rng)
    hu[blood] = _uneven(hu.shape, rng.uniform(46, 82), 8.0, rng)[blood]
    return True


def _within(mask: NDArray[np.bool_], reach_mm: float) -> NDArray[np.bool_]:
    """Where the distance to a mask (mx, my, mz) is at most `reach_mm`; the mask itself is copied."""
    if reach_mm < 1:  # nearer than the next voxel
        return mask.copy()
    return np.asarray(ndimage.distance_transform_edt(~mask) <= reach_mm)


def _uneven(shape: tuple[int, ...], mean_hu: float, most_hu: float, rng: np.random.Generator) -> Hu:
    """HU (mx, my, mz) around a mean: even, or uneven with a standard deviation of up to `most_hu`."""
    spread = rng.choice([0.0, rng.uniform(0, most_hu)])
    return np.float32(mean_hu) + np.float32(spread) * smooth_noise(shape, rng.uniform(3, 9), rng)


def _settled(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where blood lies in a ventricle (mx, my, mz): at the back, as in the supine patient, or in clots."""
    if rng.random() < 0.6 and mask.any():
        y = np.indices(mask.shape)[1]
        return np.asarray(y < np.quantile(y[mask], rng.uniform(0.25, 0.9)))
    return smooth_noise(mask.shape, rng.uniform(5, 12), rng) > rng.uniform(-1, 0.5)


def _bleed_into_ventricles(hu: Hu, head: Head, lesion: Lesion, rng: np.random.Generator) -> None:
    """Blood in the ventricles beside a bleed, layered in the supine patient or clotted in some parts."""
    ventricles = _parts(head).ventricles
    if rng.random() < 0.5:
        y = ventricles // hu.shape[0] % hu.shape[1]
        filled = y < lesion.start[1] + rng.uniform(-30, 20)
    else:
        noise = smooth_noise(hu.shape, 25.0, rng, x_fastest=True).ravel("F")
        filled = noise[ventricles] > rng.uniform(-1, 0.7)
    hu[np.unravel_index(ventricles[filled], hu.shape, order="F")] = rng.uniform(48, 78)


def _bleed_into_cisterns(hu: Hu, head: Head, lesion: Lesion, rng: np.random.Generator) -> None:
    """Blood in the cisterns and sulci around a subarachnoid bleed, in some parts, unmarked."""
    reach = int(rng.uniform(20, 60))
    box = _padded(lesion, reach, hu.shape)
    codes = [SITE_INDEX[key] + 1 for key in _SUBARACHNOID]
    fluid = np.isin(head.rules[box], codes) & (hu[box] < _FLUID_HU)  # not where cortex grew into it
    filled = smooth_noise(fluid.shape, 20.0, rng) > rng.uniform(-1, 0.5)
    hu[box][fluid & filled] = rng.uniform(42, 72)


def _calcify(hu: Hu, head: Head, texture: NDArray[np.float32], rng: np.random.Generator) -> None:
    """The calcifications that most adults have: choroid plexus, pineal gland, now and then the falx.

    Args:
        hu: (nx, ny, nz) HU of the head, x fastest; changed in place.
        head: The head.
        texture: (nx * ny * nz,) smooth noise, x fastest.
        rng: Draws everything.
    """
    parts, flat = _parts(head), hu.ravel("F")
    if rng.random() < 0.7:
        flat[parts.choroid[texture[parts.choroid] > rng.uniform(-0.5, 0.8)]] = rng.uniform(80, 350)
    if rng.random() < 0.65:
        frame_to_voxel = np.linalg.inv(head.affine) @ np.linalg.inv(head.frame)
        centre = frame_to_voxel @ [*rng.normal([0, -17, -2], 1.0), 1.0]
        _paint_ball(hu, centre[:3], rng.uniform(1.5, 3.2), rng.uniform(90, 300))
    if rng.random() < 0.2:
        flat[parts.sheet[texture[parts.sheet] > rng.uniform(0.5, 1.5)]] = rng.uniform(100, 400)


def _paint_ball(hu: Hu, centre: Array, radius: float, value: float) -> None:
    box = tuple(slice(max(0, int(c - radius)), int(c + radius) + 2) for c in centre)
    grid = np.meshgrid(
        *(np.arange(b.start, min(b.stop, n)) for b, n in zip(box, hu.shape, strict=True)), indexing="ij"
    )
    inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
    hu[box][inside] = value
