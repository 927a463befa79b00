"""The losses, against plain numpy."""

import numpy as np
import pytest
import torch
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITE_INDEX, SITES
from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import open_slices
from situs.learn.losses import painting_loss, relation_loss, shares_loss, site_map_weights
from situs.views import ViewSpec


def test_painting_loss_by_hand():
    rng = np.random.default_rng(0)
    n, c, h = 2, len(SITES) + 1, 3
    painting = rng.normal(size=(n, c + 1, h, h)).astype(np.float32)
    sites = rng.integers(0, c, (n, h, h)).astype(np.uint8)
    lateral = rng.integers(-50, 50, (n, h, h)).astype(np.int8)
    region = rng.random((n, h, h)).astype(np.float32)
    weights = rng.random(c).astype(np.float32)
    sites[0, 0], lateral[1, 2] = SITE_UNKNOWN, LATERAL_UNKNOWN

    top = bottom = far = valid = 0.0
    for a, i, j in np.ndindex(n, h, h):
        pixel = 1 + 9 * region[a, i, j]
        if sites[a, i, j] != SITE_UNKNOWN:
            logits = painting[a, :c, i, j].astype(np.float64)
            s = sites[a, i, j]
            top += pixel * weights[s] * (np.log(np.exp(logits).sum()) - logits[s])
            bottom += pixel * weights[s]
        if lateral[a, i, j] != LATERAL_UNKNOWN:
            error = abs(painting[a, c, i, j] - lateral[a, i, j] / 30)
            far += pixel * (error**2 / 2 if error < 1 else error - 0.5)
            valid += pixel
    expected = top / bottom + 0.5 * far / valid
    loss = painting_loss(*map(torch.from_numpy, (painting, sites, lateral, region, weights)))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_painting_loss_with_nothing_known_is_zero():
    sites = torch.full((1, 2, 2), SITE_UNKNOWN, dtype=torch.uint8)
    lateral = torch.full((1, 2, 2), LATERAL_UNKNOWN, dtype=torch.int8)
    painting = torch.randn(1, len(SITES) + 2, 2, 2)
    loss = painting_loss(painting, sites, lateral, torch.ones(1, 2, 2), torch.ones(len(SITES) + 1))
    assert float(loss) == 0


def test_shares_loss_by_hand():
    """Of two regions one lies in two sites and beside them, the other where nothing is known."""
    logits = np.random.default_rng(1).normal(size=(2, len(SITES) + 1)).astype(np.float32)
    region = np.array([[[1, 0], [1, 0.5]], np.ones((2, 2))], dtype=np.float32)
    sites = np.array([[[3, 0], [7, 7]], np.full((2, 2), SITE_UNKNOWN)], dtype=np.uint8)
    p = np.exp(logits[0].astype(np.float64)) / np.exp(logits[0].astype(np.float64)).sum()
    expected = -(1.0 * np.log(p[3]) + 1.5 * np.log(p[7])) / 2.5
    loss = shares_loss(*map(torch.from_numpy, (logits, sites, region)))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_relation_loss_by_hand():
    logits, site = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, -3.0]]), [0, 2]
    total = 0.0
    for row, s in zip(logits, site, strict=True):
        p = 1 / (1 + np.exp(-row))
        binary = [-2 * np.log(p[m]) if m == s else -np.log(1 - p[m]) for m in range(3)]
        total += np.mean(binary) / 2 + np.log(np.exp(row).sum()) - row[s]
    assert float(relation_loss(torch.tensor(logits), torch.tensor(site))) == pytest.approx(total / 2)


def test_weights_of_the_site_map_average_to_one(tmp_path):
    slices = open_slices(draw_cohort(tmp_path, patients=2, scans=1), ViewSpec(size_px=32))
    everything = np.arange(len(slices))
    weights = site_map_weights(slices, everything, 0).numpy()
    codes = np.concatenate([slices.global_sites.ravel(), slices.local_sites.ravel()])
    assert weights[codes].mean() == pytest.approx(1, rel=1e-5)
    counts = np.bincount(codes)
    a, b = SITE_INDEX["parietal_region"] + 1, SITE_INDEX["frontal_region"] + 1
    assert weights[a] / weights[b] == pytest.approx((counts[b] / counts[a]) ** 0.5, rel=1e-5)
