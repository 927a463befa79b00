"""The masks with many lesions."""

import numpy as np
import pytest
from phantoms.benchmark import load_benchmark
from scipy import ndimage

from situs.labeler import MIN_PIXELS


@pytest.mark.parametrize(("lesions", "width_px", "judged"), [(300, 9, True), (500, 1, False), (1, 9, True)])
def test_the_lesions_are_separate_and_judged_or_not(lesions, width_px, judged):
    many = load_benchmark("many")
    mask = np.zeros((256, 256, 24), np.uint8)
    many.mask_lesions(mask, lesions, width_px)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    assert count == lesions
    assert ((np.bincount(labels.ravel())[1:] >= MIN_PIXELS) == judged).all()
    assert all(box[2].stop - box[2].start == 1 for box in ndimage.find_objects(labels))
