"""Weights of BaseNet out of a bundle, so that a training can go on from it.

A bundle holds its networks as ONNX files. There each convolution has taken up the batch normalisation after
it: one kernel and one bias for both. `read_bundle_weights` reads these. `unfold_normalisation` gives the
normalisations their statistics back, measured on examples, so that the network computes the same and can
be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from situs.anatomy import SITES, SiteList
from situs.bundle import BASENET_FILE, Bundle
from situs.errors import InputError
from situs.files import digest
from situs.learn.checkpoints import GivenWeights
from situs.learn.nets import BaseNet
from situs.learn.recipe import Recipe

__all__ = ["average_weights", "is_bundle", "read_bundle_weights", "unfold_normalisation"]

_PREFIX = "basenet."
_STEM = "stem.0.weight"


def is_bundle(init: str | Path) -> bool:
    """Whether weights to start from are a bundle's: its folder or ``shipped``, and no checkpoint's file."""
    return str(init) == "shipped" or Path(init).is_dir()


def read_bundle_weights(
    bundle: Bundle, recipe: Recipe, basenet: BaseNet, sites: SiteList = SITES
) -> GivenWeights:
    """The weights of a bundle's BaseNet, for a network of a recipe.

    The recipe's views may have channels that the bundle's lack, and the sites may be others. Weights of what
    the bundle lacks start at zero, so that the network computes the same of all else at first.

    Args:
        bundle: The bundle.
        recipe: What is trained.
        basenet: A network of the recipe; only the names and shapes of its weights count.
        sites: What it is trained on.

    Raises:
        InputError: If the bundle's views or networks are not those of the recipe.
    """
    import onnx
    from onnx.numpy_helper import to_array

    own, its = recipe.spec, bundle.spec
    lacking = [name for name in its.channels if name not in own.channels]
    differing = [
        name
        for name in ("size_px", "global_mm", "local_mm", "fill_hu", "away_mm", "upright")
        if getattr(own, name) != getattr(its, name)
    ]
    if lacking or differing:
        what = ", ".join(differing) or f"channels {', '.join(lacking)}"
        raise InputError(f"init: the views of bundle {bundle.name!r} are not those of the recipe: {what}")
    trained = bundle.sites.keys[: bundle.n_trained_sites]
    content = (bundle.path / BASENET_FILE).read_bytes()  # checked when the bundle was read
    graph = onnx.load_from_string(content).graph
    stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    # The bias that took up a normalisation is known by its convolution; equal ones are stored once.
    biases = {
        node.input[1]: node.input[2] for node in graph.node if node.op_type == "Conv" and node.input[2:]
    }
    tensors = {}
    for name, parameter in basenet.named_parameters():
        convolution = _convolution_before(name, basenet)
        if convolution is None:
            tensor = stored.get(_PREFIX + name)
            if tensor is not None and name.endswith(_STEM):
                tensor = _by_channel(tensor, its.channels, own.channels)
            elif tensor is not None and (places := _places_of_sites(name, basenet, sites, trained)):
                tensor = _picked(tensor, *places)
        elif name.endswith("bias"):
            tensor = stored.get(
                biases.get(f"{_PREFIX}{convolution}.weight", ""), torch.zeros(parameter.shape, device="cpu")
            )
        else:
            tensor = torch.ones(parameter.shape, device="cpu")
        if tensor is None or tensor.shape != parameter.shape:
            raise InputError(
                f"init: bundle {bundle.name!r} does not hold the recipe's networks ({name}): name a bundle "
                "that this version trained by this recipe"
            )
        tensors[name] = tensor
    return GivenWeights(bundle.path, digest(content), tensors, folded=True)


def average_weights(given: Sequence[GivenWeights]) -> GivenWeights:
    """The mean of the weights of several bundles of one recipe, at least one.

    Bundles that went on from the same weights lie in one basin of the loss, and the mean of their weights is
    mostly better than each of them (Wortsman et al., Model soups, ICML 2022, arXiv 2203.05482). Those that
    were trained from weights of their own have no such mean.
    """
    if len(given) == 1:
        return given[0]
    tensors = {
        name: torch.stack([weights.tensors[name] for weights in given]).mean(dim=0)
        for name in given[0].tensors
    }
    joint = digest("".join(weights.sha256 for weights in given).encode())
    return GivenWeights(given[0].path, joint, tensors, folded=True)


@torch.no_grad()
def unfold_normalisation(basenet: BaseNet, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give every batch normalisation the statistics of its input, in place; the output stays the same.

    Args:
        basenet: Has the weights of `read_bundle_weights`.
        batches: Global and local views (n, channels, size, size) of examples.
    """
    norms = [module for module in basenet.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: [torch.zeros(norm.num_features, dtype=torch.float64) for _ in range(2)] for norm in norms}
    counts = dict.fromkeys(norms, 0)

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].double().cpu()
        sums[norm][0] += values.sum(dim=(0, 2, 3))
        sums[norm][1] += (values**2).sum(dim=(0, 2, 3))
        counts[norm] += values.numel() // norm.num_features

    for norm in norms:
        norm.reset_running_stats()
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)  # the identity, but for the bias
    was_training = basenet.training
    basenet.eval()
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for views in batches:
        basenet(*views)
    for hook in hooks:
        hook.remove()
    basenet.train(was_training)
    for norm in norms:
        mean = sums[norm][0] / counts[norm]
        variance = (sums[norm][1] / counts[norm] - mean**2).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean.to(norm.bias))


