"""Label map to site map, on a phantom whose answers follow from how it is built, and on one real head."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import SHARED
from phantoms.small_head import small_head
from scipy import ndimage

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.errors import InputError
from situs.synth import heads
from situs.synth.head_frame import FALX, LEFT, RIGHT, TENTORIUM
from situs.synth.heads import find_heads, map_sites, read_head
from situs.synth.sinuses import inner_air, map_sinuses
from situs.synth.site_map import LABELS, LOBE_OF_PARCEL

REAL = SHARED / "data" / "heads" / "head_13.nii.gz"
CENTRE = np.array([47.5, 64.0, 56.0])  # voxel of the phantom's own origin; the midline is between voxels


def build_phantom() -> tuple[np.ndarray, np.ndarray]:
    """A head at about two thirds of life size: (labels, affine); x right, y front, z up, mm from CENTRE."""
    i, j, k = np.indices((96, 122, 104), dtype=np.float32)
    x, y, z = i - CENTRE[0], j - CENTRE[1], k - CENTRE[2]
    ax = np.abs(x)

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
        return ((ax - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1

    labels = np.zeros(x.shape, dtype=np.int16)
    for value, shrink in ((511, 0), (515, 3), (24, 7)):
        labels[ball(0, 0, 0, 46 - shrink, 56 - shrink, 48 - shrink)] = value

    def paired(mask: np.ndarray, left: int, right: int | None = None) -> None:
        labels[mask & (x < 0)] = left
        labels[mask & (x > 0)] = left if right is None else right

    cerebrum = (ax >= 1.5) & (z > -14)
    paired(cerebrum & ball(0, 0, 0, 35, 45, 37), 1030, 2030)
    cortex = labels > 1000
    for parcel, where in ((29, z > 8), (11, (y < -22) & (z <= 8)), (28, y > 8)):
        paired(cortex & where, 1000 + parcel, 2000 + parcel)
    paired((ax >= 4.5) & (z > -11) & ball(0, 0, 0, 32, 42, 34), 2, 41)
    paired((ax < 6) & (z >= 20) & (z <= 23) & (np.abs(y) < 20), 2, 41)  # corpus callosum
    paired((ax >= 29) & (np.abs(y - 2) < 9) & (np.abs(z - 3) < 2) & ball(0, 0, 0, 39, 49, 41), 24)  # Sylvian
    paired((ax >= 26) & (ax < 29) & (np.abs(y - 2) < 9) & (np.abs(z - 3) < 7), 1035, 2035)
    paired((ax < 12) & (y > 4) & (y < 18) & (z < -6) & (z > -14), 24)  # suprasellar
    paired(ball(8, -6, 5, 5, 8, 6), 10, 49)
    paired(ball(10, 12, 8, 3, 6, 5), 11, 50)
    paired(ball(20, 2, 3, 4, 10, 7), 12, 51)
    paired(ball(6, -2, 15, 4, 16, 4), 4, 43)
    paired((ax < 8) & (np.abs(y + 2) < 6) & (z >= -11) & (z <= -2), 28, 60)
    paired(ball(0, -22, -22, 20, 13, 9), 8, 47)
    paired(ball(0, -22, -22, 12, 8, 5), 7, 46)
    paired((ax < 1.5) & (y > -12) & (y < 6) & (z > -2) & (z < 10), 14)
    paired((ax**2 + (y + 2) ** 2 < 49) & (z > -38) & (z < -10), 16)
    paired((ax < 4) & (y >= 10) & (y < 13) & (z == -12), 85)
    paired((ax < 1) & (y >= 7) & (y < 9) & (z > -28) & (z < -16), 502)  # basilar artery
    paired((ax < 3) & (np.abs(y) < 12) & (z >= 38) & (z < 40), 514)  # superior sagittal sinus
    paired(ball(12, 30, 12, 2, 2, 2), 25, 57)
    labels[(x < -12) & (x > -15) & (np.abs(y + 20) < 2) & (z > 26) & (z < 29)] = 25  # makes it one-sided
    affine = np.eye(4)
    affine[:3, 3] = -CENTRE + [3, -5, 7]
    return labels, affine


@pytest.fixture(scope="module")
def phantom():
    labels, affine = build_phantom()
    return labels, affine, map_sites(labels, affine)


def site_at(codes: np.ndarray, x: float, y: float, z: float) -> str:
    value = codes[tuple(np.rint(CENTRE + np.array([x, y, z])).astype(int))]
    return SITE_KEYS[value - 1] if value else "none"


LOBES = ("frontal_region", "parietal_region", "temporal_region", "occipital_region")


@pytest.mark.slow
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((15.5, 30, 10), "frontal_region"),  # white matter
        ((12.5, 30, 12), "frontal_region"),  # white-matter lesion
        ((15.5, -18, 28), "parietal_region"),
        ((14.5, -36, -4), "occipital_region"),
        ((28.5, -10, -6), "temporal_region"),
        ((27.5, 2, -3), "temporal_region"),  # lower insula
        ((27.5, 0, 9), "parietal_region"),  # upper insula
        ((8.5, -6, 5), "thalamus"),
        ((20.5, 2, 3), "gangliocapsular_region"),  # putamen
        ((10.5, 12, 8), "gangliocapsular_region"),  # caudate
        ((14.5, 0, 4), "gangliocapsular_region"),  # internal capsule
        ((25.5, 2, 3), "gangliocapsular_region"),  # between putamen and insula
        ((6.5, -2, 15), "ventricular_system"),
        ((0.5, 0, 4), "ventricular_system"),
        ((0.5, -2, -25), "brainstem"),
        ((4.5, -2, -9), "brainstem"),  # ventral diencephalon next to it
        ((15.5, -22, -22), "cerebellum"),
        ((6.5, -22, -22), "cerebellum"),
        ((0.5, 8, -22), "basal_cisterns"),  # the basilar artery in the prepontine cistern
        ((8.5, 6, -20), "basal_cisterns"),
        ((6.5, 14, -9), "basal_cisterns"),  # suprasellar
        ((2.5, 11, -12), "basal_cisterns"),  # chiasm
        ((31.5, 2, 3), "sulcal_spaces"),  # Sylvian fissure
        ((10.5, 46, 0), "sulcal_spaces"),  # over the frontal pole
        ((22.5, -22, -26), "sulcal_spaces"),  # beside the cerebellum
        ((0.5, 30, 20), "along_falx_tentorium"),  # the fissure
        ((1.5, 30, 20), "along_falx_tentorium"),  # the cortex that lines it
        ((0.5, 0, 27), "along_falx_tentorium"),  # above the callosum
        ((0.5, 0, 39), "along_falx_tentorium"),  # the sinus
        ((10.5, -24, -15), "along_falx_tentorium"),  # above the cerebellum
        ((3.5, 30, 20), "frontal_region"),
        ((2.5, 0, 21), "parietal_region"),  # corpus callosum, under the parietal convexity
        ((44.5, 0, 0), "none"),
        ((41.5, 0, 0), "none"),
    ],
)
def test_every_rule(phantom, point, expected, side):
    _, _, maps = phantom
    assert site_at(maps.sites, side * point[0], *point[1:]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("side", [-1, 1])
def test_a_crescent_lies_on_the_lobe_beneath(phantom, side):
    _, _, maps = phantom
    assert site_at(maps.extra_axial, side * 10.5, 46, 0) == "frontal_region"
    assert site_at(maps.extra_axial, side * 20.5, -10, 33) == "parietal_region"
    assert site_at(maps.extra_axial, side * 22.5, -22, -26) == "cerebellum"
    assert site_at(maps.extra_axial, side * 0.5, 30, 20) == "along_falx_tentorium"
    assert site_at(maps.extra_axial, side * 8.5, 6, -20) == "basal_cisterns"
    assert site_at(maps.extra_axial, side * 8.5, -6, 5) == "thalamus"


def test_sheets_lie_between_what_they_part(phantom):
    labels, _, maps = phantom
    falx, tentorium = np.argwhere(maps.sheet == FALX), np.argwhere(maps.sheet == TENTORIUM)
    assert len(falx) > 500 and len(tentorium) > 200
    assert np.abs(falx[:, 0] - CENTRE[0]).max() <= 1.5  # the plane x = 0
    assert (np.abs(tentorium[:, 2] - CENTRE[2] + 14) <= 6).all()
    ventricle_or_white = np.isin(labels, (2, 41, 4, 43, 14, 10, 49))
    assert not maps.sheet[ventricle_or_white].any()


def test_lateral_is_positive_to_the_left_and_in_mm(phantom):
    labels, _, maps = phantom
    assert (maps.lateral_mm[np.isin(labels, LEFT)] >= 0).all()
    assert (maps.lateral_mm[np.isin(labels, RIGHT)] <= 0).all()
    x = np.arange(96) - CENTRE[0]
    assert np.abs(maps.lateral_mm[:, 60, 60] + x).max() <= 1


def test_fluid_depth_is_the_distance_to_the_brain(phantom):
    labels, _, maps = phantom
    row = labels[:, 84, 76]  # across the fissure at y = 20, z = 20: two voxels of fluid
    inside = np.flatnonzero((row == 24) & (np.abs(np.arange(96) - CENTRE[0]) < 2))
    assert maps.csf_depth_mm[inside, 84, 76].tolist() == [10] * len(inside) and len(inside) == 2
    assert not maps.csf_depth_mm[labels != 24].any()


@pytest.mark.slow
def test_depth_is_the_distance_to_bone_inside_the_skull():
    """Against the distance over the whole grid, though only the inside's box is computed."""
    head = small_head()
    expected = ndimage.distance_transform_edt(~np.isin(head.labels, (515, 516))) * (head.extra_axial > 0)
    assert head.depth_mm == pytest.approx(expected, abs=1e-4) and head.depth_mm.max() > 20
    outside = replace(head, sites=np.zeros_like(head.sites))
    assert not outside.depth_mm.any()


