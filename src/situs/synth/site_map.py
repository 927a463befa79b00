"""The rules that turn a head label map into site maps.

Arrays run (x, y, z) in RAS voxel order with 1 mm voxels. A *code* is 0 for none of the 15 sites, else
``SITE_INDEX[key] + 1``. Distances are in mm; "above", "in front" and "midline" are meant in the head
frame of `situs.synth.head_frame`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from situs.anatomy import SITE_INDEX
from situs.synth import head_frame as hf
from situs.synth.shapes import closing, embed, nearest_value
from situs.synth.sinuses import map_sinuses
from situs.volume import bounding_box, largest_part

__all__ = ["LABELS", "LOBE_OF_PARCEL", "MAP_VERSION", "SiteMaps", "code", "map_sites"]

# Raise when a rule changes: site maps in a cache are keyed by it.
MAP_VERSION = 5

Labels = NDArray[np.int16]
Codes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, ...]


def code(key: str) -> int:
    """The value that stands for a site in a site map: its index + 1."""
    return SITE_INDEX[key] + 1


# Desikan-Killiany parcels (without the side's 1000 or 2000) by lobe; 35, the insula, goes to the nearer lobe.
_PARCELS = {
    "frontal_region": (2, 3, 12, 14, 17, 18, 19, 20, 24, 26, 27, 28, 32),
    "parietal_region": (8, 10, 22, 23, 25, 29, 31),
    "temporal_region": (1, 6, 7, 9, 15, 16, 30, 33, 34),
    "occipital_region": (5, 11, 13, 21),
}
LOBE_OF_PARCEL: dict[int, str] = {n: lobe for lobe, parcels in _PARCELS.items() for n in parcels}

_WHITE, _NUCLEI, _THALAMUS = (2, 41, 25, 57), (11, 12, 13, 26, 50, 51, 52, 58), (10, 49)
_VENTRICLES = (4, 5, 14, 15, 43, 44, 72, 136, 137, 163, 164)
_CEREBELLUM, _BRAINSTEM, _VENTRAL_DC, _CHIASM = (7, 8, 46, 47), (16,), (28, 60), (85,)
_MEDIAL_TEMPORAL = (17, 18, 53, 54)
_CSF, _VESSELS, _BRAIN_VESSELS = (24,), (502, 514), (30, 62)
_OUTSIDE = (0, 502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)
LABELS: frozenset[int] = frozenset((*hf.LEFT, *hf.RIGHT, *_VENTRICLES, *_OUTSIDE, 16, 24, 30, 62, 85))

# Direct rules: label to site. The rest of the brain and all fluid goes by its surroundings.
_DIRECT: dict[int, str] = {
    **{n: "thalamus" for n in _THALAMUS},
    **{n: "gangliocapsular_region" for n in _NUCLEI},
    **{n: "brainstem" for n in _BRAINSTEM},
    **{n: "cerebellum" for n in _CEREBELLUM},
    **{n: "ventricular_system" for n in _VENTRICLES},
    **{n: "basal_cisterns" for n in _CHIASM},
    **{n: "temporal_region" for n in _MEDIAL_TEMPORAL},
    **{1000 * side + n: lobe for n, lobe in LOBE_OF_PARCEL.items() for side in (1, 2)},
}


@dataclass(frozen=True, eq=False)
class SiteMaps:
    """The maps of one head; `situs.synth.heads.Head` describes each field."""

    sites: Codes
    extra_axial: Codes
    lateral_mm: NDArray[np.int8]
    csf_depth_mm: NDArray[np.uint8]
    sheet: NDArray[np.uint8]
    frame: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Scene:
    """The brain's box of one head, and the distances (mm) that several rules ask for."""

    labels: Labels
    x: Float  # head frame
    y: Float
    z: Float
    lateral: Float  # positive to the left
    lobe: Codes  # the lobe of the nearest lobar cortex of the voxel's own side
    to_left: Float  # to the left and right cerebral surface, to the nearer one, and so on
    to_right: Float
    to_cerebrum: Float
    to_cerebellum: Float
    to_brainstem: Float
    cranial: Mask  # brain, fluid and vessels inside the skull
    depth: Float  # inside it, distance to the inner table
    above_foramen: Mask  # above the foramen magnum


