"""Old brains: where tissue is lost, how much, and what stays."""

import numpy as np
import pytest
from scipy import ndimage

from situs.synth.atrophy import shrink_brain

FLUID, CORTEX, WHITE, VENTRICLE, BONE, THALAMUS = 24, 1028, 2, 4, 515, 10


def brain():
    """A slab of cortex under fluid and bone, with one straight sulcus of 2 mm; white matter beneath, and in
    it a ventricle beside a thalamus. Voxels of 1 mm; z is the depth."""
    labels = np.full((60, 40, 60), CORTEX, np.int16)
    labels[:, :, :4], labels[:, :, 4:6] = BONE, FLUID
    labels[29:31, :, 6:26] = FLUID
    labels[:, :, 36:] = WHITE
    labels[20:40, :, 40:45], labels[20:40, :, 45:48] = VENTRICLE, THALAMUS
    return labels


def widths(labels, value, z):
    """Voxels across x at a depth, for every y."""
    return (labels[:, :, z] == value).sum(axis=0)


@pytest.mark.parametrize("mm", [0.7, 1.4])
def test_sulci_and_ventricles_widen_by_what_is_asked_for(mm):
    young, old = brain(), [shrink_brain(brain(), mm, seed) for seed in range(12)]
    for value, z in ((FLUID, 18), (VENTRICLE, 42)):
        gained = np.mean([widths(labels, value, z) for labels in old]) - widths(young, value, z).mean()
        assert gained / 2 == pytest.approx(mm, abs=0.35)  # on either bank; voxels are whole
    assert np.std([widths(labels, FLUID, 18) for labels in old]) > 0.3  # not everywhere alike
    for labels in old:
        changed = labels != young
        assert set(labels[changed]) == {FLUID, VENTRICLE} and set(young[changed]) <= {CORTEX, WHITE}
        assert (labels == THALAMUS).sum() == (young == THALAMUS).sum()
        near = ndimage.distance_transform_edt(~np.isin(young, (FLUID, VENTRICLE))) <= 0.5 + 1.7 * mm
        assert near[changed].all()


def test_fluid_over_the_convexity_becomes_hardly_thicker():
    old = [shrink_brain(brain(), 1.4, seed) for seed in range(12)]
    over = np.mean([(labels[:20, :, 6:12] == FLUID).sum(axis=2) for labels in old])
    assert over < 0.35


def test_what_stays_as_it_is():
    young = brain()
    assert shrink_brain(young, 0) is young
    np.testing.assert_array_equal(shrink_brain(young, 1.0, 5), shrink_brain(young, 1.0, 5))
    assert (shrink_brain(young, 1.0, 5) != shrink_brain(young, 1.0, 6)).any()
    np.testing.assert_array_equal(young, brain())  # not in place
    bone = np.full((9, 9, 9), BONE, np.int16)
    assert shrink_brain(bone, 1.0) is bone
