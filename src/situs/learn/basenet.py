"""Training BaseNet: the stages ``paint`` and ``basenet``, or ``features`` and ``fc`` if the paths are frozen.

Frozen paths give the same features for the same example. So their features are kept in a file, and only the
fully connected layers learn from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.cohort.sampling import balanced_indices
from situs.cohort.slices import Batch, Slices
from situs.errors import InputError
from situs.learn.augment import augment
from situs.learn.checkpoints import GivenWeights
from situs.learn.compact import compact_basenet
from situs.learn.devices import CPU, Machine
from situs.learn.features import keep_features, train_on_features
from situs.learn.from_bundle import unfold_normalisation
from situs.learn.loop import accuracy, run_loop
from situs.learn.losses import painting_loss, shares_loss, site_map_weights
from situs.learn.nets import BaseNet, region_under
from situs.learn.recipe import Recipe
from situs.learn.run import TrainingRun, open_run
from situs.learn.vgg import vgg16_basenet
from situs.progress import Progress, silent

__all__ = [
    "basenet_stages",
    "count_examples",
    "embed",
    "new_basenet",
    "train_basenet",
]

_EMBED_BATCH = 32
_SOME_EXAMPLES = 512  # on which the inputs of batch normalisations are measured


def train_basenet(
    slices: Slices,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    work: Path,
    progress: Progress = silent,
    machine: Machine = CPU,
    given: Mapping[str, GivenWeights] | None = None,
    features: Path | None = None,
) -> BaseNet:
    """Train BaseNet alone; go on where a stopped run was.

    Args:
        slices: The examples of a cohort.
        chosen: (n,) the examples to train on.
        recipe: What is trained, and for how long.
        seed: Of weights, order and augmentation.
        work: The folder of the checkpoints.
        progress: Is called as the training goes on.
        machine: Where BaseNet is trained.
        given: The weights to start from, see `situs.learn.given.read_given`; None for none.
        features: See `situs.learn.run.TrainingRun`; None for `work`.

    Raises:
        InputError: If the loss is not finite.
        OutputError: If `work` holds another run, or something cannot be written.
    """
    given = given or {}
    with open_run(work, recipe, seed, slices, chosen, given, progress, machine, features) as run:
        basenet, _ = basenet_stages(run, given)
    return basenet


def basenet_stages(
    run: TrainingRun, given: Mapping[str, GivenWeights]
) -> tuple[BaseNet, dict[str, dict[str, float]]]:
    """Train BaseNet in its stages.

    Args:
        run: The run.
        given: The weights to start from, see `situs.learn.given.read_given`.

    Returns:
        BaseNet, and the last metrics of every stage by its name.

    Raises:
        InputError: If the loss is not finite.
        OutputError: If a checkpoint is damaged or cannot be written.
    """
    recipe = run.recipe
    basenet = new_basenet(recipe, run.seed, len(run.slices.sites))
    for weights in given.values():
        weights.load_into(basenet)
        if weights.folded:
            unfold_normalisation(basenet, _some_views(run))
    # Convolutions are twice as fast in this format.
    basenet.to(run.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    metrics = {}
    if recipe.frozen:
        metrics["fc"] = _train_fc(basenet, run)
    else:
        if recipe.paint_samples and _paints(recipe, run.slices):
            metrics["paint"] = _train_paths("paint", basenet, run)
        if recipe.basenet_samples:
            metrics["basenet"] = _train_paths("basenet", basenet, run)
    return basenet, metrics


def count_examples(recipe: Recipe, slices: Slices) -> int:
    """How many examples of a cohort BaseNet sees, in whole batches."""
    stages = [recipe.basenet_samples, *([recipe.paint_samples] if _paints(recipe, slices) else [])]
    return sum(samples // recipe.batch * recipe.batch for samples in stages)


def _some_views(run: TrainingRun) -> list[tuple[Tensor, Tensor]]:
    """The views of some of the examples to train on, evenly taken."""
    some = np.unique(np.linspace(0, len(run.chosen) - 1, _SOME_EXAMPLES).astype(int))
    parts = np.split(some, range(_EMBED_BATCH, len(some), _EMBED_BATCH))
    batches = (run.slices.batch(run.chosen[part]) for part in parts)
    return [(torch.from_numpy(b.global_view), torch.from_numpy(b.local_view)) for b in batches]


def _paints(recipe: Recipe, slices: Slices) -> bool:
    """Whether the paths learn to paint: if the recipe says so and the cohort has site maps."""
    return recipe.painting_weight > 0 and not recipe.frozen and slices.global_sites is not None


def new_basenet(recipe: Recipe, seed: int, n_sites: int = len(SITES)) -> BaseNet:
    """An untrained BaseNet of the recipe, for a number of sites.

    Raises:
        InputError: If the network has to see the region and the recipe's views do not show it.
    """
    torch.manual_seed(seed)
    spec = recipe.spec
    if recipe.network == "vgg16":
        return vgg16_basenet(n_sites, spec.size_px)
    if spec.roi_channel is None:
        raise InputError(f"recipe {recipe.name!r}: its network needs views whose last channel is 'roi'")
    return compact_basenet(n_sites, len(spec.channels), spec.size_px)


def _train_paths(stage: str, basenet: BaseNet, run: TrainingRun) -> dict[str, float]:
    """The stages ``paint`` and ``basenet``: train all of `basenet`; the last metrics of the log."""
    recipe, slices, chosen, machine = run.recipe, run.slices, run.chosen, run.machine
    n = recipe.paint_samples if stage == "paint" else recipe.basenet_samples
    rng = np.random.default_rng(run.stage_seed(stage))
    order = chosen[balanced_indices(slices.site[chosen], n, rng)]
    class_weights = None
    if _paints(recipe, slices):
        class_weights = site_map_weights(slices, chosen, run.seed).to(machine.device)

    def make_batch(step: int) -> Batch:
        rng = np.random.default_rng([*run.stage_seed(stage), step, machine.rank])
        part = machine.shard(order[step * recipe.batch : (step + 1) * recipe.batch])
        return augment(slices.batch(np.sort(part)), recipe.spec, rng)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return _paths_loss(basenet, batch, recipe, stage, class_weights, machine)

    return run_loop(basenet, make_batch, loss_of, run.loop_settings(stage, n), run.progress)


def _paths_loss(
    basenet: BaseNet,
    batch: Batch,
    recipe: Recipe,
    stage: str,
    class_weights: Tensor | None,
    machine: Machine,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch and its accuracies; without `class_weights` nothing is painted."""
    views = machine.to_device(batch.global_view), machine.to_device(batch.local_view)
    with machine.autocast():
        output = basenet(*views)
    site = machine.to_device(batch.site)
    loss, metrics = torch.zeros((), device=machine.device), {}
    if class_weights is not None:
        assert output.shares is not None and output.share_logits is not None  # the paths paint
        targets = (batch.global_sites, batch.global_lateral), (batch.local_sites, batch.local_lateral)
        paintings = output.global_painting, output.local_painting
        weight = 1.0 if stage == "paint" else recipe.painting_weight
        for painting, view, (sites, lateral) in zip(paintings, views, targets, strict=True):
            assert painting is not None and sites is not None and lateral is not None
            of_sites, of_lateral = machine.to_device(sites), machine.to_device(lateral)
            region = region_under(view)[:, 0]
            loss = loss + weight / 2 * painting_loss(painting, of_sites, of_lateral, region, class_weights)
        metrics["shares_accuracy"] = accuracy(output.shares, site)
        if stage == "basenet":
            loss = loss + recipe.shares_weight * shares_loss(output.share_logits, of_sites, region)
    if stage == "basenet":
        loss = loss + F.cross_entropy(output.site_logits, site, label_smoothing=recipe.label_smoothing)
        metrics["accuracy"] = accuracy(output.site_logits, site)
    return loss, metrics


