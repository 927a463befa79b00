"""What a training run does, as numbers that travel in the bundle: the recipes `compact` and `paper`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from situs.views import ViewSpec

__all__ = ["COMPACT", "PAPER", "RECIPES", "Recipe", "relation_settings"]


@dataclass(frozen=True)
class Recipe:
    """What a training run does.

    Attributes:
        name: The recipe's name.
        spec: How slices become views.
        paint_samples: Examples seen in the stage ``paint``.
        basenet_samples: Examples seen in the stage ``basenet``, or in ``fc`` if the paths are frozen.
        relation_samples: Targets seen in the stage ``relation``.
        n_neighbors: References of each site that the Relation Network sees.
        n_references: References of each site in the bundle, at most, spread evenly over the patients.
        n_targets: Targets of each site that the Relation Network learns from, at most, spread likewise.
        max_slices: Examples of each region, at most, spread over its area, because neighbouring thin slices
            are alike; None for all slices.
        batch: Examples in a step of BaseNet.
        relation_batch: Targets in a step of the Relation Network.
        learning_rate: Of BaseNet, see `situs.learn.loop.LoopSettings`.
        relation_learning_rate: Of the Relation Network, constant.
        weight_decay: Of both, see `situs.learn.loop.LoopSettings`.
        label_smoothing: Of BaseNet's site.
        painting_weight: The weight of the painting's loss in the stage ``basenet``; 0 if nothing is painted.
        shares_weight: The weight of the loss of the region's share in each site, in the same stage.
        momentum: Of SGD, for both networks; None for AdamW.
        network: The paths of BaseNet, ``compact`` or ``vgg16``.
        frozen: Whether the paths keep the weights they are given, so that only the fully connected layers
            learn.
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
    label_smoothing: float = 0.05
    painting_weight: float = 0.3
    shares_weight: float = 0.5
    momentum: float | None = None
    network: Literal["compact", "vgg16"] = "compact"
    frozen: bool = False

    def continued(self) -> Recipe:
        """The recipe of a training that goes on from a bundle: shorter, gentler, no stage of painting."""
        return replace(
            self,
            name=f"{self.name}, continued",
            paint_samples=0,
            basenet_samples=self.basenet_samples // 3,
            learning_rate=self.learning_rate / 2,
        )

    def shortened(self, fraction: float) -> Recipe:
        """The recipe with a fraction of BaseNet's examples."""
        return replace(
            self,
            paint_samples=round(self.paint_samples * fraction),
            basenet_samples=round(self.basenet_samples * fraction),
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {**asdict(self), "spec": self.spec.to_dict()}


COMPACT = Recipe(
    "compact",
    ViewSpec(
        channels=(
            "brain_below",
            "roi_below",
            "brain_above",
            "roi_above",
            "brain_mirrored",
            "brain_unfilled",
            "brain",
            "wide",
            "roi",
        ),
        upright=True,
    ),
    paint_samples=60_000,
    basenet_samples=180_000,
    relation_samples=90_000,
)

# 30 and 15 epochs of the paper's training slices, 80 % of 15,425. All are references and targets.
_PAPER_SLICES = 12_340
PAPER = Recipe(
    "paper",
    ViewSpec(size_px=224, channels=("brain",)),
    paint_samples=0,
    painting_weight=0.0,
    basenet_samples=30 * _PAPER_SLICES,
    relation_samples=15 * _PAPER_SLICES,
    n_references=_PAPER_SLICES,
    n_targets=_PAPER_SLICES,
    max_slices=None,
    learning_rate=1e-3,
    weight_decay=5e-4,
    label_smoothing=0.0,
    momentum=0.9,
    network="vgg16",
)

RECIPES = {recipe.name: recipe for recipe in (COMPACT, PAPER)}


def relation_settings(recipe: Recipe) -> dict[str, Any]:
    """How a recipe trains the Relation Network, as arguments of `situs.learn.relations.train_relations`."""
    return {
        "batch": recipe.relation_batch,
        "learning_rate": recipe.relation_learning_rate,
        "weight_decay": recipe.weight_decay,
        "momentum": recipe.momentum,
    }
