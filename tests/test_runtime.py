"""The inference engine against the torch networks that the bundle was made from."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from phantoms.small_bundle import N_NEIGHBORS, SPEC, WIDTH, small_bundle, small_model

from situs.anatomy import SITES
from situs.bundle import BASENET_FILE, RELATION_FILE, read_bundle
from situs.bundle.write import ExportedNetworks, write_bundle
from situs.errors import BundleError
from situs.runtime import Runtime, _stop_when_due


@pytest.fixture(scope="module")
def runtime():
    return Runtime(read_bundle(small_bundle()))


def views(n, seed=0):
    shape = (2, n, len(SPEC.channels), SPEC.size_px, SPEC.size_px)
    both = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return both[0], both[1]


def sets(n, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, len(SITES), N_NEIGHBORS)
    targets = rng.normal(size=(n, WIDTH)).astype(np.float32)
    references = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
    return targets, references, rng.random(shape) < 0.7


@pytest.mark.parametrize("n", [1, 8, 19])
def test_embedding_is_torchs(runtime, n):
    basenet = small_model().basenet.eval()
    found = runtime.embed(*views(n))
    with torch.no_grad():
        expected = basenet(*(torch.from_numpy(v) for v in views(n)))
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
    np.testing.assert_allclose(found.site_probability, expected.site_logits.softmax(dim=1), atol=1e-5)
    np.testing.assert_allclose(found.shares, expected.shares, atol=1e-5)
    np.testing.assert_allclose(found.inside, expected.inside, atol=1e-5)
    np.testing.assert_allclose(found.midline, expected.midline, atol=1e-2)
    assert found.embedding.dtype == np.float32


@pytest.mark.parametrize("n", [1, 300])
def test_relation_is_torchs(runtime, n, monkeypatch):
    monkeypatch.setattr("situs.runtime._RELATE_NUMBERS", 100_000)  # some parts, for n = 300
    relation = small_model().relation.eval()
    found = runtime.relate(*sets(n))
    with torch.no_grad():
        expected = relation(*(torch.from_numpy(a) for a in sets(n)))
    assert found.shape == (n, len(SITES))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.05  # the weights are random, yet the answer depends on the input


def test_absent_references_have_no_say(runtime):
    targets, references, present = sets(5)
    present[2, 3] = False
    scores = runtime.relate(targets, references, present)
    assert scores[2, 3] < 1e-6
    references[~present] = 1e3
    np.testing.assert_allclose(runtime.relate(targets, references, present), scores, atol=1e-5)


def test_examples_do_not_see_each_other(runtime):
    whole = runtime.embed(*views(11))
    for n in (0, 7, 10):
        alone = runtime.embed(*(v[n : n + 1] for v in views(11)))
        np.testing.assert_allclose(alone.embedding[0], whole.embedding[n], atol=1e-5)


def test_nothing_is_printed(capfd):
    runtime = Runtime(read_bundle(small_bundle()))
    runtime.embed(*views(1))
    runtime.relate(*sets(1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file", [BASENET_FILE, RELATION_FILE])
def test_a_network_that_cannot_be_loaded_is_one_line(tmp_path, file, capfd):
    good = read_bundle(small_bundle())
    networks = {name: (good.path / name).read_bytes() for name in (BASENET_FILE, RELATION_FILE)}
    folder = write_bundle(
        tmp_path / "odd",
        ExportedNetworks(networks | {file: b"not a network"}, {}, good.spec, good.n_neighbors),
        good.references,
        recipe={},
        training={},
    )
    with pytest.raises(BundleError, match=file) as error:
        Runtime(read_bundle(folder))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_the_engine_is_told_to_send_nothing_to_its_maker(tmp_path):
    """Otherwise it leaves the number of a session in the temporary folder as soon as it is imported."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    code = "import situs.runtime, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert list(tmp_path.iterdir()) == []


def test_time_in_which_the_process_did_not_compute_does_not_count(monkeypatch):
    """It may be suspended, or wait for a core."""
    spent = iter([0.0, 0.01, 0.02, 0.02, 0.2])  # CPU time at the beginning and at each look
    monkeypatch.setattr("situs.runtime._MOST_CPU_S", 0.1)
    monkeypatch.setattr("situs.runtime.time.process_time", lambda: next(spent))
    options = SimpleNamespace(terminate=False)
    _stop_when_due(options, threading.Event())
    assert options.terminate and next(spent, None) is None
    done = threading.Event()
    done.set()
    monkeypatch.setattr("situs.runtime.time.process_time", lambda: 0.0)
    options = SimpleNamespace(terminate=False)
    _stop_when_due(options, done)
    assert not options.terminate
