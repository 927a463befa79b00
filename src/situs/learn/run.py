"""One training run: what its stages share, and the folder that holds their checkpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.cohort.slices import Slices
from situs.errors import OutputError
from situs.files import digest, replacing, sweep
from situs.learn.devices import CPU, Machine
from situs.learn.loop import Plan, Progress
from situs.learn.recipe import Recipe

__all__ = ["Run", "open_run"]

_STAGES = ("paint", "basenet", "embed", "relation", "fc")  # their places are in the seeds


@dataclass(frozen=True, eq=False)
class Run:
    """What the stages of a training share.

    Attributes:
        work: the folder for checkpoints
        chosen: (n,) the examples of `slices` to train on
        key: tells this run from others
        say: see `situs.learn.loop.Progress`
    """

    work: Path
    recipe: Recipe
    seed: int
    slices: Slices
    chosen: NDArray[np.int64]
    key: str
    say: Progress
    machine: Machine = CPU

    def stage_seed(self, stage: str) -> list[int]:
        """What the random choices of a stage start from."""
        return [self.seed, _STAGES.index(stage)]

    def plan(self, stage: str, samples: int) -> Plan:
        """How a stage of BaseNet sees its `samples` examples."""
        recipe = self.recipe
        return Plan(
            stage,
            samples // recipe.batch,
            recipe.batch,
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.momentum,
            self.stage_seed(stage),
            self.work / f"{stage}.safetensors",
            self.key,
            self.machine,
            recipe.averaged if stage == "basenet" else 0.0,
        )


def open_run(
    work: Path,
    recipe: Recipe,
    seed: int,
    slices: Slices,
    chosen: NDArray[np.int64],
    given: dict[str, Path],
    say: Progress,
    machine: Machine,
) -> Run:
    """A run, new or to go on with, in the folder `work`; the other arguments are `Run`'s.

    Args:
        given: the files that weights come from, see `situs.learn.basenet.given_files`

    Raises:
        InputError: if a given file cannot be read
        OutputError: if the folder holds another run, or cannot be written
    """
    key = _run_key(recipe, seed, slices, chosen, given)
    note = work / "run.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if machine.first:
            sweep(work)
        if note.exists() and json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            raise OutputError(
                f"{work}: holds a run of another cohort, recipe or seed: delete it or choose another"
            )
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"key": key, "recipe": recipe.to_dict()}))
    except (ValueError, KeyError) as error:
        raise OutputError(f"{note}: is damaged: delete {work} or choose another") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{work}: cannot be written ({error.strerror or error})") from error
    return Run(work, recipe, seed, slices, chosen, key, say, machine)


def _run_key(
    recipe: Recipe, seed: int, slices: Slices, chosen: NDArray[np.int64], given: dict[str, Path]
) -> str:
    """A name that changes with all that decides the weights."""
    key = hashlib.sha256(json.dumps([recipe.to_dict(), seed]).encode())
    key.update("\n".join(slices.id[chosen].tolist()).encode())
    key.update(slices.site[chosen].tobytes())
    for name, file in given.items():
        key.update(f"{name}{digest(file)}".encode())
    return key.hexdigest()[:16]
