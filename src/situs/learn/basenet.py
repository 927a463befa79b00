"""Training BaseNet: the stages ``paint`` and ``basenet``, or, where the paths are frozen, ``fc``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.cohort.sampling import balanced_indices
from situs.cohort.slices import Batch, Slices
from situs.errors import InputError
from situs.learn.augment import augment
from situs.learn.checkpoints import load_weights
from situs.learn.devices import CPU, Machine
from situs.learn.frozen import train_fc
from situs.learn.loop import Progress, fit, share_right, silent
from situs.learn.losses import paintings_loss, shares_loss, site_map_weights
from situs.learn.nets import BaseNet, compact_basenet
from situs.learn.recipe import Recipe
from situs.learn.run import Run, open_run
from situs.learn.vgg import fetch_imagenet_weights, load_vgg16_weights, vgg16_basenet

__all__ = [
    "basenet_stages",
    "count_examples",
    "embed",
    "given_files",
    "lay_out",
    "new_basenet",
    "train_basenet",
]

_EMBED_BATCH = 32


def train_basenet(
    slices: Slices,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    work: Path,
    progress: Progress | None = None,
    machine: Machine = CPU,
    weights: str | Path | None = None,
) -> BaseNet:
    """BaseNet alone, trained on the examples `chosen` (n,) of a cohort; a run that was stopped goes on.

    The other arguments and the errors are those of `situs.learn.train.train`.
    """
    given = given_files(recipe, None, weights)
    run = open_run(work, recipe, seed, slices, chosen, given, progress or silent, machine)
    basenet, _ = basenet_stages(run, given)
    return basenet


def basenet_stages(run: Run, given: dict[str, Path]) -> tuple[BaseNet, dict[str, dict[str, float]]]:
    """A trained BaseNet, and the last figures of the log of every stage; `given` are `given_files`.

    Raises:
        InputError: if given weights do not fit
        OutputError: if a checkpoint cannot be written
    """
    recipe = run.recipe
    basenet = new_basenet(recipe, run.seed)
    _load(given, basenet)
    basenet.to(run.machine.device)
    lay_out(basenet, torch.channels_last)  # twice as fast in convolutions
    results = {}
    if recipe.frozen:
        results["fc"] = train_fc(basenet, run)
    else:
        if _paints(recipe, run.slices):
            results["paint"] = _train_paths("paint", basenet, run)
        results["basenet"] = _train_paths("basenet", basenet, run)
    return basenet, results


def count_examples(recipe: Recipe, slices: Slices) -> int:
    """How many examples of a cohort BaseNet sees, in whole batches."""
    stages = [recipe.basenet_samples, *([recipe.paint_samples] if _paints(recipe, slices) else [])]
    return sum(samples // recipe.batch * recipe.batch for samples in stages)


def _paints(recipe: Recipe, slices: Slices) -> bool:
    """Whether the paths learn to paint: where the recipe says so and the cohort has site maps."""
    return recipe.paint_samples > 0 and not recipe.frozen and slices.global_sites is not None


def given_files(recipe: Recipe, init: str | Path | None, weights: str | Path | None) -> dict[str, Path]:
    """The files that weights come from, by the name of `situs.learn.train.train`'s argument.

    Raises:
        InputError: for weights that the recipe cannot take or that do not fit, or paths frozen without any
    """
    if recipe.network != "vgg16":
        if weights is not None:
            raise InputError(f"weights: the recipe {recipe.name!r} has no VGG16 to load them into")
        if recipe.frozen:
            raise InputError(f"frozen: the recipe {recipe.name!r} has no VGG16; only its paths can be kept")
    if recipe.frozen and init is None and weights is None:
        raise InputError("frozen: give the weights that are to be kept")
    if weights == "imagenet":
        weights = fetch_imagenet_weights()
    given = {name: Path(file) for name, file in (("init", init), ("weights", weights)) if file is not None}
    if given:
        with torch.device("meta"):
            like = new_basenet(recipe, 0)
        _load(given, like)
    return given


def _load(given: dict[str, Path], basenet: BaseNet) -> None:
    """Load the files into a BaseNet, if only to see whether they fit one on the device ``meta``."""
    if "weights" in given:
        load_vgg16_weights(given["weights"], basenet)
    if "init" in given:
        load_weights(given["init"], basenet)


def new_basenet(recipe: Recipe, seed: int) -> BaseNet:
    """An untrained BaseNet of the recipe."""
    torch.manual_seed(seed)
    if recipe.network == "vgg16":
        return vgg16_basenet(len(SITES), recipe.spec.size_px)
    return compact_basenet(len(SITES), len(recipe.spec.channels), recipe.spec.size_px)


def _train_paths(stage: str, basenet: BaseNet, run: Run) -> dict[str, float]:
    """The stages ``paint`` and ``basenet``; changes `basenet`, returns the last figures of the log."""
    recipe, slices, chosen, machine = run.recipe, run.slices, run.chosen, run.machine
    n = recipe.paint_samples if stage == "paint" else recipe.basenet_samples
    rng = np.random.default_rng(run.stage_seed(stage))
    order = chosen[balanced_indices(slices.site[chosen], n, rng, recipe.balance)]
    paints = _paints(recipe, slices)
    weights = site_map_weights(slices, chosen, run.seed).to(machine.device) if paints else None

    def make(step: int) -> Batch:
        rng = np.random.default_rng([*run.stage_seed(stage), step, machine.rank])
        part = machine.share(order[step * recipe.batch : (step + 1) * recipe.batch])
        return augment(slices.batch(np.sort(part)), recipe.spec, rng)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        views = machine.put(batch.global_view), machine.put(batch.local_view)
        with machine.autocast():
            said = basenet(*views)
        site = machine.put(batch.site)
        loss = torch.zeros((), device=machine.device)
        if weights is not None:
            share = 1.0 if stage == "paint" else recipe.painting_weight
            loss = loss + share * paintings_loss(said, batch, weights)
        if stage == "basenet":
            loss = loss + F.cross_entropy(said.site_logits, site, label_smoothing=recipe.label_smoothing)
            if weights is not None and said.share_logits is not None:
                loss = loss + recipe.shares_weight * shares_loss(said.share_logits, batch)
        right = {"shares_accuracy": said.shares} if weights is not None else {}
        if stage == "basenet":
            right["accuracy"] = said.site_logits
        return loss, {name: share_right(scores, site) for name, scores in right.items()}

    plan = run.plan(stage, n)
    return fit(basenet, make, loss_of, plan, run.say)


def embed(
    basenet: BaseNet,
    slices: Slices,
    indices: NDArray[np.integer],
    progress: Callable[[int], None] | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Embeddings (n, width) of the examples `indices` (n,), in single precision as in use, stored in half,
    and BaseNet's own site logits (n, 15); `change` is done to every batch first."""
    parts, logits = [], []
    was_training = basenet.training
    basenet.eval()
    machine = Machine(next(basenet.parameters()).device)
    with torch.inference_mode():
        for start in range(0, len(indices), _EMBED_BATCH):
            batch = slices.batch(indices[start : start + _EMBED_BATCH])
            batch = batch if change is None else change(batch)
            said = basenet(machine.put(batch.global_view), machine.put(batch.local_view))
            parts.append(said.embedding.cpu().numpy().astype(np.float16))
            logits.append(said.site_logits.cpu().numpy())
            if progress is not None:
                progress(start + len(batch.site))
    basenet.train(was_training)
    return np.concatenate(parts), np.concatenate(logits)


def lay_out(network: nn.Module, order: torch.memory_format) -> None:
    """Bring the kernels (4-D) of a network into a memory order."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=order)