def test_frame_is_rigid_with_its_origin_between_the_thalami(phantom):
    labels, affine, maps = phantom
    assert np.allclose(maps.frame[:3, :3] @ maps.frame[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(maps.frame[:3, :3]) == pytest.approx(1)
    middle = np.mean([np.argwhere(labels == n).mean(axis=0) for n in (10, 49)], axis=0)
    assert np.abs(maps.frame[:3, :3] @ (middle + affine[:3, 3]) + maps.frame[:3, 3]).max() < 0.2
    assert maps.frame[0, :3] == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.slow
def test_a_mirrored_patient_swaps_sides(phantom):
    labels, affine, maps = phantom
    swap = np.arange(3000)
    swap[list(LEFT)], swap[list(RIGHT)] = RIGHT, LEFT
    mirrored = map_sites(swap[labels[::-1]].astype(np.int16), affine)
    for field in ("sites", "extra_axial", "csf_depth_mm", "sheet"):
        assert np.mean(getattr(mirrored, field)[::-1] != getattr(maps, field)) < 2e-3, field
    assert np.abs(mirrored.lateral_mm[::-1].astype(int) + maps.lateral_mm).max() <= 2


def test_voxel_order_in_the_file_changes_nothing(phantom, tmp_path, monkeypatch):
    labels, affine, maps = phantom
    monkeypatch.setattr(heads, "map_sites", lambda *a: maps)
    image = nib.Nifti1Image(labels, affine)
    nib.save(image, tmp_path / "ras.nii.gz")
    wanted = read_head(tmp_path / "ras.nii.gz", tmp_path / "cache")
    assert wanted.name == "ras" and np.array_equal(wanted.labels, labels)
    for code in ("LPI", "PIR", "SAL"):
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code)
        )
        turned = image.as_reoriented(turn)
        assert nib.aff2axcodes(turned.affine) == tuple(code)
        nib.save(turned, tmp_path / f"{code}.nii.gz")
        head = read_head(tmp_path / f"{code}.nii.gz", tmp_path / "cache")
        assert np.allclose(head.affine, affine)
        assert np.array_equal(head.labels, labels)
        assert np.array_equal(head.sites, wanted.sites)
        assert np.array_equal(head.lateral_mm, wanted.lateral_mm)


