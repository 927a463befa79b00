"""Bundles whose hashes are good and whose content is not: one line each, quickly, whatever they hold."""

import io
import os
import shutil
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from phantoms.signed import sign
from phantoms.small_bundle import N_NEIGHBORS, SPEC, WIDTH, small_bundle

from situs import runtime
from situs.anatomy import SITES
from situs.bundle import BASENET_FILE, RELATION_FILE, read_bundle
from situs.bundle.format import JSON_FILE, PICTURES_FILE, REFERENCES_FILE
from situs.errors import BundleError
from situs.runtime import Runtime


@pytest.fixture
def folder(tmp_path):
    """A copy of the small bundle that a test may spoil."""
    return shutil.copytree(small_bundle(), tmp_path / "spoilt")


def assert_refused(folder, match):
    with pytest.raises(BundleError, match=match) as error:
        Runtime(read_bundle(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("n_neighbors", 10**9),
        ("n_neighbors", 0),
        ("n_neighbors", "5"),
        ("n_neighbors", True),
        ("embedding_width", -1),
        ("n_references", 2.5),
        ("name", None),
        ("name", "x" * 10_000),
        ("version", 1),
        ("views", None),
        ("views.size_px", 20_000),
        ("views.size_px", 4),
        ("views.global_mm", 1e300),
        ("views.local_mm", float("nan")),
        ("views.channels", []),
        ("views.channels", ["brain"] * 1000),
        ("views.fill_hu", "gray"),
        ("views.more", 1),
        ("recipe", []),
        ("recipe.max_slices", "all"),
        ("recipe.max_slices", 0),
        ("networks", 3),
        ("training", "long"),
        ("evaluation", {}),
        ("evaluation", [{}]),
        ("evaluation", [{"title": "a", "sites": {"knee": {"precision": 1, "recall": 1, "f1": 7}}}]),
        ("sites", []),
        ("sites", [{"key": "knee"}]),
        ("sites", [{"key": "knee", "name": "Knee", "colour": "red"}]),
        ("n_trained_sites", 0),
        ("evaluation", [{"title": "a", "macro": {"precision": 1}}]),
        ("evaluation", [{"title": "a", "text": 3}]),
        ("files", {}),
        ("files", []),
        ("certainty", {}),
        ("certainty", 1),
        ("pictures", {"rendered": -1, "patients": 0}),
        ("references", {"added": "many"}),
        ("score_offsets", {"thalamus": float("nan")}),
        ("score_weights", {"thalamus": [1.0]}),
        ("score_weights", {"thalamus": "heavy"}),
        ("sites", ["a"]),
        ("sites", None),
    ],
)
def test_a_description_of_other_kinds_of_values(folder, path, value):
    def change(description):
        *parents, last = path.split(".")
        for parent in parents:
            description = description[parent]
        description[last] = value

    sign(folder, change)
    assert_refused(folder, JSON_FILE if "sites" not in path else "sites")


def test_a_calibration_without_a_site_or_with_numbers_that_are_none(folder):
    thresholds = {site.key: 0.5 for site in SITES}
    good = {"level": 0.9, "farthest": 1.0, "least_inside": 0.1, "regions": 9, "patients": 3}
    sign(folder, lambda d: d.update(certainty={**good, "thresholds": thresholds}))
    assert read_bundle(folder).calibration is not None
    sign(folder, lambda d: d.update(certainty={**good, "thresholds": {"thalamus": 0.5}}))
    assert read_bundle(folder).calibration.uncalibrated == {*SITES.keys} - {"thalamus"}
    sign(folder, lambda d: d.update(certainty={**good, "thresholds": {}}))
    assert_refused(folder, "expected at least one")
    sign(folder, lambda d: d.update(certainty={**good, "thresholds": {"knee": 0.5}}))
    assert_refused(folder, "no site 'knee'")
    sign(folder, lambda d: d.update(certainty={**good, "thresholds": thresholds, "farthest": float("nan")}))
    assert_refused(folder, "farthest")


def test_json_that_is_nested_without_end(folder):
    (folder / JSON_FILE).write_text("[" * 100_000)
    assert_refused(folder, "not a bundle")


