"""Pictures of references: the slice right side up, its region outlined, small, and nothing else in them."""

import numpy as np
import pytest

from situs.bundle.pictures import (
    FIELD_MM,
    OUTLINE,
    SIZE_PX,
    ReferencePicture,
    can_draw,
    decode_picture,
    draw_picture,
    encode_picture,
    pack_pictures,
    unpack_pictures,
)
from situs.views import ViewSpec

EXACT = ViewSpec(size_px=SIZE_PX, global_mm=FIELD_MM, channels=("brain", "roi"))  # pixel by pixel the same
WIDE = ViewSpec()
SCALE = WIDE.global_mm / WIDE.size_px * SIZE_PX / FIELD_MM  # pixels of the picture for one of the view


def ring(mask):
    """The pixels outside the mask that share an edge with it."""
    padded = np.pad(mask, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return beside & ~mask


def view(spec, rows, columns, seed=0):
    """A head of noise in a ring of bone, and a region."""
    rng = np.random.default_rng(seed)
    n = spec.size_px
    mm = (np.arange(n) - (n - 1) / 2) * spec.global_mm / n
    radius = np.hypot(mm / 75, mm[:, None] / 95)
    head = np.where(radius < 0.93, 110 + rng.normal(0, 15, (n, n)), np.where(radius < 1, 255, 0))
    roi = np.zeros((n, n), np.uint8)
    roi[slice(*rows), slice(*columns)] = 255
    planes = {"brain": np.clip(head, 0, 255).astype(np.uint8), "roi": roi}
    return np.stack([planes.get(name, np.full((n, n), 77, np.uint8)) for name in spec.channels])


def test_gray_is_the_slice_and_the_outline_runs_round_the_region():
    planes = view(EXACT, (20, 30), (40, 47))
    picture = draw_picture(planes, EXACT)
    assert picture.shape == (SIZE_PX, SIZE_PX) and picture.dtype == np.uint8
    outline = ring(planes[1] == 255)
    np.testing.assert_array_equal(picture == OUTLINE, outline)  # bone is as bright, and no outline
    assert (planes[0] == 255).any()
    np.testing.assert_array_equal(picture[~outline], np.minimum(planes[0], 254)[~outline])


def test_the_order_of_the_channels_plays_no_part():
    spec = ViewSpec(channels=("roi_below", "wide", "brain", "brain_above", "roi"))
    picture = draw_picture(view(spec, (60, 70), (30, 50)), spec)
    np.testing.assert_array_equal(picture, draw_picture(view(WIDE, (60, 70), (30, 50)), WIDE))


def test_a_mirrored_slice_gives_the_mirrored_picture():
    planes = view(WIDE, (60, 70), (30, 50))
    straight, turned = draw_picture(planes, WIDE), draw_picture(planes[:, :, ::-1].copy(), WIDE)[:, ::-1]
    assert (straight != turned[:, ::-1]).any()
    np.testing.assert_array_equal(straight == OUTLINE, turned == OUTLINE)
    assert np.abs(straight.astype(int) - turned).max() <= 1


def test_the_region_lies_where_it_is_in_the_head():
    rows, columns = np.nonzero(draw_picture(view(WIDE, (60, 70), (30, 50)), WIDE) == OUTLINE)
    # The middle of the view is at 55.5, that of the region at 64.5 and 39.5.
    middle = (SIZE_PX - 1) / 2
    assert (rows.min() + rows.max()) / 2 == pytest.approx(middle + 9 * SCALE, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(middle - 16 * SCALE, abs=1)


@pytest.mark.parametrize("rows", [(2, 7), (105, 110)])
@pytest.mark.parametrize("columns", [(2, 7), (105, 110)])
def test_a_region_far_out_is_not_cut_off(rows, columns):
    """A nose is farther than 100 mm from the middle of the head."""
    outline = draw_picture(view(WIDE, rows, columns), WIDE) == OUTLINE
    for axis in (0, 1):
        ends = np.flatnonzero(outline.any(axis=axis))
        assert ends[-1] - ends[0] + 1 == pytest.approx(5 * SCALE + 2, abs=1)


def test_the_smallest_region_has_an_outline():
    planes = view(WIDE, (0, 0), (0, 0))
    assert not (draw_picture(planes, WIDE) == OUTLINE).any()
    planes[2, 50, 50] = 20  # a pixel of a fine mask covers little of a view's
    assert (draw_picture(planes, WIDE) == OUTLINE).any()


@pytest.mark.parametrize("channels", [("brain",), ("wide", "roi"), ("brain_below", "roi")])
def test_views_without_the_region_or_the_window_make_no_picture(channels):
    spec = ViewSpec(channels=channels)
    assert not can_draw(spec) and can_draw(WIDE)
    with pytest.raises(ValueError, match="expected brain and roi"):
        draw_picture(view(spec, (60, 70), (30, 50)), spec)


def test_stored_it_keeps_the_outline_exactly_and_the_gray_nearly():
    picture = draw_picture(view(WIDE, (60, 70), (30, 50)), WIDE)
    again = decode_picture(encode_picture(picture))
    assert again.shape == picture.shape and again.dtype == np.uint8
    np.testing.assert_array_equal(again == OUTLINE, picture == OUTLINE)
    difference = (again.astype(int) - picture)[picture != OUTLINE]
    assert np.sqrt((difference**2).mean()) < 15  # as much as the noise
    assert abs(difference.mean()) < 2
    plain = np.minimum(picture, 254)
    assert not (decode_picture(encode_picture(plain)) == OUTLINE).any()


def test_1500_pictures_take_less_than_3_mb_and_hold_nothing_else():
    for seed in range(5):
        webp = encode_picture(draw_picture(view(WIDE, (60, 70), (30, 50), seed), WIDE))
        assert len(webp) < 3_000_000 / 1500
        chunks, at = [], 12
        while at < len(webp):
            chunks.append(webp[at : at + 4])
            at += 8 + (int.from_bytes(webp[at + 4 : at + 8], "little") + 1) // 2 * 2
        assert chunks == [b"VP8X", b"ALPH", b"VP8 "]  # no EXIF, no XMP, no profile


def test_packed_in_one_file_each_stays_with_its_reference():
    pictures = {name: ReferencePicture(name.encode() * 3, name == "b") for name in ("c", "a", "Ω", "b")}
    ids = np.array(["none", "a", "b", "nor this", "Ω", "c", "last"])
    data = pack_pictures(pictures, ids)
    assert unpack_pictures(data, ids) == pictures
    renamed = unpack_pictures(data, np.array(list("ABCDEFG")))  # in the order of the references
    assert renamed == {"B": pictures["a"], "C": pictures["b"], "E": pictures["Ω"], "F": pictures["c"]}
    assert unpack_pictures(pack_pictures({}, ids), ids) == {}
    with pytest.raises(ValueError):
        unpack_pictures(data, ids[1:])
