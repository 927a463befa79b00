"""Virtual lesions: what docs/synth.md promises of them, on a small head; interpolation against scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantoms.small_head import BONE, PRESENT, SHAPE, THALAMUS, VENTRICLE, code, points, small_head, voxel
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from situs.anatomy import SITE_KEYS
from situs.synth import lesion as lesion_module
from situs.synth.lesion import LESION_KINDS, Lesion
from situs.synth.lesions import LesionGrower
from situs.synth.noise import smooth_noise, stretch
from situs.synth.shapes import in_window

HEAD = small_head()
GROWER = LesionGrower(HEAD)
BONE_MM = ndimage.distance_transform_edt(HEAD.labels != BONE)
# The compartment that each of the head's sites belongs to, by the table in docs/synth.md.
FLUID = ("basal_cisterns", "sulcal_spaces", "ventricular_system")
LOBES = ("frontal_region", "parietal_region")
LEAST_SHARE = {"tissue": 0.7, "cortex": 0.7, "crescent": 0.45, "fluid": 0.5, "cast": 0.35}
LEAST_SHARE |= {"sheet": 0.8, "sinus": 0.8, "structure": 0.6}


def grow(site: str, count: int, grower: LesionGrower = GROWER, **options) -> list[Lesion]:
    """The lesions that `count` generators bring forth."""
    grown = (grower.grow(site, np.random.default_rng([7, n]), **options) for n in range(count))
    return [lesion for lesion in grown if lesion is not None]


def starting_at_x(low: float, high: float) -> tuple[np.ndarray, int]:
    """A window of sagittal slices: lesions start between two distances (mm) to the right of the midline."""
    first, last = voxel(low, 0, 0)[0], voxel(high, 0, 0)[0]
    return np.array([1.0, 0, 0, -first]), last - first + 1


def site_map(lesion: Lesion) -> np.ndarray:
    """The part of the site map that a lesion of its kind is named by."""
    whole = HEAD.extra_axial if lesion.kind in ("tissue", "cortex", "crescent") else HEAD.sites
    return whole[lesion.box]


@pytest.fixture(scope="module")
def lesions() -> dict[str, list[Lesion]]:
    return {site: grow(site, 80 if site in LOBES else 24) for site in PRESENT}


@pytest.fixture(scope="module")
def crescents(lesions) -> list[Lesion]:
    return [lesion for site in LOBES for lesion in lesions[site] if lesion.kind == "crescent"]


@pytest.mark.slow
@pytest.mark.parametrize("site", PRESENT)
def test_nearly_every_attempt_succeeds(lesions, site):
    least = 14 if site == "sulcal_spaces" else 21  # the drawn head's sulci are short
    assert len(lesions[site]) >= (72 if site in LOBES else least)
    assert all(lesion.site == site for lesion in lesions[site])


@pytest.mark.parametrize("site", PRESENT)
def test_a_lesion_is_one_piece_in_a_tight_box_within_the_grid(lesions, site):
    for lesion in lesions[site]:
        assert lesion.mask.dtype == np.bool_ and lesion.mask.sum() >= 12
        assert min(lesion.start) >= 0
        assert all(a + n <= m for a, n, m in zip(lesion.start, lesion.mask.shape, SHAPE, strict=True))
        for axis in range(3):
            along = lesion.mask.any(axis=tuple({0, 1, 2} - {axis}))
            assert along[0] and along[-1]
        assert ndimage.label(lesion.mask, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.parametrize("site", PRESENT)
def test_a_lesion_lies_in_named_anatomy_and_mostly_in_its_site(lesions, site):
    for lesion in lesions[site]:
        under = site_map(lesion)[lesion.mask]
        assert (under > 0).all()
        shares = np.bincount(under, minlength=len(SITE_KEYS) + 1) / under.size
        assert shares[code(site)] >= (0.42 if site == "thalamus" else LEAST_SHARE[lesion.kind])
        assert shares.argmax() == code(site)
        assert not (HEAD.labels[lesion.box][lesion.mask] == BONE).any()


@pytest.mark.slow
def test_deep_bleeds_grow_large_are_long_and_lie_mostly_where_they_come_from():
    x, y, z = points()
    sites = HEAD.sites.copy()
    deep = ((np.abs(x) - 14) / 6) ** 2 + (y / 16) ** 2 + ((z - 2) / 10) ** 2 <= 1
    sites[deep] = code("gangliocapsular_region")
    grower = LesionGrower(replace(HEAD, sites=sites, extra_axial=np.where(deep, sites, HEAD.extra_axial)))
    found = grow("gangliocapsular_region", 60, grower)
    assert len(found) >= 54
    shares, lengths = [], []
    for lesion in found:
        under = grower.head.extra_axial[lesion.box][lesion.mask]
        shares.append((under == code("gangliocapsular_region")).mean())
        assert np.bincount(under).argmax() == code("gangliocapsular_region") and shares[-1] >= 0.42
        lengths.append(lesion.mask.shape[1] / lesion.mask.shape[0])
    volumes_ml = np.array([lesion.swell * lesion.mask.sum() for lesion in found]) / 1000
    assert np.quantile(volumes_ml, 0.9) > 5  # each of the two regions holds 4 ml
    assert min(shares) < 0.65 < np.median(shares)  # the large ones dissect
    assert np.median(lengths) > 1.3


def test_lesions_in_tissue_swell_by_at_most_what_is_documented(lesions):
    for site, grown in lesions.items():
        limit = {"thalamus": 4, "brainstem": 2}.get(site, 2.5)
        swell = np.array([lesion.swell for lesion in grown if lesion.kind == "tissue"])
        assert ((swell >= 1) & (swell <= limit)).all()
        assert not swell.size or 0.4 < np.mean(swell > 1) < 0.95  # 70 %


def test_swelling_stops_at_the_largest_volume(monkeypatch):
    monkeypatch.setattr(lesion_module, "_LARGEST_MM3", 600)
    grown = [lesion for lesion in grow("thalamus", 40) if lesion.kind == "tissue"]
    volumes = np.array([(lesion.mask.sum(), lesion.swell * lesion.mask.sum()) for lesion in grown])
    assert (volumes[:, 1] <= np.maximum(volumes[:, 0], 600) + 1e-6).all()
    assert (volumes[:, 1] > 599).any() and (volumes[:, 1] > volumes[:, 0] + 1).any()


def test_the_kind_follows_the_site(lesions):
    kinds = {site: {lesion.kind for lesion in grown} for site, grown in lesions.items()}
    assert set().union(*kinds.values()) == set(LESION_KINDS)
    kinds = {site: found - {"structure"} for site, found in kinds.items()}  # they may be any site's
    assert kinds["basal_cisterns"] == kinds["sulcal_spaces"] == {"fluid"}
    assert kinds["ventricular_system"] == {"fluid", "cast"}
    for site in LOBES:
        assert kinds[site] == {"tissue", "cortex", "crescent"}
    assert kinds["brainstem"] == kinds["thalamus"] == {"tissue"}
    assert kinds["along_falx_tentorium"] == {"sheet"} and kinds["maxillary"] == {"sinus"}


def test_20_of_100_lesions_are_normal_structures(lesions):
    kinds = [lesion.kind for grown in lesions.values() for lesion in grown]
    assert len(kinds) > 300  # a standard deviation of 2 %
    assert kinds.count("structure") / len(kinds) == pytest.approx(0.2, abs=0.07)


@pytest.mark.slow
def test_whole_structures_are_marked_and_follow_their_outline():
    """A thalamus and a ventricle of one side are smooth: half of their marks are just they."""
    wholes = {"thalamus": THALAMUS, "ventricular_system": VENTRICLE}
    for site, labels in wholes.items():
        marked = [lesion for lesion in grow(site, 120) if lesion.kind == "structure"]
        assert 8 <= len(marked) <= 30
        near_whole = 0
        for lesion in marked:
            named = HEAD.labels[lesion.box]
            assert np.isin(named, labels)[lesion.mask].mean() > 0.85
            assert not lesion.swell > 1
            whole = max((HEAD.labels == n).sum() for n in labels if (named[lesion.mask] == n).any())
            near_whole += np.isin(named, labels)[lesion.mask].sum() / whole > 0.85
        assert near_whole >= 3


@pytest.mark.slow
def test_lobes_are_marked_where_hardly_a_sulcus_is():
    """Some as gyri, some as round regions."""
    compact = []
    for site in LOBES:
        marked = [lesion for lesion in grow(site, 60) if lesion.kind == "structure"]
        assert len(marked) >= 3
        for lesion in marked:
            assert (HEAD.sites[lesion.box][lesion.mask] == code("sulcal_spaces")).mean() <= 0.25
            compact.append(lesion.mask.mean())  # of its box: an ellipsoid fills about a half
    assert 0.2 < np.mean(np.array(compact) > 0.45) < 0.95


def test_18_of_100_lobar_lesions_are_crescents(lesions, crescents):
    # 160 draws: a standard deviation of 3 %; a retry after a miss moves the share by less than that
    assert len(crescents) / sum(len(lesions[site]) for site in LOBES) == pytest.approx(0.18, abs=0.09)


def test_the_same_generator_grows_the_same_lesion_and_another_does_not():
    for site in PRESENT:
        one, same, other = (GROWER.grow(site, np.random.default_rng(seed)) for seed in (4, 4, 5))
        assert one is not None and same is not None and other is not None
        assert one.start == same.start and one.kind == same.kind and np.array_equal(one.mask, same.mask)
        assert one.start != other.start or not np.array_equal(one.mask, other.mask)


def test_another_grower_of_the_same_head_grows_the_same_lesion():
    for site in LOBES:
        one, same = (
            g.grow(site, np.random.default_rng(5)) for g in (GROWER, LesionGrower(small_head("again")))
        )
        assert one is not None and same is not None
        assert one.start == same.start and np.array_equal(one.mask, same.mask)


def test_sites_that_the_head_lacks():
    assert GROWER.sites() == PRESENT
    for site in set(SITE_KEYS) - set(PRESENT):
        assert GROWER.grow(site, np.random.default_rng(0)) is None


def test_a_site_of_a_few_voxels_is_not_offered():
    sites = np.zeros_like(HEAD.sites)
    sites[30:33, 30:34, 30:33] = code("thalamus")  # 36 voxels: fewer than four of the smallest lesions
    sites[50:54, 30:34, 30:33] = code("brainstem")  # 48
    grower = LesionGrower(replace(HEAD, sites=sites, extra_axial=sites))
    assert grower.sites() == ("brainstem",)


@pytest.mark.slow
@pytest.mark.parametrize("site", FLUID)
def test_blood_in_fluid_follows_the_fluid_unless_it_is_a_compact_clot(site):
    apart_mm = ndimage.distance_transform_edt(HEAD.sites != code(site))
    fluid = [lesion for lesion in grow(site, 70) if lesion.kind == "fluid"]
    farthest = np.array([apart_mm[lesion.box][lesion.mask].max() for lesion in fluid])
    # 7 % clots, 15 % drawn generously, by a voxel; the others lie in the fluid alone
    assert np.mean(farthest == 0) == pytest.approx(0.78, abs=0.2)
    assert np.mean(farthest > 1) < 0.3
    for lesion, reach in zip(fluid, farthest, strict=True):
        if reach > 1:
            assert (HEAD.sites[lesion.box][lesion.mask] == code(site)).mean() >= 0.5


def test_a_few_lesions_in_fluid_are_clots_that_distend_it(lesions):
    fluid = [lesion for site in FLUID for lesion in lesions[site] if lesion.kind != "cast"]
    kept = [(HEAD.sites[f.box][f.mask] == code(f.site)).mean() > 0.95 for f in fluid]
    apart_mm = {site: ndimage.distance_transform_edt(HEAD.sites != code(site)) for site in FLUID}
    beyond = [apart_mm[f.site][f.box][f.mask].max() > 1 for f in fluid]
    assert np.mean(kept) > 0.5 and 0 < np.mean(beyond) < 0.2


@pytest.mark.slow
def test_blood_in_sulci_keeps_clear_of_cortex_that_grew():
    depth_mm = HEAD.csf_depth_mm / 10
    share = {}
    for narrowing_mm in (0.0, 2.0):
        grown = grow("sulcal_spaces", 30, narrowing_mm=narrowing_mm)
        shallow = [
            (depth_mm[lesion.box][lesion.mask] < 2.0).mean()
            for lesion in grown
            if lesion.kind == "fluid" and (HEAD.sites[lesion.box][lesion.mask] == code("sulcal_spaces")).all()
        ]
        assert len(shallow) >= 8
        share[narrowing_mm] = np.array(shallow)
    assert share[0.0].min() > 0.1
    assert np.median(share[2.0]) == 0  # the generous ones that happen to stay in the fluid reach a voxel in


def test_lesions_in_a_lobe_are_not_ribbons_in_its_sulci(lesions):
    for site in LOBES:
        for lesion in lesions[site]:
            if lesion.kind == "tissue":
                assert (HEAD.sites[lesion.box][lesion.mask] == code("sulcal_spaces")).mean() < 0.4


def test_some_blood_in_sulci_keeps_away_from_the_surface():
    """In a head whose sulci are deep: the outer 9 mm of the brain are fluid."""
    x, y, z = points()
    deep = (HEAD.extra_axial > 0) & ((x / 20) ** 2 + (y / 24) ** 2 + (z / 20) ** 2 > 1)
    sites = np.where(deep, code("sulcal_spaces"), HEAD.sites).astype(np.uint8)
    found = grow("sulcal_spaces", 40, LesionGrower(replace(HEAD, sites=sites)))
    nearest_mm = np.array([BONE_MM[lesion.box][lesion.mask].min() for lesion in found])
    assert len(found) > 35 and 0.25 < np.mean(nearest_mm > 2) < 0.75


def test_a_layered_ventricular_lesion_lies_at_the_back():
    """A quarter of them: their front is one coronal plane, though the ventricle goes on in front of it."""
    ventricle = HEAD.sites == code("ventricular_system")
    flat = 0
    for lesion in grow("ventricular_system", 40):
        whole = np.zeros(SHAPE, dtype=bool)
        whole[lesion.box] = lesion.mask
        front = lesion.start[1] + lesion.mask.shape[1] - 1
        last, beyond = whole[:, front], ventricle[:, front + 1]
        flat += bool(last.sum() >= 20 and beyond[last].mean() > 0.9)
    assert 3 <= flat <= 17


def test_casts_fill_ventricles_to_the_wall_and_some_reach_over_it():
    ventricle = HEAD.sites == code("ventricular_system")
    casts = [lesion for lesion in grow("ventricular_system", 60) if lesion.kind == "cast"]
    assert 15 <= len(casts) <= 45  # 60 % of the four in five that are no structures
    over = 0
    for lesion in casts:
        inside = ventricle[lesion.box] & lesion.mask
        over += bool((lesion.mask & ~ventricle[lesion.box]).any())
        # Off the coronal and axial cuts nothing of the ventricle is left beside the lesion, within its box.
        row = lesion.mask.any(axis=0) & inside.any(axis=0)
        half = HEAD.lateral_mm[lesion.box] * np.sign(HEAD.lateral_mm[lesion.box][lesion.mask].mean())
        left_out = ventricle[lesion.box] & ~lesion.mask & (half > 0)
        assert (left_out & row[None]).sum() <= 0.2 * inside.sum()
    assert 0.2 < over / len(casts) < 0.8  # a half
    swell = np.array([lesion.swell for lesion in casts])
    assert swell.max() <= 3.0 and 0.2 < np.mean(swell > 1) < 0.8


def test_casts_of_one_side_keep_to_it():
    for low, high, sign in ((5, 30, -1), (-30, -5, 1)):
        grown = grow("ventricular_system", 40, window=starting_at_x(low, high))
        casts = [lesion for lesion in grown if lesion.kind == "cast"]
        assert len(casts) >= 5
        one_sided = [(sign * HEAD.lateral_mm[c.box][c.mask] > -3).all() for c in casts]
        assert np.mean(one_sided) > 0.6  # all but casts of the whole system, 10 %


def test_lesions_of_cortex_are_ribbons_or_wedges_at_the_surface(lesions):
    ribbons = [lesion for site in LOBES for lesion in lesions[site] if lesion.kind == "cortex"]
    assert len(ribbons) / sum(len(lesions[site]) for site in LOBES) == pytest.approx(0.1, abs=0.08)
    for lesion in ribbons:
        depth = BONE_MM[lesion.box][lesion.mask]
        assert depth.min() > 1 and depth.max() < 31


def test_a_crescent_lies_on_the_inner_table_and_is_thin(crescents):
    for lesion in crescents:
        depth = BONE_MM[lesion.box][lesion.mask]
        assert depth.min() == 1  # face to face with bone, and outside it
        assert depth.max() <= 4.5  # at rest; pushing the brain in, it is at most 18 mm thick
        assert 1 <= lesion.swell * depth.max() <= 22


def test_some_crescents_are_long_and_some_are_lenses(crescents):
    across = np.array([np.ptp(np.argwhere(lesion.mask), axis=0).max() for lesion in crescents])
    assert across.max() > 45 and across.min() < 40  # of a head of 60 mm
    swell = np.array([lesion.swell for lesion in crescents])
    assert (swell > 2).any() and (swell < 1.5).any()


@pytest.mark.slow
def test_crescents_do_not_cross_the_midline_and_lesions_in_tissue_seldom_do():
    crossing = {"tissue": [], "cortex": [], "crescent": []}
    for low, high, left in ((4.5, 26.5, False), (-26.5, -4.5, True)):
        for site in LOBES:
            for lesion in grow(site, 35, window=starting_at_x(low, high)):
                if lesion.kind == "structure":
                    continue
                lateral = HEAD.lateral_mm[lesion.box][lesion.mask]
                other = lateral < 0 if left else lateral > 0
                crossing[lesion.kind].append(bool(other.any()))
                assert other.mean() < 0.5
    assert len(crossing["crescent"]) >= 12 and not any(crossing["crescent"] + crossing["cortex"])
    assert np.mean(crossing["tissue"]) < 0.2  # the huge ones may, in so small a head


def test_a_lesion_near_the_midline_may_cross_it():
    lesions = [lesion for site in LOBES for lesion in grow(site, 20, window=starting_at_x(-3, 3))]
    both = [{-1, 1} <= set(np.sign(HEAD.lateral_mm[lesion.box][lesion.mask])) for lesion in lesions]
    assert np.mean(both) > 0.3


def test_a_sheet_lies_on_one_side_of_the_falx_or_around_it():
    sides = {"left": 0, "right": 0, "around": 0}
    for lesion in grow("along_falx_tentorium", 40):
        lateral = HEAD.lateral_mm[lesion.box][lesion.mask]
        assert np.abs(lateral).max() <= 5
        around = lateral.min() < 0 < lateral.max()
        sides["around" if around else "left" if lateral.max() > 0 else "right"] += 1
    assert min(sides.values()) >= 2


def test_sinus_lesions_keep_to_one_sinus(lesions):
    for lesion in lesions["maxillary"]:
        assert len(set(np.sign(HEAD.lateral_mm[lesion.box][lesion.mask]))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("site", PRESENT)
def test_a_window_keeps_lesions_on_the_scanned_slices(site):
    """Slices 4 mm apart that cover 12 mm of the site's height, tilted by one in ten."""
    heights = np.argwhere(HEAD.sites == code(site))[:, 2]
    middle = np.median(heights)
    to_slice = np.array([0, 0.1 / 4, 1 / 4, (-0.1 * SHAPE[1] / 2 - middle + 4) / 4])
    found = grow(site, 20, window=(to_slice, 3))
    assert len(found) >= 15
    seen = []
    for lesion in found:
        k = (np.argwhere(lesion.mask) + lesion.start) @ to_slice[:3] + to_slice[3]
        seen.append(((k > -0.5) & (k < 2.5)).any())
    # It starts there; what a generator then cuts away may, seldom, be just that.
    assert np.mean(seen) >= 0.9


