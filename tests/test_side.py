"""The midline line fit against hand-made paintings, and the rule for sides."""

import numpy as np
import pytest

from situs.geometry import Geometry
from situs.side import BILATERAL_MM, Midline, fit_midline, median_line, side_of, side_of_distances
from situs.views import Place

GEOMETRY = Geometry.from_affine((64, 64, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))
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
    midline = fit_midline(paint(left, 4.0), PLACES, GEOMETRY, SIZE)
    points = np.array([[0.0, 0, 0], [10, -20, 0], [-33, 8, 0]])
    np.testing.assert_allclose(midline.distances_mm(points), points @ left + 4.0, atol=1e-3)


def test_distances_are_true_mm_even_if_painted_too_small():
    left = np.array([-1.0, 0, 0])
    maps = paint(left, 0.0)
    maps[:, 0] *= 0.5
    midline = fit_midline(maps, PLACES, GEOMETRY, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[-12.0, 3, 0]])), [12], atol=1e-3)


def test_what_is_no_head_does_not_count():
    left = np.array([-1.0, 0, 0])
    maps = paint(left, 0.0)
    maps[0, 0, :4] = 77
    maps[0, 1, :4] = 0
    midline = fit_midline(maps, PLACES, GEOMETRY, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[-12.0, 3, 0]])), [12], atol=1e-2)


def test_without_any_slope_the_middle_of_the_global_view_counts():
    midline = fit_midline(np.zeros((2, 2, 16, 16), np.float32), PLACES, GEOMETRY, SIZE)
    np.testing.assert_allclose(midline.distances_mm(np.array([[5.0, 40, 0], [-5.0, 0, 0]])), [0, 10])


def test_side_of_distances_by_hand():
    assert side_of_distances(np.array([3.0, 9, 14]), np.ones(3)) == "left"
    assert side_of_distances(np.array([-3.0, 3]), np.ones(2)) == "midline"
    assert side_of_distances(np.zeros(4), np.ones(4)) == "midline"
    assert {side_of_distances(s * np.array([0.0, 0, 1, 2]), np.ones(4)) for s in (1, -1)} == {"midline"}
    assert side_of_distances(np.array([-30.0, 30]), np.ones(2)) == "bilateral"
    assert side_of_distances(np.array([-30.0, 30]), np.array([9.0, 1])) == "right"


@pytest.mark.parametrize(
    ("mean_mm", "left_share", "width_mm", "side"),
    [
        (30, 1.0, 20, "left"),
        (-30, 0.0, 20, "right"),
        (3, 0.97, 4, "left"),  # beside the falx, not across it
        (0, 0.5, 10, "midline"),
        (1.5, 1.0, 4, "midline"),  # thin, along the falx
        (1.6, 1.0, 4, "left"),
        (-3.9, 0.22, 15, "midline"),
        (-3.9, 0.18, 15, "right"),
        (0, 0.5, BILATERAL_MM, "bilateral"),
        (9, 0.7, 50, "bilateral"),
        (20, 0.78, 60, "left"),  # it reaches across, but not with a quarter
        (1, 0.5, BILATERAL_MM - 1, "midline"),
    ],
)
def test_side(mean_mm, left_share, width_mm, side):
    assert side_of(mean_mm, left_share, width_mm) == side
    mirror = {"left": "right", "right": "left", "midline": "midline", "bilateral": "bilateral"}
    assert side_of(-mean_mm, 1 - left_share, width_mm) == mirror[side]


def test_without_a_painting_the_global_view_s_middle_counts():
    midline = fit_midline(None, PLACES, GEOMETRY, SIZE)
    assert midline.distances_mm(np.array([[5.0, 40, 0], [-7, -3, 0]])).tolist() == [0, 12]


def line(turn_deg, origin=(0.0, 0, 0), offset_mm=0.0):
    """Of a head that is turned clockwise in the picture."""
    right, down = GEOMETRY.display_axes()
    turn = np.radians(turn_deg)
    return Midline(np.array(origin), np.cos(turn) * right + np.sin(turn) * down, offset_mm)


@pytest.mark.parametrize(
    ("turns_deg", "expected_deg"), [([7], 7), ([3, 40, 5], 5), ([10, 20], 15), ([179, -179, -175], -179)]
)
def test_the_median_of_lines(turns_deg, expected_deg):
    found = median_line([line(turn) for turn in turns_deg], GEOMETRY)
    assert GEOMETRY.turn_deg(found.left) == pytest.approx(expected_deg)
    assert np.linalg.norm(found.left) == pytest.approx(1)


def test_the_median_line_lies_amid_the_others():
    found = median_line([line(0, (x, 0, z)) for x, z in ((4.0, 0), (-1.0, 5), (0.0, 10))], GEOMETRY)
    assert found.distances_mm(np.array([0.0, 30, 0])) == pytest.approx(0)
