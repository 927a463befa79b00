"""What the comparison of readers calls right, and what it calls wrong."""

import numpy as np
import pytest
from phantoms import SHARED
from phantoms.benchmark import load_benchmark

FIELD = SHARED / "data" / "field"


@pytest.fixture(scope="module")
def module():
    return load_benchmark("field_inputs")


@pytest.fixture
def grid():
    """HU that differ everywhere, two regions in opposite corners, and an affine of 3 mm."""
    hu = np.arange(512).reshape(8, 8, 8)
    labels = np.zeros((8, 8, 8), int)
    labels[:2, :2, :2], labels[5:, 5:, 5:] = 1, 4
    return hu, labels, np.diag([3.0, 3.0, 3.0, 1.0])


def test_what_is_found_is_compared_by_values_and_place(module, grid):
    hu, labels, affine = grid
    truth = module.regions_on_grid(hu, labels, affine)
    assert sorted(truth) == [1, 4]
    np.testing.assert_allclose(truth[4].centre, [18, 18, 18])  # 3 mm times the mean of 5, 6 and 7
    moved = affine.copy()
    moved[0, 3] = 7.0

    def fault(hu=hu, labels=labels, affine=affine):
        return module.fault_of(module.regions_on_grid(hu, labels, affine), truth)

    assert fault() == ""
    assert fault(labels=np.where(labels == 1, 0, labels)) == "1 of 2 regions lost"
    assert fault(hu=hu + 1024) == "HU off by 1024"
    assert fault(affine=moved) == "7 mm off"
    # Mirrored alone, the mask lies elsewhere: its first region by 6 voxels. The scan mirrored with it, under
    # an affine that takes this back but for the origin, has the right values, 7 voxels away.
    assert fault(labels=labels[::-1]) == "other voxels, 18 mm off"
    back = affine @ np.diag([-1, 1, 1, 1])
    assert fault(hu=hu[::-1], labels=labels[::-1], affine=back) == "21 mm off"


@pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs from the field are not here")
def test_the_truth_of_a_dicom_scan_is_the_plain_case(module):
    inputs = {case.name: case for case in module.read_inputs(FIELD)}
    plain = module.true_regions(inputs["base"], FIELD)
    part, unplaced = (module.true_regions(inputs[name], FIELD) for name in ("F09", "F16a"))
    assert sorted(part) == [1, 4]
    for value in part:  # every second pixel of some slices
        assert set(part[value].hu) <= set(plain[value].hu)
        np.testing.assert_array_equal(part[value].centre, unplaced[value].centre)
    assert module.true_regions(inputs["F08c"], FIELD) is None
    assert inputs["F08c"].options == ("--series", "2")
