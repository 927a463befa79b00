"""What a training run does, as numbers that travel in the bundle: the recipes `compact` and `paper`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from situs.views import ViewSpec

__all__ = ["COMPACT", "PAPER", "RECIPES", "Recipe", "relation_settings"]


@dataclass(frozen=True)
class Recipe:
    """What a training run does; travels in the bundle.

    Attributes:
        spec: how slices become views
        paint_samples: examples seen in each stage
        basenet_samples: See `paint_samples`.
        relation_samples: See `paint_samples`.
        n_neighbors: references of each site that the Relation Network sees
        n_references: of each site in the bundle, spread evenly over the patients
        n_targets: of each site, to train the Relation Network on; likewise
        max_slices: of each region, spread over its area: neighbouring thin slices say the same
        batch: examples in a step
        relation_batch: See `batch`.
        learning_rate: see `situs.learn.loop.Plan`
        relation_learning_rate: See `learning_rate`.
        weight_decay: See `learning_rate`.
        momentum: See `learning_rate`.
        averaged: the last part of the stage ``basenet``, over which weights are averaged, see `Plan`
        balance: 1 for equally many examples of every site, 0 for the cohort's own frequencies
        label_smoothing: of BaseNet's site
        painting_weight: of the painting, and of the shares of the region in each site, beside the
            site itself, in the stage ``basenet``
        shares_weight: See `painting_weight`.
        network: ``compact`` or ``vgg16``, the paths of BaseNet
        frozen: whether the paths keep the weights they are given and only the fully connected layers learn
    """

    name: str
    spec: ViewSpec
    paint_samples: int
    basenet_samples: int
    relation_samples: int
    n_neighbors: int = 5
    n_references: int = 100
    n_targets: int = 600
    max_slices: int | None = 4
    batch: int = 64
    relation_batch: int = 64
    learning_rate: float = 2e-3
    relation_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    averaged: float = 0.0
    balance: float = 1.0
    label_smoothing: float = 0.05
    painting_weight: float = 0.3
    shares_weight: float = 0.5
    momentum: float | None = None
    network: Literal["compact", "vgg16"] = "compact"
    frozen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {**asdict(self), "spec": self.spec.to_dict()}


COMPACT = Recipe(
    "compact",
    ViewSpec(
        channels=("brain_below", "roi_below", "brain_above", "roi_above", "brain", "wide", "roi"),
        upright=True,
    ),
    paint_samples=60_000,
    basenet_samples=180_000,
    relation_samples=90_000,
    averaged=0.35,
)

# 30 and 15 epochs of the paper's training slices, 80 % of 15,425; all of them are references and targets.
_PAPER_SLICES = 12_340
PAPER = Recipe(
    "paper",
    ViewSpec(size_px=224, channels=("brain",)),
    paint_samples=0,
    basenet_samples=30 * _PAPER_SLICES,
    relation_samples=15 * _PAPER_SLICES,
    n_references=_PAPER_SLICES,
    n_targets=_PAPER_SLICES,
    max_slices=None,
    learning_rate=1e-3,
    relation_learning_rate=1e-3,
    weight_decay=5e-4,
    label_smoothing=0.0,
    momentum=0.9,
    network="vgg16",
)

RECIPES = {recipe.name: recipe for recipe in (COMPACT, PAPER)}


def relation_settings(recipe: Recipe) -> dict[str, Any]:
    """How a recipe trains the Relation Network, as arguments of `train_relations`."""
    return {
        "batch": recipe.relation_batch,
        "learning_rate": recipe.relation_learning_rate,
        "weight_decay": recipe.weight_decay,
        "momentum": recipe.momentum,
    }
