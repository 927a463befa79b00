"""The paths of the `paper` recipe: the convolutions of VGG16 (Simonyan and Zisserman 2014) up to pool5.

The layers have torchvision's order and names, so that its published weights fit. Oxford's own weights, in
Keras's names, are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from situs.errors import InputError
from situs.files import digest
from situs.learn.checkpoints import GivenWeights
from situs.learn.nets import BaseNet, PathOutput, ViewPath

__all__ = ["IMAGENET_URL", "VGGPath", "fetch_imagenet_weights", "read_vgg16_weights", "vgg16_basenet"]

# The paper's footnote 1; the name bears the first digits of the file's SHA-256.
IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # between the pools
_WIDTHS = (64, 128, 256, 512, 512)
# Of ImageNet's pictures in [0, 1], in red, green and blue, as the published weights expect.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# In red, green and blue, of pictures in 0..255, as Oxford's weights in Keras expect
# (keras.applications.imagenet_utils.preprocess_input, mode "caffe").
_KERAS_MEAN = (123.68, 116.779, 103.939)


class VGGPath(ViewPath):
    """One view through VGG16 up to pool5, flattened. It does not paint.

    The view has one channel, which is shown as red, green and blue.

    Args:
        size_px: Rows and columns of the view, a multiple of 32.
        widths: Channels of the five blocks.

    Raises:
        ValueError: If `size_px` is no multiple of 32.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size_px: int = 224, widths: Sequence[int] = _WIDTHS) -> None:
        super().__init__()
        if size_px % 32:
            raise ValueError(f"size_px: expected a multiple of 32, got {size_px}")
        layers: list[nn.Module] = []
        n_in = 3
        for width, count in zip(widths, _CONVOLUTIONS, strict=True):
            for _ in range(count):
                convolution = nn.Conv2d(n_in, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
                layers += [convolution, nn.ReLU(inplace=True)]
                n_in = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.n_flat = self.n_features = n_in * (size_px // 32) ** 2
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, view: Tensor, context: Tensor | None = None) -> PathOutput:
        """The output for a view (n, 1, size, size) of bytes; `context` plays no part in the paper's paths."""
        x = (view.float() / 255 - self.mean) / self.deviation
        return PathOutput(self.features(x).flatten(1).float(), None)


def vgg16_basenet(
    n_sites: int, size_px: int = 224, widths: Sequence[int] = _WIDTHS, hidden: int = 1024
) -> BaseNet:
    """The BaseNet of the `paper` recipe, for views (n, 1, size_px, size_px).

    The paper does not say how wide its fully connected layers are.
    """
    return BaseNet(VGGPath(size_px, widths), VGGPath(size_px, widths), n_sites, hidden)


def fetch_imagenet_weights() -> Path:
    """The file of torchvision's VGG16 (528 MB), downloaded once into torch's cache.

    Raises:
        InputError: If it cannot be downloaded, or is not the published file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_URL.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(IMAGENET_URL, str(path), _hash_in_name(path))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{IMAGENET_URL}: cannot be downloaded ({error}); get it by other means and name the file"
            ) from error
    return path


def read_vgg16_weights(file: Path, basenet: BaseNet) -> GivenWeights:
    """The convolutions of a VGG16, for both paths of a BaseNet.

    Two kinds of files are read: a dictionary of tensors in torchvision's names that torch saved, and an ONNX
    file (``*.onnx``) whose convolutions bear Keras's names (``block1_conv1``). Keras's weights are Oxford's:
    they expect blue, green and red in 0..255 less ImageNet's mean. That is folded into the first convolution.

    Where the file's name bears a hash as torchvision's do (``vgg16-397923af.pth``), it is checked. The rest
    of the file, such as its classifier, is not kept.

    Args:
        file: The file.
        basenet: Has two `VGGPath`; only the names and shapes of their weights count.

    Raises:
        InputError: If the file is missing, changed, or holds other names, shapes or types, or values that
            are not finite.
    """
    wanted, sha256 = _hash_in_name(file), digest(file)
    if wanted and not sha256.startswith(wanted):
        raise InputError(
            f"{file}: SHA-256 begins with {sha256[: len(wanted)]}, not {wanted}; get the file again"
        )
    is_onnx = file.suffix == ".onnx"
    found = _read_keras_onnx(file) if is_onnx else _read_torchvision(file)
    expected = basenet.global_path.state_dict()
    tensors = _check_vgg16(file, found, expected, "Keras's" if is_onnx else "torchvision's")
    if is_onnx:
        weight, bias = "features.0.weight", "features.0.bias"
        tensors[weight], tensors[bias] = _fold_preprocessing(tensors[weight], tensors[bias])
    paths = ("global_path", "local_path")
    return GivenWeights(
        file, sha256, {f"{p}.{name}": tensor for p in paths for name, tensor in tensors.items()}
    )


def _read_torchvision(file: Path) -> dict[str, object]:
    """What lies under ``features`` in a dictionary that torch saved."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any class, when torch meets other bytes
        raise InputError(f"{file}: is no file of weights that torch saved") from error
    items = content.items() if isinstance(content, dict) else ()
    return {str(name): tensor for name, tensor in items if str(name).startswith("features.")}


def _read_keras_onnx(file: Path) -> dict[str, object]:
    """The convolutions of an ONNX file in Keras's names, by torchvision's names."""
    import onnx
    from onnx.numpy_helper import to_array

    try:
        graph = onnx.load(file, load_external_data=False).graph
        stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    except Exception as error:  # of any class, when onnx meets other bytes
        raise InputError(f"{file}: is no ONNX file, or not a whole one") from error
    numbers = _numbers_of_keras_names()
    found: dict[str, object] = {}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        match = re.search(r"block\d+_conv\d+", node.input[1])
        name = match[0] if match else node.input[1]
        place = f"features.{numbers[name]}" if name in numbers else name
        for part, tensor in zip(("weight", "bias"), node.input[1:], strict=False):
            found[f"{place}.{part}"] = stored.get(tensor)
    return found


def _numbers_of_keras_names() -> dict[str, int]:
    """The number of each convolution in torchvision's names, by its name in Keras's."""
    numbers, n = {}, 0
    for block, count in enumerate(_CONVOLUTIONS, start=1):
        for convolution in range(1, count + 1):
            numbers[f"block{block}_conv{convolution}"] = n
            n += 2  # a ReLU follows each
        n += 1  # the pool
    return numbers


def _check_vgg16(
    file: Path, found: Mapping[str, object], expected: Mapping[str, Tensor], whose: str
) -> dict[str, Tensor]:
    """What was found, if it is a VGG16; else a line that names the first misfit."""
    checked: dict[str, Tensor] = {}
    for name, like in expected.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor):
            misfit = f"{name} is missing"
        elif tensor.shape != like.shape:
            misfit = f"{name} has shape {tuple(tensor.shape)}, expected {tuple(like.shape)}"
        elif tensor.dtype != torch.float32:
            misfit = f"{name} holds {tensor.dtype}, expected torch.float32"
        elif not torch.isfinite(tensor).all():
            misfit = f"{name} holds values that are not finite"
        else:
            checked[name] = tensor
            continue
        raise InputError(f"{file}: is no VGG16 in {whose} names: {misfit}")
    if extra := sorted(found.keys() - expected.keys()):
        raise InputError(f"{file}: is no VGG16 in {whose} names: it has {extra[0]} besides")
    return checked


def _fold_preprocessing(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Keras's first convolution for what `VGGPath` gives it: red, green, blue, less mean, over deviation.

    A value x of such a channel is ``255 (x deviation + mean)`` in 0..255, and Keras's network takes that less
    its own mean. Only at the rim it computes otherwise, by the difference of the two means, at most half a
    gray level: there, zeros are padded.

    Args:
        weight: (n, 3, 3, 3), blue first.
        bias: (n,).
    """
    weight = weight.flip(1).double()
    mean, deviation = torch.tensor(_MEAN).double(), torch.tensor(_DEVIATION).double()
    shift = 255 * mean - torch.tensor(_KERAS_MEAN).double()
    folded = weight * (255 * deviation)[:, None, None]
    return folded.float(), (bias.double() + (weight.sum((2, 3)) * shift).sum(1)).float()


def _hash_in_name(file: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return match[1] if match else None
