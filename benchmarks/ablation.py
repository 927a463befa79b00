"""What every part of the Relation Network with nearest neighbours is worth: each left out or changed, alone.

No promise: a table. Over the embeddings of a `situs reproduce` work folder the Relation Network is trained
for a few epochs as it is, and in variants (`variants.py`) that differ from that in one thing. Macro F1 and
the F1 of the six rarest sites are of the balanced cohort, weighted F1 is at the paper's site frequencies.
Predictions without a Relation Network stand below. Run:

    python benchmarks/ablation.py --work reproduce.work [--recipe compact] [--seed 0] [--epochs 5] [--seeds 2]

Every finished training is kept in the folder WORK.ablation: the same command resumes a stopped run. Seeds
come one after the other, so `--seeds 1` prints a table in half the time, and `--seeds 2` adds the second.
The row of targets out of fold learns from heads that BaseNet has not seen: from the balanced cohort's, but
the one that is tested, so it takes a training for each of these heads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import frame
import numpy as np
import torch
from numpy.typing import NDArray
from variants import OUT_OF_FOLD, Variant, make_variants, patched

from situs.cohort.scores import count_confusions, macro_f1, weighted_f1
from situs.errors import InputError
from situs.files import claim_folder, digest, write_file
from situs.learn.devices import CPU, Machine, open_machine
from situs.learn.recipe import RECIPES, Recipe, relation_settings
from situs.learn.relations import train_relations
from situs.neighbors import References, nearest
from situs.paper.baselines import fit_centroids
from situs.paper.claims import rare_f1
from situs.paper.results import predict_sites
from situs.paper.stages import Labelled, choose_references, read_embedded, seed_folder
from situs.records import take_rows
from situs.tables import markdown_table

Logits = dict[str, NDArray[np.floating]]  # (n, 15) of the slices of each of `COHORTS`
Run = dict[str, float]  # the numbers of one training

COHORTS = ("balanced", "test")
# In the table: a column's name, and the cohort and the measure that it is.
COLUMNS = {
    "macro F1": ("balanced", macro_f1),
    "weighted F1, paper's site frequencies": ("test", weighted_f1),
    "six rarest, F1": ("balanced", rare_f1),
}


def train_and_test(
    variant: Variant, labelled: Labelled, recipe: Recipe, epochs: int, seed: int, machine: Machine = CPU
) -> tuple[Logits, float]:
    """The logits of a variant, and the CPU seconds of its training, the neighbour search included."""
    n = recipe.n_references if variant.references is None else variant.references
    defaults = {"choice": "nearest", "k": recipe.n_neighbors, **relation_settings(recipe)}
    settings = {**defaults, **variant.settings}
    references, seconds = choose_references(labelled["train"], n), 0.0
    logits: Logits = {
        name: np.zeros((len(labelled[name]), references.n_sites), np.float32) for name in COHORTS
    }
    for targets, tested in iter_trainings(variant, labelled):
        with patched(variant.patches):
            with frame.Timer() as timer:
                model = train_relations(
                    references, epochs=epochs, seed=seed, machine=machine, targets=targets, **settings
                )
            seconds += timer.cpu_s
            for name, which in tested.items():
                X = labelled[name].embeddings[which].astype(np.float32)
                logits[name][which] = model.logits(X, model.find_neighbors(X))
    return logits, seconds


def iter_trainings(
    variant: Variant, labelled: Labelled
) -> Iterator[tuple[References, dict[str, NDArray[np.bool_]]]]:
    """The trainings of a variant: the targets, and which slices (n,) of each of `COHORTS` are tested."""
    patients = {name: labelled[name].patients for name in COHORTS}
    if variant.targets != OUT_OF_FOLD:
        yield labelled[variant.targets], {name: np.ones(len(of), bool) for name, of in patients.items()}
        return
    unseen = labelled["balanced"]
    for head in np.unique(np.concatenate(list(patients.values()))):
        tested = {name: of == head for name, of in patients.items()}
        yield take_rows(unseen, unseen.patients != head), tested


def plain_logits(labelled: Labelled, basenet: Logits, recipe: Recipe) -> dict[str, Logits]:
    """Logits without a Relation Network: BaseNet's own, and those of the embeddings alone."""
    references, k = choose_references(labelled["train"], recipe.n_references), recipe.n_neighbors
    X = {name: labelled[name].embeddings.astype(np.float32) for name in COHORTS}
    centroids = fit_centroids(references)
    return {
        "BaseNet alone": {name: basenet[name] for name in COHORTS},
        f"mean distance to the {k} nearest": {name: -mean_distances(X[name], references, k) for name in X},
        "nearest centroid": {name: centroids.logits(X[name]) for name in X},
    }


def mean_distances(X: NDArray[np.float32], references: References, k: int) -> NDArray[np.float64]:
    """The mean distance (n, sites) to the k nearest references of each site, or to all where they are fewer.

    It is inf for a site without references.
    """
    near = nearest(X, references, k)
    n = near.present.sum(axis=2)
    total = near.distances.sum(axis=2, where=near.present, dtype=np.float64)
    return np.divide(total, n, out=np.full(total.shape, np.inf), where=n > 0)


