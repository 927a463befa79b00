"""Virtual scans: where things land, what HU they get, and that all maps of a scan stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantoms.small_head import (
    BONE,
    CSF,
    SHAPE,
    THALAMUS,
    VENTRICLE,
    WHITE,
    code,
    level_plan,
    mirrored,
    points,
    small_head,
    voxel,
)
from scipy import ndimage

from situs.synth import drawing, pose, render, tissue
from situs.synth.lesion import Lesion
from situs.synth.lesions import LesionGrower
from situs.synth.pose import ScanPlan, draw_plan
from situs.synth.render import RenderedScan, render_scan
from situs.volume import bounding_box

HEAD = small_head()
ARCHIVES = {(-1024, 3071), (-20, 100), (0, 80), (-100, 200), (0, 255)}  # docs/synth.md
UNKNOWN = 127  # the lateral distance outside the label map


def whole_range(head, lesions, plan, start: int = 0) -> RenderedScan:
    """The first scan, by its generator's seed, whose archive kept all HU."""
    scans = (render_scan(head, lesions, plan, np.random.default_rng([start, n])) for n in range(50))
    return next(scan for scan in scans if scan.hu.min() < -500)


def as_scanned(volume: np.ndarray) -> np.ndarray:
    """A volume of the head as `level_plan` (1 mm slices) shows it: i to the left, j to the back."""
    return volume[::-1, ::-1]


def core(mask: np.ndarray) -> np.ndarray:
    """What is at least 3 voxels inside, out of reach of blur and bending."""
    return np.asarray(ndimage.distance_transform_edt(mask) > 3)


def block(value: int, shape: tuple[int, int, int] = (24, 24, 24)):
    """A head that is one even block of a label, all of one site, with a midline between voxels."""
    full = np.ones(shape, dtype=np.uint8)
    x = np.indices(shape)[0] - shape[0] // 2
    return replace(
        HEAD,
        labels=np.full(shape, value, dtype=np.int16),
        sites=full * code("frontal_region"),
        extra_axial=full * code("frontal_region"),
        lateral_mm=(-x).astype(np.int8),
        csf_depth_mm=0 * full,
        sheet=0 * full,
    )


def turned_plan(rng: np.random.Generator, gap_mm: float = 4.0) -> ScanPlan:
    """A random pose of the small head in a grid that holds it: 1.25 mm pixels."""
    affine = np.diag([-1.25, -1.25, gap_mm, 1.0])
    shape = (80, 80, int(80 / gap_mm))
    affine[:3, 3] = [50, 50, -38]
    return replace(draw_plan(HEAD, rng), affine=affine, shape=shape)


@pytest.fixture
def unbent(monkeypatch):
    """Scans whose only deformation is the plan's: the smooth noise is flat."""
    for module in (pose, tissue, drawing, render):
        monkeypatch.setattr(
            module, "smooth_noise", lambda shape, scale, rng, **order: np.zeros(shape, dtype=np.float32)
        )


@pytest.fixture(scope="module")
def level() -> RenderedScan:
    return whole_range(HEAD, [], level_plan(HEAD))


def test_a_level_scan_shows_the_maps_as_they_are(unbent):
    scan = render_scan(HEAD, [], level_plan(HEAD), np.random.default_rng(0))
    assert np.array_equal(scan.sites, as_scanned(HEAD.sites))
    assert np.array_equal(scan.lateral_mm, as_scanned(HEAD.lateral_mm))
    assert scan.masks == []
    assert (scan.hu.dtype, scan.sites.dtype, scan.lateral_mm.dtype) == (np.int16, np.uint8, np.int8)


def test_bending_moves_the_maps_by_a_few_mm(level):
    moved = level.sites != as_scanned(HEAD.sites)
    assert 0.01 < moved.mean() < 0.3
    skull = as_scanned(HEAD.sites > 0)
    far = ndimage.distance_transform_edt(~skull)[level.sites > 0]
    assert np.quantile(far, 0.99) < 10 and far.max() < 20


