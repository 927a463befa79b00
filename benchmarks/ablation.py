"""What every part of the Relation Network with nearest neighbours is worth: each left out or changed, alone.

No promise: a table. Over the embeddings of a `situs reproduce` work folder the Relation Network is trained
for a few epochs as it is, and in variants that differ from that in one thing. Macro F1 and the F1 of the six
rarest sites are of the balanced cohort, weighted F1 is of the paper's mix. Answers without a Relation Network
stand below. What the package does not offer is a subclass, or a function in place of another, here. Run:

    python benchmarks/ablation.py --work reproduce.work [--recipe compact] [--seed 0] [--epochs 5] [--seeds 2]

Every finished training is kept in WORK.ablation.json: the same command goes on where a stopped one was. Seeds
come one after the other, so `--seeds 1` prints a table in half the time, and `--seeds 2` adds the second.
The row of targets out of fold learns from heads that BaseNet has not seen: from the balanced cohort's, but
the one that is asked about, so it takes a training for each of these heads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.cohort.sampling import balanced_indices
from situs.cohort.scores import count_confusions, macro_f1, weighted_f1
from situs.errors import InputError, OutputError, SitusError
from situs.files import replacing
from situs.learn import relations as package
from situs.learn.devices import CPU, Machine, open_machine
from situs.learn.nets import RelationNetwork
from situs.learn.recipe import RECIPES, Recipe, relation_settings
from situs.learn.relations import RelationModel, train_relations
from situs.neighbors import Neighbors, References, nearest
from situs.paper.baselines import fit_centroids
from situs.paper.claims import rare_f1
from situs.paper.results import predict_sites
from situs.paper.stages import choose_references, read_embedded

Labelled = dict[str, References]  # see `read_embedded`
Answers = dict[str, NDArray[np.integer]]  # sites (n,) of the slices of each of `COHORTS`

COHORTS = ("balanced", "test")
# In the table: what, and the cohort and the measure that it is.
COLUMNS = {
    "macro F1": ("balanced", macro_f1),
    "weighted F1, paper's mix": ("test", weighted_f1),
    "six rarest, F1": ("balanced", rare_f1),
}
ALL = sys.maxsize
OUT_OF_FOLD = "out of fold"


# --- other networks -------------------------------------------------------------------------------------


class Singles(RelationNetwork):
    """g reads one reference at a time."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        read = self.read_pairs(self.g_first(references)[..., : self.hidden])
        return mean_of(references, present) + self.g_last(mean_of(read, present))


class Concatenation(RelationNetwork):
    """g reads the k references of a class at once, nearest first, with zeros for those that are missing."""

    def __init__(self, k: int, width: int, hidden: int, dropout: float, scale: float) -> None:
        super().__init__(width, hidden, dropout, scale)
        self.g_first = nn.Linear(k * width, hidden)

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        whole = (references * present[..., None]).flatten(2)
        read = self.read_pairs(self.g_first(whole)[:, :, None])
        return mean_of(references, present) + self.g_last(read.squeeze(2))


class Summed(RelationNetwork):
    """g's outputs are summed over the pairs of a class, as in Santoro et al. 2017, not averaged."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        middle = mean_of(references, present)
        n = present.sum(dim=2)[..., None]
        read = super().join(references, present) - middle - self.g_last.bias
        return middle + read * (n * (n + 1) / 2) + self.g_last.bias


class NotAdded(RelationNetwork):
    """The joint embedding is g's output alone."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        return super().join(references, present) - mean_of(references, present)


class MeanAlone(RelationNetwork):
    """The joint embedding is the references' mean alone."""

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        return mean_of(references, present)


class NoSquares(RelationNetwork):
    """f reads target and joint embedding, not their squared differences."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.f_difference.requires_grad_(False).weight.zero_()


class NoDistance(RelationNetwork):
    """f says everything, instead of correcting what the distance says."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.distance_weight.requires_grad_(False).zero_()


class DistanceToJoint(RelationNetwork):
    """f corrects the distance to the joint embedding."""

    def score(self, target: Tensor, joint: Tensor, distance: Tensor) -> Tensor:
        return super().score(target, joint, self.distances(target[:, None], joint))


class Cosine(RelationNetwork):
    """The cosine distance, in such a unit that for embeddings of unit length it is the square of the other.

    Their nearest references are the same by both, so only what f corrects differs."""

    def distances(self, target: Tensor, references: Tensor) -> Tensor:
        unit = 2 * self.scale**2 / self.width
        return unit * (1 - F.cosine_similarity(target, references, dim=-1))