def score(logits: Logits, labelled: Labelled) -> Run:
    """The numbers of `COLUMNS`."""
    confusions = {
        name: count_confusions(labelled[name].sites, [predict_sites(of)], labelled[name].patients)
        for name, of in logits.items()
    }
    return {
        column: float(measure(confusions[name].sum(axis=(0, 1))))
        for column, (name, measure) in COLUMNS.items()
    }


# --- the run --------------------------------------------------------------------------------------------


class Record:
    """The finished trainings of a run, kept in a folder.

    Args:
        folder: Belongs to one run of these settings.
        settings: What tells the run from others.

    Attributes:
        rows: Variant -> seed -> its numbers.

    Raises:
        InputError: If the record is damaged.
        OutputError: If the folder holds a run of other settings, or cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        claim_folder(folder, "settings.json", settings)
        self._path = folder / "rows.json"
        self.rows: dict[str, dict[str, Run]] = {}
        if self._path.exists():
            try:
                self.rows = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(f"{self._path}: is damaged: delete it or choose another --out") from error

    def add(self, name: str, seed: int, numbers: Run) -> None:
        self.rows.setdefault(name, {})[str(seed)] = numbers
        write_file(self._path, json.dumps(self.rows, indent=1).encode())


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    recipe, machine = RECIPES[options.recipe], open_machine("cpu")
    variants = _choose(make_variants(recipe), options.only)
    labelled, basenet = read_embedded(options.work, recipe, options.seed)
    embeddings = digest(seed_folder(options.work, recipe, options.seed) / "embeddings.npz")
    settings = {"recipe": recipe.to_dict(), "embeddings": embeddings, "epochs": options.epochs}
    work = options.work.resolve()
    record = Record(options.out or work.with_name(f"{work.name}.ablation"), settings)

    todo = [(seed, variant) for seed in range(options.seeds) for variant in variants]
    for n, (seed, variant) in enumerate(todo, start=1):
        if str(seed) in record.rows.get(variant.name, {}):
            continue
        logits, seconds = train_and_test(variant, labelled, recipe, options.epochs, seed, machine)
        numbers = {**score(logits, labelled), "seconds": seconds}
        record.add(variant.name, seed, numbers)
        line = f"macro F1 {numbers['macro F1']:.4f}, {seconds:.0f} s"
        print(f"{n} of {len(todo)}: {variant.name}, seed {seed}: {line}", file=sys.stderr, flush=True)

    references = choose_references(labelled["train"], recipe.n_references)
    print(
        f"{len(labelled['targets']):,} targets, {len(references):,} references, k = {recipe.n_neighbors}, "
        f"{options.epochs} epochs, seeds: {options.seeds} (mean ± spread); balanced cohort: "
        f"{len(labelled['balanced']):,} slices, paper's site frequencies: {len(labelled['test']):,}\n"
    )
    trained = {v.name: [record.rows[v.name][str(seed)] for seed in range(options.seeds)] for v in variants}
    plain = plain_logits(labelled, basenet, recipe)
    print(table(trained, {name: score(logits, labelled) for name, logits in plain.items()}), end="")
    return 0


def table(trained: dict[str, Sequence[Run]], plain: dict[str, Run]) -> str:
    """The table in Markdown: means over the seeds; then the rows that need no training.

    The first column also has its spread over the seeds and its difference from the default.
    """
    first, *others = COLUMNS
    default = np.array([run[first] for run in trained["default"]]) if "default" in trained else None

    def cells(runs: Sequence[Run]) -> list[str]:
        head = np.array([run[first] for run in runs])
        spread = f" ± {head.std():.3f}" if len(runs) > 1 else ""
        difference = "" if default is None else f"{head.mean() - default.mean():+.3f}"
        rest = [f"{np.mean([run[column] for run in runs]):.3f}" for column in others]
        return [f"{head.mean():.3f}{spread}", difference, *rest]

    rows = [
        [name, *cells(runs), f"{np.mean([run['seconds'] for run in runs]):.0f}"]
        for name, runs in trained.items()
    ]
    rows += [[name, *cells([numbers]), ""] for name, numbers in plain.items()]
    return markdown_table(["", first, "to the default", *others, "CPU s"], rows)


def _choose(variants: list[Variant], only: list[str] | None) -> list[Variant]:
    chosen = [v for v in variants if only is None or any(text in v.name for text in only)]
    if not chosen:
        raise InputError(f"--only: no variant has {' or '.join(map(repr, only or []))} in its name")
    return chosen


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = frame.Parser(__doc__)
    positive = frame.positive
    parser.add_argument("--work", type=Path, required=True, help="the work folder of 'situs reproduce'")
    parser.add_argument("--recipe", choices=list(RECIPES), default="compact", help="(default: compact)")
    parser.add_argument("--seed", type=int, default=0, help="which BaseNet of the run (default: 0)")
    parser.add_argument("--epochs", type=positive, default=5, help="epochs of every training (default: 5)")
    parser.add_argument("--seeds", type=positive, default=2, help="trainings of every variant (default: 2)")
    parser.add_argument("--threads", type=positive, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="variants with one of these in their names")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for finished trainings (default: WORK.ablation)"
    )
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