def test_i_runs_to_the_patients_left_j_to_the_back_k_up():
    labels = np.zeros(SHAPE, dtype=np.int16)
    places = {"left": (-24, 0, 0), "front": (0, 27, 0), "top": (0, 0, 24)}
    for place in places.values():
        x, y, z = voxel(*place)
        labels[x - 4 : x + 4, y - 4 : y + 4, z - 4 : z + 4] = BONE
    scan = whole_range(replace(HEAD, labels=labels), [], level_plan(HEAD))
    bright = ndimage.label(scan.hu > -200)[0]
    found = ndimage.center_of_mass(bright > 0, bright, range(1, bright.max() + 1))
    found = [c for c, n in zip(found, np.bincount(bright.ravel())[1:], strict=True) if n > 100]
    # the middle of the grid is (36, 40, 36); bending moves a thing by at most some mm
    for expected in ((36 + 24, 40, 36), (36, 40 - 27, 36), (36, 40, 36 + 24)):
        assert np.abs(np.array(found) - expected).max(axis=1).min() < 8
    left = scan.lateral_mm[tuple(np.rint(max(found)).astype(int))]
    assert 16 < left < 32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "low", "high"),
    [
        ((0,), -1010, -990),
        ((BONE,), 350, 1550),  # 950 in the mean, spread 200
        (VENTRICLE, -10, 22),
        (WHITE, 14, 40),
        (THALAMUS, 20, 50),
        ((16,), 18, 44),
    ],
)
def test_tissue_has_its_hu_where_its_labels_are(unbent, labels, low, high):
    """Textbook means, give or take three spreads between scans and the scanner's shading."""
    scan = whole_range(HEAD, [], level_plan(HEAD), start=labels[0])
    mask = np.isin(HEAD.labels, labels)
    mask = ndimage.binary_erosion(mask, iterations=2 if labels != (BONE,) else 1)
    assert mask.sum() > 50
    assert low < scan.hu[as_scanned(mask)].mean() < high


def test_fluid_is_darker_than_white_matter_and_that_than_gray(unbent):
    """Over scans: the spreads overlap in any one."""
    scans = [whole_range(HEAD, [], level_plan(HEAD, gap_mm=6, bottom=3), start=n).hu for n in range(6)]
    mean = {}
    for name, labels in {"fluid": VENTRICLE, "white": WHITE, "gray": THALAMUS}.items():
        mask = as_scanned(ndimage.binary_erosion(np.isin(HEAD.labels, labels), iterations=2))[:, :, 3::6]
        mean[name] = np.mean([hu[mask].mean() for hu in scans])
    assert mean["fluid"] + 10 < mean["white"] < mean["gray"] - 3


def test_outside_the_head_is_air(level):
    """In front, where no table is; also past the edge of the label map."""
    outside = ndimage.distance_transform_edt(as_scanned(HEAD.labels) == 0) > 12
    outside[:, 40:] = False
    assert level.hu[outside].mean() == pytest.approx(-1000, abs=5)
    plan = level_plan(HEAD)
    wide = plan.affine.copy()
    wide[:3, 3] += [40, 40, 0]
    shape = (plan.shape[0] + 80, plan.shape[1] + 40, 8)
    scan = whole_range(HEAD, [], replace(plan, affine=wide, shape=shape))
    for edge in (scan.hu[:30, :60], scan.hu[-30:, :60], scan.hu[:, :30]):
        assert edge.mean() == pytest.approx(-1000, abs=5)
    assert (scan.sites[:30] == 0).all() and (scan.lateral_mm[:30] == UNKNOWN).all()
    assert (scan.lateral_mm[60:90, 60:90, :4] != UNKNOWN).all()


def test_a_table_lies_behind_the_head():
    plan = level_plan(block(BONE))
    affine = plan.affine.copy()
    affine[:3, 3] = HEAD.affine[:3, 3] + [12 + 128, 12 + 128, 2]
    affine[:2, :2] *= 2
    seen = 0
    for n in range(8):
        scan = whole_range(block(BONE), [], replace(plan, affine=affine, shape=(128, 128, 4)), start=n)
        bright = scan.hu > -300
        bright[50:78, 50:78] = False  # the block and its neighbourhood
        seen += bright.any()
        j = np.nonzero(bright)[1]
        assert not j.size or j.min() > 64  # behind the middle
    assert 2 <= seen <= 8  # 70 % of the scans