def _train_fc(basenet: BaseNet, run: TrainingRun) -> dict[str, float]:
    """The stages ``features`` and ``fc``: train the fully connected layers of `basenet`."""
    recipe, sites = run.recipe, run.slices.site[run.chosen]
    basenet.global_path.requires_grad_(False)
    basenet.local_path.requires_grad_(False)
    features = keep_features(
        basenet, run.slices, run.chosen, run.features, run.machine, run.progress, training=True
    )
    settings = run.loop_settings("fc", recipe.basenet_samples)
    return train_on_features(basenet, features, sites, settings, recipe.label_smoothing, run.progress)


def embed(
    basenet: BaseNet,
    slices: Slices,
    indices: NDArray[np.integer],
    progress: Callable[[int], None] | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """The embeddings (n, width) of examples and BaseNet's own site logits (n, 15).

    Both are computed in single precision, as in use. Embeddings are stored in half precision.

    Args:
        basenet: Its mode is left as it was.
        slices: The examples of a cohort.
        indices: (n,) the examples to embed.
        progress: Is called with the number of examples done.
        change: Is applied to every batch first.
    """
    embeddings, logits = [], []
    was_training = basenet.training
    basenet.eval()
    machine = Machine(next(basenet.parameters()).device)
    with torch.inference_mode():
        for start in range(0, len(indices), _EMBED_BATCH):
            batch = slices.batch(indices[start : start + _EMBED_BATCH])
            batch = batch if change is None else change(batch)
            output = basenet(machine.to_device(batch.global_view), machine.to_device(batch.local_view))
            embeddings.append(output.embedding.cpu().numpy().astype(np.float16))
            logits.append(output.site_logits.cpu().numpy())
            if progress is not None:
                progress(start + len(batch.site))
    basenet.train(was_training)
    return np.concatenate(embeddings), np.concatenate(logits)
