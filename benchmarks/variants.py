"""The variants of the Relation Network that `ablation.py` compares, each with one thing changed.

What the package does not offer is a subclass here, or a function that takes the place of the package's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.cohort.sampling import balanced_indices
from situs.learn import relations as package
from situs.learn.nets import RelationNetwork
from situs.learn.recipe import Recipe
from situs.learn.relations import RelationModel
from situs.neighbors import Neighbors, References, nearest

ALL = sys.maxsize
OUT_OF_FOLD = "out of fold"


@dataclass(frozen=True)
class Variant:
    """One change of the default.

    Attributes:
        name: The name of its row.
        patches: Names of `situs.learn.relations`, with what takes their place.
        settings: Arguments of `train_relations`.
        references: At most how many references of every site; None for the recipe's number.
        targets: The subset that is learned from; `OUT_OF_FOLD` for heads that BaseNet has not seen.
    """

    name: str
    patches: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    references: int | None = None
    targets: str = "targets"


def make_variants(recipe: Recipe) -> list[Variant]:
    """All variants of a recipe, the default first."""
    k = recipe.n_neighbors
    # Batches of predictions are smaller where k is large: k = 20 has 210 pairs.
    of_k = [Variant(f"k = {n}", {"_ANSWER_BATCH": 64}, {"k": n}) for n in (1, 3, 10, 20) if n != k]

    def concatenation(*args: Any) -> RelationNetwork:
        return Concatenation(k, *args)

    def network(name: str, make: Callable[..., RelationNetwork]) -> Variant:
        return Variant(name, {"RelationNetwork": make})

    return [
        Variant("default"),
        *of_k,
        network("g reads single references", Singles),
        network(f"g reads the {k} references at once", concatenation),
        network("g summed over the pairs", Summed),
        network("g not added to the references' mean", NotAdded),
        network("the references' mean, no g", MeanAlone),
        network("no squared differences", NoSquares),
        network("no distance", NoDistance),
        network("distance to the joint embedding", DistanceToJoint),
        network("cosine distance", Cosine),
        Variant("loss: binary cross-entropy alone", {"relation_loss": binary_loss}),
        Variant("loss: squared error", {"relation_loss": squared_loss}),
        Variant("loss: softmax cross-entropy alone", {"relation_loss": F.cross_entropy}),
        Variant("layers of 128", settings={"hidden": 128}),
        Variant("layers of 512", settings={"hidden": 512}),
        network("embeddings not scaled", Unscaled),
        Variant("every feature scaled to a spread of 1", {"_scale": scale_features}),
        Variant("references: 400 of every site", references=400),
        Variant("references: all", references=ALL),
        Variant("targets as they are", targets="train"),
        Variant("targets out of fold", targets=OUT_OF_FOLD),
        Variant("targets as frequent as they are", {"balanced_indices": unbalanced_indices}),
        Variant(f"neighbours drawn among the {2 * k} nearest", {"RelationModel": DrawnNeighbors}),
        *(Variant(f"all references, {n} pairs", {"PAIRS": n}, {"choice": "all"}) for n in (64, 256, 1024)),
    ]


@contextmanager
def patched(patches: dict[str, Any], module: ModuleType = package) -> Iterator[None]:
    """Put other values under names of a module, `situs.learn.relations`, within a context."""
    before = {name: getattr(module, name) for name in patches}
    try:
        for name, value in patches.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


# --- networks -------------------------------------------------------------------------------------------


class Singles(RelationNetwork):
    """g reads one reference at a time."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        read = self.read_pairs(self.g_first(references)[..., : self.hidden])
        return mean_present(references, present) + self.g_last(mean_present(read, present))


class Concatenation(RelationNetwork):
    """g reads the k references of a class at once, nearest first, with zeros for those that are missing."""

    def __init__(self, k: int, width: int, hidden: int, dropout: float, scale: float) -> None:
        super().__init__(width, hidden, dropout, scale)
        self.g_first = nn.Linear(k * width, hidden)

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        whole = (references * present[..., None]).flatten(2)
        read = self.read_pairs(self.g_first(whole)[:, :, None])
        return mean_present(references, present) + self.g_last(read.squeeze(2))


class Summed(RelationNetwork):
    """g's outputs are summed over the pairs of a class, as in Santoro et al. 2017, not averaged."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        middle = mean_present(references, present)
        n = present.sum(dim=2)[..., None]
        read = super().join(references, present) - middle - self.g_last.bias
        return middle + read * (n * (n + 1) / 2) + self.g_last.bias


class NotAdded(RelationNetwork):
    """The joint embedding is g's output alone."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        return super().join(references, present) - mean_present(references, present)