def test_no_lesion_where_the_window_misses_the_site():
    above, elsewhere = (np.array([0, 0, 1.0, -60]), 10), (np.array([0, 0, 1.0, 500]), 9)
    assert GROWER.grow("maxillary", np.random.default_rng(0), window=above) is None
    assert GROWER.grow("frontal_region", np.random.default_rng(0), window=elsewhere) is None


def test_starts_within_a_window_by_counting():
    voxels = np.flatnonzero(HEAD.sites.ravel() == code("thalamus")).astype(np.int32)
    assert voxels.size < 4000  # so that all are looked at
    to_slice = np.array([0.02, -0.1, 0.31, -8.0])
    expected = []
    for flat in voxels:
        x, rest = divmod(int(flat), SHAPE[1] * SHAPE[2])
        y, z = divmod(rest, SHAPE[2])
        if -0.5 < 0.02 * x - 0.1 * y + 0.31 * z - 8 < 1.5:
            expected.append(flat)
    assert 0 < len(expected) < voxels.size
    assert in_window(voxels, SHAPE, (to_slice, 2)).tolist() == expected
    assert in_window(voxels, SHAPE, None).tolist() == voxels.tolist()


def test_a_large_site_is_sampled_evenly():
    voxels = np.arange(100_000, dtype=np.int32)
    taken = in_window(voxels, (100, 100, 10), None)
    assert 4000 <= taken.size <= 8000
    assert len(set(np.diff(taken))) == 1 and taken[0] == 0 and taken[-1] > 99_900