@pytest.mark.parametrize(
    ("offset_mm", "share"), [(-3, 1), (-2, 5 / 6), (-1, 2 / 3), (0, 0.5), (1, 1 / 3), (2, 1 / 6)]
)
def test_a_thick_slice_averages_through_its_thickness(unbent, offset_mm, share):
    """A 6 mm slice whose middle lies `offset_mm` above a flat top of bone holds this share of bone."""
    head = block(BONE, (24, 24, 48))
    labels = head.labels.copy()
    labels[:, :, 24:] = 0  # the boundary lies half a voxel below the centre of voxel 24
    plan = level_plan(head, gap_mm=6, bottom=23.5 + offset_mm - 12)
    scan = whole_range(replace(head, labels=labels), [], plan)
    bone, part, air = (scan.hu[4:-4, 4:-4, k].mean() for k in (1, 2, 3))
    assert bone > 300 and air < -950
    assert (part - air) / (bone - air) == pytest.approx(share, abs=0.02)


def test_a_thin_slice_does_not_average(unbent):
    head = block(BONE, (24, 24, 48))
    labels = head.labels.copy()
    labels[:, :, 24:] = 0
    scan = whole_range(replace(head, labels=labels), [], level_plan(head))
    profile = scan.hu[4:-4, 4:-4].mean(axis=(0, 1))
    assert (profile[1:24] > 300).all() and (profile[24:] < -950).all()


def test_the_archive_keeps_all_hu_or_a_window():
    head = block(BONE)
    labels = head.labels.copy()
    labels[12:] = 0
    head = replace(head, labels=labels)
    ends = []
    for n in range(60):
        hu = render_scan(head, [], level_plan(head, gap_mm=4), np.random.default_rng(n)).hu
        ends.append(next(((a, b) for a, b in ARCHIVES if hu.min() == a and hu.max() == b), None))
        if ends[-1] is None:
            assert -1100 < hu.min() < -900 and 300 < hu.max() <= 3071
    assert 0.25 < ends.count(None) / 60 < 0.6  # 42 % of them; the clipped ones touch both ends
    assert len(set(ends)) >= 3


def test_narrow_sulci_show_less_fluid(unbent):
    """Where the fluid is thinner than the cortex was let grow into it, it has the HU of cortex."""
    thin = (HEAD.labels == CSF) & (HEAD.csf_depth_mm <= 14) & (HEAD.csf_depth_mm > 0)
    sulci, cisterns = (
        as_scanned(thin & (HEAD.sites == code(s)))[:, :, ::2] for s in ("sulcal_spaces", "basal_cisterns")
    )
    hu = {}
    for narrowing_mm in (0.0, 2.8):
        plan = level_plan(HEAD, gap_mm=2, narrowing_mm=narrowing_mm)
        scans = [whole_range(HEAD, [], plan, start=n).hu for n in range(3)]
        hu[narrowing_mm] = [np.mean([np.median(s[part]) for s in scans]) for part in (sulci, cisterns)]
    assert hu[2.8][0] > hu[0.0][0] + 15
    assert abs(hu[2.8][1] - hu[0.0][1]) < hu[2.8][0] - hu[0.0][0]  # cisterns by a third of that


