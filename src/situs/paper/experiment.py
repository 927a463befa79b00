"""The paper's experiment on rendered scans: its counts of scans and slices, its three methods, its tables.

Every stage leaves whole files in a work folder. A run that was stopped goes on after its last whole stage:

``render``    scans of heads to train on and of others to test on; of the latter a second, balanced cohort
``choose``    scans and slices by the paper's counts (`situs.paper.cohorts`)
``basenet``   for every seed: BaseNet (`situs.learn.basenet`)
``embed``     the embeddings of the slices, and BaseNet's own logits; those to train on also changed at random
              as in BaseNet's training, because BaseNet has fitted them unchanged
``relation``  the Relation Network on all references and on the nearest ones, tested after every epoch
``baselines`` plain classifiers of the same embeddings
``tables``    tables, intervals, tests and figures, from the logits alone

The results have every method twice: as it is, and prior-adjusted, where the frequency of each site among the
test slices is known. Instead of the paper's scans, those of any cohort can be trained on. The tests stay the
same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from situs.anatomy import SITES
from situs.cohort.manifest import MANIFEST, read_manifest
from situs.errors import InputError
from situs.files import claim_folder, digest, locked
from situs.learn.basenet import count_examples, train_basenet
from situs.learn.checkpoints import GivenWeights
from situs.learn.devices import DeviceName, Machine, open_machine
from situs.learn.features import Features, keep_features
from situs.learn.given import read_given
from situs.learn.nets import BaseNet
from situs.learn.recipe import Recipe
from situs.paper.baselines import BASELINES
from situs.paper.clock import StageClock
from situs.paper.cohorts import PAPER_SIZE, TESTS, ExperimentSize, SliceSubset, open_subsets, split_heads
from situs.paper.output import write_results
from situs.paper.results import METHODS, Results
from situs.paper.stages import (
    RELATIONS,
    baseline_logits,
    embed_subsets,
    make_stage,
    read_baselines,
    read_embedded,
    read_relation,
    relation_predictions,
    seed_folder,
)
from situs.progress import Progress, silent

__all__ = ["reproduce"]

_SETTINGS = "settings.json"


def reproduce(
    heads: Sequence[Path],
    out: str | Path,
    work: str | Path,
    recipe: Recipe,
    seeds: int = 3,
    size: ExperimentSize = PAPER_SIZE,
    train_cohort: str | Path | None = None,
    jobs: int = 1,
    threads: int = 1,
    device: DeviceName = "auto",
    weights: str | Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the experiment and write its tables and figures. A run that was stopped goes on.

    Args:
        heads: Label maps (`situs.synth.heads.find_heads`). The last quarter, by name, is tested on.
        out: The folder for tables and figures. Files of earlier results are replaced.
        work: The folder for scans, checkpoints and logits.
        recipe: The recipe of BaseNet; `size` says how many of its examples are seen.
        seeds: How many times networks are trained, with the seeds 0, 1, ...
        size: How large the run is.
        train_cohort: A cohort to train on instead of the paper's scans, without the patients that are tested
            on. BaseNet learns from the slices that `situs train` would take, the Relation Networks from as
            many of each site as there.
        jobs: Processes that render and read scans.
        threads: Threads of torch.
        device: Where to train, see `situs.learn.train.train`.
        weights: VGG16's first weights, see `situs.learn.train.train`.
        progress: Is told of every stage.

    Returns:
        `out`.

    Raises:
        InputError: For fewer than two heads, weights that do not fit, or counts that cannot be met.
        ManifestError: If a patient is on both sides, or `train_cohort` cannot be used or has only one site.
        OutputError: If `work` holds a run of other settings or another run is writing it, or something
            cannot be written.
    """
    out, work = Path(out), Path(work)
    machine = open_machine(device)
    if machine.world > 1:
        raise InputError("reproduce: runs as one process; torchrun is for 'situs train'")
    if seeds < 1:
        raise InputError(f"seeds: expected at least 1, got {seeds}")
    torch.set_num_threads(threads)
    given = read_given(recipe, (), weights)
    recipe = recipe.shortened(size.samples)
    train_heads, test_heads = split_heads(heads, size.test_fraction)
    own = None if train_cohort is None else Path(train_cohort)
    cohorts = _cohort_settings(train_heads, test_heads, size, own)
    training = _training_settings(recipe, given.get("weights"), size, machine)
    with locked(work):
        claim_folder(work, _SETTINGS, cohorts)
        claim_folder(work / recipe.name, _SETTINGS, training)

        subsets = open_subsets(work, (train_heads, test_heads), recipe, size, jobs, progress, own)
        # Of the paper's scans the Relation Networks see every slice, as in the paper.
        related = subsets["train"] if own is None else subsets["train"].subsample(recipe.n_targets)
        clock = StageClock(work / recipe.name / "times.json")
        run = _Run(work, recipe, size, subsets, related, machine, given, clock, progress)
        for seed in range(seeds):
            run.make_stages(seed)

        progress("tables", 0, 1, "counting and drawing")
        settings = {**training, "seeds": seeds, "cohorts": cohorts, "samples": size.samples}
        settings["hours"] = clock.hours()
        settings["basenet_examples"] = count_examples(recipe, subsets["train"].slices)
        write_results(out, run.collect(seeds), settings)
        progress("tables", 1, 1, "done")
    return out