def test_lesions_leave_out_bone_that_has_a_site_and_tissue_that_has_none():
    """The walls of sinuses are such bone; a plug through the frontal lobe and its fluid stands for both."""
    x, y, z = points()
    plug = np.hypot(x + 14, z) < 3
    labels, extra_axial = HEAD.labels.copy(), HEAD.extra_axial.copy()
    labels[plug & (y > 18) & (extra_axial > 0)] = BONE
    extra_axial[plug & (y > 4) & (y < 12)] = 0
    sites = np.where(extra_axial > 0, HEAD.sites, 0).astype(np.uint8)
    grower = LesionGrower(replace(HEAD, labels=labels, sites=sites, extra_axial=extra_axial))
    kinds, near = set(), 0
    for lesion in grow("frontal_region", 60, grower, window=starting_at_x(-20, -8)):
        assert not (labels[lesion.box][lesion.mask] == BONE).any()
        kinds.add(lesion.kind)
        near += plug[lesion.box].any()
        if lesion.kind != "structure":
            assert (extra_axial[lesion.box][lesion.mask] > 0).all()
    assert kinds == {"tissue", "cortex", "crescent", "structure"} and near > 30


def test_lesions_at_the_edge_of_the_grid_do_not_wrap_around():
    cut = {
        field: np.ascontiguousarray(getattr(HEAD, field)[:40, 38:, :])
        for field in ("labels", "sites", "extra_axial", "lateral_mm", "csf_depth_mm", "sheet")
    }
    head = replace(HEAD, **cut)
    grower = LesionGrower(head)
    touching = 0
    for site in LOBES[:1] + FLUID:
        for lesion in grow(site, 20, grower):
            part = (head.sites if site in FLUID else head.extra_axial)[lesion.box]
            assert part.shape == lesion.mask.shape and (part[lesion.mask] > 0).all()
            assert ndimage.label(lesion.mask, np.ones((3, 3, 3)))[1] == 1
            touching += lesion.start[1] == 0 or lesion.start[0] + lesion.mask.shape[0] == 40
    assert touching > 5