@pytest.mark.slow
def test_the_falx_is_denser_than_fluid(unbent):
    """A sheet in fluid is seen at 15 to 90 % of 50 to 70 HU; the same fluid without it is not."""
    sheet = as_scanned(ndimage.binary_erosion(HEAD.sheet == 1, np.ones((1, 5, 5))))[:, :, ::2]
    bare = replace(HEAD, sheet=np.zeros_like(HEAD.sheet))
    plan = level_plan(HEAD, gap_mm=2)
    with_falx, without = (
        [whole_range(h, [], plan, n).hu[sheet].mean() for n in range(4)] for h in (HEAD, bare)
    )
    assert np.mean(with_falx) > np.mean(without) + 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_hu_sites_and_side_stay_together_in_any_pose(seed):
    """Bone is made a site, and the sides two others: HU and the maps must then tell the same story."""
    x, _, _ = points()
    sites = np.zeros_like(HEAD.sites)
    sites[HEAD.labels > 0] = np.where(x < 0, code("thalamus"), code("brainstem"))[HEAD.labels > 0]
    sites[HEAD.labels == BONE] = code("sphenoid")
    sites[np.isin(HEAD.labels, VENTRICLE)] = code("ventricular_system")
    rng = np.random.default_rng(seed)
    plan = turned_plan(rng, gap_mm=2.0)
    scan = whole_range(replace(HEAD, sites=sites), [], plan, start=seed)
    left, right = (scan.sites == code(s) for s in ("thalamus", "brainstem"))
    assert left.sum() > 5000 and right.sum() > 5000
    assert (scan.lateral_mm[left] >= 0).all() and (scan.lateral_mm[right] <= 0).all()
    bone, ventricle = (scan.sites == code(s) for s in ("sphenoid", "ventricular_system"))
    ring = ndimage.binary_erosion(bone, iterations=1)
    assert np.median(scan.hu[ring]) > 250
    if ndimage.binary_erosion(ventricle).sum() > 20:
        assert np.median(scan.hu[ndimage.binary_erosion(ventricle)]) < 120  # choroid may be calcified
    inside = core(scan.sites == 0) & (scan.hu < -900)
    assert inside.sum() > 0.8 * core(scan.sites == 0).sum()


@pytest.mark.slow
def test_masks_lie_where_their_lesions_do_in_any_pose(monkeypatch):
    """Lesions that are the thalami themselves: their masks must be the thalami of the rendered site map."""
    monkeypatch.setattr(drawing, "_broad_strokes", lambda mask, rng: mask)
    x, _, _ = points()
    codes = np.zeros(SHAPE, dtype=np.uint8)
    lesions = []
    for side, key in ((x < 0, "thalamus"), (x > 0, "brainstem")):
        mask = np.isin(HEAD.labels, THALAMUS) & side
        codes[mask] = code(key)
        box = bounding_box(mask)
        start = tuple(b.start for b in box)
        lesions.append(Lesion(mask[box], (start[0], start[1], start[2]), key, "fluid"))
    head = replace(HEAD, sites=codes)
    exact = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scan = render_scan(head, lesions, turned_plan(rng, 2.5), rng)
        for lesion, mask in zip(lesions, scan.masks, strict=True):
            truth = scan.sites == code(lesion.site)
            assert truth.sum() > 100
            assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.6
            assert (ndimage.distance_transform_edt(~truth)[mask] < 3).all()
            exact += np.array_equal(mask, truth)
    assert 2 <= exact <= 12  # 25 % are drawn exactly, 10 % would be in broad strokes


def test_lesions_in_tissue_carry_the_map_they_are_named_by(unbent):
    """Fluid over the convexity is the lobe beneath under a crescent, and sulcal under blood in fluid."""
    fluid = HEAD.sites == code("sulcal_spaces")
    x, y, z = points()
    here = fluid & (x < -20) & (y > 4) & (np.abs(z) < 12)
    for kind, expected in (
        ("crescent", "frontal_region"),
        ("tissue", "frontal_region"),
        ("fluid", "sulcal_spaces"),
    ):
        box = bounding_box(here)
        lesion = Lesion(here[box], tuple(b.start for b in box), expected, kind)
        scan = render_scan(HEAD, [lesion], level_plan(HEAD), np.random.default_rng(1))
        assert (scan.sites[as_scanned(here)] == code(expected)).all()
        assert np.array_equal(scan.sites[~as_scanned(here)], as_scanned(HEAD.sites)[~as_scanned(here)])


def test_masks_in_broad_strokes():
    """A ring in three slices and its four ways: a box, its hull, a part of it, holes."""
    i, j, k = np.indices((40, 44, 3))
    far = np.hypot(i - 20 + 2 * k, j - 22)
    ring = (far < 12) & (far > 8)
    found = set()
    for n in range(60):
        drawn = drawing._broad_strokes(ring, np.random.default_rng(n))
        if (ring & ~drawn).any():
            assert not (drawn & ~ring).any()
            found.add("less")
            continue
        areas = drawn.sum(axis=(0, 1))
        if (areas == 23 * 23).all():  # from -11 to 11 of the middle
            found.add("box")
        elif np.array_equal(drawn, far < 12):  # a disc is convex
            found.add("hull")
    assert found == {"less", "box", "hull"}


