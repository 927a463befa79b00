"""The masks with many lesions."""

from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from phantoms import REPO
from scipy import ndimage

from situs.labeler import MIN_PIXELS


@pytest.mark.parametrize(("lesions", "width_px", "judged"), [(300, 9, True), (500, 1, False), (1, 9, True)])
def test_the_lesions_are_separate_and_judged_or_not(monkeypatch, lesions, width_px, judged):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    spec = spec_from_file_location("many", REPO / "benchmarks" / "many.py")
    many = module_from_spec(spec)
    spec.loader.exec_module(many)
    mask = np.zeros((256, 256, 24), np.uint8)
    many.mask_lesions(mask, lesions, width_px)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    assert count == lesions
    assert ((np.bincount(labels.ravel())[1:] >= MIN_PIXELS) == judged).all()
    assert all(box[2].stop - box[2].start == 1 for box in ndimage.find_objects(labels))