def map_sites(labels: Labels, affine: ArrayLike) -> SiteMaps:
    """Site maps of one head.

    Args:
        labels: (nx, ny, nz) FreeSurfer and CHARM numbers, RAS voxel order, 1 mm.
        affine: (4, 4) voxel to world, RAS+ mm.

    Raises:
        ValueError: If a thalamus or the parcels of a side's cortex are missing, or left and right cannot be
            told apart.
    """
    for side, first in (("left", 1001), ("right", 2001)):
        if not ((labels >= first) & (labels <= first + 34)).any():
            raise ValueError(f"labels: no parcels of the {side} cortex ({first} to {first + 34})")
    box = bounding_box(np.isin(labels, (*hf.LEFT, *hf.RIGHT, *_BRAINSTEM, *_CHIASM)), 16)
    left, right = (_to_side(labels, side, box) for side in (hf.LEFT, hf.RIGHT))
    frame = hf.fit_frame(labels, affine, left, right)
    x, y, z = hf.frame_coordinates(labels.shape, affine, frame)
    lateral = hf.lateral_distance(left, right, -x)
    scene = _scene(labels[box], x[box], y[box], z[box], lateral[box])

    inner = lobes(scene)
    inner = gangliocapsular(scene, inner)
    inner = ventral_diencephalon(scene, inner)
    inner = cisterns_and_sulci(scene, inner)
    along, sheet = falx_tentorium(scene)
    inner[along] = code("along_falx_tentorium")
    inner = vessels(scene, inner)
    outer, depth = extra_axial(scene, inner), csf_depth(scene)

    cranial = embed(scene.cranial, box, labels.shape)
    del scene
    sinuses = map_sinuses(labels, cranial, x, y, z)
    sites, extra = (np.where(cranial, embed(part, box, labels.shape), sinuses) for part in (inner, outer))
    return SiteMaps(
        sites,
        extra,
        np.clip(np.trunc(lateral), -120, 120).astype(np.int8),
        embed(depth, box, labels.shape),
        embed(sheet, box, labels.shape),
        frame,
    )


def lobes(scene: _Scene) -> Codes:
    """Name what has a direct rule; white matter, insula and vessels in tissue are the nearest lobe."""
    out = _table(_DIRECT)[scene.labels]
    rest = np.isin(scene.labels, (*_WHITE, *_BRAIN_VESSELS, 1035, 2035))
    return _smooth_lobes(np.where(rest, scene.lobe, out), np.isin(scene.labels, _WHITE))


def _smooth_lobes(sites: Codes, where: Mask) -> Codes:
    """Smooth the lobes in `where`: the lobe with most weight within some 3 mm.

    The borders between nearest parcels are ragged.
    """
    from scipy import ndimage

    best, out = np.zeros(sites.shape, dtype=np.float32), sites.copy()
    for key in _PARCELS:
        weight = ndimage.gaussian_filter((sites == code(key)).astype(np.float32), 3.0, truncate=2.0)
        win = where & (weight > best)
        out[win], best[win] = code(key), weight[win]
    return out


def gangliocapsular(scene: _Scene, sites: Codes) -> Codes:
    """Add the capsules and the claustrum to the gangliocapsular region.

    The internal capsule is white matter between nuclei and thalamus; the external and extreme capsule with
    the claustrum lie between putamen and insula. A voxel lies between two structures if a morphological
    closing of them fills it; the radius (mm) of the closing is half the widest gap that it spans.
    """
    out = sites.copy()
    white = np.isin(scene.labels, (*_WHITE, *_BRAIN_VESSELS))
    for side in (0, 1):
        deep = np.isin(scene.labels, (*_NUCLEI[4 * side : 4 * side + 4], _THALAMUS[side], _VENTRAL_DC[side]))
        lentiform = np.isin(scene.labels, ((12, 13), (51, 52))[side])
        insula = scene.labels == (1035, 2035)[side]
        if not lentiform.any():
            continue
        box = bounding_box(deep, 20)
        capsule = closing(deep[box], 9.0)
        to_lentiform = hf.distance_mm(lentiform[box])
        outer = closing((lentiform | insula)[box], 5.0) & (to_lentiform <= 9)
        part = out[box]
        part[white[box] & (capsule | outer | (to_lentiform <= 1.5))] = code("gangliocapsular_region")
    return out