@pytest.mark.parametrize("shape", [(9, 13, 11), (3, 4, 5), (17, 4, 30), (1, 6, 6)])
def test_stretch_is_trilinear_and_keeps_the_corners(shape):
    values = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    fine = stretch(values, shape)
    assert fine.shape == shape and fine.dtype == np.float32
    lines = [np.arange(n) for n in values.shape]
    at = [np.linspace(0, m - 1, n) for m, n in zip(values.shape, shape, strict=True)]
    grid = np.stack(np.meshgrid(*at, indexing="ij"), axis=-1)
    assert fine == pytest.approx(RegularGridInterpolator(lines, values)(grid), abs=1e-5)
    if min(shape) > 1:
        assert fine == pytest.approx(
            ndimage.zoom(values, np.divide(shape, values.shape), order=1, mode="nearest"), abs=1e-5
        )
        ends = np.ix_(*[(0, -1)] * 3)
        assert np.array_equal(fine[ends], values[ends])


def test_stretch_along_one_axis_is_interpolation():
    line = np.array([0, 3, -1, 4], dtype=np.float32)
    fine = stretch(np.broadcast_to(line, (2, 2, 4)).copy(), (2, 2, 10))
    assert fine[1, 0] == pytest.approx(np.interp(np.linspace(0, 3, 10), np.arange(4), line), abs=1e-6)


