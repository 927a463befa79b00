"""VGG16's convolutions: torchvision's layout and names, and files that hold something else."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from situs.errors import InputError
from situs.learn import vgg as module
from situs.learn.vgg import IMAGENET_URL, VGGPath, fetch_imagenet_weights, read_vgg16_weights, vgg16_basenet

WIDTHS = (2, 3, 4, 5, 6)
# torchvision.models.vgg16: where the convolutions lie in `features`, and what they take and give.
LAYOUT = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip


def small(seed=0):
    torch.manual_seed(seed)
    return vgg16_basenet(15, size_px=32, widths=WIDTHS, hidden=8)


@pytest.fixture
def weights():
    """As in torchvision's file: the convolutions, and a classifier that is not read."""
    torch.manual_seed(7)
    features = {
        f"features.{n}": torch.randn_like(t) for n, t in small().local_path.features.state_dict().items()
    }
    return {**features, "classifier.0.weight": torch.ones(2, 2)}


def save(tensors, path):
    torch.save(tensors, path)
    return path


def test_layout_is_torchvision_s():
    with torch.device("meta"):
        path = VGGPath()
    shapes = {f"features.{n}": tuple(t.shape) for n, t in path.features.state_dict().items()}
    expected = {f"features.{n}.weight": (b, a, 3, 3) for n, (a, b) in LAYOUT.items()}
    expected |= {f"features.{n}.bias": (b,) for n, (_, b) in LAYOUT.items()}
    assert shapes == expected
    pools = [n for n, layer in enumerate(path.features) if isinstance(layer, nn.MaxPool2d)]
    assert pools == [4, 9, 16, 23, 30]  # pool5 is the last layer
    assert path.n_features == 512 * 7 * 7


@torch.no_grad()
def test_gray_becomes_three_channels_as_imagenet_has_them():
    """The first layer by hand, on an even view: 127.5 / 255 less the mean, over the deviation."""
    path = VGGPath(32, WIDTHS)
    seen = []
    path.features[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    path(torch.full((1, 1, 32, 32), 102, dtype=torch.uint8))
    expected = [(0.4 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_both_views_matter_and_nothing_is_painted():
    basenet = small().eval()
    a, b = torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    output = basenet(a, b)
    assert output.embedding.shape == (3, 256) and output.site_logits.shape == (3, 15)
    assert output.shares is None and output.midline is None
    assert not torch.allclose(output.embedding, basenet(b, b).embedding)
    assert not torch.allclose(output.embedding, basenet(a, a).embedding)


def test_size_must_fit():
    with pytest.raises(ValueError, match="multiple of 32, got 112"):
        VGGPath(112, WIDTHS)


def test_weights_go_into_both_paths(weights, tmp_path):
    basenet = small()
    fc = basenet.fc1.weight.clone()
    path = save(weights, tmp_path / "w.pth")
    given = read_vgg16_weights(path, basenet)
    assert given.path == path and given.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not any("classifier" in name for name in given.tensors)
    given.load_into(basenet)
    for path in (basenet.global_path, basenet.local_path):
        for name, tensor in path.features.state_dict().items():
            assert torch.equal(tensor, weights[f"features.{name}"])
    assert torch.equal(basenet.fc1.weight, fc)


def test_a_file_of_the_published_shapes(tmp_path):
    """14.7 million weights, as in torchvision's file; read for a network on the device meta."""
    tensors = {}
    for n, (given, made) in LAYOUT.items():
        tensors |= {f"features.{n}.weight": torch.full((made, given, 3, 3), float(n))}
        tensors |= {f"features.{n}.bias": torch.full((made,), -float(n))}
    with torch.device("meta"):
        basenet = vgg16_basenet(15)
    given = read_vgg16_weights(save(tensors, tmp_path / "w.pth"), basenet)
    for path in ("global_path", "local_path"):
        assert given.tensors[f"{path}.features.28.weight"][511, 511, 2, 2] == 28
        assert given.tensors[f"{path}.features.0.bias"][63] == 0
    assert len(given.tensors) == 2 * len(tensors)


def test_the_hash_in_the_name_is_checked(weights, tmp_path):
    path = save(weights, tmp_path / "w.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    read_vgg16_weights(path.rename(tmp_path / f"vgg16-{digest[:8]}.pth"), small())
    wrong = save(weights, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(InputError, match="not 397923af; get the file again"):
        read_vgg16_weights(wrong, small())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("features.28.bias"), "features.28.bias is missing"),
        (
            lambda w: w.update({"features.5.weight": torch.ones(3, 3, 3, 3)}),
            r"has shape \(3, 3, 3, 3\), expected",
        ),
        (lambda w: w.update({"features.0.bias": "x"}), "features.0.bias is missing"),
    ],
)
def test_other_names_or_shapes_are_refused(weights, tmp_path, change, words):
    change(weights)
    with pytest.raises(InputError, match=words):
        read_vgg16_weights(save(weights, tmp_path / "w.pth"), small())


def test_what_is_no_weights_file_is_refused(tmp_path):
    file = tmp_path / "w.pth"
    with pytest.raises(InputError, match=r"w\.pth: cannot be read"):
        read_vgg16_weights(file, small())
    for content in (b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is no file of weights"):
            read_vgg16_weights(file, small())
    with pytest.raises(InputError, match="is missing"):
        read_vgg16_weights(save([1, 2], file), small())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.update({"features.30.weight": torch.ones(2)}), "it has features.30.weight besides"),
        (lambda w: w.update({"features.2.bias": w["features.2.bias"].half()}), r"features.2.bias holds .*16"),
        (lambda w: w["features.17.weight"].view(-1)[3:4].fill_(torch.nan), "features.17.weight .*not finite"),
    ],
)
def test_other_layers_types_and_values_are_refused(weights, tmp_path, change, words):
    change(weights)
    with pytest.raises(InputError, match=words):
        read_vgg16_weights(save(weights, tmp_path / "w.pth"), small())


