"""The paths of the `paper` recipe: the convolutions of VGG16 (Simonyan and Zisserman 2014) up to pool5.

Layers are laid out and named as in torchvision, so that its published weights fit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from situs.errors import InputError
from situs.files import digest
from situs.learn.nets import BaseNet, PathOutput, ViewPath

__all__ = ["IMAGENET_URL", "VGGPath", "fetch_imagenet_weights", "load_vgg16_weights", "vgg16_basenet"]

# The paper's footnote 1; the name bears the first digits of the file's SHA-256.
IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # between the pools
_WIDTHS = (64, 128, 256, 512, 512)
# Of ImageNet's pictures in [0, 1], red, green and blue: what the published weights expect.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGPath(ViewPath):
    """One view through VGG16 up to pool5, flattened. It does not paint.

    Args:
        size_px: of the view, a multiple of 32
        widths: channels of the five blocks

    Note:
        The view has one channel, which is shown as red, green and blue.
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
        """view (n, 1, size, size) bytes; the paper's paths are apart, so `context` plays no part."""
        x = (view.float() / 255 - self.mean) / self.deviation
        return PathOutput(self.features(x).flatten(1).float(), None)


def vgg16_basenet(
    n_sites: int, size_px: int = 224, widths: Sequence[int] = _WIDTHS, hidden: int = 1024
) -> BaseNet:
    """The BaseNet of the `paper` recipe; the paper does not say how wide its fully connected layers are."""
    return BaseNet(VGGPath(size_px, widths), VGGPath(size_px, widths), n_sites, hidden)


def fetch_imagenet_weights() -> Path:
    """torchvision's VGG16 (528 MB), downloaded once into torch's cache.

    Raises:
        InputError: if it cannot be downloaded, or is not the published file
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


def load_vgg16_weights(file: Path, basenet: BaseNet) -> None:
    """Load the convolutions of a VGG16 in torchvision's names into both paths of a BaseNet.

    Where the file's name bears a hash as torchvision's do (``vgg16-397923af.pth``), it is checked. What else
    the file holds, as its classifier, is not read. `basenet` may be on the device ``meta``.

    Raises:
        InputError: if the file is missing, changed, or holds other names or shapes
    """
    wanted, found = _hash_in_name(file), digest(file)
    if wanted and not found.startswith(wanted):
        raise InputError(
            f"{file}: SHA-256 begins with {found[: len(wanted)]}, not {wanted}; get the file again"
        )
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any class, when it meets other bytes
        raise InputError(f"{file}: is no file of weights that torch saved") from error
    for path in (basenet.global_path, basenet.local_path):
        assert isinstance(path, VGGPath)
        expected = {f"features.{name}": tensor for name, tensor in path.features.state_dict().items()}
        for name, tensor in expected.items():
            given = tensors.get(name) if isinstance(tensors, dict) else None
            if not isinstance(given, Tensor) or given.shape != tensor.shape:
                got = f"has shape {tuple(given.shape)}" if isinstance(given, Tensor) else "is missing"
                raise InputError(
                    f"{file}: is no VGG16 in torchvision's names: {name} {got}, expected "
                    f"{tuple(tensor.shape)}"
                )
        own = {name: tensors[name].to(like.dtype, copy=True) for name, like in expected.items()}
        path.load_state_dict(own, assign=True)


def _hash_in_name(file: Path) -> str | None:
    found = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return found[1] if found else None
