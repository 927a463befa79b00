import doctest

import numpy as np
import pytest

from situs import geometry
from situs.geometry import Geometry, axial_order

LEVEL = Geometry.from_affine((4, 5, 3), np.diag([0.5, 2.0, 5.0, 1.0]))


def tilted(tables=(0.0, 4.2, 5.3, 12.7), degrees=18.5):
    """A gantry that leans by `degrees`, the table moved along z: the GE series' geometry."""
    a = np.radians(degrees)
    origins = np.array([[-10.0, 20.0, z] for z in tables])
    return Geometry((6, 7, len(tables)), (0.5, 0, 0), (0, -0.5 * np.cos(a), -0.5 * np.sin(a)), origins)


def test_doctests():
    assert doctest.testmod(geometry).failed == 0


def test_an_affine_survives():
    affine = np.array([[-0.4, 0.1, 0.3, 7], [0.1, 0.5, -0.2, -3], [0, 0.2, 4.0, 9], [0, 0, 0, 1]])
    g = Geometry.from_affine((3, 4, 5), affine)
    assert g.is_affine
    np.testing.assert_allclose(g.affine, affine, atol=1e-12)


def test_world_positions_are_the_affines():
    affine = np.array([[-0.4, 0.1, 0.3, 7], [0.1, 0.5, -0.2, -3], [0, 0.2, 4.0, 9], [0, 0, 0, 1]])
    g = Geometry.from_affine((3, 4, 5), affine)
    ijk = np.array([[0, 0, 0], [2, 3, 4], [0.5, 1.25, 2]])
    np.testing.assert_allclose(g.to_world(ijk), ijk @ affine[:3, :3].T + affine[:3, 3])


def test_measures_of_level_slices():
    assert LEVEL.spacing_mm == (0.5, 2.0)
    np.testing.assert_allclose(LEVEL.normal, [0, 0, 1])
    np.testing.assert_allclose(LEVEL.slice_gaps_mm, [5, 5])
    assert LEVEL.tilt_deg == 0


def test_tilt_and_gaps_come_from_the_positions():
    g = tilted()
    assert g.tilt_deg == pytest.approx(18.5)
    np.testing.assert_allclose(g.slice_gaps_mm, np.array([4.2, 1.1, 7.4]) * np.cos(np.radians(18.5)))
    assert g.normal[2] > 0


def test_thickness_is_half_the_way_to_both_neighbours():
    np.testing.assert_allclose(tilted(degrees=0).slice_thickness_mm, [4.2, 2.65, 4.25, 7.4])
    assert Geometry.from_affine((2, 2, 1), np.eye(4)).slice_thickness_mm.tolist() == [1]


def test_uneven_slices_have_no_affine():
    g = tilted()
    assert not g.is_affine
    with pytest.raises(ValueError, match="unevenly"):
        _ = g.affine


def test_the_same_grid_to_a_hundredth_of_a_voxel_on_every_slice():
    g = tilted()

    def moved(origins, step_i=g.step_i):
        return Geometry(g.shape, step_i, g.step_j, origins)

    assert g.is_same_grid(moved(g.origins.astype(np.float32)))
    assert g.is_same_grid(moved(g.origins + 0.009 * 0.5)) and not g.is_same_grid(
        moved(g.origins + 0.011 * 0.5)
    )
    far = g.step_i * (1 + 0.02 / 5)  # a fiftieth of a voxel at the last of the six
    assert not g.is_same_grid(moved(g.origins, far))
    assert not g.is_same_grid(Geometry.from_affine((6, 7, 5), np.eye(4)))
    one = Geometry((2, 2, 1), (1, 0, 0), (0, 1, 0), [[0, 0, 0]])
    assert one.is_same_grid(one)


def test_uneven_stacks_with_equal_ends_are_two_grids():
    assert not tilted((0.0, 4.2, 5.3, 12.7)).is_same_grid(tilted((0.0, 4.2, 5.4, 12.7)))


def test_pixels_undo_world_on_every_slice():
    g = tilted()
    for k in range(4):
        ijk = np.array([[0, 0, k], [5, 6, k], [2.5, 1.25, k]])
        np.testing.assert_allclose(g.to_pixels(g.to_world(ijk), k), ijk[:, :2], atol=1e-9)


def test_pixels_are_projected_along_the_normal():
    g = tilted()
    world = g.to_world([[2, 3, 1]])
    np.testing.assert_allclose(g.to_pixels(world + 3.7 * g.normal, 1), [[2, 3]], atol=1e-9)


def test_only_slices_have_world_positions():
    with pytest.raises(IndexError, match="0 to 2"):
        LEVEL.to_world([[0, 0, 3]])


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_display_shows_the_patients_left_on_the_right_whatever_the_voxel_order(flip):
    right, down = Geometry.from_affine((4, 4, 4), np.diag([*np.array(flip) * 2.0, 1.0])).display_axes
    np.testing.assert_allclose(right, [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(down, [0, -1, 0], atol=1e-12)


@pytest.mark.parametrize("turn", [0, 40, 90, 180, 260])
def test_display_undoes_a_turn_within_the_plane(turn):
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    right, down = Geometry((2, 2, 1), (c, s, 0), (-s, c, 0), [[0, 0, 0]]).display_axes
    np.testing.assert_allclose([right, down], [[-1, 0, 0], [0, -1, 0]], atol=1e-12)


def test_a_turned_head_by_its_left():
    """World: x to the right, y to the front; in the picture the left is on the right, the front above."""
    g = Geometry((2, 2, 1), (-1, 0, 0), (0, -1, 0), [[0, 0, 0]])
    for left, expected in (((-1, 0, 0), 0), ((-2, -2, 0), 45), ((0, 3, 0), -90), ((1, 1e-9, 0), -180)):
        assert g.turn_deg(np.array(left)) == pytest.approx(expected)


def test_display_axes_lie_in_a_tilted_plane():
    g = tilted()
    right, down = g.display_axes
    np.testing.assert_allclose([right @ g.normal, down @ g.normal, right @ down], 0, atol=1e-12)
    assert right[0] == pytest.approx(-1) and down[1] < -0.9


def test_display_of_a_coronal_plane_has_the_feet_below():
    _, down = Geometry((2, 2, 1), (1, 0, 0), (0, 0, 1), [[0, 0, 0]]).display_axes
    np.testing.assert_allclose(down, [0, 0, -1], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (0, 2, 1)}, "shape"),
        ({"step_i": (0, 0, 0)}, "step_i"),
        ({"step_j": (2, 0, 0)}, "parallel"),
        ({"step_j": (np.nan, 0, 0)}, "step_j"),
        ({"origins": [[0, 0, 0], [0, 0, 1]]}, "origins"),
    ],
)
def test_impossible_stacks_are_refused(change, text):
    good = {"shape": (2, 2, 1), "step_i": (1, 0, 0), "step_j": (0, 1, 0), "origins": [[0, 0, 0]]}
    with pytest.raises(ValueError, match=text):
        Geometry(**{**good, **change})


def test_the_axis_nearest_to_feet_head_comes_last():
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]):
        affine = np.eye(4)
        affine[:3, :3] = np.diag([0.5, 0.5, 5])[:, order]
        assert order[axial_order(affine)[2]] == 2
