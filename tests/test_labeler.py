"""Labelling: known answers with an engine that measures the views, invariances with the real one."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import small_case
from phantoms.findings_schema import read_findings
from phantoms.small_bundle import small_bundle

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.bundle import Bundle
from situs.certainty import Calibration
from situs.errors import BundleError, RoiError
from situs.geometry import Geometry
from situs.labeler import Labeler
from situs.neighbors import References
from situs.report import format_json
from situs.runtime import Embedded
from situs.views import ViewSpec
from situs.volume import OutsideRoi, Roi, Volume

SPEC = ViewSpec(size_px=56, global_mm=224.0, local_mm=96.0, upright=True)
SHAPE = (96, 96, 24)
# RAS+ mm; 2 x 2 x 4 mm voxels, the grid's middle at x = y = 0.
AFFINE = np.array([[2.0, 0, 0, -95], [0, 2.0, 0, -95], [0, 0, 4.0, 0], [0, 0, 0, 1]])


def make_volume(shape=SHAPE, affine=AFFINE, turn_deg=0):
    """An ellipse of brain in a ring of bone, turned anticlockwise, with a dark spot on the left in front."""
    geometry = Geometry.from_affine(shape, affine)
    i, j = np.meshgrid(np.arange(shape[0]) - 47.5, np.arange(shape[1]) - 47.5, indexing="ij")
    turn = np.radians(turn_deg)
    radius = np.hypot((i * np.cos(turn) - j * np.sin(turn)) / 34, (i * np.sin(turn) + j * np.cos(turn)) / 42)
    plane = np.where(radius < 0.9, 35, np.where(radius < 1, 900, -1000)).astype(np.int16)
    plane[30:36, 60:70] = 5
    return Volume(np.repeat(plane[:, :, None], shape[2], axis=2), geometry)


def box_roi(geometry, i, j, k, value=1):
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[slice(*i), slice(*j), slice(*k)] = True
    return Roi.from_mask(mask, geometry, value)


class Ruler:
    """An engine whose embedding is where the region's middle lies in the global view, in mm to the left and
    to the back, and for which a site is the more related the nearer its nearest reference is. It paints a
    midline through the middle of the global view, turned by these degrees the first times it is asked: then
    the views are upright."""

    def __init__(self, *turns_deg):
        self.turns = [np.radians(turn) for turn in turns_deg]

    def embed(self, global_views, local_views):
        turn = self.turns.pop(0) if self.turns else 0
        region = global_views[:, SPEC.channels.index("roi")].astype(float)
        mm = (np.arange(SPEC.size_px) - (SPEC.size_px - 1) / 2) * SPEC.global_mm / SPEC.size_px
        total = region.sum(axis=(1, 2))
        left = (region.sum(axis=1) * mm).sum(axis=1) / total
        back = (region.sum(axis=2) * mm).sum(axis=1) / total
        nothing = np.zeros((len(region), len(SITES)), np.float32)
        midline = np.zeros((len(region), 2, 2, SPEC.size_px, SPEC.size_px), np.float32)
        midline[:, 0, 0] = mm[None, :] * np.cos(turn) - mm[:, None] * np.sin(turn)
        midline[:, 0, 1] = 1  # all of the global view is head; the local one says nothing
        return Embedded(np.stack([left, back], axis=1).astype(np.float32), nothing, nothing, midline=midline)

    def relate(self, targets, references, present):
        distance = np.linalg.norm(references - targets[:, None, None], axis=-1)
        return np.exp(-np.where(present, distance, np.inf).min(axis=2) / 50).astype(np.float32)


# Sites as points of a square head: mm to the left and to the back of its middle.
POINTS = {
    "temporal_region": (45, 0),
    "parietal_region": (-45, 10),
    "frontal_region": (0, -55),
    "thalamus": (0, 10),
}


def ruler_labeler(*turns_deg, points=POINTS, each=4):
    """`each` references at growing distance behind every point."""
    rows = [(site, left, back + step) for site, (left, back) in points.items() for step in range(each)]
    references = References(
        np.array([row[1:] for row in rows], np.float32),
        np.array([SITE_INDEX[row[0]] for row in rows]),
        np.array([f"{row[0]}-{n % each}" for n, row in enumerate(rows)]),
        np.full(len(rows), "somebody"),
    )
    return Labeler(Bundle(Path("ruler"), "ruler", "1", SPEC, 3, references, None, {}), Ruler(*turns_deg))


@pytest.mark.parametrize("turn_deg", [0, 20])
def test_a_bundle_that_paints_no_midline_goes_by_the_head_s_symmetry(turn_deg):
    class Blind(Ruler):
        def embed(self, global_views, local_views):
            said = super().embed(global_views, local_views)
            return Embedded(said.embedding, said.site_probability)

    labeler = ruler_labeler()
    labeler._runtime = Blind()
    volume = make_volume(turn_deg=turn_deg)
    rois = [
        box_roi(volume.geometry, (22, 28), (44, 52), (5, 8)),
        box_roi(volume.geometry, (67, 75), (40, 48), (5, 8)),
    ]
    findings = labeler.label(volume, rois)
    assert [f.side for f in findings] == ["left", "right"]
    assert all(any("does not paint the midline" in note for note in f.notes) for f in findings)
    assert [f.shares for f in findings] == [{}, {}]
    in_front = [box_roi(volume.geometry, (51, 54), (74, 78), (5, 8))]  # to the right of the head's middle
    assert labeler.label(volume, in_front)[0].side == ("right" if turn_deg == 0 else "left")
    assert not any("midline" in note for note in ruler_labeler().label(volume, rois)[0].notes)


def test_known_places_get_their_site_and_side():
    volume = make_volume()
    rois = [
        box_roi(volume.geometry, (22, 28), (44, 52), (5, 8), value=3),  # i below the middle: the left
        box_roi(volume.geometry, (67, 75), (40, 48), (5, 8), value=1),
        box_roi(volume.geometry, (46, 50), (72, 80), (5, 8), value=2),
        box_roi(volume.geometry, (28, 68), (40, 44), (5, 8), value=4),
    ]
    findings = ruler_labeler().label(volume, rois)
    assert [f.roi_value for f in findings] == [3, 1, 2, 4]
    assert [f.site for f in findings] == ["temporal_region", "parietal_region", "frontal_region", "thalamus"]
    assert [f.side for f in findings] == ["left", "right", "midline", "bilateral"]
    first = findings[0]
    assert (first.component, first.slices, first.largest_slice) == (1, (5, 6, 7), 5)
    assert first.volume_ml == pytest.approx(6 * 8 * 3 * 16 / 1000)
    assert list(first.scores) == list(SITE_KEYS)
    # Middle at i = 24.5, j = 47.5: 46 mm to the left, 0 to the back. The head is centred to a coarse pixel.
    assert first.scores["temporal_region"] == pytest.approx(np.exp(-1 / 50), abs=0.02)
    assert first.scores["cerebellum"] == 0  # the bundle has no reference of it


def test_a_scan_of_few_slices_is_doubted_unless_slices_alone_were_calibrated():
    def doubts(n_slices, calibration):
        labeler = ruler_labeler()
        labeler.bundle = replace(labeler.bundle, calibration=calibration)
        volume = make_volume((96, 96, n_slices))
        (finding,) = labeler.label(volume, [box_roi(volume.geometry, (22, 28), (44, 52), (0, 1))])
        return finding.doubts, finding.site_set

    some = Calibration(
        0.9, np.full(15, 0.1), 0.1, 1e3, 0.0, 100, 9
    )  # of these places, only one score is above
    few = "The scan has only 4 slices."
    assert few in doubts(4, None)[0] and few in doubts(4, some)[0]
    assert doubts(5, None)[0] == ()
    strict = replace(some, alone=replace(some, thresholds=np.zeros(15)))  # alone, all sites fit
    alone, whole = doubts(4, strict), doubts(5, strict)
    assert few not in alone[0] and len(alone[1]) == 15 and len(whole[1]) < 15
    (one,) = (text for text in doubts(1, some)[0] if "only" in text)
    assert one == "The scan has only 1 slice."


def test_a_head_is_looked_at_beside_its_other_hemisphere():
    """Where the views show it: the first looks, which the midplane is searched from, do not count then."""
    seen = []

    class Looker(Ruler):
        def embed(self, global_views, local_views):
            seen.append(global_views[:, 0].any(axis=(1, 2)))
            return super().embed(global_views[:, 1:], local_views[:, 1:])

    labeler = ruler_labeler()
    spec = replace(SPEC, channels=("brain_mirrored", *SPEC.channels))
    labeler.bundle, labeler._runtime = replace(labeler.bundle, spec=spec), Looker()
    volume = make_volume()
    (finding,) = labeler.label(volume, [box_roi(volume.geometry, (22, 28), (44, 52), (5, 8))])
    assert finding.site == "temporal_region"
    assert not seen[0].any() and seen[-1].all() and len(seen[-1]) == 3


def test_a_mirrored_patient_swaps_the_sides():
    volume = make_volume()
    boxes = [((22, 28), (44, 52)), ((67, 75), (40, 48)), ((46, 50), (72, 80)), ((28, 68), (40, 44))]
    rois = [box_roi(volume.geometry, *box, (5, 8), value) for value, box in enumerate(boxes, 1)]
    mirrored = Volume(volume.hu[::-1].copy(), volume.geometry)
    mirrored_rois = [
        box_roi(volume.geometry, (96 - box[0][1], 96 - box[0][0]), box[1], (5, 8), value)
        for value, box in enumerate(boxes, 1)
    ]
    mirror = {"left": "right", "right": "left", "midline": "midline", "bilateral": "bilateral"}
    both_sides = {site: point for site, point in POINTS.items() if point[0] == 0}
    both_sides |= {"temporal_region": (45, 0), "sulcal_spaces": (-45, 0)}
    swap = {"temporal_region": "sulcal_spaces", "sulcal_spaces": "temporal_region"}
    labeler = ruler_labeler(points=both_sides)
    before, after = labeler.label(volume, rois), labeler.label(mirrored, mirrored_rois)
    assert {f.side for f in before} == {"left", "right", "midline", "bilateral"}
    assert [f.side for f in after] == [mirror[f.side] for f in before]
    assert [f.site for f in after] == [swap.get(f.site, f.site) for f in before]


def reoriented(volume, roi, swap, flips):
    """The same patient on another voxel grid: in-plane axes swapped, then axes reversed."""
    affine = volume.geometry.affine.copy()
    order = (1, 0, 2) if swap else (0, 1, 2)
    full = np.zeros(volume.geometry.shape, dtype=bool)
    full[roi.box] = roi.mask
    hu, mask = volume.hu.transpose(order), full.transpose(order)
    affine[:, :3] = affine[:, list(order)]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
        affine[:3, axis] *= -1
        hu, mask = np.flip(hu, axis), np.flip(mask, axis)
    geometry = Geometry.from_affine(hu.shape, affine)
    return Volume(np.ascontiguousarray(hu), geometry), Roi.from_mask(mask, geometry, roi.value)


@pytest.mark.parametrize("swap", [False, True], ids=["ij", "ji"])
@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_reoriented_voxels_change_nothing(swap, flips):
    labeler = Labeler.load(small_bundle())
    volume = make_volume()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[24:33, 60:66, 4:7] = True
    mask[60:63, 30:44, 9] = True
    roi = Roi.from_mask(mask, volume.geometry, value=2)
    expected = labeler.label(volume, [roi])
    other, other_roi = reoriented(volume, roi, swap, flips)
    found = labeler.label(other, [other_roi])
    assert len(found) == len(expected) == 2
    assert expected[0].scores != expected[1].scores
    for a, b in zip(expected, found, strict=True):
        last = SHAPE[2] - 1
        slices = sorted(last - k for k in b.slices) if 2 in flips else list(b.slices)
        assert slices == list(a.slices)
        assert (b.site, b.side, b.component) == (a.site, a.side, a.component)
        assert b.volume_ml == pytest.approx(a.volume_ml)
        assert list(b.scores.values()) == pytest.approx(list(a.scores.values()), abs=1e-3)
        assert [r.id for r in b.nearest] == [r.id for r in a.nearest]


def test_slices_are_joined_by_area():
    """Slice 5 has three times the pixels of slice 6, so it has three quarters of the say."""
    volume = make_volume()
    alone = [
        box_roi(volume.geometry, (24, 30), (40, 46), (5, 6)),
        box_roi(volume.geometry, (24, 26), (40, 46), (6, 7)),
    ]
    mask = np.zeros(SHAPE, dtype=bool)
    for roi in alone:
        mask[roi.box] |= roi.mask
    labeler = ruler_labeler()
    large, small = labeler.label(volume, alone)
    (joined,) = labeler.label(volume, [Roi.from_mask(mask, volume.geometry)])
    assert large.scores != small.scores
    for site in SITE_KEYS:
        expected = 0.75 * large.scores[site] + 0.25 * small.scores[site]
        assert joined.scores[site] == pytest.approx(expected, rel=1e-5)


def test_shares_are_joined_by_area():
    """A painter that sees a large region all in one site, a small one half in that and half in another."""
    temporal, parietal = SITE_INDEX["temporal_region"], SITE_INDEX["parietal_region"]

    class Painter(Ruler):
        def embed(self, global_views, local_views):
            said = super().embed(global_views, local_views)
            area = global_views[:, SPEC.channels.index("roi")].sum(axis=(1, 2), dtype=float)
            shares = np.zeros_like(said.shares)
            shares[:, temporal] = np.where(area == area.max(), 1, 0.5)
            shares[:, parietal] = 1 - shares[:, temporal]
            return replace(said, shares=shares)

    volume = make_volume()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[24:30, 40:46, 5] = True
    mask[24:26, 40:46, 6] = True
    labeler = ruler_labeler()
    labeler._runtime = Painter()
    (found,) = labeler.label(volume, [Roi.from_mask(mask, volume.geometry)])
    assert list(found.shares) == list(SITE_KEYS)
    assert found.shares["temporal_region"] == pytest.approx(0.75 + 0.25 / 2)
    assert found.shares["parietal_region"] == pytest.approx(0.25 / 2)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_every_part_of_a_value_is_a_lesion_the_largest_first():
    volume = make_volume()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[24:26, 40:44, 5] = True
    mask[60:66, 40:46, 9] = True
    findings = ruler_labeler().label(volume, [Roi.from_mask(mask, volume.geometry, value=7)])
    assert [(f.roi_value, f.component, f.slices, f.side) for f in findings] == [
        (7, 1, (9,), "right"),
        (7, 2, (5,), "left"),
    ]


def test_all_regions_are_filled_when_one_is_labelled():
    """What the views of one lesion show must not depend on the texture inside another."""
    volume = make_volume()
    rois = [
        box_roi(volume.geometry, (24, 30), (40, 46), (5, 6)),
        box_roi(volume.geometry, (60, 70), (40, 50), (5, 6), 2),
    ]
    bright = volume.hu.copy()
    bright[rois[1].box] = 90
    labeler = Labeler.load(small_bundle())
    assert labeler.label(volume, rois) == labeler.label(Volume(bright, volume.geometry), rois)
    assert labeler.label(volume, rois[:1]) != labeler.label(Volume(bright, volume.geometry), rois[:1])


def test_a_lesion_too_small_is_listed_with_its_side():
    volume = make_volume()
    rois = [
        box_roi(volume.geometry, (24, 25), (40, 43), (5, 9)),
        box_roi(volume.geometry, (70, 72), (40, 42), (5, 6), 2),
    ]
    small, judged = ruler_labeler().label(volume, rois)
    assert (small.site, small.scores, small.shares, small.side) == (None, {}, {}, "left")
    assert small.slices == (5, 6, 7, 8)
    assert any("fewer than 4 pixels" in doubt for doubt in small.doubts)
    assert (judged.site, judged.side) == ("parietal_region", "right")
    assert not any("too small" in doubt.lower() for doubt in judged.doubts)
    report = read_findings(format_json(volume, [small, judged]))
    assert [finding["sure"] for finding in report["findings"]] == [small.sure, judged.sure]
    assert not small.sure


def test_the_nearest_references_are_named_once_and_one_has_the_predicted_site():
    volume = make_volume()
    points = {"thalamus": (45, 4), "temporal_region": (45, 10)}
    roi = box_roi(volume.geometry, (22, 28), (44, 52), (5, 9))
    labeler = ruler_labeler(points=points, each=6)
    (finding,) = labeler.label(volume, [roi])
    distances = [reference.distance for reference in finding.nearest]
    assert [r.id for r in finding.nearest] == [f"thalamus-{n}" for n in range(3)] + [
        "temporal_region-0",
        "temporal_region-1",
    ]
    assert distances == sorted(distances)

    class Contrary(Ruler):
        def relate(self, targets, references, present):
            return 1 - super().relate(targets, references, present) * present.any(axis=2)

    references = replace(labeler.bundle.references, embeddings=labeler.bundle.references.embeddings)
    bundle = replace(labeler.bundle, references=references, n_neighbors=5)
    (finding,) = Labeler(bundle, Contrary()).label(volume, [roi])
    assert finding.site not in points  # a site without references, which this engine likes best
    bundle = replace(bundle, n_neighbors=6)

    class Stubborn(Ruler):
        def relate(self, targets, references, present):
            scores = np.zeros((len(targets), len(SITES)), np.float32)
            scores[:, SITE_INDEX["temporal_region"]] = 1
            return scores

    (finding,) = Labeler(bundle, Stubborn()).label(volume, [roi])
    assert finding.site == "temporal_region"
    assert [r.id for r in finding.nearest] == [f"thalamus-{n}" for n in range(4)] + ["temporal_region-0"]


def test_comparison_sets_the_site_against_the_runner_up():
    """Of the named site the nearest three, then two of the site with the next highest score."""
    volume = make_volume()
    roi = box_roi(volume.geometry, (30, 36), (44, 52), (5, 8))  # 29 mm to the left, 0 to the back
    points = {"temporal_region": (45, 0), "parietal_region": (-45, 10), "thalamus": (0, 10)}
    labeler = ruler_labeler(points=points)
    finding = labeler.label(volume, [roi])[0]
    assert sorted(finding.scores, key=finding.scores.get)[-2:] == ["thalamus", "temporal_region"]
    # References lie 0, 1, 2 and 3 mm behind the points, and all points behind the lesion.
    expected = [f"temporal_region-{n}" for n in range(3)] + [f"thalamus-{n}" for n in range(2)]
    assert [r.id for r in finding.comparison] == expected
    for reference in finding.comparison:
        left, back = points[reference.site]
        # The head is centred to a coarse pixel of 4 mm.
        expected = np.hypot(left - 29, back + int(reference.id[-1]))
        assert reference.distance == pytest.approx(expected, abs=4)

    lonely = ruler_labeler(points={"temporal_region": (45, 5)}, each=2).label(volume, [roi])[0]
    assert [r.id for r in lonely.comparison] == ["temporal_region-0", "temporal_region-1"]
    tiny = box_roi(volume.geometry, (30, 31), (44, 46), (5, 6))
    assert labeler.label(volume, [tiny])[0].comparison == ()


def test_a_patient_is_not_compared_with_itself():
    volume = make_volume()
    roi = box_roi(volume.geometry, (22, 28), (44, 52), (5, 8))
    labeler = ruler_labeler()
    known = labeler.bundle.references
    own = np.where(known.sites == SITE_INDEX["temporal_region"], "Doe", "Roe")
    labeler = Labeler(replace(labeler.bundle, references=replace(known, patients=own)), Ruler())
    (stranger,), (doe,) = labeler.label(volume, [roi]), labeler.label(volume, [roi], patient="Doe")
    assert (stranger.site, doe.site) == ("temporal_region", "thalamus")
    assert doe.scores["temporal_region"] == 0
    assert "temporal_region" in {r.site for r in stranger.nearest}
    assert "temporal_region" not in {r.site for r in doe.nearest}


def test_notes_of_the_region_are_kept():
    volume = make_volume()
    roi = replace(box_roi(volume.geometry, (24, 30), (40, 46), (5, 6)), notes=("Resampled.",))
    (finding,) = ruler_labeler().label(volume, [roi])
    assert finding.notes[0] == "Resampled."


def test_a_doubt_stands_in_doubts_and_not_in_notes():
    volume = make_volume()
    roi = box_roi(volume.geometry, (1, 7), (1, 7), (5, 6))  # in the air beside the head
    inside, outside = (
        ruler_labeler().label(volume, [r])[0]
        for r in (box_roi(volume.geometry, (24, 30), (40, 46), (5, 6)), roi)
    )
    assert set(outside.doubts) - set(inside.doubts) == {"The lesion lies outside the head."}
    assert outside.notes == inside.notes


def test_a_doubt_about_the_scan_or_the_place_of_the_mask_makes_every_finding_unsure():
    volume = make_volume()
    roi = box_roi(volume.geometry, (24, 30), (40, 46), (5, 6))
    (sure,) = ruler_labeler().label(volume, [roi])
    (finding,) = ruler_labeler().label(
        replace(volume, doubts=("No orientation.",)), [replace(roi, doubts=("Another header.",))]
    )
    assert set(finding.doubts) - set(sure.doubts) == {"No orientation.", "Another header."}
    assert not finding.sure and (finding.site, finding.side) == (sure.site, sure.side)


def test_lesions_outside_the_scan_come_last_and_are_numbered_on():
    volume = make_volume()
    roi = box_roi(volume.geometry, (24, 30), (40, 46), (5, 6), value=3)
    outside = [
        OutsideRoi((2.0, 0.5), 3, notes=("Resampled.",)),
        OutsideRoi((1.5,), 1, "blood", (), ("Odd.",)),
    ]
    findings = ruler_labeler().label(volume, [*outside, roi])
    assert [(f.roi_value, f.component, f.volume_ml) for f in findings[1:]] == [
        (3, 2, 2),
        (3, 3, 0.5),
        (1, 1, 1.5),
    ]
    assert findings[0].site is not None
    for finding in findings[1:]:
        assert (finding.site, finding.side, finding.slices, finding.largest_slice) == (None, None, (), None)
        assert finding.doubts[0] == "It lies outside the scan."
    assert findings[1].notes == ("Resampled.",) and findings[3].doubts[1:] == ("Odd.",)
    assert ruler_labeler().label(volume, outside) == [
        replace(f, component=n) for f, n in zip(findings[1:], (1, 2, 1), strict=True)
    ]


@pytest.mark.slow
def test_a_hundred_lesions():
    volume = make_volume()
    mask = np.zeros(SHAPE, dtype=bool)
    for n in range(100):
        i, j = 20 + 6 * (n % 10), 20 + 6 * (n // 10)
        mask[i : i + 2, j : j + 3, 6:9] = True
    seen = []
    labeler = Labeler.load(small_bundle())
    findings = labeler.label(volume, [Roi.from_mask(mask, volume.geometry)], lambda *done: seen.append(done))
    assert [f.component for f in findings] == list(range(1, 101))
    assert {f.slices for f in findings} == {(6, 7, 8)}
    assert seen[-1] == ("slices", 300, 300)
    assert seen == sorted(set(seen))
    assert len({tuple(f.scores.values()) for f in findings}) > 50
    # Each is labelled as if it were asked about in a batch of its own.
    (alone,) = labeler.label(
        volume,
        [box_roi(volume.geometry, (74, 76), (74, 77), (6, 9)), Roi.from_mask(mask, volume.geometry, 2)],
    )[:1]
    assert list(alone.scores.values()) == pytest.approx(list(findings[99].scores.values()), abs=1e-5)


def test_no_region_no_finding():
    assert ruler_labeler().label(make_volume(), []) == []


def test_a_region_of_another_grid_is_refused():
    other = Geometry.from_affine((96, 96, 20), AFFINE)
    with pytest.raises(RoiError, match="rois: value 1 lies on a grid"):
        ruler_labeler().label(make_volume(), [box_roi(other, (24, 30), (40, 46), (5, 6))])


def test_no_bundle_there(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        Labeler.load(tmp_path / "nowhere")


def test_a_thin_lesion_along_a_turned_midline_is_not_bilateral():
    """A strip of 4 x 80 mm that runs 35 degrees off the picture's vertical: as of a head that lies turned."""
    volume = make_volume(turn_deg=35)
    i, j = np.meshgrid(np.arange(96) - 47.5, np.arange(96) - 47.5, indexing="ij")
    turn = np.radians(35)
    across, along = i * np.cos(turn) - j * np.sin(turn), i * np.sin(turn) + j * np.cos(turn)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, :, 5] = (np.abs(across) <= 1) & (np.abs(along) <= 20)
    (strip,) = ruler_labeler(35).label(volume, [Roi.from_mask(mask, volume.geometry)])
    mask[:, :, 5] = (np.abs(across) <= 20) & (np.abs(along) <= 20)
    (block,) = ruler_labeler(35).label(volume, [Roi.from_mask(mask, volume.geometry)])
    assert (strip.side, block.side) == ("midline", "bilateral")


