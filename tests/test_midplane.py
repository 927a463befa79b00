"""The midplane: from hand-made paintings, and of heads of which it is known."""

import numpy as np
import pytest
from scipy import ndimage

from situs.geometry import Geometry
from situs.midplane import Midplane, _interpolated
from situs.resample import Place
from situs.volume import Volume

CENTRE = np.array([0.0, 0.0, 60.0])


def make_head(turn_deg=0.0, roll_deg=0.0, offset_mm=0.0, n_slices=25, lesion=False):
    """A scan of an egg of brain in a skull, with what lies in front and behind, turned clockwise in the
    picture. Returns it with its midplane."""
    n, step = 111, 2.0
    heights = np.arange(n_slices) * 120 / max(1, n_slices - 1)
    origins = np.stack([np.full(n_slices, 110.0), np.full(n_slices, 110.0), heights], axis=1)
    geometry = Geometry((n, n, n_slices), np.array([-step, 0, 0]), np.array([0, -step, 0]), origins)
    turn, roll = np.radians(turn_deg), np.radians(roll_deg)
    left = np.array([-np.cos(turn) * np.cos(roll), -np.sin(turn) * np.cos(roll), np.sin(roll)])
    front = np.array([-np.sin(turn), np.cos(turn), 0.0])
    along = 110 - step * np.arange(n)
    world = np.stack(np.meshgrid(along, along, heights, indexing="ij"), axis=-1) - CENTRE
    x, y, z = (world @ axis for axis in (left, front, np.cross(front, left)))
    x = x - offset_mm
    radius = np.sqrt((x / 68) ** 2 + (y / np.where(y > 0, 92, 80)) ** 2 + (z / 80) ** 2)
    hu = np.where(radius < 0.92, 35.0, np.where(radius < 1, 900.0, -1000.0))
    hu[(np.hypot(np.abs(x) - 8 - y / 4, (y - 25) / 3) < 9) & (np.abs(z) < 40)] = 5
    hu[np.sqrt((np.abs(x) - 25) ** 2 + (y + 50) ** 2 + (z / 2) ** 2) < 16] = 65
    hu[np.sqrt((np.abs(x) - 30) ** 2 + (y - 65) ** 2 + (z + 40) ** 2) < 14] = -80
    hu[(np.abs(x) < 1.5) & (radius < 0.9) & (z > 10)] = 60
    if lesion:
        hu[np.sqrt((x - 35) ** 2 + (y + 10) ** 2 + (z - 10) ** 2) < 22] = 75
    hu += np.random.default_rng(0).normal(0, 4, hu.shape)
    return Volume(np.rint(hu).astype(np.int16), geometry), Midplane(CENTRE, left, -offset_mm)


def start(turn_deg=0.0, offset_mm=0.0):
    turn = np.radians(turn_deg)
    return Midplane(CENTRE, np.array([-np.cos(turn), -np.sin(turn), 0]), offset_mm)


def apart(found, expected):
    """Degrees between two planes with their lefts, and the most mm between them within the brain."""
    points = CENTRE + np.random.default_rng(0).uniform(-50, 50, (200, 3))
    mm = np.abs(found.distances_mm(points) - expected.distances_mm(points)).max()
    return np.degrees(np.arccos(np.clip(found.left @ expected.left, -1, 1))), mm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("turn_deg", "roll_deg", "offset_mm"),
    [(0, 0, 0), (9, 5, -6), (-43, 0, 8), (30, -6, 0), (175, 3, 4)],
)
@pytest.mark.parametrize("error", [(0, 0), (-12, 8), (35, 0)])
def test_the_plane_of_a_head_is_found_from_a_bad_start(turn_deg, roll_deg, offset_mm, error):
    volume, expected = make_head(turn_deg, roll_deg, offset_mm)
    found = Midplane.by_symmetry(volume, start(turn_deg + error[0], error[1] - offset_mm))
    degrees, mm = apart(found, expected)
    assert degrees < 1.5 and mm < 2


def test_a_large_lesion_changes_little():
    volume, expected = make_head(12, 3, 5, lesion=True)
    degrees, mm = apart(Midplane.by_symmetry(volume, start(3, 0)), expected)
    assert degrees < 1.5 and mm < 2


def test_the_start_says_which_way_is_left():
    volume, expected = make_head(10)
    turned_over = Midplane.by_symmetry(volume, start(180 + 10))
    assert turned_over.left @ expected.left < -0.99


def test_one_slice_is_enough_without_roll():
    volume, expected = make_head(20, offset_mm=5, n_slices=1)
    found = Midplane.by_symmetry(volume, start(8))
    assert found.left[2] == pytest.approx(0)
    bottom = Midplane(found.origin_mm, found.left, found.offset_mm)
    degrees, _ = apart(bottom, expected)
    assert degrees < 2


