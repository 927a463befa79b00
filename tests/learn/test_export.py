"""Export: what is written answers as what was trained, or nothing is written."""

from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import torch
from phantoms.small_bundle import N_NEIGHBORS, RECIPE, SPEC, WIDTH, small_bundle, small_model

from situs.anatomy import SITES
from situs.bundle import BASENET_FILE, RELATION_FILE, read_bundle
from situs.errors import BundleError
from situs.learn import export
from situs.learn.compact import compact_basenet
from situs.learn.export import export_bundle
from situs.learn.nets import RelationNetwork
from situs.learn.recipe import COMPACT
from situs.learn.vgg import vgg16_basenet
from situs.neighbors import References
from situs.runtime import Runtime
from situs.views import ViewSpec


@pytest.fixture
def model():
    return small_model()


def test_contract_is_what_the_networks_take_and_give():
    import onnx

    bundle = read_bundle(small_bundle())
    assert bundle.n_neighbors == N_NEIGHBORS
    for file, contract in bundle.description["networks"].items():
        network = onnx.load(bundle.path / file)
        onnx.checker.check_model(network)
        assert network.opset_import[0].version == bundle.description["training"]["onnx opset"]
        for direction, tensors in (("inputs", network.graph.input), ("outputs", network.graph.output)):
            actual = {
                t.name: [d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in tensors
            }
            assert actual == {name: tensor["shape"] for name, tensor in contract[direction].items()}


@pytest.mark.slow
def test_exported_again(model, tmp_path):
    """From training mode and with views of one's own: the same bundle, and the mode is left as it was."""
    model.basenet.train()
    model.relation.eval()
    shape = (3, len(SPEC.channels), SPEC.size_px, SPEC.size_px)
    samples = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    again = read_bundle(model.export(tmp_path / "again", sample_views=samples))
    assert model.basenet.training
    assert not model.relation.training
    assert again.description == read_bundle(small_bundle()).description


@pytest.mark.slow
def test_paths_that_do_not_paint(model, tmp_path):
    """The paper's: no shares and no midline in the bundle, and it runs."""
    model.basenet = vgg16_basenet(len(SITES), SPEC.size_px, widths=(2, 2, 3, 3, 4), hidden=8)
    model.basenet.fc2, model.basenet.width = torch.nn.Linear(8, WIDTH), WIDTH
    model.basenet.fc3 = torch.nn.Linear(WIDTH, len(SITES))
    recipe = replace(RECIPE, spec=replace(SPEC, channels=("brain",)))
    bundle = read_bundle(model.export(tmp_path / "b", recipe=recipe))
    assert list(bundle.description["networks"][BASENET_FILE]["outputs"]) == ["embedding", "site_probability"]
    embedded = Runtime(bundle).embed(*np.zeros((2, 3, 1, SPEC.size_px, SPEC.size_px), np.uint8))
    assert embedded.embedding.shape == (3, WIDTH)
    assert embedded.shares is None and embedded.inside is None and embedded.midline is None


def test_no_path_of_the_exporting_machine_is_inside():
    for file in small_bundle().iterdir():
        data = file.read_bytes()
        for path in (str(small_bundle().parent), export.__file__, torch.__path__[0], "nets.py"):
            assert path.encode() not in data


@pytest.mark.parametrize(
    "layer", ["basenet.fc2", "basenet.fc3", "basenet.local_path.paint", "relation.f_last"]
)
def test_networks_that_answer_otherwise_are_not_written(model, tmp_path, monkeypatch, layer):
    """The files are those of the networks before one layer was changed."""
    files = {
        "global_view": (small_bundle() / BASENET_FILE).read_bytes(),
        "target": (small_bundle() / RELATION_FILE).read_bytes(),
    }
    monkeypatch.setattr(export, "_onnx_bytes", lambda network, example, inputs, outputs: files[inputs[0]])
    model.export(tmp_path / "same")
    changed = attrgetter(layer)(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += 0.1 * torch.rand_like(parameter)
    with pytest.raises(BundleError, match="differs from the trained one"):
        model.export(tmp_path / "other")
    assert [entry.name for entry in tmp_path.iterdir()] == ["same"]


@pytest.mark.slow
def test_the_compact_recipe_stays_under_20_mb(tmp_path):
    n, width = 12_000, 256
    embeddings = np.random.default_rng(0).random((n, width), dtype=np.float32)
    ids = np.array([f"head_{i % 16:02d}/scan_{i:05d}/1/3" for i in range(n)])
    references = References(embeddings, np.arange(n) % len(SITES), ids, np.array([i[:7] for i in ids]))
    folder = export_bundle(
        compact_basenet(len(SITES)),
        RelationNetwork(width),
        references,
        replace(COMPACT, spec=ViewSpec(), n_neighbors=8),
        facts={},
        out=tmp_path / "compact",
    )
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20_000_000