def test_the_hull_of_a_line_is_the_line_and_of_an_angle_a_triangle():
    line, angle = np.zeros((2, 12, 12), dtype=bool)
    line[3, 2:9] = angle[3, 2:9] = angle[3:10, 2] = True
    assert np.array_equal(drawing._convex_hull(line), line)
    i, j = np.indices((12, 12)) - np.array([3, 2])[:, None, None]
    assert np.array_equal(drawing._convex_hull(angle), (i >= 0) & (j >= 0) & (i + j <= 6))


@pytest.mark.slow
def test_masks_are_one_piece_each():
    grower = LesionGrower(HEAD)
    drawn = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        plan = turned_plan(rng)
        lesions = [grower.grow(site, rng, plan.sulcal_narrowing_mm, plan.window) for site in grower.sites()]
        lesions = [lesion for lesion in lesions if lesion is not None]
        scan = render_scan(HEAD, lesions, plan, rng)
        assert len(scan.masks) == len(lesions)
        for mask in scan.masks:
            assert mask.dtype == np.bool_ and mask.shape == plan.shape
            if mask.any():
                drawn += 1
                assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    assert drawn >= 25


def test_slices_in_which_a_mask_leaves_its_site_are_not_drawn_unless_the_lesion_is_deep(unbent):
    """A plug through the top of the brain and the fluid above it: named by the fluid, or by the thalamus."""
    x, y, z = points()
    plug = (np.hypot(x + 12, y - 8) < 4) & (z > 14) & (HEAD.extra_axial > 0)
    box = bounding_box(plug)
    fluid = as_scanned(plug & (HEAD.sites == code("sulcal_spaces")))
    drawn = {}
    for site in ("sulcal_spaces", "thalamus"):
        lesion = Lesion(plug[box], tuple(b.start for b in box), site, "fluid")
        drawn[site] = render_scan(HEAD, [lesion], level_plan(HEAD), np.random.default_rng(4)).masks[0]
    share = fluid.sum(axis=(0, 1)) / np.maximum(as_scanned(plug).sum(axis=(0, 1)), 1)
    assert (share == 0).sum() > 8 and (share > 0.6).sum() >= 2
    seen = drawn["sulcal_spaces"].any(axis=(0, 1))
    assert seen[share > 0.6].all() and not seen[share < 0.2].any()
    assert np.array_equal(drawn["thalamus"].any(axis=(0, 1)), as_scanned(plug).any(axis=(0, 1)))


@pytest.mark.parametrize(("site", "kept"), [("sulcal_spaces", False), ("basal_cisterns", True)])
def test_a_sulcus_is_not_drawn_amid_as_much_tissue(site, kept):
    """Half of every slice lies in the site."""
    mask = np.zeros((24, 24, 4), bool)
    mask[6:18, 6:18, :] = True
    sites = np.full(mask.shape, code("frontal_region"), np.uint8)
    sites[:12] = code(site)
    lesion = Lesion(mask, (0, 0, 0), site, "structure")
    for seed in range(12):
        drawn = drawing.draw_mask(mask, lesion, sites == code(site), np.random.default_rng(seed))
        own = (drawn & (sites == code(site))).sum() / max(1, drawn.sum())
        assert drawn.any() == kept or own > 0.6  # a part of it may be drawn


def test_no_lesion_off_the_scan_leaves_a_mask():
    box = bounding_box(HEAD.labels == 16)
    lesion = Lesion(HEAD.labels[box] == 16, tuple(b.start for b in box), "brainstem", "tissue")
    plan = level_plan(HEAD, gap_mm=2, bottom=50)  # above the brainstem, which ends at 32
    assert not render_scan(HEAD, [lesion], plan, np.random.default_rng(0)).masks[0].any()


