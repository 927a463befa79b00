"""The files of weights that a training starts from: a VGG16, a checkpoint, or bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from situs.anatomy import SITES, SiteList
from situs.bundle import read_bundle
from situs.errors import InputError
from situs.learn.basenet import new_basenet
from situs.learn.checkpoints import GivenWeights, read_basenet_weights
from situs.learn.from_bundle import average_weights, is_bundle, read_bundle_weights
from situs.learn.recipe import Recipe
from situs.learn.vgg import fetch_imagenet_weights, read_vgg16_weights

__all__ = ["read_given"]


def read_given(
    recipe: Recipe,
    init: Sequence[str | Path],
    weights: str | Path | None,
    sites: SiteList = SITES,
) -> dict[str, GivenWeights]:
    """Read the files of weights that a training starts from, once for all its uses.

    Args:
        recipe: What is trained.
        init: A checkpoint of an earlier run, or bundles, whose mean is taken: folders or ``shipped``.
        weights: A VGG16, see `read_vgg16_weights`; ``imagenet`` downloads the published one.
        sites: What BaseNet is trained on.

    Returns:
        The weights by the name of the argument, in the order in which they are loaded.

    Raises:
        InputError: If the recipe cannot take such weights, they do not fit, or paths are frozen without any.
    """
    if recipe.network != "vgg16":
        if weights is not None:
            raise InputError(f"weights: the recipe {recipe.name!r} has no VGG16 to load them into")
        if recipe.frozen:
            raise InputError(f"frozen: the recipe {recipe.name!r} has no VGG16; only its paths can be kept")
    if recipe.frozen and not init and weights is None:
        raise InputError("frozen: give the weights that are to be kept")
    given = {}
    with torch.device("meta"):
        basenet = new_basenet(recipe, 0, len(sites))
    if weights is not None:
        file = fetch_imagenet_weights() if weights == "imagenet" else Path(weights)
        given["weights"] = read_vgg16_weights(file, basenet)
    if len(init) > 1 and not all(map(is_bundle, init)):
        raise InputError("init: several must all be bundles; a checkpoint stands alone")
    if init and is_bundle(init[0]):
        read = [read_bundle_weights(read_bundle(name), recipe, basenet, sites) for name in init]
        given["init"] = average_weights(read)
    elif init:
        given["init"] = read_basenet_weights(Path(init[0]), basenet)
    if not (recipe.basenet_samples or "init" in given):
        raise InputError("samples: BaseNet would not be trained at all: give the weights that are to be kept")
    return given
