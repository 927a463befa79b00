"""The U-Nets of the dense baseline: they go on where they were stopped, and read what they paint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.benchmark import load_benchmark
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITES
from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import open_slices
from situs.learn.devices import CPU
from situs.learn.losses import painting_loss
from situs.learn.recipe import COMPACT
from situs.progress import silent
from situs.views import ViewSpec


@pytest.fixture(scope="module")
def unet():
    return load_benchmark("unet")


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(unet, tmp_path, monkeypatch):
    monkeypatch.setattr(unet, "COMPACT", replace(COMPACT, batch=8))
    slices = open_slices(draw_cohort(tmp_path / "cohort"), ViewSpec(size_px=32))
    chosen = np.flatnonzero(slices.patient != "p0")
    steps = []

    def stop(stage, done, total, figures=""):
        steps.append((stage, done, total))
        if len(steps) == 2:
            raise KeyboardInterrupt

    def trained(work, progress):
        networks = unet.new_networks(3, 8, 0, CPU)
        unet.train(networks, slices, chosen, 32, 0, work, progress)
        return networks

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop)
    networks = trained(tmp_path / "stopped", stop)
    assert steps == [("dense", done, 32) for done in (8, 16, 24, 32)]
    in_one_go, untrained = trained(tmp_path / "whole", silent), unet.new_networks(3, 8, 0, CPU)
    for name, tensor in networks.state_dict().items():
        torch.testing.assert_close(tensor, in_one_go.state_dict()[name])
    assert any((p != q).any() for p, q in zip(networks.parameters(), untrained.parameters(), strict=True))
    new = np.flatnonzero(slices.patient == "p0")
    for read in unet.read_views(networks, (slices.global_view[new], slices.local_view[new])).values():
        assert read.shape == (len(new), len(SITES)) and read.min() >= 0 and read.sum(axis=1).max() <= 1


def test_reads_what_is_painted_under_the_region(unet):
    """Two pixels of region, one and a half: e to the logit 2 over itself and 15 others, in one site each."""
    logits = torch.zeros(1, len(SITES) + 1, 2, 2)
    logits[0, 4, 0, 0] = logits[0, 8, 0, 1] = logits[0, 2, 1, 1] = 2.0
    region = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    high, low = np.exp(2) / (np.exp(2) + 15), 1 / (np.exp(2) + 15)
    expected = np.full(len(SITES), low)
    expected[3] = (high + 0.5 * low) / 1.5
    expected[7] = (low + 0.5 * high) / 1.5
    np.testing.assert_allclose(unet.read_region(logits, region)[0], expected, rtol=1e-5)


def test_the_loss_is_that_of_the_package_without_the_midline(unet):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(SITES) + 1, 4, 4, generator=rng)
    sites = torch.randint(0, len(SITES) + 1, (2, 4, 4), generator=rng)
    sites[0, 0] = SITE_UNKNOWN
    region, weights = torch.rand(2, 4, 4, generator=rng), torch.rand(len(SITES) + 1, generator=rng)
    painting, nowhere = (
        torch.cat([logits, torch.zeros(2, 1, 4, 4)], dim=1),
        torch.full_like(sites, LATERAL_UNKNOWN),
    )
    expected = painting_loss(painting, sites, nowhere, region, weights)
    torch.testing.assert_close(unet.painting_loss(logits, sites, region, weights), expected)