@dataclass(frozen=True, eq=False)
class _Run:
    """A run whose cohorts are there.

    Attributes:
        work: The work folder.
        recipe: The recipe, with the number of examples that BaseNet sees.
        size: How large the run is.
        subsets: ``train``, ``test`` and ``balanced``.
        related: Those slices of ``train`` that the Relation Networks see.
        machine: What computes.
        given: The weights to start from, see `situs.learn.given.read_given`.
        clock: Counts the time of every stage.
        progress: Is told of every stage.
    """

    work: Path
    recipe: Recipe
    size: ExperimentSize
    subsets: dict[str, SliceSubset]
    related: SliceSubset
    machine: Machine
    given: Mapping[str, GivenWeights]
    clock: StageClock
    progress: Progress

    def make_stages(self, seed: int) -> None:
        """Make the stages of one seed that are not there yet."""
        folder = seed_folder(self.work, self.recipe, seed)
        train = self.subsets["train"]
        features = self.work / self.recipe.name / "features"  # of all seeds
        report = self.clock.of_seed(seed, self.progress)

        learn = partial(
            train_basenet,
            train.slices,
            train.chosen,
            self.recipe,
            seed,
            folder / "basenet",
            report,
            self.machine,
            self.given,
            features,
        )

        def keep(basenet: BaseNet, subset: SliceSubset, training: bool) -> Features:
            return keep_features(
                basenet, subset.slices, subset.chosen, features, self.machine, report, training
            )

        asked = {**self.subsets, "train": self.related}
        kept = keep if self.recipe.frozen else None
        make_stage(folder / "embeddings.npz", partial(embed_subsets, learn, asked, seed, report, kept))
        labelled, _ = read_embedded(self.work, self.recipe, seed)
        for kind in RELATIONS:
            relate = partial(
                relation_predictions,
                kind,
                labelled,
                self.recipe,
                self.size.epochs,
                seed,
                self.machine,
                report,
            )
            make_stage(folder / f"relation_{kind}.npz", relate)
        make_stage(folder / "baselines.npz", partial(baseline_logits, labelled, self.recipe, seed, report))

    def collect(self, seeds: int) -> Results:
        """The results of all methods, from the files of all seeds."""
        folders = [seed_folder(self.work, self.recipe, seed) for seed in range(seeds)]
        basenet = [read_embedded(self.work, self.recipe, seed)[1] for seed in range(seeds)]
        related = {name: [read_relation(f, kind) for f in folders] for kind, name in RELATIONS.items()}
        baselines = [read_baselines(folder) for folder in folders]
        logits = {
            cohort: {
                METHODS[0]: [of_seed[cohort] for of_seed in basenet],
                **{m: [of[f"{cohort}_logits"] for of in of_seeds] for m, of_seeds in related.items()},
                **{m: [of[f"{m}/{cohort}_logits"] for of in baselines] for m in BASELINES},
            }
            for cohort in TESTS
        }
        return Results(
            truth={name: self.subsets[name].site for name in TESTS},
            heads={name: self.subsets[name].patient for name in TESTS},
            site_frequencies={"test": self.size.counts, "balanced": np.ones(len(SITES))},
            logits=logits,
            curves={
                name: {method: [of[name] for of in of_seeds] for method, of_seeds in related.items()}
                for name in TESTS
            },
            seconds={method: [of["seconds"] for of in of_seeds] for method, of_seeds in related.items()},
            train_sites=self.subsets["train"].site,
            n_related=len(self.related.chosen),
            scans={name: subset.scans for name, subset in self.subsets.items()},
        )


def _cohort_settings(
    train_heads: list[Path], test_heads: list[Path], size: ExperimentSize, own: Path | None
) -> dict[str, Any]:
    """What tells the cohorts of a run from others.

    Raises:
        ManifestError: If the cohort to train on cannot be read; so it is refused before anything is rendered.
    """
    settings: dict[str, Any] = {"train_cohort": None}
    if own is not None:
        read_manifest(own)
        settings = {"train_cohort": own.name, "train_manifest": digest(own / MANIFEST)}
    counts = {key: value for key, value in asdict(size).items() if key not in ("samples", "epochs")}
    heads = {"train_heads": train_heads, "test_heads": test_heads}
    return {**settings, **{key: [head.name for head in of] for key, of in heads.items()}, **counts}


def _training_settings(
    recipe: Recipe, weights: GivenWeights | None, size: ExperimentSize, machine: Machine
) -> dict[str, Any]:
    """What tells the trainings of a run from others on the same cohorts."""
    return {
        "recipe": recipe.to_dict(),
        "weights": None if weights is None else weights.path.name,
        **({} if weights is None else {"weights_sha256": weights.sha256}),
        "epochs": size.epochs,
        "device": machine.device.type,
    }