@pytest.mark.parametrize("name", [JSON_FILE, REFERENCES_FILE, BASENET_FILE])
def test_a_pipe_or_a_folder_in_the_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert_refused(folder, name)
    (folder / name).rmdir()
    os.mkfifo(folder / name)  # reading it would wait for ever
    assert_refused(folder, name)


def test_a_name_with_a_nul_byte(tmp_path):
    with pytest.raises(BundleError):
        read_bundle(f"{tmp_path}/a\0b")


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def small_references(n=4, width=WIDTH, **changes):
    arrays = {
        "embeddings": np.zeros((n, width), np.float16),
        "sites": np.zeros(n, np.uint8),
        "ids": np.array([b"a", b"b", b"c", b"d"][:n]),
        "patients": np.array([b"p"] * n),
    }
    return npz(**{**arrays, **changes})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4 no zip",
        npz(embeddings=np.zeros((4, WIDTH), np.float16)),
        small_references(width=WIDTH + 1),
        small_references(n=3),
        small_references(embeddings=np.full((4, WIDTH), np.nan, np.float16)),
        small_references(embeddings=np.zeros((4, WIDTH), np.int32)),
        small_references(sites=np.full(4, 15, np.uint8)),
        small_references(sites=np.zeros(4)),
        small_references(ids=np.zeros(4)),
        small_references(patients=np.array([b"\xff"] * 4)),
        small_references(patients=np.array(["p"] * 3)),
    ],
)
def test_references_of_another_kind(folder, data):
    (folder / REFERENCES_FILE).write_bytes(data or b"\0")
    sign(folder, lambda d: d.update(n_references=4))
    assert_refused(folder, REFERENCES_FILE)


def test_references_that_unpack_to_far_more_than_they_hold(folder):
    stream = io.BytesIO()
    np.savez_compressed(stream, embeddings=np.zeros((2**20, 64), np.float16))
    (folder / REFERENCES_FILE).write_bytes(stream.getvalue())
    sign(folder)
    assert_refused(folder, "larger than the file")


def test_pictures_of_another_kind_are_refused_when_they_are_asked_for(folder):
    n = len(read_bundle(folder).references)
    ends = np.arange(1, n + 1)
    for data in (
        b"no zip",
        npz(webp=np.zeros(n, np.uint8), ends=ends[:-1], rendered=np.ones(n, bool)),
        npz(webp=np.zeros(n, np.uint8), ends=np.array(["x"] * n), rendered=np.ones(n, bool)),
    ):
        (folder / PICTURES_FILE).write_bytes(data)
        sign(folder, lambda d: d["files"].update({PICTURES_FILE: {}}))
        sign(folder)
        with pytest.raises(BundleError, match=PICTURES_FILE):
            _ = read_bundle(folder).pictures
    (folder / PICTURES_FILE).write_bytes(
        npz(webp=np.zeros(n, np.uint8), ends=ends, rendered=np.ones(n, bool))
    )
    sign(folder)
    bundle = read_bundle(folder)
    with pytest.raises(BundleError, match=PICTURES_FILE):
        bundle.picture(str(bundle.references.ids[0]))


# --- networks ---

SHAPES = {
    "target": ["n", WIDTH],
    "references": ["n", len(SITES), N_NEIGHBORS, WIDTH],
    "present": ["n", len(SITES), N_NEIGHBORS],
}