@pytest.mark.slow
def test_60_of_100_lesions_are_seen():
    """In even white matter: most of those that are seen are bright, as blood is, others dark."""
    head = block(WHITE[0])
    mask = np.ones((10, 10, 10), dtype=bool)
    lesion = Lesion(mask, (7, 7, 7), "frontal_region", "tissue")
    plan = level_plan(head, gap_mm=3)
    change = []
    for n in range(80):
        hu = render_scan(head, [lesion], plan, np.random.default_rng(n)).hu[9:15, 9:15, 3:5]
        change.append(float(hu.mean()) - 27)
    change = np.array(change)
    # 80 draws: a standard deviation of 5 %. White matter is 27 HU, give or take 3; blood at least 48.
    assert np.mean(change > 14) == pytest.approx(0.6 * 0.65, abs=0.15)
    assert np.mean(np.abs(change) < 10) == pytest.approx(0.4 + 0.6 * 0.35 / 2, abs=0.2)


def test_normal_structures_are_not_painted():
    head = block(WHITE[0])
    lesion = Lesion(np.ones((10, 10, 10), dtype=bool), (7, 7, 7), "frontal_region", "structure")
    for n in range(12):
        hu = render_scan(head, [lesion], level_plan(head, gap_mm=3), np.random.default_rng(n)).hu
        assert 14 < hu[9:15, 9:15, 3:5].mean() < 40  # white matter, give or take


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_head_in_a_mirrored_pose_gives_the_same_scan_with_sides_swapped(unbent, seed):
    rng = np.random.default_rng(seed)
    plan = turned_plan(rng)
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = SHAPE[0] - 1
    one_sided = HEAD.labels.copy()
    one_sided[voxel(-12, 8, 4)[0] :, :, 60:] = BONE  # so that the head is not its own mirror image
    head = replace(HEAD, labels=one_sided)
    scan = render_scan(head, [], plan, np.random.default_rng([seed, 1]))
    other = render_scan(
        mirrored(head), [], replace(plan, to_head=mirror @ plan.to_head), np.random.default_rng([seed, 1])
    )
    known = scan.lateral_mm != UNKNOWN
    assert known.sum() > 10_000 and np.array_equal(known, other.lateral_mm != UNKNOWN)
    assert (
        scan.lateral_mm[known] == -other.lateral_mm[known].astype(int)
    ).mean() > 0.9999  # ties of rounding
    assert (scan.sites == other.sites).mean() > 0.9999
    # calcified spots lie to one side at random, a ball of at most 3.2 mm
    assert (np.abs(scan.hu.astype(int) - other.hu) > 1).mean() < 0.003


def test_the_same_generator_renders_the_same_scan_and_another_does_not():
    lesions = [LesionGrower(HEAD).grow("frontal_region", np.random.default_rng(2))]
    plan = level_plan(HEAD, gap_mm=8)
    one, same, other = (render_scan(HEAD, lesions, plan, np.random.default_rng(n)) for n in (1, 1, 2))
    for field in ("hu", "sites", "lateral_mm"):
        assert np.array_equal(getattr(one, field), getattr(same, field))
        assert not np.array_equal(getattr(one, field), getattr(other, field))
    assert np.array_equal(one.masks[0], same.masks[0])


def swollen_ball(swell: float) -> tuple[Lesion, RenderedScan]:
    """A ball of 8 mm in the right hemisphere, and its scan."""
    x, y, z = points()
    ball = np.hypot(np.hypot(x - 13, y), z) < 8
    box = bounding_box(ball)
    lesion = Lesion(ball[box], tuple(b.start for b in box), "thalamus", "tissue", swell)
    return lesion, render_scan(HEAD, [lesion], level_plan(HEAD), np.random.default_rng(6))


def test_a_lesion_that_swells_grows_in_volume_and_keeps_its_place(unbent, monkeypatch):
    monkeypatch.setattr(render, "draw_mask", lambda mask, *rest: mask)
    (lesion, plain), (_, swollen) = swollen_ball(1.0), swollen_ball(2.0)
    assert np.array_equal(plain.masks[0].sum(), lesion.mask.sum())
    assert 1.4 < swollen.masks[0].sum() / plain.masks[0].sum() < 2.1  # less where the skull is near
    assert (plain.masks[0] & ~swollen.masks[0]).sum() < 0.02 * plain.masks[0].sum()
    middles = [ndimage.center_of_mass(scan.masks[0]) for scan in (plain, swollen)]
    assert middles[0] == pytest.approx(middles[1], abs=2)