class MeanAlone(RelationNetwork):
    """The joint embedding is the references' mean alone."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        return mean_present(references, present)


class NoSquares(RelationNetwork):
    """f reads target and joint embedding, not their squared differences."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.f_difference.requires_grad_(False).weight.zero_()


class NoDistance(RelationNetwork):
    """The logit is f's output alone, which corrects no distance."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.distance_weight.requires_grad_(False).zero_()


class DistanceToJoint(RelationNetwork):
    """f corrects the distance to the joint embedding."""

    def score(self, target: Tensor, joint: Tensor, distance: Tensor) -> Tensor:
        return super().score(target, joint, self.distances(target[:, None], joint))


class Cosine(RelationNetwork):
    """The cosine distance, in such a unit that for embeddings of unit length it is the square of the other.

    The nearest references of such embeddings are the same by both. So only what f corrects differs.
    """

    def distances(self, target: Tensor, references: Tensor) -> Tensor:
        unit = 2 * self.scale**2 / self.width
        return unit * (1 - F.cosine_similarity(target, references, dim=-1))


class Unscaled(RelationNetwork):
    """Layers read the embeddings unscaled; distances weigh as in the default."""

    def __init__(self, width: int, hidden: int, dropout: float, scale: float) -> None:
        super().__init__(width, hidden, dropout)
        with torch.no_grad():
            self.distance_weight *= scale


class DrawnNeighbors(RelationModel):
    """In training, a target's k neighbours are drawn anew among the 2k nearest each time it is learned from.

    Predictions come from the k nearest, as in the default.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._rng = np.random.default_rng(self._seed)

    def find_neighbors(self, X: NDArray[np.floating], patients: NDArray[np.str_] | None = None) -> Neighbors:
        return nearest(X, self.references, self.k if patients is None else 2 * self.k, patients)

    def _relate_nearest(self, targets: Tensor, near: Neighbors, part: slice | NDArray[np.int64]) -> Tensor:
        if near.indices.shape[2] > self.k:
            batch = Neighbors(near.indices[part], near.distances[part], near.present[part])
            near, part = draw_neighbors(batch, self.k, self._rng), slice(None)
        return super()._relate_nearest(targets, near, part)


def draw_neighbors(near: Neighbors, k: int, rng: np.random.Generator) -> Neighbors:
    """k of the neighbours of every target and class at random, nearest first; all where there are fewer."""
    turn = np.where(near.present, rng.random(near.present.shape), np.inf)
    chosen = np.sort(np.argsort(turn, axis=2, kind="stable")[:, :, :k], axis=2)
    return Neighbors(
        *(np.take_along_axis(a, chosen, axis=2) for a in (near.indices, near.distances, near.present))
    )


def mean_present(values: Tensor, present: Tensor) -> Tensor:
    """The mean (n, m, width) of values (n, m, k, width) over those present (n, m, k); 0 where none is."""
    weights = present.to(values.dtype)[..., None]
    return (values * weights).sum(dim=2) / weights.sum(dim=2).clamp(min=1)


# --- losses, scales, frequencies ------------------------------------------------------------------------


def binary_loss(logits: Tensor, site: Tensor) -> Tensor:
    """Binary cross-entropy; the true site weighs as much as all others together."""
    others = torch.full((logits.shape[1],), float(logits.shape[1] - 1), device=logits.device)
    truth = F.one_hot(site, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, truth, pos_weight=others) / 2


def squared_loss(logits: Tensor, site: Tensor) -> Tensor:
    """The squared error, as in Sung et al. 2018; the true site weighs as much as all others together."""
    truth = F.one_hot(site, logits.shape[1]).to(logits.dtype)
    return ((logits.sigmoid() - truth) ** 2 * (1 + (logits.shape[1] - 2) * truth)).mean()


def scale_features(references: References) -> NDArray[np.float64]:
    """Factors (width,) that make every feature of the references spread by 1; 0 for a constant one."""
    spread = references.embeddings.astype(np.float64).std(axis=0)
    return np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)


def unbalanced_indices(sites: NDArray[np.integer], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`balanced_indices` with every site as frequent as it is."""
    return balanced_indices(sites, n, rng, power=0.0)