def _convolution_before(name: str, basenet: BaseNet) -> str | None:
    """The convolution before the batch normalisation that a parameter is of; None for other parameters."""
    block = name.rpartition(".")[0]
    if not isinstance(basenet.get_submodule(block), nn.BatchNorm2d):
        return None
    sequence, _, number = block.rpartition(".")
    return f"{sequence}.{int(number) - 1}"


def _places_of_sites(
    name: str, basenet: BaseNet, sites: SiteList, stored: Sequence[str]
) -> tuple[int, list[int]] | None:
    """Where a parameter has its numbers for each site in the stored one; None if it has none or all is alike.

    Args:
        name: The parameter.
        basenet: The network that it is of.
        sites: What that is trained on.
        stored: The keys of the sites that the stored network was trained on.

    Returns:
        The axis, and for each place on it the place on the stored axis; -1 for a site that is not stored.
    """
    if sites.keys == tuple(stored):
        return None
    known = {key: number for number, key in enumerate(stored)}
    numbers = [known.get(key, -1) for key in sites.keys]

    def after(first: int) -> list[int]:
        """The places of "none" and of all sites, from `first` on."""
        return [first, *(first + 1 + n if n >= 0 else -1 for n in numbers)]

    layer = name.split(".")[-2]
    if layer == "fc3":
        return 0, numbers
    if layer == "fc_shares":
        return 0, after(0)
    if layer == "paint":
        return 0, [*after(0), len(stored) + 1]
    if name == "fc1.weight":
        places: list[int] = []
        begin = 0
        for path in (basenet.global_path, basenet.local_path):
            fixed = path.n_features - (len(sites) + 1 if path.paints else 0)
            places += range(begin, begin + fixed)
            places += after(begin + fixed) if path.paints else []
            begin += fixed + (len(stored) + 1 if path.paints else 0)
        return 1, places
    return None


def _picked(tensor: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """The numbers of a tensor at places on an axis; zeros at the place -1."""
    index = torch.tensor(places)
    picked = tensor.index_select(axis, index.clamp(min=0))
    absent = (index < 0).reshape([-1 if a == axis else 1 for a in range(tensor.ndim)])
    return picked.masked_fill(absent, 0)


def _by_channel(weight: Tensor, stored: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """The first layer's weight (out, channels, h, w) for other channels; zero for those not stored."""
    found = torch.zeros(weight.shape[0], len(wanted), *weight.shape[2:], dtype=weight.dtype)
    for c, name in enumerate(wanted):
        if name in stored:
            found[:, c] = weight[:, list(stored).index(name)]
    return found
