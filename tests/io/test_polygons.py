import numpy as np
import pytest
from matplotlib.path import Path

from situs.io.dicom.polygons import crosses_itself, fill


def centres(shape):
    return np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_matplotlib_finds_the_same_pixels_inside(seed):
    """Star-shaped polygons, some of which reach beyond the grid; matplotlib has no ties at random corners."""
    rng = np.random.default_rng(seed)
    shape = (40, 31)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 200))
    radii = rng.uniform(5, 25, 200)
    corners = rng.uniform(5, 30, 2) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    expected = Path(np.vstack([corners, corners[:1]])).contains_points(centres(shape)).reshape(shape)
    np.testing.assert_array_equal(fill([corners], shape), expected)


def test_a_polygon_in_another_is_a_hole_and_one_in_that_is_filled():
    squares = [np.array([(a, a), (b, a), (b, b), (a, b)]) for a, b in ((1.5, 12.5), (3.5, 10.5), (5.5, 7.5))]
    expected = np.zeros((14, 14), bool)
    expected[2:13, 2:13] = True
    expected[4:11, 4:11] = False
    expected[6:8, 6:8] = True
    np.testing.assert_array_equal(fill(squares, (14, 14)), expected)
    np.testing.assert_array_equal(fill([s[::-1] for s in squares], (14, 14)), expected)


def test_polygons_that_share_an_edge_through_centres_share_no_pixel():
    left, right = (np.array([(a, 2), (b, 2), (b, 8), (a, 8)], float) for a, b in ((1, 5), (5, 9)))
    both = fill([left], (12, 12)).astype(int) + fill([right], (12, 12))
    assert both.max() == 1 and both.sum() == 8 * 6


def test_an_outline_joined_to_its_hole_does_not_cross_itself_and_a_figure_eight_does():
    keyhole = np.array(
        [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (3, 6), (6, 6), (6, 3), (3, 3)], float
    )
    assert not crosses_itself(keyhole, 0.5)
    assert fill([keyhole + 0.1], (12, 12)).sum() == 81 - 9
    assert crosses_itself(np.array([(0, 0), (8, 8), (8, 0), (0, 8)], float), 0.5)
    assert not crosses_itself(np.array([(0, 0), (8, 0), (8, 8), (0, 8)], float), 0.5)
