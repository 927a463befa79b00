"""What training the Relation Network costs, beside a plain loop, and how the search for neighbours grows.

Promises: 15 epochs of RN+NN over 12,340 embeddings (15 classes, k = 5, 256 numbers each, neighbour search
included) in under 3 minutes on two cores, in under 3 GB; a step at least 50 times faster than the plain loop
over targets, classes and pairs; search time in proportion to the number of targets. Beside them the loop over
targets and classes alone, with all pairs of a class as one matrix, and a step in single precision, as the
loops are. The paper's training took 67 hours. Run:

    python benchmarks/relation.py [--threads 2] [--epochs 15] [--runs 3]

Embeddings are random, of unit length: the time does not depend on what they say. The plain loops are what the
formulas say; `tests/learn/test_relations.py` compares their losses and gradients with a step's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement
from statistics import median
from typing import Any

import frame
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.learn.devices import Machine, open_machine
from situs.learn.losses import relation_loss
from situs.learn.nets import RelationNetwork
from situs.learn.relations import RelationModel, train_relations
from situs.neighbors import References, nearest
from situs.tables import text_table

N, WIDTH, K, BATCH = 12_340, 256, 5, 64
EPOCHS, MOST_S, MOST_MB, LEAST_RATIO = 15, 180.0, 3000.0, 50.0
PLAIN = "plain loop over targets, classes and pairs"
LOOP_TARGETS = 4  # the plain loop is timed on so few
SIZES = (3_000, 12_000, 50_000)
N_HEADS = 12


def plain_logits(
    network: RelationNetwork, targets: Tensor, pool: Tensor, near: np.ndarray, at_once: bool = False
) -> Tensor:
    """Relation logits (n, m) of targets (n, width) with the references (n, m, k) of every class, numbers of
    rows of `pool`; a target, a class and, unless all are read `at_once`, a pair at a time, with the layers of
    `network`, no dropout."""
    w, b = network.g_first.weight, network.g_first.bias
    h = network.hidden

    def read_pair(i: np.ndarray | int, j: np.ndarray | int) -> Tensor:
        """g without its last layer, of a pair or of many."""
        first, second = F.linear(pool[i], w[:h], b[:h]), F.linear(pool[j], w[h:], b[h:])
        return F.relu(network.g_middle(F.relu(first + second)))

    targets, pool = targets * network.scale, pool * network.scale
    rows = []
    for target, classes in zip(targets, near, strict=True):
        logits = []
        for members in classes:
            pairs = list(combinations_with_replacement(members.tolist(), 2))
            read = read_pair(*np.array(pairs).T) if at_once else [read_pair(i, j) for i, j in pairs]
            joint = pool[members].mean(dim=0) + network.g_last(sum(read) / len(pairs))
            apart = network.f_difference((target - joint) ** 2)
            score = network.f_last(F.relu(network.f_target(target) + network.f_joint(joint) + apart))
            far = torch.stack([((target - pool[i]) ** 2).mean().sqrt() for i in members.tolist()]).mean()
            logits.append(score - network.distance_weight * far)
        rows.append(torch.cat(logits))
    return torch.stack(rows)


def random_references(n: int, rng: np.random.Generator) -> References:
    """Embeddings of unit length, none negative, as BaseNet's are; their classes and heads are random."""
    embeddings = np.maximum(rng.normal(size=(n, WIDTH)), 0).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array([f"head {i % N_HEADS}" for i in range(n)])
    return References(embeddings, rng.integers(0, len(SITES), n), names, names)


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    machine = open_machine("cpu")
    references = random_references(N, np.random.default_rng(0))
    arithmetic = "bfloat16" if machine.half else "float32"
    what = f"{N} embeddings of {WIDTH}, {len(SITES)} classes, k = {K}"
    print(f"{what}; {options.threads} threads, {arithmetic}\n")

    line = frame.ProgressLine()

    def report(epoch: int, _: RelationModel) -> None:
        line("epochs", epoch, options.epochs)

    with frame.Timer() as timer:
        train_relations(references, "nearest", K, options.epochs, 0, report, machine)
    training_s, training_mb = timer.wall_s * EPOCHS / options.epochs, frame.peak_mb()
    print(f"{EPOCHS} epochs, neighbour search included: {training_s:.0f} s, peak {training_mb:.0f} MB")
    print(f"the paper's 67 hours are {67 * 3600 / training_s:,.0f} times as much\n")

    steps = step_seconds(references, options.runs, machine)
    least = min(steps.values())
    table = [["one step, a target", "ms", "ratio"]]
    table += [[name, f"{1e3 * s:.2f}", f"{s / least:.1f}"] for name, s in steps.items()]
    print(text_table(table), end="\n\n")

    table = [["targets", "references", "search s", "ms a target"]]
    for n in SIZES:
        targets = random_references(n, np.random.default_rng(1))
        with frame.Timer() as timer:
            nearest(targets.embeddings, references, K, targets.patients)
        table.append([f"{n}", f"{N}", f"{timer.wall_s:.2f}", f"{1e3 * timer.wall_s / n:.3f}"])
    print(f"{text_table(table)}\npeak of all: {frame.peak_mb():.0f} MB\n")
    frame.print_promises(
        [
            frame.Promise(f"{EPOCHS} epochs", training_s, MOST_S, "s"),
            frame.Promise("peak memory of the training", training_mb, MOST_MB, "MB"),
            frame.Promise(
                "plain loop's time over a step's", steps[PLAIN] / least, LEAST_RATIO, at_least=True
            ),
        ]
    )
    return 0


def step_seconds(references: References, runs: int, machine: Machine) -> dict[str, float]:
    """Median seconds a target of a training step, and of the plain loops', taking turns, by name."""
    near = nearest(references.embeddings[:BATCH], references, K, references.patients[:BATCH])
    network = RelationNetwork(WIDTH).train()
    pool = torch.from_numpy(references.embeddings)
    sites = torch.from_numpy(references.sites)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def fast(machine: Machine) -> Tensor:
        with machine.autocast():
            logits = network.logits(pool[:BATCH], pool[near.indices], torch.from_numpy(near.present))
        return relation_loss(logits.float(), sites[:BATCH])

    def slow(at_once: bool) -> Tensor:
        logits = plain_logits(network, pool[:LOOP_TARGETS], pool, near.indices[:LOOP_TARGETS], at_once)
        return relation_loss(logits, sites[:LOOP_TARGETS])

    def seconds(loss_of, n: int) -> float:
        with frame.Timer() as timer:
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        return timer.wall_s / n

    steps = {
        PLAIN: (partial(slow, False), LOOP_TARGETS),
        "plain loop over targets and classes": (partial(slow, True), LOOP_TARGETS),
        "situs, float32": (partial(fast, replace(machine, half=False)), BATCH),
    }
    if machine.half:
        steps["situs, bfloat16"] = (partial(fast, machine), BATCH)
    for loss_of, n in steps.values():
        seconds(loss_of, n)  # the first is slower
    times = [[seconds(*step) for step in steps.values()] for _ in range(runs)]
    return {name: median(column) for name, column in zip(steps, zip(*times, strict=True), strict=True)}


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("--threads", type=frame.positive, default=2, help="of torch (default: 2)")
    parser.add_argument("--epochs", type=frame.positive, default=EPOCHS, help="of the training (default: 15)")
    parser.add_argument("--runs", type=frame.positive, default=3, help="of one step (default: 3)")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