KERAS = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]


def keras_onnx(path, change=lambda tensors: None, dtype=np.float32):
    """A small VGG16 as Keras's converter writes it: a chain of convolutions, and a classifier."""
    rng = np.random.default_rng(3)
    widths = [w for w, n in zip(WIDTHS, (2, 2, 3, 3, 3), strict=True) for _ in range(n)]
    tensors, given = {}, 3
    for layer, width in zip(KERAS, widths, strict=True):
        name = "block{}_conv{}".format(*layer.split("_"))
        tensors[name] = [rng.normal(size=(width, given, 3, 3)), rng.normal(size=width)]
        given = width
    change(tensors)
    nodes, stored = [], [numpy_helper.from_array(np.ones((2, 2), np.float32), "functional_1/dense")]
    for n, (name, (weight, bias)) in enumerate(tensors.items()):
        names = [f"functional_1/{name}_1/convolution/ReadVariableOp:0", f"functional_1/{name}_1/Squeeze:0"]
        stored += [
            numpy_helper.from_array(t.astype(dtype), m) for t, m in zip((weight, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Conv", [f"x{n}", *names], [f"x{n + 1}"]))
    ends = [helper.make_tensor_value_info(x, TensorProto.FLOAT, None) for x in ("x0", f"x{len(nodes)}")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)), path)
    return path, tensors


@torch.no_grad()
def test_keras_weights_compute_what_keras_computes(tmp_path):
    """The first layer by hand on a view: blue, green, red in 0..255, each less its mean. Then the others."""
    path, tensors = keras_onnx(tmp_path / "keras.onnx")
    basenet = small()
    read_vgg16_weights(path, basenet).load_into(basenet)
    view = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8)
    seen = []
    basenet.local_path.features[0].register_forward_hook(lambda layer, args, made: seen.append(made.clone()))
    basenet.local_path(view)
    gray = view[0, 0].numpy().astype(float)
    i, j = 7, 12
    patch = np.stack([gray[i - 1 : i + 2, j - 1 : j + 2] - mean for mean in (103.939, 116.779, 123.68)])
    weight, bias = tensors["block1_conv1"]
    expected = [(weight[n] * patch).sum() + bias[n] for n in range(2)]
    assert seen[0][0, :, i, j].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    # At the rim Keras pads with its mean; there it differs by the difference of the means, half a gray level.
    corner = np.zeros((3, 3, 3))
    for channel, mean in enumerate((103.939, 116.779, 123.68)):
        corner[channel, 1:, 1:] = gray[:2, :2] - mean
    off = np.abs(weight).sum((1, 2, 3)) * 0.5
    expected = np.array([(weight[n] * corner).sum() + bias[n] for n in range(2)])
    assert (np.abs(seen[0][0, :, 0, 0].numpy() - expected) <= off).all()
    layers = [layer for layer in basenet.global_path.features if isinstance(layer, nn.Conv2d)]
    for layer, (weight, bias) in list(zip(layers, tensors.values(), strict=True))[1:]:
        assert np.allclose(layer.weight, weight) and np.allclose(layer.bias, bias)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("block3_conv2"), "Keras's names: features.12.weight is missing"),
        (lambda t: t.update(block3_conv4=t["block5_conv3"]), "it has block3_conv4.bias besides"),
        (lambda t: t["block1_conv1"].__setitem__(0, np.ones((3, 3, 3, 2))), r"features.0.weight has shape"),
        (lambda t: t["block5_conv3"][1].__setitem__(0, np.inf), "features.28.bias holds .*not finite"),
        (
            lambda t: [t.update({f"conv{n}": t.pop(k)}) for n, k in enumerate(list(t))],
            "features.0.weight is m",
        ),
    ],
    ids=["missing", "VGG19", "another layout", "not finite", "another network"],
)
def test_other_onnx_files_are_refused(tmp_path, change, words):
    path, _ = keras_onnx(tmp_path / "keras.onnx", change)
    with pytest.raises(InputError, match=words):
        read_vgg16_weights(path, small())


def test_half_precision_and_cut_onnx_files_are_refused(tmp_path):
    path, _ = keras_onnx(tmp_path / "half.onnx", dtype=np.float16)
    with pytest.raises(InputError, match=r"features\.0\.weight holds torch\.float16, expected"):
        read_vgg16_weights(path, small())
    path, _ = keras_onnx(tmp_path / "cut.onnx")
    content = path.read_bytes()
    for cut in (0, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"cut\.onnx: is no"):
            read_vgg16_weights(path, small())


def test_download_is_asked_for_once_with_its_hash(tmp_path, monkeypatch):
    calls = []

    def download(url, path, hash_prefix):
        calls.append((url, hash_prefix))
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(module.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(module.torch.hub, "download_url_to_file", download)
    first, again = fetch_imagenet_weights(), fetch_imagenet_weights()
    assert first == again and first.read_bytes() == b"weights"
    assert calls == [(IMAGENET_URL, "397923af")]


def test_no_network_is_one_line(tmp_path, monkeypatch):
    def download(*args):
        raise OSError("no route to host")

    monkeypatch.setattr(module.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(module.torch.hub, "download_url_to_file", download)
    with pytest.raises(InputError, match="no route to host"):
        fetch_imagenet_weights()