@pytest.mark.parametrize("turn_deg", [-40, -9, 3, 25, 170])
def test_a_turned_head_is_looked_at_upright(turn_deg):
    """A region 45 mm to the left of the middle, turned with the head: found where it lies when upright. What
    is painted sees a part of the turn only, the head's symmetry all of it."""
    volume = make_volume(turn_deg=turn_deg)
    turn = np.radians(turn_deg)
    i, j = round(47.5 - 45 / 2 * np.cos(turn)), round(47.5 + 45 / 2 * np.sin(turn))
    roi = box_roi(volume.geometry, (i - 2, i + 3), (j - 2, j + 3), (5, 6))
    painted = turn_deg - np.sign(turn_deg) * min(20, 0.3 * abs(turn_deg))
    (finding,) = ruler_labeler(painted).label(volume, [roi])
    said = [note for note in finding.notes if "it was looked at upright" in note]
    if abs(turn_deg) < 4:
        assert not said
    else:
        (note,) = said
        found, way = re.search(r"turned (\d+) degrees (\w+) in the picture", note).groups()
        assert way == ("clockwise" if turn_deg < 0 else "anticlockwise")
        assert abs(int(found) - abs(turn_deg)) <= 2
        assert finding.site == "temporal_region" and finding.side == "left"


def test_views_that_are_not_upright_stay_as_the_head_lies():
    volume = make_volume(turn_deg=40)
    labeler = ruler_labeler(40)
    labeler.bundle = replace(labeler.bundle, spec=replace(SPEC, upright=False))
    roi = box_roi(volume.geometry, (22, 28), (44, 52), (5, 9))
    (finding,) = labeler.label(volume, [roi])
    assert not any("upright" in note for note in finding.notes)
    assert finding.site == "temporal_region"