@pytest.mark.parametrize(("shape", "scale"), [((25, 25, 25), 8.0), ((7, 40, 3), 10.0), ((5, 5, 5), 50.0)])
def test_smooth_noise_is_straight_between_nodes(shape, scale):
    noise = smooth_noise(shape, scale, np.random.default_rng(1))
    assert noise.shape == shape and noise.dtype == np.float32
    for axis, n in enumerate(shape):
        nodes = max(2, int(np.ceil(n / scale)) + 1)
        assert (n - 1) / (nodes - 1) <= scale
        bent = np.abs(np.diff(noise, 2, axis=axis)).max(axis=tuple({0, 1, 2} - {axis})) > 1e-4
        assert bent.sum() <= 2 * (nodes - 2)  # a corner of the line lies between, at most, three voxels


def test_smooth_noise_has_zero_mean_and_unit_variance_at_its_nodes():
    rng = np.random.default_rng(2)
    corners = np.array([smooth_noise((9, 9, 9), 4.0, rng)[::8, ::8, ::8] for _ in range(300)])
    assert corners.mean() == pytest.approx(0, abs=0.08)  # 2,400 values: four standard deviations
    assert corners.var() == pytest.approx(1, abs=0.12)
    neighbours = np.corrcoef(corners[:, 0, 0, 0], corners[:, 1, 0, 0])[0, 1]
    assert abs(neighbours) < 0.2  # nodes are independent


def test_a_lesion_box_is_where_it_starts():
    mask = np.ones((2, 3, 4), dtype=bool)
    box = Lesion(mask, (5, 6, 7), "thalamus", "tissue").box
    assert box == (slice(5, 7), slice(6, 9), slice(7, 11))
