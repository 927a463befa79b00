"""The pictures: right side up, contours where the lesions are, mirrored where the patient is mirrored."""

import io
from dataclasses import replace

import numpy as np
import pytest
from phantoms import small_case
from PIL import Image

from situs.bundle.pictures import OUTLINE, SIZE_PX
from situs.report.picture import COMPARISON_BOXES, SLICE_BOX, draw_finding, iter_pictures
from situs.volume import split_lesions

SIZE = SLICE_BOX[2] - SLICE_BOX[0]
# L, R and the scale bar stand in the upper corners and at the lower edge, in the same place in every picture.
FREE = (slice(60, SIZE - 40), slice(None))


def slice_pixels(volume, regions, number=0) -> np.ndarray:
    """The slice of a lesion's picture, (size, size, 3)."""
    lesions = [lesion for roi in regions for lesion in split_lesions(roi)]
    others = [lesion for lesion in lesions if lesion is not lesions[number]]
    picture = draw_finding(volume, small_case.finding(lesions[number]), lesions[number], others)
    return np.asarray(picture.crop(SLICE_BOX)).astype(int)


def colourful(pixels: np.ndarray) -> np.ndarray:
    """Where a pixel is not gray, (size, size) bool."""
    return np.ptp(pixels, axis=2) > 60


def orange(pixels: np.ndarray) -> np.ndarray:
    return colourful(pixels) & (pixels[:, :, 0] > pixels[:, :, 2])


@pytest.fixture(scope="module")
def volume():
    return small_case.volume()


@pytest.fixture(scope="module")
def regions(volume):
    return small_case.rois(volume.geometry)