def test_labelling_imports_nothing_heavy():
    program = """
import sys
import numpy as np
from situs.geometry import Geometry
from situs.labeler import Labeler
from situs.volume import Roi, Volume
geometry = Geometry.from_affine((40, 40, 5), np.diag([5.0, 5.0, 5.0, 1.0]))
mask = np.zeros((40, 40, 5), bool)
mask[10:14, 10:14, 2] = True
volume, rois = Volume(np.zeros((40, 40, 5)), geometry), [Roi.from_mask(mask, geometry)]
(finding,) = Labeler.load(sys.argv[1]).label(volume, rois)
heavy = {"torch", "pydicom", "skimage", "sklearn", "pandas", "matplotlib", "onnx"} & set(sys.modules)
print(finding.site, *sorted(heavy))
"""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(small_bundle())],
        capture_output=True,
        text=True,
        check=True,
    )
    site, *heavy = answer.stdout.split()
    assert site in SITE_KEYS
    assert heavy == []
    assert answer.stderr == ""


def threaded_case(number):
    """A scan and a lesion, elsewhere for each number."""
    volume = small_case.volume()
    return volume, [box_roi(volume.geometry, (12 + 3 * number, 20 + 3 * number), (30, 38), (2, 4))]


def test_eight_threads_find_what_one_finds():
    """Each with a scan of its own, and two of them with one scan."""
    labeler = Labeler.load(small_bundle())
    cases = [threaded_case(number) for number in range(8)]

    def found(case):
        return format_json(case[0], labeler.label(*case))

    alone = [found(threaded_case(number)) for number in range(8)]
    assert len(set(alone)) == 8
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found, [*cases[:7], cases[0]])) == [*alone[:7], alone[0]]


GROWTH = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_labeler import threaded_case
from situs.labeler import Labeler

def held_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6

labeler, case = Labeler.load(sys.argv[1]), threaded_case(3)
with ThreadPoolExecutor(2) as pool:
    for calls in (200, 1000):
        list(pool.map(lambda _: labeler.label(*case) and None, range(calls)))
        print(held_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_over_a_thousand_calls():
    args = [sys.executable, "-c", GROWTH, str(small_bundle()), str(Path(__file__).parent)]
    run = subprocess.run(args, capture_output=True, text=True, check=True)
    warm, after = map(float, run.stdout.split())
    assert after - warm < 10