class Unscaled(RelationNetwork):
    """Layers read the embeddings as they are; distances weigh as ever."""

    def __init__(self, width: int, hidden: int, dropout: float, scale: float) -> None:
        super().__init__(width, hidden, dropout)
        with torch.no_grad():
            self.distance_weight *= scale


class Redrawn(RelationModel):
    """Whenever a target is learned from, its k neighbours are drawn anew among the 2k nearest; answers come
    from the k nearest, as ever."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._draw = np.random.default_rng(self._seed)

    def find_neighbors(self, X: NDArray[np.floating], patients: NDArray[np.str_] | None = None) -> Neighbors:
        return nearest(X, self.references, self.k if patients is None else 2 * self.k, patients)

    def _relate_nearest(self, targets: Tensor, near: Neighbors, part: slice | NDArray[np.int64]) -> Tensor:
        if near.indices.shape[2] > self.k:
            some = Neighbors(near.indices[part], near.distances[part], near.present[part])
            near, part = drawn(some, self.k, self._draw), slice(None)
        return super()._relate_nearest(targets, near, part)


def drawn(near: Neighbors, k: int, rng: np.random.Generator) -> Neighbors:
    """k of every target's and class's neighbours, at random; all that there are where they are fewer."""
    turn = np.where(near.present, rng.random(near.present.shape), np.inf)
    chosen = np.sort(np.argsort(turn, axis=2, kind="stable")[:, :, :k], axis=2)  # nearest first, as ever
    return Neighbors(
        *(np.take_along_axis(a, chosen, axis=2) for a in (near.indices, near.distances, near.present))
    )


def mean_of(values: Tensor, present: Tensor) -> Tensor:
    """(n, m, width) mean of values (n, m, k, width) over those present (n, m, k); 0 where none is."""
    weights = present.to(values.dtype)[..., None]
    return (values * weights).sum(dim=2) / weights.sum(dim=2).clamp(min=1)


# --- other losses and scales ----------------------------------------------------------------------------


def binary_loss(logits: Tensor, site: Tensor) -> Tensor:
    others = torch.full((logits.shape[1],), float(logits.shape[1] - 1), device=logits.device)
    truth = F.one_hot(site, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, truth, pos_weight=others) / 2


def squared_loss(logits: Tensor, site: Tensor) -> Tensor:
    """As in Sung et al. 2018; the one site weighs as much as all others together."""
    truth = F.one_hot(site, logits.shape[1]).to(logits.dtype)
    return ((logits.sigmoid() - truth) ** 2 * (1 + (logits.shape[1] - 2) * truth)).mean()


def scale_of_each(references: References) -> NDArray[np.float64]:
    """What makes every feature of the references spread by 1; 0 for one that is always the same."""
    spread = references.embeddings.astype(np.float64).std(axis=0)
    return np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)


def as_frequent(sites: NDArray[np.integer], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return balanced_indices(sites, n, rng, power=0.0)


# --- the variants ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One change of the default.

    Attributes:
        name: the row's
        patches: names of `situs.learn.relations`, and what takes their place
        settings: arguments of `train_relations`
        references: how many of every site, at most; None for the recipe's number
        targets: which part is learned from; `OUT_OF_FOLD` for heads that BaseNet has not seen
    """

    name: str
    patches: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    references: int | None = None
    targets: str = "targets"


def make_variants(recipe: Recipe) -> list[Variant]:
    """The default first."""
    k = recipe.n_neighbors
    # Answering batches are smaller where k is large: k = 20 has 210 pairs.
    of_k = [
        Variant(f"k = {n}", {"_ANSWER_BATCH": 64}, {"k": n})
        for n in (1, 3, 10, 20)
        if n != recipe.n_neighbors
    ]

    def concatenation(*args: Any) -> RelationNetwork:
        return Concatenation(k, *args)

    def network(name: str, made: Callable[..., RelationNetwork]) -> Variant:
        return Variant(name, {"RelationNetwork": made})

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
        Variant("every feature scaled to a spread of 1", {"_scale": scale_of_each}),
        Variant("references: 400 of every site", references=400),
        Variant("references: all", references=ALL),
        Variant("targets as they are", targets="train"),
        Variant("targets out of fold", targets=OUT_OF_FOLD),
        Variant("targets as frequent as they are", {"balanced_indices": as_frequent}),
        Variant(f"neighbours drawn among the {2 * k} nearest", {"RelationModel": Redrawn}),
        *(Variant(f"all references, {n} pairs", {"PAIRS": n}, {"choice": "all"}) for n in (64, 256, 1024)),
    ]


