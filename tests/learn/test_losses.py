"""The losses, against plain numpy."""

import numpy as np
import pytest
import torch
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITE_INDEX, SITES
from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import Batch, open_slices
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

    top = bottom = far = known = 0.0
    for a, i, j in np.ndindex(n, h, h):
        pixel = 1 + 9 * region[a, i, j]
        if sites[a, i, j] != SITE_UNKNOWN:
            logits = painting[a, :c, i, j].astype(np.float64)
            s = sites[a, i, j]
            top += pixel * weights[s] * (np.log(np.exp(logits).sum()) - logits[s])
            bottom += pixel * weights[s]
        if lateral[a, i, j] != LATERAL_UNKNOWN:
            off = abs(painting[a, c, i, j] - lateral[a, i, j] / 30)
            far += pixel * (off**2 / 2 if off < 1 else off - 0.5)
            known += pixel
    expected = top / bottom + 0.5 * far / known
    found = painting_loss(*map(torch.from_numpy, (painting, sites, lateral, region, weights)))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_painting_loss_with_nothing_known_is_zero():
    sites = torch.full((1, 2, 2), SITE_UNKNOWN, dtype=torch.uint8)
    lateral = torch.full((1, 2, 2), LATERAL_UNKNOWN, dtype=torch.int8)
    painting = torch.randn(1, len(SITES) + 2, 2, 2)
    loss = painting_loss(painting, sites, lateral, torch.ones(1, 2, 2), torch.ones(len(SITES) + 1))
    assert float(loss) == 0


def test_shares_loss_by_hand():
    """Of two regions one lies in two sites and beside them, the other where nothing is known."""
    logits = np.random.default_rng(1).normal(size=(2, len(SITES) + 1)).astype(np.float32)
    view = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    view[0, 0, :, :2] = 255  # the left half of the target, and half of its lower right pixel
    view[0, 0, 2, 2:] = 255
    view[1] = 255
    sites = np.array([[[3, 0], [7, 7]], np.full((2, 2), SITE_UNKNOWN)], dtype=np.uint8)
    batch = Batch(view, view, np.zeros(2, dtype=np.int64), sites, sites)
    p = np.exp(logits[0].astype(np.float64)) / np.exp(logits[0].astype(np.float64)).sum()
    expected = -(1.0 * np.log(p[3]) + 1.5 * np.log(p[7])) / 2.5
    assert float(shares_loss(torch.from_numpy(logits), batch)) == pytest.approx(expected, rel=1e-5)


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
    found = site_map_weights(slices, everything, 0).numpy()
    codes = np.concatenate([slices.global_sites.ravel(), slices.local_sites.ravel()])
    assert found[codes].mean() == pytest.approx(1, rel=1e-5)
    counts = np.bincount(codes)
    a, b = SITE_INDEX["parietal_region"] + 1, SITE_INDEX["frontal_region"] + 1
    assert found[a] / found[b] == pytest.approx((counts[b] / counts[a]) ** 0.5, rel=1e-5)
