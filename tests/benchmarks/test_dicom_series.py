"""The made-up series and its segmentation."""

import numpy as np
import pytest
from phantoms.benchmark import load_benchmark

from situs.io import read_rois, read_volume


@pytest.mark.slow
def test_the_segments_are_the_balls_that_are_in_the_scan(tmp_path):
    pytest.importorskip("highdicom")
    made = load_benchmark("dicom_series")
    made.write_series(tmp_path / "scan", tmp_path / "seg.dcm", 80, 256, 3)
    volume = read_volume(tmp_path / "scan")
    assert volume.hu.shape == (256, 256, 80) and not volume.doubts
    rois = read_rois(tmp_path / "seg.dcm", volume)
    assert [roi.name for roi in rois] == ["lesion 1", "lesion 2", "lesion 3"]
    for roi, radius in zip(rois, (5, 6, 7), strict=True):
        volume_mm3 = roi.mask.sum() * 0.45 * 0.45 * 0.5
        assert volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)
        at = np.argwhere(roi.mask) + roi.start
        assert np.mean(volume.hu[tuple(at.T)]) == pytest.approx(32 + 35, abs=1)