@contextmanager
def patched(patches: dict[str, Any]) -> Iterator[None]:
    """Other things under the names of `situs.learn.relations`, for a while."""
    before = {name: getattr(package, name) for name in patches}
    try:
        for name, value in patches.items():
            setattr(package, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(package, name, value)


def train_and_ask(
    variant: Variant, labelled: Labelled, recipe: Recipe, epochs: int, seed: int, machine: Machine = CPU
) -> tuple[dict[str, NDArray[np.floating]], float]:
    """The relation scores (n, 15) of each of `COHORTS`, and the CPU seconds of training with its neighbour
    search, asking not counted."""
    few = recipe.n_references if variant.references is None else variant.references
    defaults = {"choice": "nearest", "k": recipe.n_neighbors, **relation_settings(recipe)}
    settings = {**defaults, **variant.settings}
    references, seconds = choose_references(labelled["train"], few), 0.0
    scores: dict[str, NDArray[np.floating]] = {
        name: np.zeros((len(labelled[name]), references.n_sites), np.float32) for name in COHORTS
    }
    for targets, asked in splits(variant, labelled):
        with patched(variant.patches):
            before = time.process_time()
            model = train_relations(
                references, epochs=epochs, seed=seed, machine=machine, targets=targets, **settings
            )
            seconds += time.process_time() - before
            for name, which in asked.items():
                X = labelled[name].embeddings[which].astype(np.float32)
                scores[name][which] = model.scores(X, model.find_neighbors(X))
    return scores, seconds


def splits(variant: Variant, labelled: Labelled) -> Iterator[tuple[References, dict[str, NDArray[np.bool_]]]]:
    """The targets of every training of a variant, and which slices (n,) of each of `COHORTS` it is asked."""
    patients = {name: labelled[name].patients for name in COHORTS}
    if variant.targets != OUT_OF_FOLD:
        yield labelled[variant.targets], {name: np.ones(len(of), bool) for name, of in patients.items()}
        return
    unseen = labelled["balanced"]
    for head in np.unique(np.concatenate(list(patients.values()))):
        asked = {name: of == head for name, of in patients.items()}
        yield unseen.take(unseen.patients != head), asked


def plain_answers(labelled: Labelled, said: Answers, recipe: Recipe) -> dict[str, Answers]:
    """What is said without a Relation Network: `said` by BaseNet, and by the embeddings alone."""
    few, k = choose_references(labelled["train"], recipe.n_references), recipe.n_neighbors
    asked = {name: labelled[name].embeddings.astype(np.float32) for name in COHORTS}
    centroids = fit_centroids(few)
    return {
        "BaseNet's own answer": {name: said[name] for name in COHORTS},
        f"mean distance to the {k} nearest": {name: mean_nearest(X, few, k) for name, X in asked.items()},
        "nearest centroid": {name: predict_sites(centroids.logits(X)) for name, X in asked.items()},
    }


def mean_nearest(X: NDArray[np.float32], references: References, k: int) -> NDArray[np.int64]:
    """The sites (n,) whose k nearest references, or all where they are fewer, are nearest in the mean."""
    near = nearest(X, references, k)
    n = near.present.sum(axis=2)
    total = near.distances.sum(axis=2, where=near.present)
    return np.divide(total, n, out=np.full(total.shape, np.inf), where=n > 0).argmin(axis=1)


def measure(answers: Answers, labelled: Labelled) -> dict[str, float]:
    """The numbers of `COLUMNS`."""
    confusions = {
        name: count_confusions(labelled[name].sites, [said], labelled[name].patients).sum(axis=(0, 1))
        for name, said in answers.items()
    }
    return {column: float(of(confusions[name])) for column, (name, of) in COLUMNS.items()}


# --- the run --------------------------------------------------------------------------------------------


class Kept:
    """Finished trainings in a file: variant -> seed -> its numbers."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.rows: dict[str, dict[str, dict[str, float]]] = {}
        if path.exists():
            try:
                whole = json.loads(path.read_text(encoding="utf-8"))
                before, self.rows = whole["settings"], whole["rows"]
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{path}: is damaged: delete it or choose another --json") from error
            if before != settings:
                raise OutputError(
                    f"{path}: holds a run of other settings: delete it or choose another --json"
                )

    def add(self, name: str, seed: int, numbers: dict[str, float]) -> None:
        self.rows.setdefault(name, {})[str(seed)] = numbers
        text = json.dumps({"settings": self.settings, "rows": self.rows}, indent=1)
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    recipe, machine = RECIPES[options.recipe], open_machine("cpu")
    variants = make_variants(recipe)
    if options.only:
        variants = [v for v in variants if any(text in v.name for text in options.only)]
        if not variants:
            raise InputError(f"--only: no variant has {' or '.join(map(repr, options.only))} in its name")
    labelled, logits = read_embedded(options.work, recipe, options.seed)
    said = {name: of_name.argmax(axis=1) for name, of_name in logits.items()}
    embeddings = options.work / recipe.name / f"seed{options.seed}" / "embeddings.npz"
    with embeddings.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settings = {"recipe": recipe.to_dict(), "embeddings": digest, "epochs": options.epochs}
    whole = options.work.resolve()
    kept = Kept(
        options.json or whole.with_name(f"{whole.name}.ablation.json"), json.loads(json.dumps(settings))
    )

    total, done = len(variants) * options.seeds, 0
    for seed in range(options.seeds):
        for variant in variants:
            done += 1
            if str(seed) in kept.rows.get(variant.name, {}):
                continue
            scores, seconds = train_and_ask(variant, labelled, recipe, options.epochs, seed, machine)
            answers = {name: of.argmax(axis=1) for name, of in scores.items()}
            numbers = {**measure(answers, labelled), "seconds": seconds}
            kept.add(variant.name, seed, numbers)
            found = f"macro F1 {numbers['macro F1']:.4f}, {seconds:.0f} s"
            print(f"{done} of {total}: {variant.name}, seed {seed}: {found}", file=sys.stderr, flush=True)

    n, few = len(labelled["targets"]), len(choose_references(labelled["train"], recipe.n_references))
    print(
        f"{n:,} targets, {few:,} references, k = {recipe.n_neighbors}, {options.epochs} epochs, "
        f"seeds: {options.seeds} (mean ± spread); balanced cohort: {len(labelled['balanced']):,} slices, "
        f"paper's mix: {len(labelled['test']):,}\n"
    )
    plain = {
        name: measure(answers, labelled) for name, answers in plain_answers(labelled, said, recipe).items()
    }
    trained = {
        variant.name: [kept.rows[variant.name][str(seed)] for seed in range(options.seeds)]
        for variant in variants
    }
    print(table(trained, plain))
    return 0


def table(trained: dict[str, Sequence[dict[str, float]]], plain: dict[str, dict[str, float]]) -> str:
    """In Markdown: means over the seeds, and of the first column its spread and how far it is from the first
    row's; then the rows that need no training."""
    first, *others = COLUMNS
    lines = [["", first, "to the default", *others, "CPU s"], ["---"] * (len(COLUMNS) + 3)]
    default = np.array([run[first] for run in trained["default"]]) if "default" in trained else None

    def cells(runs: Sequence[dict[str, float]]) -> list[str]:
        head = np.array([run[first] for run in runs])
        spread = f" ± {head.std():.3f}" if len(runs) > 1 else ""
        away = "" if default is None else f"{head.mean() - default.mean():+.3f}"
        rest = [f"{np.mean([run[column] for run in runs]):.3f}" for column in others]
        return [f"{head.mean():.3f}{spread}", away, *rest]

    for name, runs in trained.items():
        lines.append([name, *cells(runs), f"{np.mean([run['seconds'] for run in runs]):.0f}"])
    for name, numbers in plain.items():
        lines.append([name, *cells([numbers]), ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--work", type=Path, required=True, help="the work folder of 'situs reproduce'")
    parser.add_argument("--recipe", choices=list(RECIPES), default="compact", help="(default: compact)")
    parser.add_argument("--seed", type=int, default=0, help="which BaseNet of the run (default: 0)")
    parser.add_argument("--epochs", type=int, default=5, help="of every training (default: 5)")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of every variant (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="variants with one of these in their names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="(default: WORK.ablation.json)")
    options = parser.parse_args(args)
    if options.epochs < 1 or options.seeds < 1:
        parser.error("--epochs and --seeds: expected at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