def test_maps_are_computed_once_and_a_damaged_cache_is_not_believed(phantom, tmp_path, monkeypatch):
    labels, affine, maps = phantom
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "a.nii")
    calls = []
    monkeypatch.setattr(heads, "map_sites", lambda *a: calls.append(a) or maps)
    first, second = (read_head(tmp_path / "a.nii", tmp_path / "cache") for _ in range(2))
    assert len(calls) == 1
    for field in ("labels", "affine", "sites", "extra_axial", "lateral_mm", "csf_depth_mm", "sheet", "frame"):
        assert np.array_equal(getattr(first, field), getattr(second, field))
    expected = ndimage.distance_transform_edt(~np.isin(labels, (515, 516))) * (maps.sites > 0)
    assert second.depth_mm == pytest.approx(expected, abs=1e-4)
    (stored,) = (tmp_path / "cache").iterdir()
    stored.write_bytes(stored.read_bytes()[:1000])
    read_head(tmp_path / "a.nii", tmp_path / "cache")
    assert len(calls) == 2
    (tmp_path / "file").write_text("in the way")
    assert read_head(tmp_path / "a.nii", tmp_path / "file").name == "a"


def test_coarse_voxels_become_1_mm_in_the_same_place(phantom, tmp_path, monkeypatch):
    labels, affine, maps = phantom
    coarse = affine @ np.diag([2, 1, 2, 1.0])
    coarse[:3, 3] = affine[:3, :3] @ [0.5, 0, 0.5] + affine[:3, 3]  # the middle of 2 x 1 x 2 voxels
    nib.save(nib.Nifti1Image(labels[::2, :, ::2], coarse), tmp_path / "coarse.nii.gz")
    monkeypatch.setattr(heads, "map_sites", lambda *a: maps)
    head = read_head(tmp_path / "coarse.nii.gz", tmp_path)
    assert head.labels.shape == labels.shape and np.allclose(head.affine, affine)
    assert np.array_equal(head.labels, labels[::2, :, ::2].repeat(2, 0).repeat(2, 2))


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def test_bad_input_is_refused_in_one_line(phantom, tmp_path):
    labels, affine, _ = phantom
    truncated = tmp_path / "truncated.nii.gz"
    whole = save(tmp_path / "whole.nii.gz", labels, affine)
    truncated.write_bytes(whole.read_bytes()[:20000])
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not an image"))
    no_thalamus = np.where(labels == 49, 41, labels).astype(np.int16)
    one_sided = np.where(np.isin(labels, RIGHT) & (labels != 49), 24, labels).astype(np.int16)
    cases = {
        tmp_path / "absent.nii.gz": "no such file",
        truncated: "truncated",
        tmp_path / "text.nii.gz": "expected NIfTI",
        save(tmp_path / "4d.nii.gz", labels[..., None][:8, :8, :8].repeat(2, 3)): "three axes",
        save(tmp_path / "float.nii.gz", np.full((8, 8, 8), 0.5, np.float32)): "whole-number",
        save(tmp_path / "ct.nii.gz", np.full((8, 8, 8), 40000, np.int32)): "unknown labels, 40000",
        save(tmp_path / "no_thalamus.nii.gz", no_thalamus, affine): "thalamus",
        save(tmp_path / "one_sided.nii.gz", one_sided, affine): "no parcels of the right cortex",
    }
    for path, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            read_head(path, tmp_path / "cache")
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_find_heads(tmp_path):
    with pytest.raises(InputError, match="no head label maps"):
        find_heads(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_heads(tmp_path / "absent")
    for name in ("b.nii.gz", "a.nii", "notes.txt", ".hidden.nii"):
        (tmp_path / name).touch()
    assert [p.name for p in find_heads(tmp_path)] == ["a.nii", "b.nii.gz"]


def test_every_parcel_has_a_lobe():
    parcels = {n - 1000 for n in LABELS if 1000 < n < 2000}
    assert parcels - set(LOBE_OF_PARCEL) == {35}  # the insula
    assert set(LOBE_OF_PARCEL.values()) == set(LOBES)


@pytest.fixture(scope="module")
def face():
    """`build_face`, read-only."""
    labels, coordinates = build_face()
    labels.flags.writeable = False
    return labels, coordinates


def build_face() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A block of soft tissue with eyes and air spaces joined by thin ostia: (labels, head-frame x, y, z)."""
    eyes_y, eyes_z = 72.0, -72 * np.tan(np.radians(30))
    i, j, k = np.indices((121, 124, 100), dtype=np.float32)
    x, y, z = i - 60, j - 84, k - 62  # face frame: from the mid-point of the eyes
    labels = np.full(x.shape, 507, dtype=np.int16)
    labels[y > 25] = 0
    ax = np.abs(x)
    labels[(ax - 31) ** 2 + y**2 + z**2 < 100] = 506

    def air(*spans: tuple[float, float]) -> None:
        inside = np.ones(x.shape, dtype=bool)
        for c, (low, high) in zip((ax, y, z), spans, strict=True):
            inside &= (c >= low) & (c <= high)
        labels[inside] = 0

    air((18, 40), (-28, 0), (-42, -16))  # maxillary
    air((2, 11), (-24, 4), (-8, 10))  # ethmoidal
    air((1, 12), (-52, -32), (-14, 4))  # sphenoid
    air((1, 8), (-28, 40), (-48, -24))  # nasal cavity, open to the front
    air((0, 12), (-60, -29), (-60, -28))  # pharynx
    air((2, 12), (2, 12), (20, 34))  # frontal
    air((9, 17), (-14, -12), (-26, -25))  # ostia
    air((4, 6), (-10, -8), (-23, -9))
    air((4, 6), (-31, -25), (-2, 0))
    air((4, 6), (3, 5), (11, 19))
    return labels, (x, y + eyes_y, z + np.float32(eyes_z))


@pytest.mark.slow
def test_sinuses_are_cut_at_their_ostia(face):
    labels, (x, y, z) = face
    sites = map_sinuses(labels, np.zeros(labels.shape, dtype=bool), x, y, z)
    eyes = np.array([60, 84, 62])
    for point, key in {
        (29, -14, -30): "maxillary",
        (29, 1, -30): "maxillary",  # its wall
        (6, -10, 2): "ethmoidal",
        (6, -42, -6): "sphenoid",
        (4, -10, -36): None,  # nasal cavity
        (4, -45, -44): None,  # pharynx
        (6, 7, 27): None,  # frontal sinus
        (31, 0, 0): None,  # eye
        (4, 38, -30): None,  # before the face
        (50, -60, 0): None,
    }.items():
        for side in (-1, 1):
            value = sites[tuple(eyes + np.array([side * point[0], *point[1:]]))]
            assert (SITE_KEYS[value - 1] if value else None) == key, point
    # Two boxes of 23 x 29 x 27 mm, to which a 2 mm wall adds at most the wall of a box 4 mm larger.
    maxillary = (sites == SITE_INDEX["maxillary"] + 1).sum()
    assert 2 * 23 * 29 * 27 <= maxillary <= 2 * 27 * 33 * 31


def test_a_head_without_eyes_has_no_sinuses(face):
    labels, (x, y, z) = face
    labels = np.where(labels == 506, 507, labels)
    assert not map_sinuses(labels, np.zeros(labels.shape, dtype=bool), x, y, z).any()


def test_air_cut_open_by_the_lower_edge_is_still_inside(face):
    labels, _ = face
    cut = labels[:, :, 30:]  # through both maxillary sinuses
    inside = inner_air(cut)
    assert inside[60 - 29, 84 - 14, 0] and inside[60 + 29, 84 - 14, 0]
    assert not inside[:, -5].any()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the shared head label maps are not here")
def test_a_real_head(tmp_path):
    head = read_head(REAL, tmp_path)
    lateral = head.lateral_mm
    ml = dict(zip(SITE_KEYS, np.bincount(head.sites.ravel(), minlength=16)[1:] / 1000, strict=True))
    # Wide textbook ranges of an adult, with walls and dura as the rules add them.
    for key, low, high in (
        ("brainstem", 18, 45), ("cerebellum", 90, 200), ("thalamus", 8, 25),
        ("gangliocapsular_region", 25, 80),
        ("frontal_region", 200, 520), ("parietal_region", 120, 380), ("temporal_region", 120, 300),
        ("occipital_region", 50, 160), ("maxillary", 15, 90), ("ethmoidal", 6, 35), ("sphenoid", 3, 35),
        ("basal_cisterns", 10, 70), ("along_falx_tentorium", 30, 120), ("ventricular_system", 5, 120),
        ("sulcal_spaces", 60, 450),
    ):  # fmt: skip
        assert low <= ml[key] <= high, (key, ml[key])
    for site in SITES:
        if site.paired:
            here = head.sites == SITE_INDEX[site.key] + 1
            share = np.mean(lateral[here & (lateral != 0)] > 0)
            assert 0.35 < share < 0.65, (site.key, share)
    assert np.mean(lateral[np.isin(head.labels, LEFT)] >= 0) > 0.999
    assert np.mean(lateral[np.isin(head.labels, RIGHT)] <= 0) > 0.999
    skin_and_orbit = np.isin(head.labels, (511, 506, 508, 530))
    assert not head.sites[skin_and_orbit].any()
    to_frame = head.frame @ head.affine
    y, z = (
        {k: (np.argwhere(head.sites == SITE_INDEX[k] + 1) @ to_frame[axis, :3]).mean() for k in SITE_KEYS}
        for axis in (1, 2)
    )
    assert y["ethmoidal"] > y["sphenoid"] + 20 and z["maxillary"] < z["ethmoidal"] - 10
    assert y["frontal_region"] > y["parietal_region"] + 20 > y["occipital_region"]
    assert z["cerebellum"] < z["occipital_region"] < z["parietal_region"]