def relation_network(nodes, initializers=(), shapes=SHAPES, output="relation_score"):
    """An ONNX file with the inputs of a relation network and these nodes."""
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.BOOL if name == "present" else TensorProto.FLOAT, shape
        )
        for name, shape in shapes.items()
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "hostile", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def scores_from(*steps):
    """Nodes that bring the references to (n, sites), then `steps` from ``flat`` to ``relation_score``."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    first = helper.make_node("ReduceSum", ["references", "axes"], ["flat"], keepdims=0)
    return [first, *steps], [axes]


def relate(folder):
    rng = np.random.default_rng(0)
    references = rng.random((2, len(SITES), N_NEIGHBORS, WIDTH), np.float32)
    return Runtime(read_bundle(folder)).relate(
        rng.random((2, WIDTH), np.float32), references, np.ones(references.shape[:3], bool)
    )


def test_a_made_up_network_is_run_if_it_keeps_the_contract(folder):
    nodes, initializers = scores_from(helper.make_node("Sigmoid", ["flat"], ["relation_score"]))
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers))
    sign(folder)
    assert relate(folder).shape == (2, len(SITES))


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (helper.make_node("Log", ["flat"], ["relation_score"]), "no numbers"),
        (helper.make_node("Transpose", ["flat"], ["relation_score"]), r"got float32 \(15, 2\)"),
    ],
)
def test_a_network_that_gives_something_else(folder, step, match):
    negative = helper.make_node("Neg", ["flat"], ["minus"])
    step.input[0] = "minus" if match == "no numbers" else "flat"
    nodes, initializers = scores_from(negative, step)
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers))
    sign(folder)
    with pytest.raises(BundleError, match=match):
        relate(folder)


def test_networks_with_other_inputs_or_outputs(folder):
    nodes, initializers = scores_from(helper.make_node("Sigmoid", ["flat"], ["relation_score"]))
    more = {**SHAPES, "extra": ["n", 2]}
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers, more))
    sign(folder)
    assert_refused(folder, "extra")
    nodes, initializers = scores_from(helper.make_node("Sigmoid", ["flat"], ["other"]))
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers, output="other"))
    sign(folder)
    assert_refused(folder, "other")
    (folder / BASENET_FILE).write_bytes((folder / RELATION_FILE).read_bytes())
    sign(folder)
    assert_refused(folder, BASENET_FILE)


def test_a_network_that_never_ends_is_stopped(folder, monkeypatch):
    """A loop of 2^60 turns."""
    monkeypatch.setattr(runtime, "_MOST_CPU_S", 0.3)
    turn = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, None),
        ],
    )
    nodes, initializers = scores_from(
        helper.make_node("Loop", ["turns", "yes", "flat"], ["relation_score"], body=turn)
    )
    initializers += [
        helper.make_tensor("turns", TensorProto.INT64, [], [2**60]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers))
    sign(folder)
    with pytest.raises(BundleError, match="takes over"):
        relate(folder)
    assert threading.active_count() < 10


def test_a_network_that_would_fill_the_memory(folder):
    """A tile of 2^50 numbers: the engine refuses to allocate it."""
    nodes, initializers = scores_from(
        helper.make_node("Tile", ["flat", "times"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["relation_score"], keepdims=0),
    )
    initializers.append(helper.make_tensor("times", TensorProto.INT64, [2], [2**30, 2**20]))
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers))
    sign(folder)
    with pytest.raises(BundleError, match="cannot be run"):
        relate(folder)


def test_the_engine_prints_nothing_about_a_network_that_fails(folder, capfd):
    nodes, initializers = scores_from(helper.make_node("Reshape", ["flat", "shape"], ["relation_score"]))
    initializers.append(helper.make_tensor("shape", TensorProto.INT64, [2], [7, 7]))
    (folder / RELATION_FILE).write_bytes(relation_network(nodes, initializers))
    sign(folder)
    with pytest.raises(BundleError, match="cannot be run"):
        relate(folder)
    assert capfd.readouterr() == ("", "")


def test_the_engine_prints_nothing_about_a_network_that_cannot_be_loaded(folder, capfd):
    """Names that are no UTF-8: the engine would try another provider, and say so on standard output."""
    network = (folder / BASENET_FILE).read_bytes()
    assert b"kernel_shape" in network
    (folder / BASENET_FILE).write_bytes(network.replace(b"kernel_shape", b"\xdeernel_shape", 1))
    sign(folder)
    assert_refused(folder, "cannot load the network")
    assert capfd.readouterr() == ("", "")


def test_the_helper_of_these_tests_signs_as_the_export_does(folder):
    sign(folder)
    assert read_bundle(folder).spec == SPEC
    assert onnx.load(folder / RELATION_FILE).graph.output[0].name == "relation_score"