def test_voxel_order_plays_no_part():
    volume, _ = make_head(-14, 4, 3)
    g, (ni, nj, nk) = volume.geometry, volume.geometry.shape
    other = Geometry((nj, ni, nk), -g.step_j, g.step_i, (g.origins + (nj - 1) * g.step_j)[::-1])
    flipped = Volume(np.asarray(volume.hu).transpose(1, 0, 2)[::-1, :, ::-1].copy(), other)
    one, two = (Midplane.by_symmetry(v, start(-5)) for v in (volume, flipped))
    np.testing.assert_allclose(one.left, two.left, atol=1e-6)
    np.testing.assert_allclose(one.distances_mm(CENTRE), two.distances_mm(CENTRE), atol=1e-6)


def test_without_a_head_there_is_no_plane():
    volume, _ = make_head()
    assert Midplane.by_symmetry(Volume(np.full_like(volume.hu, -1000), volume.geometry), start()) is None


# --- from what was painted ---

SLICE = Geometry.from_affine((64, 64, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))
SIZE = 32
PLACES = (Place(np.array([5.0, -3.0, 0.0]), 7.5), Place(np.array([30.0, 12.0, 0.0]), 3.0))


def paint(left, offset_mm, places=PLACES):
    """Exact maps (2, 2, 16, 16) of the midline with this unit vector to the left and offset."""
    maps = np.ones((2, 2, 16, 16), np.float32)
    for view, place in zip(maps, places, strict=True):
        steps = (np.arange(16) - 7.5) * place.pixel_mm * SIZE / 16
        x = place.centre_mm[0] - steps[None, :]  # the patient's left is on the picture's right
        y = place.centre_mm[1] - steps[:, None]
        view[0] = left[0] * x + left[1] * y + offset_mm
    return maps


@pytest.mark.parametrize("turn_deg", [0, 20, -45, 180])
def test_an_exact_painting_gives_the_exact_line(turn_deg):
    turn = np.radians(turn_deg)
    left = np.array([-np.cos(turn), np.sin(turn), 0])
    midline = Midplane.from_painting(paint(left, 4.0), PLACES, SLICE, SIZE)
    points = np.array([[0.0, 0, 0], [10, -20, 0], [-33, 8, 0]])
    np.testing.assert_allclose(midline.distances_mm(points), points @ left + 4.0, atol=1e-3)


def test_distances_are_true_mm_even_if_painted_too_small():
    left = np.array([-1.0, 0, 0])
    maps = paint(left, 0.0)
    maps[:, 0] *= 0.5
    midline = Midplane.from_painting(maps, PLACES, SLICE, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[-12.0, 3, 0]])), [12], atol=1e-3)


def test_what_is_no_head_does_not_count():
    left = np.array([-1.0, 0, 0])
    maps = paint(left, 0.0)
    maps[0, 0, :4] = 77
    maps[0, 1, :4] = 0
    midline = Midplane.from_painting(maps, PLACES, SLICE, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[-12.0, 3, 0]])), [12], atol=1e-2)


def test_without_any_slope_the_middle_of_the_global_view_counts():
    midline = Midplane.from_painting(np.zeros((2, 2, 16, 16), np.float32), PLACES, SLICE, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[5.0, 40, 0], [-5.0, 0, 0]])), [0, 10])


def test_without_a_painting_the_global_view_s_middle_counts():
    midline = Midplane.from_painting(None, PLACES, SLICE, SIZE)
    assert midline.distances_mm(np.array([[5.0, 40, 0], [-7, -3, 0]])).tolist() == [0, 12]


def line(turn_deg, origin=(0.0, 0, 0), offset_mm=0.0):
    """Of a head that is turned clockwise in the picture."""
    right, down = SLICE.display_axes
    turn = np.radians(turn_deg)
    return Midplane(np.array(origin), np.cos(turn) * right + np.sin(turn) * down, offset_mm)


@pytest.mark.parametrize(
    ("turns_deg", "expected_deg"), [([7], 7), ([3, 40, 5], 5), ([10, 20], 15), ([179, -179, -175], -179)]
)
def test_the_median_of_lines(turns_deg, expected_deg):
    found = Midplane.median([line(turn) for turn in turns_deg], SLICE)
    assert SLICE.turn_deg(found.left) == pytest.approx(expected_deg)
    assert np.linalg.norm(found.left) == pytest.approx(1)


def test_the_median_line_lies_amid_the_others():
    found = Midplane.median([line(0, (x, 0, z)) for x, z in ((4.0, 0), (-1.0, 5), (0.0, 10))], SLICE)
    assert found.distances_mm(np.array([0.0, 30, 0])) == pytest.approx(0)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 6, 7)])
def test_interpolation_between_the_pictures_is_that_of_scipy(shape):
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    at = [rng.uniform(-1, n, 400).astype(np.float32) for n in shape]
    at = [np.concatenate([x, [0, n - 1]]).astype(np.float32) for x, n in zip(at, shape, strict=True)]
    expected = ndimage.map_coordinates(image, at, order=1, cval=0.0)
    np.testing.assert_allclose(_interpolated(image, *at), expected, atol=1e-6)
    assert 0 < np.count_nonzero(expected) < 402
