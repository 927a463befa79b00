"""What training costs by stage, how much of it is the data path, and the least that it could cost.

The data path is reading examples from mapped files and changing them at random. It runs in a thread beside
the steps of the networks, so it holds them up only where it takes nearly all of a core. All is counted in CPU
time, and projected to the examples that the recipe sees, so a run takes some minutes and may share the
machine. Memory is the peak over all stages and one pass through all examples. The floor is what BaseNet's
multiplications alone take at the speed of the product of two large matrices. Run:

    python benchmarks/train.py COHORT [--steps 20] [--threads 1]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import frame
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from situs.cohort.slices import Slices, open_slices
from situs.learn.augment import augment
from situs.learn.basenet import embed, new_basenet, train_basenet
from situs.learn.devices import open_machine
from situs.learn.recipe import COMPACT, relation_settings
from situs.learn.relations import train_relations
from situs.neighbors import References
from situs.tables import text_table

_WARM_UP_STEPS = 3
_MATRIX, _PRODUCTS = 1024, 20
_TARGETS = 150  # of each site, for the Relation Network


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    slices = open_slices(options.cohort, COMPACT.spec, COMPACT.max_slices, options.threads, training=True)
    n_sites = len(slices.sites)
    embedded = n_sites * (COMPACT.n_references + COMPACT.n_targets)
    stages = [
        ("paint", COMPACT.paint_samples, training_rate(slices, "paint", options.steps)),
        ("basenet", COMPACT.basenet_samples, training_rate(slices, "basenet", options.steps)),
        ("embed", embedded, embedding_rate(slices)),
        ("relation", COMPACT.relation_samples, relation_rate(n_sites)),
    ]
    data, peak_gb = data_rate(slices), frame.peak_mb() / 1000
    flops, speed = flops_an_example(slices), product_speed()
    floor = flops * (COMPACT.paint_samples + COMPACT.basenet_samples) / speed / 60

    half = "bfloat16" if open_machine("cpu").half else "single precision"
    print(f"{len(slices):,} examples, torch threads: {options.threads}, {half}\n")
    minutes = [examples / rate / 60 for _, examples, rate in stages]  # of CPU time
    table = [["stage", "examples", "examples a CPU second", "CPU minutes", "data path, %"]]
    for (stage, examples, rate), took in zip(stages, minutes, strict=True):
        share = f"{100 * rate / data:.0f}" if stage in ("paint", "basenet") else ""
        table.append([stage, f"{examples:,}", f"{rate:.0f}", f"{took:.1f}", share])
    print(text_table(table))
    print(f"\nthe data path alone: {data:.0f} examples a CPU second")
    print(
        f"floor of paint and basenet: {floor:.1f} CPU minutes ({flops / 1e9:.2f} GFLOP an example, "
        f"{speed / 1e9:.0f} GFLOP a CPU second in the product of two matrices)\n"
    )
    frame.print_promises(
        [
            frame.Promise("all stages on two cores of their own", sum(minutes) / 2, 20, "min"),
            frame.Promise("peak memory", peak_gb, 4, "GB"),
        ]
    )
    return 0


def training_rate(slices: Slices, stage: str, steps: int) -> float:
    """Examples a CPU second of a stage of BaseNet, without its first steps."""
    n = (steps + _WARM_UP_STEPS) * COMPACT.batch
    none = {"paint_samples": 0, "basenet_samples": 0}
    recipe = replace(COMPACT, **{**none, f"{stage}_samples": n})
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        train_basenet(
            slices,
            np.arange(len(slices)),
            recipe,
            0,
            Path(work),
            lambda *_: ends.append(time.process_time()),
            open_machine("cpu"),
        )
    return steps * COMPACT.batch / (ends[-1] - ends[_WARM_UP_STEPS - 1])


def data_rate(slices: Slices) -> float:
    """Examples a CPU second that the data path gives, all once: so memory is that of a whole training."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(slices))
    with frame.Timer() as timer:
        for start in range(0, len(order), COMPACT.batch):
            part = order[start : start + COMPACT.batch]
            augment(slices.batch(np.sort(part)), COMPACT.spec, rng)
    return len(order) / timer.cpu_s


def flops_an_example(slices: Slices) -> float:
    """Floating-point operations of an example forward and backward through BaseNet, as torch counts them."""
    batch = slices.batch(np.arange(2))
    basenet = new_basenet(COMPACT, 0, len(slices.sites))
    with FlopCounterMode(display=False) as counter:
        output = basenet(torch.from_numpy(batch.global_view), torch.from_numpy(batch.local_view))
        answers = (output.site_logits, output.share_logits, output.global_painting, output.local_painting)
        torch.stack([answer.sum() for answer in answers if answer is not None]).sum().backward()
    return counter.get_total_flops() / len(batch.site)


def product_speed() -> float:
    """Floating-point operations a CPU second of the product of two matrices, as training computes."""
    half = open_machine("cpu").half
    a = torch.ones((_MATRIX, _MATRIX), dtype=torch.bfloat16 if half else torch.float32)
    a @ a
    with frame.Timer() as timer:
        for _ in range(_PRODUCTS):
            a @ a
    return 2.0 * _MATRIX**3 * _PRODUCTS / timer.cpu_s


def embedding_rate(slices: Slices) -> float:
    """Examples a CPU second that BaseNet embeds."""
    basenet = new_basenet(COMPACT, 0, len(slices.sites)).to(memory_format=torch.channels_last)
    some = np.linspace(0, len(slices) - 1, 256).astype(int)
    with frame.Timer() as timer:
        embed(basenet, slices, some)
    return len(some) / timer.cpu_s


def relation_rate(n_sites: int) -> float:
    """Targets a CPU second of the Relation Network, the search for neighbours included."""
    rng = np.random.default_rng(2)
    references, targets = (
        References(
            rng.standard_normal((n * n_sites, 256)).astype(np.float16),
            np.arange(n * n_sites) % n_sites,
            np.arange(n * n_sites).astype(str),
            (np.arange(n * n_sites) // n_sites % 16).astype(str),
            n_sites,
        )
        for n in (COMPACT.n_references, _TARGETS)
    )
    with frame.Timer() as timer:
        train_relations(
            references,
            "nearest",
            COMPACT.n_neighbors,
            1,
            targets=targets,
            **relation_settings(COMPACT),
        )
    return len(targets.sites) / timer.cpu_s


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="folder of a cohort, see situs synth")
    parser.add_argument("--steps", type=frame.positive, default=20, help="of each stage (default: 20)")
    parser.add_argument("--threads", type=frame.positive, default=1, help="of torch (default: 1)")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
