"""The dense baseline of the benchmarks: it learns, goes on, and reads what it painted under the region."""

from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
import torch
from phantoms import REPO
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITES
from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import open_slices
from situs.learn.devices import CPU
from situs.learn.losses import painting_loss
from situs.views import ViewSpec


@pytest.fixture(scope="module")
def dense():
    folder = REPO / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # it imports its neighbour, as a script does
        spec = spec_from_file_location("dense", folder / "dense.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def test_learns_and_goes_on(dense, tmp_path):
    slices = open_slices(draw_cohort(tmp_path / "cohort"), ViewSpec(size_px=32))
    seen = np.flatnonzero(slices.patient != "p0")
    said = []

    def stop(stage, done, total, figures):
        said.append(done)
        if len(said) == 20:
            raise KeyboardInterrupt

    def trained():
        networks = dense.new_networks(3, 8, 0, CPU)
        dense.train(networks, slices, seen, 40 * 64, 0, tmp_path / "work", stop)
        return networks

    with pytest.raises(KeyboardInterrupt):
        trained()
    networks = trained()
    assert said == [64 * n for n in range(1, 41)]
    new = np.flatnonzero(slices.patient == "p0")
    read = dense.read_views(networks, (slices.global_view[new], slices.local_view[new]))
    assert (sum(read.values()).argmax(axis=1) == slices.site[new]).mean() > 0.8


def test_reads_what_is_painted_under_the_region(dense):
    """Two pixels of region, one and a half: e to the logit 2 over itself and 15 others, in one site each."""
    logits = torch.zeros(1, len(SITES) + 1, 2, 2)
    logits[0, 4, 0, 0] = logits[0, 8, 0, 1] = logits[0, 2, 1, 1] = 2.0
    region = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    high, low = np.exp(2) / (np.exp(2) + 15), 1 / (np.exp(2) + 15)
    expected = np.full(len(SITES), low)
    expected[3] = (high + 0.5 * low) / 1.5
    expected[7] = (low + 0.5 * high) / 1.5
    np.testing.assert_allclose(dense._read(logits, region)[0], expected, rtol=1e-5)


def test_the_loss_is_that_of_the_package_without_the_midline(dense):
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
    torch.testing.assert_close(dense.painting_loss(logits, sites, region, weights), expected)