def test_a_lesion_that_swells_pushes_the_midline_away_and_leaves_the_skull(unbent):
    plain, swollen = (swollen_ball(swell)[1] for swell in (1.0, 3.0))
    # on the patient's right, so that the midline moves to the left: what was on it now lies there
    middle = slice(33, 40), slice(32, 48), slice(30, 42)
    assert swollen.lateral_mm[middle].mean() < plain.lateral_mm[middle].mean() - 1
    bone = as_scanned(HEAD.labels == BONE)
    outside = as_scanned((HEAD.extra_axial == 0) & (HEAD.labels > 0))
    assert bone.sum() > 10_000
    assert np.array_equal(swollen.sites[outside], plain.sites[outside])
    assert np.array_equal(swollen.lateral_mm[bone], plain.lateral_mm[bone])


def test_a_crescent_is_a_lens_that_pushes_the_brain_in_and_leaves_the_skull(unbent, monkeypatch):
    monkeypatch.setattr(render, "draw_mask", lambda mask, *rest: mask)
    x, y, z = points()
    depth = ndimage.distance_transform_edt(HEAD.labels != BONE) * (HEAD.extra_axial > 0)
    layer = (depth > 0) & (depth < 2.5) & (np.hypot(y - 10, z) < 16) & (x > 0)
    box = bounding_box(layer)
    scans = []
    for swell in (1.0, 4.0):
        lesion = Lesion(layer[box], tuple(b.start for b in box), "frontal_region", "crescent", swell)
        scans.append(render_scan(HEAD, [lesion], level_plan(HEAD), np.random.default_rng(5)))
    rest, pushed = (scan.masks[0] for scan in scans)
    here = as_scanned(depth)
    assert here[rest].max() < 3 and 5 < here[pushed].max() < 10
    # thick in the middle, thin at the edge: by the distance from its middle over the bone
    _, j, k = np.nonzero(pushed)
    off_middle = np.hypot(j - (SHAPE[1] - 1) / 2 + 10, k - (SHAPE[2] - 1) / 2)
    thick = [here[pushed][(off_middle >= a) & (off_middle < a + 4)].max() for a in (0, 8, 12)]
    assert thick[0] > thick[1] > thick[2] and thick[0] > 1.5 * thick[2]
    outside = as_scanned(HEAD.extra_axial == 0)
    assert ((scans[1].sites == 0) & ~outside).mean() < 0.002  # the skull is where it was
    plug = (np.abs(y - 10) < 3) & (np.abs(z) < 3) & (x > 0)
    shift = [scan.lateral_mm[as_scanned(plug)].mean() for scan in scans]
    assert shift[1] < shift[0] - 0.7  # the brain lies deeper: what was farther to the right is seen there


def test_a_deep_bleed_may_break_into_the_ventricles():
    box = bounding_box(np.isin(HEAD.labels, THALAMUS))
    lesion = Lesion(np.isin(HEAD.labels, THALAMUS)[box], tuple(b.start for b in box), "thalamus", "tissue")
    ventricle = ndimage.binary_erosion(np.isin(HEAD.labels, VENTRICLE))
    filled = []
    for n in range(200):
        hu = np.full(SHAPE, 6, dtype=np.float32)
        tissue.paint_lesions(hu, HEAD, [lesion], np.random.default_rng(n))
        filled.append((hu[ventricle] > 40).mean() > 0.15)
    # Most of the ventricles are never in the lesion. Of the 60 % that are seen 6 % are anything, of the rest
    # 65 % are blood, of that 20 %.
    assert np.mean(filled) == pytest.approx(0.6 * 0.94 * 0.65 * 0.2, abs=0.06)  # three standard deviations


