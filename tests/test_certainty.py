"""Sets of sites: calibrated on one half of a toy problem, they hold the truth in the other as promised."""

from dataclasses import replace

import numpy as np
import pytest

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.certainty import Calibration, fit_calibration, normalise_scores

PARIETAL, SULCAL = SITE_INDEX["parietal_region"], SITE_INDEX["sulcal_spaces"]


def draw(n, seed):
    """Scores that mostly tell the site; parietal and sulcal lesions are told apart badly."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 15, n)
    scores = rng.uniform(0, 0.05, (n, 15))
    scores[np.arange(n), truth] = rng.uniform(0.5, 1, n)
    mixed = np.isin(truth, (PARIETAL, SULCAL))
    scores[np.ix_(mixed, [PARIETAL, SULCAL])] = rng.uniform(0.2, 1, (mixed.sum(), 2))
    return (
        scores,
        truth,
        rng.uniform(0.1, 0.5, n),
        rng.uniform(0.7, 1, n),
        np.array([f"p{i % 8}" for i in range(n)]),
    )


def calibrated(level=0.9, **others):
    scores, truth, distances, inside, patients = draw(6000, 0)
    arguments = {"inside": inside, "truth": truth} | others
    return fit_calibration(scores, arguments["truth"], distances, arguments["inside"], patients, level)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_every_site_is_covered_as_promised(level):
    calibration = calibrated(level)
    scores, truth, distances, inside, _ = draw(6000, 1)
    sets = [calibration.judge(*row).site_set for row in zip(scores, distances, inside, strict=True)]
    held = np.array([SITE_KEYS[t] in s for t, s in zip(truth, sets, strict=True)])
    for site in range(15):
        # 400 lesions on either side: a standard deviation of 2 %
        assert held[truth == site].mean() > level - 0.07
    for site in (PARIETAL, SULCAL):
        assert held[truth == site].mean() < min(0.99, level + 0.07)
    sizes = np.array([len(s) for s in sets])
    assert sizes.min() == 1
    assert sizes[~np.isin(truth, (PARIETAL, SULCAL))].max() == 1
    assert sizes[np.isin(truth, (PARIETAL, SULCAL))].mean() > 1.3


def test_a_set_is_never_empty_and_its_first_is_the_best():
    calibration = calibrated()
    even = np.full(15, 0.5)
    even[3] = 0.51
    judged = calibration.judge(even, 0.1, 1.0)
    assert judged.site_set[0] == SITE_KEYS[3]
    nothing = calibration.judge(np.zeros(15), 0.1, 1.0)
    assert len(nothing.site_set) >= 1


def test_reasons():
    calibration = calibrated()
    sure = np.zeros(15)
    sure[SULCAL] = 0.9
    assert calibration.judge(sure, 0.3, 0.9).reasons == ()
    assert calibration.judge(sure, 0.3, None).reasons == ()
    (far,) = calibration.judge(sure, 0.9, 0.9).reasons
    (outside,) = calibration.judge(sure, 0.3, 0.2).reasons
    assert "unlike the references" in far and "none of the 15 sites" in outside
    both = sure.copy()
    both[PARIETAL] = 0.8
    judged = calibration.judge(both, 0.3, 0.9)
    assert judged.site_set == ("sulcal_spaces", "parietal_region")
    assert judged.reasons == ("More than one site fits: sulcal spaces or parietal region.",)


def test_almost_all_were_nearer_and_more_inside():
    calibration = calibrated()
    *_, distances, inside, _ = draw(6000, 2)
    assert (distances > calibration.farthest).mean() == pytest.approx(0.01, abs=0.005)
    assert (inside < calibration.least_inside).mean() == pytest.approx(0.01, abs=0.005)
    assert calibrated(inside=None).least_inside == 0


def test_a_rare_site_gets_the_threshold_of_all():
    _, truth, *_ = draw(6000, 0)
    first = np.flatnonzero(truth == 4)
    truth[first[9:]] = 5
    common = calibrated(truth=truth)
    values = np.sort(normalise_scores(draw(6000, 0)[0])[np.arange(6000), truth])
    assert common.thresholds[4] == values[int(6001 * 0.1 + 1e-9) - 1]


def test_there_and_back():
    calibration = calibrated()
    same = Calibration.from_dict(calibration.to_dict())
    np.testing.assert_allclose(same.thresholds, calibration.thresholds, atol=1e-6)
    assert (same.level, same.farthest, same.regions, same.patients) == (0.9, calibration.farthest, 6000, 8)
    assert same.alone is None
    both = Calibration.from_dict(replace(calibration, alone=calibrated(0.8)).to_dict())
    assert both.level == 0.9 and both.alone.level == 0.8


def test_few_slices_are_judged_by_the_calibration_of_slices_alone():
    calibration = replace(calibrated(), alone=calibrated(0.8))
    assert [calibration.for_scan(n).level for n in (1, 4, 5, 30)] == [0.8, 0.8, 0.9, 0.9]
    assert calibrated().for_scan(4) is None and calibrated().for_scan(5) is not None


def test_what_cannot_be_calibrated():
    scores, truth, distances, inside, patients = draw(20, 0)
    with pytest.raises(ValueError, match="level"):
        fit_calibration(scores, truth, distances, inside, patients, 1.0)
    with pytest.raises(ValueError, match="expected lesions"):
        fit_calibration(scores[:0], truth[:0], distances[:0], None, patients[:0])
    with pytest.raises(ValueError, match="scores: expected 20"):
        fit_calibration(scores[:, :3], truth, distances, inside, patients)
