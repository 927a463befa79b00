"""The paths of the `paper` recipe: the convolutions of VGG16 (Simonyan and Zisserman 2014) up to pool5.

The layers have torchvision's order and names, so that its published weights fit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    """The convolutions of a VGG16 in torchvision's names, for both paths of a BaseNet.

    Where the file's name bears a hash as torchvision's do (``vgg16-397923af.pth``), it is checked. The rest
    of the file, such as its classifier, is not kept.

    Args:
        file: A dictionary of tensors that torch saved.
        basenet: Has two `VGGPath`; only the names and shapes of their weights count.

    Raises:
        InputError: If the file is missing, changed, or holds other names or shapes.
    """
    wanted, sha256 = _hash_in_name(file), digest(file)
    if wanted and not sha256.startswith(wanted):
        raise InputError(
            f"{file}: SHA-256 begins with {sha256[: len(wanted)]}, not {wanted}; get the file again"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any class, when torch meets other bytes
        raise InputError(f"{file}: is no file of weights that torch saved") from error
    tensors = {}
    for path in ("global_path", "local_path"):
        for name, expected in getattr(basenet, path).state_dict().items():
            tensor = content.get(name) if isinstance(content, dict) else None
            if not isinstance(tensor, Tensor) or tensor.shape != expected.shape:
                actual = f"has shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else "is missing"
                raise InputError(
                    f"{file}: is no VGG16 in torchvision's names: {name} {actual}, expected "
                    f"{tuple(expected.shape)}"
                )
            tensors[f"{path}.{name}"] = tensor
    return GivenWeights(file, sha256, tensors)


def _hash_in_name(file: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return match[1] if match else None
