"""When does the Relation Network help? The methods of `situs reproduce` along three axes, one at a time.

1. Slices per site: all of the paper's training slices, 20 %, 5 % and 1 % of every site, re-balanced.
2. Skew of the training mix: 600 slices, every site as frequent, as in the paper, and ten times steeper (the
   most frequent site against the rarest), not re-balanced.
3. Strength of the embedding: results of whole runs of `situs reproduce`, named by ``--strength``.

Axes 1 and 2 train BaseNet's fully connected layers, the Relation Networks and the plain classifiers on the
kept features of a run of ``situs reproduce HEADS --recipe paper --frozen --weights FILE --work WORK``. Its
results (``--results``) are the point "all" of axis 1. Small sets are seen more often: BaseNet sees 30 passes
and at least 40,000 examples, a Relation Network 15 passes and at least 20,000. Every seed draws its slices.

    python benchmarks/regime.py HEADS --work WORK --weights FILE --results DIR --out DIR
        [--strength NAME=DIR ...] [--seeds 3]
    python benchmarks/regime.py --results DIR --out DIR [--strength NAME=DIR ...]

Writes ``regime.csv`` and ``regime.svg`` to the folder ``--out`` and prints the table; for axes 1 and 2 also
``regime_claims.csv``, every method against BaseNet, paired by head and seed. Every finished training is kept
in the folder WORK.regime: the same command resumes a stopped run. Without HEADS nothing is trained: what was
trained for axes 1 and 2 is read from ``regime.csv``.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import frame
import numpy as np
import torch
from numpy.typing import NDArray
from regime_figure import draw_regime
from sklearn.linear_model import LogisticRegression
from variants import patched, unbalanced_indices

from situs.anatomy import SITES
from situs.cohort.sampling import choose_evenly
from situs.cohort.scores import Counts, bootstrap, count_confusions, macro_f1, weighted_f1
from situs.errors import InputError
from situs.files import claim_folder, write_file
from situs.learn import features as kept_features
from situs.learn import relations
from situs.learn.basenet import new_basenet
from situs.learn.devices import Machine, open_machine
from situs.learn.features import Features, embed_features, keep_features, train_on_features
from situs.learn.given import read_given
from situs.learn.loop import LoopSettings
from situs.learn.nets import BaseNet
from situs.learn.recipe import PAPER, Recipe, relation_settings
from situs.learn.relations import train_relations
from situs.neighbors import References
from situs.paper import baselines
from situs.paper.baselines import BASELINES, fit_baselines
from situs.paper.claims import compare
from situs.paper.cohorts import PAPER_SIZE, TESTS, SliceSubset, open_subsets, split_heads
from situs.paper.results import METHODS, predict_sites
from situs.paper.stages import RELATIONS, Arrays, make_stage, read_stage
from situs.progress import Progress
from situs.synth.heads import find_heads
from situs.tables import csv_text, text_table

ALL_METHODS = (*METHODS, *BASELINES)
FROZEN = replace(PAPER, frozen=True)
MIX = 600  # slices of a training mix: of the rarest site there are 41
LEAST_BASENET, LEAST_RELATION = 40_000, 20_000  # examples that are seen of small sets
TABLE, CLAIMS = "regime.csv", "regime_claims.csv"
SLICES, SKEW, STRENGTH = "slices per site", "skew of 600 slices", "embedding"
# What is drawn of each test: the mean that the paper has, and the one in which every site counts alike.
MEASURES = {"balanced": ("macro", macro_f1), "test": ("weighted", weighted_f1)}


@dataclass(frozen=True)
class Setting:
    """One training set.

    Attributes:
        axis: `SLICES` or `SKEW`.
        value: Its place on the axis.
        counts: The slices of every site.
        balanced: Whether trainings see every site as often.
    """

    axis: str
    value: str
    counts: tuple[int, ...]
    balanced: bool = True


@dataclass(frozen=True, eq=False)
class Pool:
    """The slices of a subset with their features.

    Attributes:
        features: Of all; of over-sampled sites mirrored too.
        site: (n,)
        patient: (n,)
        id: (n,)
    """

    features: Features
    site: NDArray[np.int64]
    patient: NDArray[np.str_]
    id: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> Pool:
        """Some of the slices, in memory."""
        n = len(rows)
        values = [self.features.take(rows, np.full(n, mirror)) for mirror in (0, 1)]
        features = Features(np.concatenate(values), n + np.arange(n))
        return Pool(features, self.site[rows], self.patient[rows], self.id[rows])

    def references(self, embeddings: NDArray[np.float16]) -> References:
        return References(embeddings, self.site, self.id, self.patient)


def make_settings(counts: NDArray[np.integer]) -> list[Setting]:
    """The training sets of axes 1 and 2 for the slices of every site that there are, but for "all"."""
    parts = {"20 %": 0.2, "5 %": 0.05, "1 %": 0.01}
    settings = [
        Setting(SLICES, name, tuple(np.maximum(1, np.round(part * counts)).astype(int).tolist()))
        for name, part in parts.items()
    ]
    steepness = np.log(counts.max() / counts.min())
    for name, power in (
        ("balanced", 0.0),
        ("the paper's", 1.0),
        ("ten times steeper", 1 + np.log(10) / steepness),
    ):
        settings.append(Setting(SKEW, name, mix(counts, power, MIX), balanced=False))
    return settings


def mix(counts: NDArray[np.integer], power: float, total: int) -> tuple[int, ...]:
    """About `total` slices in proportion to ``counts ** power``: of every site at least one, at most all."""
    shares = counts.astype(np.float64) ** power
    return tuple(np.clip(np.round(total * shares / shares.sum()), 1, counts).astype(int).tolist())


def train_and_test(
    setting: Setting,
    pools: dict[str, Pool],
    start: Callable[[int], BaseNet],
    recipe: Recipe,
    seed: int,
    work: Path,
    machine: Machine,
    progress: Progress,
) -> Arrays:
    """The logits ``METHOD/COHORT_logits`` (n, 15) of every method trained on one set.

    Args:
        setting: The set.
        pools: ``train`` and the tests.
        start: Makes the BaseNet of a seed, with its frozen paths.
        recipe: The recipe.
        seed: Of the slices that are drawn and of all trainings.
        work: Where BaseNet's checkpoint lies until it is trained.
        machine: What computes.
        progress: Is told of BaseNet's training.
    """
    train = pools["train"]
    rng = np.random.default_rng(seed)
    drawn = train.take(choose_evenly(train.site, train.patient, np.array(setting.counts), rng))
    mirror = rng.integers(0, 2, len(drawn.site))
    with ExitStack() as stack:
        if not setting.balanced:
            for module in (kept_features, relations, baselines):
                stack.enter_context(patched({"balanced_indices": unbalanced_indices}, module))
            stack.enter_context(patched({"LogisticRegression": unweighted_regression}, baselines))
        basenet = start(seed)
        basenet_logits, embedded = {}, {}
        checkpoint = work / f"{slug(setting)}_seed{seed}.pt"
        train_on_features(
            basenet,
            drawn.features,
            drawn.site,
            fc_settings(recipe, len(drawn.site), seed, checkpoint, machine),
            recipe.label_smoothing,
            progress,
        )
        for name in TESTS:
            plain = np.zeros(len(pools[name].site), dtype=np.int64)
            embeddings, basenet_logits[name] = embed_features(
                basenet, pools[name].features, plain, lambda _: None
            )
            embedded[name] = embeddings.astype(np.float32)
        as_they_are, _ = embed_features(basenet, drawn.features, 0 * mirror, lambda _: None)
        changed, _ = embed_features(basenet, drawn.features, mirror, lambda _: None)
        references, targets = drawn.references(as_they_are), drawn.references(changed)
        answers = {METHODS[0]: basenet_logits}
        epochs = passes(recipe.relation_samples // recipe.n_targets, LEAST_RELATION, len(drawn.site))
        for kind, method in RELATIONS.items():
            model = train_relations(
                references,
                kind,
                recipe.n_neighbors,
                epochs,
                seed,
                machine=machine,
                targets=targets,
                **relation_settings(recipe),
            )
            answers[method] = {n: model.logits(X, model.find_neighbors(X)) for n, X in embedded.items()}
        fitted = fit_baselines(references, targets, seed, recipe.n_neighbors)
        for method, baseline in fitted.items():
            answers[method] = {name: baseline.logits(X) for name, X in embedded.items()}
    checkpoint.unlink(missing_ok=True)
    return {f"{method}/{name}_logits": of[name] for method, of in answers.items() for name in TESTS}


def fc_settings(recipe: Recipe, n: int, seed: int, checkpoint: Path, machine: Machine) -> LoopSettings:
    """How BaseNet's fully connected layers learn from n slices."""
    epochs = passes(recipe.basenet_samples // recipe.n_targets, LEAST_BASENET, n)
    return LoopSettings(
        "fc",
        max(1, epochs * n // recipe.batch),
        recipe.batch,
        recipe.learning_rate,
        recipe.weight_decay,
        recipe.momentum,
        [seed],
        checkpoint,
        checkpoint.stem,
        machine,
    )


def passes(least: int, examples: int, n: int) -> int:
    """Passes over n slices: `least`, and so many that `examples` are seen."""
    return max(least, -(-examples // n))


def unweighted_regression(class_weight: str, **settings: Any) -> LogisticRegression:
    """Logistic regression in which every example weighs alike."""
    return LogisticRegression(**settings)


def slug(setting: Setting) -> str:
    return "".join(c if c.isalnum() else "_" for c in f"{setting.axis} {setting.value}")


def count_all(logits: dict[str, list[NDArray[Any]]], pools: dict[str, Pool]) -> dict[str, Counts]:
    """The confusion matrices of every ``METHOD/COHORT``, from the logits of every seed."""
    counts = {}
    for key, of_seeds in logits.items():
        pool = pools[key.rsplit("/", 1)[1]]
        counts[key] = count_confusions(pool.site, [predict_sites(of) for of in of_seeds], pool.patient)
    return counts


def score_rows(setting: Setting, counts: dict[str, Counts]) -> list[list[Any]]:
    """Rows of ``regime.csv``, from the counts of every ``METHOD/COHORT``."""
    rows = []
    for key, of in counts.items():
        method, name = key.rsplit("/", 1)
        measure_name, measure = MEASURES[name]
        low, high = bootstrap(of, measure)
        mean = float(measure(of.sum(axis=1)).mean())
        rows.append([setting.axis, setting.value, name, measure_name, method, mean, float(low), float(high)])
    return rows


def gap_rows(setting: Setting, counts: dict[str, Counts]) -> list[list[Any]]:
    """Rows of ``regime_claims.csv``: every method against BaseNet, paired by head and seed."""
    rows = []
    for name, (measure_name, measure) in MEASURES.items():
        for method in ALL_METHODS[1:]:
            gap = compare(counts[f"{method}/{name}"], counts[f"{ALL_METHODS[0]}/{name}"], measure)
            numbers = [f"{x:.4f}" for x in (gap.difference, gap.low, gap.high, gap.p)]
            ahead = f"{gap.better} of {gap.pairs}"
            rows.append([setting.axis, setting.value, name, measure_name, method, *numbers, ahead])
    return rows


def result_rows(axis: str, value: str, folder: Path) -> list[list[Any]]:
    """Rows of ``regime.csv`` from the results of a whole run of `situs reproduce`.

    Raises:
        InputError: If the folder holds no such results.
    """
    path = folder / "methods.csv"
    frame.need_file("results", path, "the results of 'situs reproduce'")
    with path.open(encoding="utf-8", newline="") as file:
        found = {(row["cohort"], row["f1"], row["method"]): row for row in csv.DictReader(file)}
    rows = []
    for name, (measure_name, _) in MEASURES.items():
        for method in ALL_METHODS:
            row = found.get((name, measure_name, method))
            if row is None:
                raise InputError(f"{path}: has no {measure_name} F1 of {method!r} on {name!r}")
            numbers = [float(row[column]) for column in ("mean", "low", "high")]
            rows.append([axis, value, name, measure_name, method, *numbers])
    return rows


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    whole = result_rows(SLICES, "all", options.results)
    strengths = [text.partition("=")[::2] for text in options.strength]
    others = [row for name, folder in strengths for row in result_rows(STRENGTH, name, Path(folder))]
    trained = read_trained(options.out) if options.heads is None else train_all(options)
    write_tables(options.out, [*whole, *trained, *others])
    return 0


def train_all(options: argparse.Namespace) -> list[list[Any]]:
    """Train and test on every set of axes 1 and 2; write the claims and give the rows of ``regime.csv``."""
    torch.set_num_threads(options.threads)
    recipe, progress, machine = FROZEN, frame.ProgressLine(), open_machine("cpu")
    given = read_given(recipe, (), options.weights)
    heads = split_heads(find_heads(options.heads), PAPER_SIZE.test_fraction)
    subsets = open_subsets(options.work, heads, recipe, PAPER_SIZE, 1, progress)

    def start(seed: int) -> BaseNet:
        basenet = new_basenet(recipe, seed)
        for weights in given.values():
            weights.load_into(basenet)
        for path in (basenet.global_path, basenet.local_path):
            path.requires_grad_(False)
        return basenet.to(memory_format=torch.channels_last)

    def open_pool(subset: SliceSubset) -> Pool:
        folder = options.work / recipe.name / "features"
        training = subset is subsets["train"]
        features = keep_features(start(0), subset.slices, subset.chosen, folder, machine, progress, training)
        return Pool(features, subset.site, subset.patient, subset.id)

    pools = {name: open_pool(subset) for name, subset in subsets.items()}
    settings = make_settings(np.bincount(pools["train"].site, minlength=len(SITES)))
    work = options.work.with_name(f"{options.work.resolve().name}.regime")
    claim_folder(work, "settings.json", {"recipe": recipe.to_dict(), "weights": given["weights"].sha256})
    rows, gaps = [], []
    names = [f"{method}/{name}_logits" for method in ALL_METHODS for name in TESTS]
    for setting in settings:
        stages = []
        for seed in range(options.seeds):
            path = work / f"{slug(setting)}_seed{seed}.npz"
            make = partial(train_and_test, setting, pools, start, recipe, seed, work, machine, progress)
            make_stage(path, make)
            stages.append(read_stage(path, *names))
        logits = {name.removesuffix("_logits"): [stage[name] for stage in stages] for name in names}
        counts = count_all(logits, pools)
        rows += score_rows(setting, counts)
        gaps += gap_rows(setting, counts)
    numbers = ["difference", "low", "high", "p", "pairs ahead"]
    head = ["axis", "value", "cohort", "mean of F1", "method against BaseNet", *numbers]
    write_file(options.out / CLAIMS, csv_text(head, gaps).encode())
    return rows


def read_trained(out: Path) -> list[list[Any]]:
    """The rows of ``regime.csv`` that `train_all` gave."""
    path = out / TABLE
    frame.need_file("out", path, "the table of an earlier run with HEADS")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    trained = [row for row in rows if row[0] != STRENGTH and row[:2] != [SLICES, "all"]]
    return [[*row[:5], *map(float, row[5:])] for row in trained]


def write_tables(out: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write ``regime.csv`` and ``regime.svg``; print the table."""
    head = ["axis", "value", "cohort", "mean of F1", "method", "f1", "low", "high"]
    flat = [[*row[:5], *(f"{x:.4f}" for x in row[5:])] for row in rows]
    write_file(out / TABLE, csv_text(head, flat).encode())
    write_file(out / "regime.svg", draw_regime(rows, ALL_METHODS).encode())
    table = [["axis", "value", "test", *ALL_METHODS]]
    for axis, value, name in dict.fromkeys(tuple(row[:3]) for row in rows):
        found = {row[4]: row[5] for row in rows if tuple(row[:3]) == (axis, value, name)}
        table.append([axis, value, name, *(f"{found[method]:.3f}" for method in ALL_METHODS)])
    print(text_table(table))


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = frame.Parser(__doc__)
    parser.add_argument("heads", type=Path, nargs="?", help="the label maps of the run")
    parser.add_argument("--work", type=Path, help="the run's work folder")
    parser.add_argument("--weights", type=Path, help="the run's weights of VGG16")
    parser.add_argument("--results", type=Path, required=True, help="the run's results")
    parser.add_argument("--out", type=Path, required=True, help="the folder for regime.csv and regime.svg")
    parser.add_argument(
        "--strength", action="append", default=[], metavar="NAME=DIR", help="results of a run, for axis 3"
    )
    parser.add_argument("--seeds", type=frame.positive, default=3, help="trainings of a set (default: 3)")
    parser.add_argument("--threads", type=frame.positive, default=1, help="threads of torch (default: 1)")
    options = parser.parse_args(args)
    if options.heads is not None and (options.work is None or options.weights is None):
        parser.error("HEADS needs --work and --weights")
    return options


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    frame.run(main)