@pytest.mark.slow
def test_a_mask_of_a_ventricle_may_hold_fluid_above_the_blood():
    ventricle = np.isin(HEAD.labels, VENTRICLE)
    box = bounding_box(ventricle)
    lesion = Lesion(ventricle[box], tuple(b.start for b in box), "ventricular_system", "cast")
    y, mixed, settled = np.indices(SHAPE)[1], 0, 0
    for n in range(200):
        hu = np.full(SHAPE, 2, dtype=np.float32)
        tissue.paint_lesions(hu, HEAD, [lesion], np.random.default_rng(n))
        fluid, blood = ventricle & (hu >= 5) & (hu <= 32), ventricle & (hu > 35)
        if min(fluid.sum(), blood.sum()) > 0.08 * ventricle.sum():
            mixed += 1
            settled += bool(y[blood].max() <= y[fluid].min())  # the back has the lower y
    # Of the casts 90 % are seen, of these 94 % are blood, and of that 40 % fill a part of the mask. Further
    # blood in the ventricles hides some fluid, and some clots fill nearly all or nothing.
    assert 0.2 < mixed / 200 < 0.9 * 0.94 * 0.4 + 0.1
    assert 0 < settled < mixed


def test_rendering_leaves_the_head_as_it_was():
    before = {f: getattr(HEAD, f).copy() for f in ("labels", "sites", "extra_axial", "lateral_mm", "sheet")}
    lesions = [LesionGrower(HEAD).grow(s, np.random.default_rng(2)) for s in ("frontal_region", "maxillary")]
    render_scan(HEAD, lesions, level_plan(HEAD, gap_mm=8), np.random.default_rng(0))
    assert all(np.array_equal(getattr(HEAD, f), array) for f, array in before.items())


@pytest.fixture(scope="module")
def plans() -> list[ScanPlan]:
    return [draw_plan(HEAD, np.random.default_rng(n)) for n in range(300)]


def test_plans_keep_to_what_is_documented(plans):
    for plan in plans:
        pixel, gap = -plan.affine[0, 0], plan.affine[2, 2]
        assert np.array_equal(plan.affine[:3, :3], np.diag([-pixel, -pixel, gap]))
        assert 205 <= 256 * pixel <= 275 and 0.8 <= gap <= 10
        assert plan.shape[:2] == (256, 256) and 4 <= plan.shape[2] <= 36
        assert 0 <= plan.sulcal_narrowing_mm <= 2.8
        assert plan.cistern_narrowing_mm == pytest.approx(plan.sulcal_narrowing_mm / 3, rel=0.1)
        size = 1 / np.linalg.svd(plan.to_head[:3, :3])[1]  # mm of scan per mm of head
        assert size.min() > 0.9 * 0.85 and size.max() < 1.12 * 1.15
    gaps = np.array([plan.affine[2, 2] for plan in plans])
    assert np.mean((gaps >= 4) & (gaps <= 7)) == pytest.approx(0.7, abs=0.1)  # four standard deviations


def test_no_plan_mirrors_the_patient(plans):
    """i to the left, j to the back and k up are right-handed: they stay so in the head."""
    yaw = []
    for plan in plans:
        to_head = plan.to_head @ plan.affine
        assert np.linalg.det(to_head[:3, :3]) > 0
        yaw.append(np.degrees(np.arctan2(plan.to_head[1, 0], plan.to_head[0, 0])))
    yaw = np.abs(yaw)
    assert np.mean(yaw > 110) == pytest.approx(0.03, abs=0.025)  # face down
    assert np.mean(yaw < 50) > 0.94


def test_plans_show_the_head(plans):
    """Its middle lies near the middle of the picture."""
    middle = np.append(np.array(SHAPE) / 2 - 0.5, 1)
    for plan in plans:
        i, j, _, _ = np.linalg.inv(plan.to_head @ plan.affine) @ middle
        assert 256 * 0.3 < i < 256 * 0.7 and 256 * 0.3 < j < 256 * 0.7


def test_the_window_finds_the_slice_of_a_voxel(plans):
    for plan in plans[:20]:
        to_slice, count = plan.window
        assert count == plan.shape[2]
        for ijk in ([3, 200, 0], [128, 128, 2.5], [250, 9, count - 1]):
            world = [plan.affine[a, a] * ijk[a] + plan.affine[a, 3] for a in range(3)]
            head = plan.to_head[:3, :3] @ world + plan.to_head[:3, 3]
            assert to_slice[:3] @ head + to_slice[3] == pytest.approx(ijk[2], abs=1e-6)