def test_the_contour_runs_round_the_lesion(volume, regions):
    rows, columns = np.nonzero(orange(slice_pixels(volume, regions)))
    mm = 240 / SIZE
    # The lesion spans i 10..18 and j 30..39 of 3 mm pixels: x from -60 to -33 and y from -18 to 12 mm, seen
    # from the middle of the head, the middle of the grid. Left is on the right: columns grow with -x.
    middle = (SIZE - 1) / 2
    assert columns.min() == pytest.approx(middle + 33 / mm, abs=6)
    assert columns.max() == pytest.approx(middle + 60 / mm, abs=6)
    assert rows.min() == pytest.approx(middle - 12 / mm, abs=6)
    assert rows.max() == pytest.approx(middle + 18 / mm, abs=6)
    inside = slice_pixels(volume, regions)[
        (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    ]
    assert np.ptp(inside) == 0  # what the lesion looks like stays to be seen


def test_other_lesions_of_the_slice_are_outlined_in_another_colour(volume, regions):
    pixels = slice_pixels(volume, regions)
    other = colourful(pixels) & ~orange(pixels)
    assert (
        other[:, : SIZE // 2].any() and not other[:, SIZE // 2 :].any()
    )  # value 7 lies on the patient's right
    alone = slice_pixels(volume, regions[:1])
    assert not (colourful(alone) & ~orange(alone)).any()


def test_a_mirrored_patient_gives_the_mirrored_picture(volume, regions):
    mirrored = small_case.volume(hu=volume.hu[::-1])
    flipped = small_case.rois(mirrored.geometry, small_case.lesion_mask()[::-1])
    straight, turned = slice_pixels(volume, regions)[FREE], slice_pixels(mirrored, flipped)[FREE]
    assert np.abs(straight - turned[:, ::-1]).max() <= 2
    assert np.abs(straight - turned).max() > 100


@pytest.mark.slow
@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
def test_the_order_of_the_voxels_plays_no_part(volume, regions, flips):
    affine, hu, mask = small_case.AFFINE.copy(), volume.hu, small_case.lesion_mask()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (small_case.SHAPE[axis] - 1)
        affine[:3, axis] *= -1
        hu, mask = np.flip(hu, axis), np.flip(mask, axis)
    other = small_case.volume(hu=hu, affine=affine)
    pixels = slice_pixels(other, small_case.rois(other.geometry, mask))
    assert np.abs(pixels - slice_pixels(volume, regions)).max() <= 2


def test_swapped_axes_play_no_part(volume, regions):
    affine = small_case.AFFINE[:, [1, 0, 2, 3]]
    other = small_case.volume(hu=volume.hu.transpose(1, 0, 2), affine=affine)
    pixels = slice_pixels(other, small_case.rois(other.geometry, small_case.lesion_mask().transpose(1, 0, 2)))
    assert np.abs(pixels - slice_pixels(volume, regions)).max() <= 2


def test_pixels_that_are_not_square_are_shown_square(volume, regions):
    affine = small_case.AFFINE.copy()
    affine[:3, 1] /= 2  # each row of voxels twice, at half the distance
    affine[:3, 3] -= affine[:3, 1] / 2
    other = small_case.volume(hu=np.repeat(volume.hu, 2, axis=1), affine=affine)
    mask = np.repeat(small_case.lesion_mask(), 2, axis=1)
    found = orange(slice_pixels(other, small_case.rois(other.geometry, mask)))
    expected = orange(slice_pixels(volume, regions))
    for axis in (0, 1):
        ends, wanted = (np.flatnonzero(m.any(axis=axis))[[0, -1]] for m in (found, expected))
        assert np.abs(ends - wanted).max() <= 3


def test_a_lesion_far_from_the_head_is_still_in_the_picture(volume):
    mask = np.zeros(small_case.SHAPE, np.uint8)
    mask[30, 0, 3] = 1
    mask[45, 30, 3] = 7
    affine = small_case.AFFINE.copy()
    affine[:3, :2] *= 1.5
    other = small_case.volume(affine=affine)
    found = orange(slice_pixels(other, small_case.rois(other.geometry, mask)))
    assert found.any()
    assert not found[[0, -1]].any() and not found[:, [0, -1]].any()


def test_the_chosen_site_has_the_longest_bar(volume, regions):
    lesion = split_lesions(regions[0])[0]
    judged, too_small = (
        np.asarray(draw_finding(volume, small_case.finding(lesion, judged=yes), lesion)).astype(int)
        for yes in (True, False)
    )
    panel = (slice(140, 480), slice(SLICE_BOX[2] + 20, None))
    assert orange(judged[panel]).any() and not colourful(too_small[panel]).any()
    lengths = orange(judged[panel]).sum(axis=1).max(), (judged[panel][:, :, 2] == 128).sum(axis=1).max()
    assert lengths[0] / lengths[1] == pytest.approx(0.9371 / 0.7, rel=0.05)  # the next score is 14 * 0.05


def reference(gray):
    """A picture of a reference, with a square outline."""
    picture = np.full((SIZE_PX, SIZE_PX), gray, np.uint8)
    picture[20:31, 40:51] = OUTLINE
    picture[21:30, 41:50] = gray
    return picture


def test_the_references_to_compare_with_stand_beneath(volume, regions):
    lesion = split_lesions(regions[0])[0]
    finding = small_case.finding(lesion)  # a thalamus at 0.25 and a brainstem at 0.5
    pictures = {"head_01/3": reference(60), "head_02/9": reference(180)}
    plain = np.asarray(draw_finding(volume, finding, lesion))
    picture = draw_finding(volume, finding, lesion, reference_picture=pictures.get)
    assert picture.size == (960, 822)
    np.testing.assert_array_equal(np.asarray(picture)[:560], plain)
    for box, gray in zip(COMPARISON_BOXES, (60, 180), strict=False):
        pixels = np.asarray(picture.crop(box)).astype(int)
        assert (pixels[:30] == gray).all()
        rows, columns = np.nonzero(orange(pixels))
        scale = (box[2] - box[0]) / SIZE_PX
        for found, first, last in ((rows, 20, 31), (columns, 40, 51)):
            assert found.min() == pytest.approx(first * scale, abs=2)
            assert found.max() + 1 == pytest.approx(last * scale, abs=2)
        assert (pixels[rows.min() + 8 : rows.max() - 8, columns.min() + 8 : columns.max() - 8] == gray).all()
    assert len(COMPARISON_BOXES) == 5 and COMPARISON_BOXES[-1][2] <= 960 - 16
    frames = [np.asarray(picture)[box[1] - 1, box[0] + 50].astype(int) for box in COMPARISON_BOXES]
    assert frames[0][0] - frames[0][2] > 100 > 0 > frames[1][0] - frames[1][2]  # the named site's is orange
    assert np.ptp(np.asarray(picture.crop(COMPARISON_BOXES[2]))) < 10  # nothing: there are two

    def text_of(number):  # site and distance, under the picture
        left, _, right, lower = COMPARISON_BOXES[number]
        return np.asarray(picture.crop((left, lower + 4, right, 822)))

    assert text_of(0).max() > 200 and text_of(1).max() > 100
    assert (text_of(0) != text_of(1)).any()


def test_a_reference_without_a_picture_leaves_its_place(volume, regions):
    lesion = split_lesions(regions[0])[0]
    finding = small_case.finding(lesion)
    picture = draw_finding(volume, finding, lesion, reference_picture={"head_02/9": reference(180)}.get)
    first, second = (np.asarray(picture.crop(box)).astype(int) for box in COMPARISON_BOXES[:2])
    assert not orange(first).any() and orange(second).any()
    for lookup in ({}.get, None):
        assert draw_finding(volume, finding, lesion, reference_picture=lookup).size == (960, 560)
    too_small = small_case.finding(lesion, judged=False)
    shown = {"head_01/3": reference(60)}.get
    assert draw_finding(volume, too_small, lesion, reference_picture=shown).size == (960, 560)


def test_doubts_come_before_notes_under_the_bars(volume, regions):
    lesion = split_lesions(regions[0])[0]
    sentences = (slice(481, 515), slice(SLICE_BOX[2] + 20, None))

    def under_the_bars(doubts, notes):
        finding = replace(small_case.finding(lesion), doubts=doubts, notes=notes)
        return np.asarray(draw_finding(volume, finding, lesion)).astype(int)[sentences]

    doubt, note = ("A doubt.",), ("A note that is longer.",)
    assert not colourful(under_the_bars((), ())).any()
    assert orange(under_the_bars(doubt, ())).any() and orange(under_the_bars((), note)).any()
    both = under_the_bars(doubt, note)
    np.testing.assert_array_equal(both[:17], under_the_bars(doubt, ())[:17])
    np.testing.assert_array_equal(both[18:], under_the_bars((), note)[:-18])


def test_files_are_named_by_region_and_lesion(volume, regions):
    lesions = [lesion for roi in regions for lesion in split_lesions(roi)]
    pictures = dict(iter_pictures(volume, lesions, small_case.findings(regions)))
    assert list(pictures) == ["roi01_lesion1.png", "roi01_lesion2.png", "roi07_lesion1.png"]
    for content in pictures.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.size) == ("PNG", (960, 560))


def test_long_and_strange_names_fit(volume, regions):
    lesion = split_lesions(regions[0])[0]
    finding = replace(small_case.finding(lesion), roi_name="x" * 400 + "\n\x1b", notes=("word " * 200,) * 5)
    named = replace(volume, name="scan_" * 100)
    picture = np.asarray(draw_finding(named, finding, lesion))
    assert (picture[:, -14:] == picture[0, -1]).all()  # nothing runs over the right margin


def test_only_the_lesions_of_a_picture_s_slice_are_drawn(volume, regions, monkeypatch):
    """With every lesion looked at for every picture, thousands of specks would take hours."""
    drawn = []

    def draw(volume, finding, lesion, others, reference_picture):
        drawn.append((lesion, others))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("situs.report.picture.draw_finding", draw)
    lesions = [lesion for roi in regions for lesion in split_lesions(roi)]
    assert len(list(iter_pictures(volume, lesions, small_case.findings(regions)))) == len(lesions) == 3
    for lesion, others in drawn:
        on_slice = [o for o in lesions if lesion.largest_slice in o.areas_px and o is not lesion]
        assert others == on_slice
    assert {len(others) for _, others in drawn} == {0, 1}
