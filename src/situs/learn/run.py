"""One training run: what its stages share, and the folder that holds their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.cohort.slices import Slices
from situs.files import claim_folder, digest, locked
from situs.learn.checkpoints import GivenWeights
from situs.learn.devices import Machine
from situs.learn.loop import LoopSettings
from situs.learn.recipe import Recipe
from situs.progress import Progress

__all__ = ["TrainingRun", "open_run"]

_STAGES = ("paint", "basenet", "embed", "relation", "fc")  # the seeds hold their places


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What the stages of a training share.

    Attributes:
        work: The folder of the checkpoints.
        recipe: What is trained, and for how long.
        seed: Of weights, order and augmentation.
        slices: The examples of the cohort.
        chosen: (n,) the examples of `slices` to train on.
        key: Tells this run from others.
        progress: Is called as the stages go on.
        machine: Where the networks are trained.
        features: The folder where features of frozen paths are kept.
    """

    work: Path
    recipe: Recipe
    seed: int
    slices: Slices
    chosen: NDArray[np.int64]
    key: str
    progress: Progress
    machine: Machine
    features: Path

    def stage_seed(self, stage: str) -> list[int]:
        """The seed of a stage's random choices."""
        return [self.seed, _STAGES.index(stage)]

    def loop_settings(self, stage: str, samples: int) -> LoopSettings:
        """How a stage of BaseNet sees its `samples` examples."""
        recipe = self.recipe
        return LoopSettings(
            stage,
            samples // recipe.batch,
            recipe.batch,
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.momentum,
            self.stage_seed(stage),
            self.checkpoint(stage),
            self.key,
            self.machine,
        )

    def checkpoint(self, stage: str) -> Path:
        """The file of a stage's checkpoint."""
        return self.work / f"{stage}.pt"


@contextmanager
def open_run(
    work: Path,
    recipe: Recipe,
    seed: int,
    slices: Slices,
    chosen: NDArray[np.int64],
    given: Mapping[str, GivenWeights],
    progress: Progress,
    machine: Machine,
    features: Path | None = None,
) -> Iterator[TrainingRun]:
    """A run in the folder `work`, which is new or goes on, and is no other run's until it ends.

    Args:
        work: The folder of the checkpoints; it is made unless it is there.
        recipe: What is trained, and for how long.
        seed: Of weights, order and augmentation.
        slices: The examples of the cohort.
        chosen: (n,) the examples of `slices` to train on.
        given: The weights to start from, see `situs.learn.given.read_given`.
        progress: Is called as the stages go on.
        machine: Where the networks are trained.
        features: The folder where features of frozen paths are kept; None for `work`. Runs may share it.

    Raises:
        OutputError: If the folder holds a run of other settings, another one is writing it, or it cannot be
            written.
    """
    examples = "\n".join(slices.id[chosen].tolist()).encode() + slices.site[chosen].tobytes()
    settings = {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "examples": digest(examples),
        **{name: weights.sha256 for name, weights in given.items()},
    }
    key = digest(json.dumps(settings).encode())[:16]
    with ExitStack() as stack:
        if machine.first:
            stack.enter_context(locked(work))
            claim_folder(work, "run.json", settings)
        yield TrainingRun(work, recipe, seed, slices, chosen, key, progress, machine, features or work)