def ventral_diencephalon(scene: _Scene, sites: Codes) -> Codes:
    """Name the ventral diencephalon.

    Within 6 mm of the brainstem it is brainstem (the peduncles), else the nearer of thalamus and
    gangliocapsular region.
    """
    out = sites.copy()
    ventral = np.isin(scene.labels, _VENTRAL_DC)
    if not ventral.any():
        return out
    box = bounding_box(ventral, 12)
    near = nearest_value(np.isin(sites[box], (code("thalamus"), code("gangliocapsular_region"))), sites[box])
    peduncle = scene.to_brainstem[box] <= 6
    out[box] = np.where(ventral[box], np.where(peduncle, code("brainstem"), near), sites[box])
    return out


def cisterns_and_sulci(scene: _Scene, sites: Codes) -> Codes:
    """Name the fluid inside the skull, above the foramen magnum.

    Around the brainstem and under the third ventricle it is basal cisterns, else sulcal spaces. Limits keep
    the cisterns out of the Sylvian fissure (24 and 17 mm from the midline) and off the cerebellum's convexity
    (13 mm from the brainstem).
    """
    lateral = np.abs(scene.lateral)
    chiasm, ventral = (hf.distance_mm(np.isin(scene.labels, part)) for part in (_CHIASM, _VENTRAL_DC))
    around_brainstem = (scene.to_brainstem <= 13) & (lateral <= 24)
    suprasellar = ((chiasm <= 12) | (ventral <= 7)) & (lateral <= 17) & (scene.z < 0)
    cistern = around_brainstem | suprasellar
    tissue = np.isin(scene.labels, _CEREBELLUM)
    if tissue.any():
        bottom = float(np.percentile(scene.z[tissue], 1))
        middle = float(np.percentile(scene.y[tissue], 40))
        magna = (scene.z < bottom + 18) & (scene.y < middle + 40) & (lateral <= 14)
        cistern |= magna & (scene.to_cerebellum <= 12) & (scene.to_brainstem <= 30)
    out = sites.copy()
    fluid = scene.cranial & (sites == 0) & scene.above_foramen
    out[fluid] = np.where(cistern[fluid], code("basal_cisterns"), code("sulcal_spaces"))
    return out


def falx_tentorium(scene: _Scene) -> tuple[Mask, NDArray[np.uint8]]:
    """What lies along the falx and the tentorium, and the dura itself, which label maps lack.

    The falx lies mid-way between the hemispheres, but 9 mm clear of diencephalon and brainstem; the tentorium
    mid-way between cerebrum and cerebellum, where they are at most 12 mm apart (else the petrous bone is
    between them). The free edge of the falx rises from the splenium to 14 mm above the genu.

    Returns:
        (nx, ny, nz) bool: fluid and veins within 4 mm of the dura, cortex within 2 mm of the falx and 1 mm of
        the tentorium. (nx, ny, nz) the dura itself: `FALX`, `TENTORIUM` or 0.
    """
    lateral = np.abs(scene.lateral)
    deep = np.isin(scene.labels, (*_BRAINSTEM, *_VENTRAL_DC, *_THALAMUS, *_CHIASM, 14, 15, 26, 58))
    fluid = scene.cranial & np.isin(scene.labels, (*_CSF, *_VESSELS, *_BRAIN_VESSELS))
    cortex = scene.cranial & ((scene.labels > 1000) | np.isin(scene.labels, (8, 47)))
    fissure = (np.maximum(scene.to_left, scene.to_right) <= 14) & (scene.to_cerebrum < scene.to_cerebellum)
    fissure &= hf.distance_mm(deep) > 9
    height = np.abs(scene.to_cerebellum - scene.to_cerebrum) / 2
    tent = (scene.to_cerebellum + scene.to_cerebrum <= 12) & (scene.to_brainstem > 9)
    along = fissure & (fluid & (lateral <= 4) | cortex & (lateral <= 2))
    along |= tent & (fluid & (height <= 4) | cortex & (height <= 1))

    callosum = hf.distance_mm(np.isin(scene.labels, _WHITE) & (lateral < 1.5))
    free_edge = np.clip(2 + 0.18 * (scene.y + 40), 2, 14)
    sheet = np.zeros(scene.labels.shape, dtype=np.uint8)
    sheet[fissure & (fluid | cortex) & (lateral < 1) & (callosum > free_edge)] = hf.FALX
    sheet[tent & (fluid | cortex) & (height <= 0.6)] = hf.TENTORIUM
    return along, sheet


