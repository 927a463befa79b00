"""VGG16's convolutions: torchvision's layout and names, and files that hold something else."""

import hashlib
from pathlib import Path

import pytest
import torch
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
