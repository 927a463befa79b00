"""The rule for sides."""

import numpy as np
import pytest

from situs.anatomy import SITES, Site
from situs.geometry import Geometry
from situs.midplane import Midplane
from situs.side import BILATERAL_MM, side_of, side_of_distances, side_of_lesion
from situs.volume import Roi


def test_side_of_distances_by_hand():
    assert side_of_distances(np.array([3.0, 9, 14]), np.ones(3)) == "left"
    assert side_of_distances(np.array([-3.0, 3]), np.ones(2)) == "midline"
    assert side_of_distances(np.zeros(4), np.ones(4)) == "midline"
    assert {side_of_distances(s * np.array([0.0, 0, 1, 2]), np.ones(4)) for s in (1, -1)} == {"midline"}
    assert side_of_distances(np.array([-30.0, 30]), np.ones(2)) == "bilateral"
    assert side_of_distances(np.array([-30.0, 30]), np.array([9.0, 1])) == "right"


def test_structures_that_cross_the_midline_are_not_bilateral():
    wide, left = np.array([-30.0, 30]), np.array([20.0, 40])
    crossing = {site.key for site in SITES if site.crosses_midline}
    assert crossing == {"along_falx_tentorium", "basal_cisterns", "brainstem", "ventricular_system"}
    assert side_of_distances(wide, np.ones(2), crosses_midline=True) == "midline"
    assert side_of_distances(wide, np.ones(2)) == "bilateral"
    assert side_of_distances(left, np.ones(2), crosses_midline=True) == "left"


def test_structures_that_cross_the_midline_have_a_side_only_when_it_is_clear():
    assert side_of(2.4, 1.0, 4, crosses_midline=True) == "midline"
    assert side_of(2.6, 1.0, 4, crosses_midline=True) == "left"
    assert side_of(2.4, 1.0, 4) == "left"


def test_own_sites_cross_the_midline_if_they_are_not_paired():
    assert Site("callosum", "corpus callosum").crosses_midline
    assert not Site("insula", "insula", paired=True).crosses_midline


def test_the_midplane_counts_more_than_a_painted_line():
    """Two planes, 10 mm apart, by hand: 0.8 of the one and 0.2 of the other."""
    geometry = Geometry((1, 1, 1), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), np.zeros((1, 3)))
    pixel = Roi(np.ones((1, 1, 1), bool), (0, 0, 0), geometry)
    origin, left = np.zeros(3), np.array([-1.0, 0, 0])
    for painted_mm, side in ((13.0, "left"), (12.0, "midline"), (-13.0, "right")):  # 2.6, 2.4 and -2.6 mm
        planes = [(Midplane(origin, left, 0.0), 0.8), (Midplane(origin, left, painted_mm), 0.2)]
        assert side_of_lesion(pixel, True, {0: 1.0}, {0: planes}) == side


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