def vessels(scene: _Scene, sites: Codes) -> Codes:
    """Name the vessels inside the skull, above the foramen magnum.

    A vessel that does not lie along the falx or the tentorium is the site of the nearest fluid or tissue.
    """
    vessel = np.isin(scene.labels, _VESSELS) & scene.cranial & (sites != code("along_falx_tentorium"))
    near = nearest_value((sites > 0) & ~vessel, sites)
    return np.where(vessel, np.where(scene.above_foramen, near, 0), sites).astype(np.uint8)


def extra_axial(scene: _Scene, sites: Codes) -> Codes:
    """The codes for a crescent between brain and inner table.

    Sulcal fluid within 12 mm of the inner table is the lobe, or the cerebellum, beneath it.
    """
    beneath = np.where(scene.to_cerebellum < scene.to_cerebrum, code("cerebellum"), scene.lobe)
    outer = (sites == code("sulcal_spaces")) & (scene.depth <= 12)
    return np.where(outer, beneath, sites).astype(np.uint8)


def csf_depth(scene: _Scene) -> NDArray[np.uint8]:
    """Distance to the nearest brain tissue in the fluid outside the ventricles, else 0.

    In tenths of a mm, at most 255.
    """
    tissue = scene.cranial & ~np.isin(scene.labels, (*_CSF, *_VESSELS))
    depth = np.clip(10 * hf.distance_mm(tissue), 0, 255)
    return np.where(scene.cranial & (scene.labels == 24), depth, 0).astype(np.uint8)


def _to_side(labels: Labels, side: tuple[int, ...], box: Box) -> Float:
    """Distance (mm) to the largest part of one side's structures, without stray specks.

    It is 1000 outside the box.
    """
    distance = np.full(labels.shape, 1e3, dtype=np.float32)
    distance[box] = hf.distance_mm(largest_part(np.isin(labels[box], side)))
    return distance


def _scene(labels: Labels, x: Float, y: Float, z: Float, lateral: Float) -> _Scene:
    lobar = _table({n: key for n, key in _DIRECT.items() if n > 1000 or n in _MEDIAL_TEMPORAL})[labels]
    # The posterior cingulate parcel reaches forward under the frontal lobe: it would name the centrum
    # semiovale and the callosum beneath it parietal.
    seeds = (lobar > 0) & ~np.isin(labels, (1023, 2023))
    lobe_left, lobe_right = (
        nearest_value(seeds & np.isin(labels, side), lobar) for side in (hf.LEFT, hf.RIGHT)
    )
    to_left, to_right = (hf.distance_mm((lobar > 0) & np.isin(labels, side)) for side in (hf.LEFT, hf.RIGHT))
    is_left = np.isin(labels, hf.LEFT) | ~np.isin(labels, hf.RIGHT) & (lateral > 0)
    cranial = _cranial(labels)
    cerebellum = np.isin(labels, _CEREBELLUM)
    foramen = float(np.percentile(z[cerebellum], 1)) - 4 if cerebellum.any() else -np.inf
    return _Scene(
        labels=labels,
        x=x,
        y=y,
        z=z,
        lateral=lateral,
        lobe=np.where(is_left, lobe_left, lobe_right),
        to_left=to_left,
        to_right=to_right,
        to_cerebrum=np.minimum(to_left, to_right),
        to_cerebellum=hf.distance_mm(cerebellum),
        to_brainstem=hf.distance_mm(np.isin(labels, _BRAINSTEM)),
        cranial=cranial,
        depth=hf.distance_mm(~cranial),
        above_foramen=z >= foramen,
    )


def _table(keys: dict[int, str]) -> Codes:
    """A look-up table from label to site code."""
    table = np.zeros(max(LABELS) + 1, dtype=np.uint8)
    for label, key in keys.items():
        table[label] = code(key)
    return table


def _cranial(labels: Labels) -> Mask:
    """Brain and the fluid and vessels connected to it inside the skull."""
    brain = np.isin(labels, (*_DIRECT, *_WHITE, *_VENTRAL_DC, *_BRAIN_VESSELS, 1035, 2035))
    inside = largest_part(brain | (labels == 24))
    near = hf.distance_mm(inside) <= 2
    return np.asarray(inside | near & np.isin(labels, _VESSELS))
