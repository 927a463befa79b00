"""What a dense baseline says: U-Nets that paint the sites, read under the region, beside a bundle.

The question, not a promise: does it take embeddings and references to name a site, or would a plain U-Net do,
trained on the same slices? Run:

    python benchmarks/dense.py cohorts/train --test cohorts/test --bundle runs/heads12 \\
        --test-patient head_15 --test-patient head_16 --test-patient head_18 --test-patient head_19 \\
        [--data ../shared/data/ct] [--json FILE]

One plain U-Net learns the global view and one the local view, each from the channels that BaseNet sees, the
region filled gray and marked. Both paint 16 classes (none and the 15 sites) at the size of the targets.
How examples are balanced and changed, how classes and pixels under the region are weighted, the optimizer and
its cycle are as in the recipe `compact`. A slice is answered by the site with the largest summed probability
under the region, the mean of both views; the slices of a region are joined by area.

Training leaves a checkpoint in --work and goes on from there; a finished one is only evaluated. On the real
cases the labeler itself makes the views, chooses the slices and joins them: only the networks are exchanged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import answer_cases, read_cases, summarize
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.anatomy import SITE_KEYS, SITES
from situs.bundle import Bundle, read_bundle
from situs.cohort.answers import average_slices, region_areas
from situs.cohort.evaluate import evaluate
from situs.cohort.examples import SITE_UNKNOWN
from situs.cohort.manifest import read_manifest
from situs.cohort.sampling import balanced_indices, split_patients
from situs.cohort.scores import ScoreTable, score_table
from situs.cohort.slices import Batch, Slices, open_slices
from situs.errors import ManifestError, SitusError
from situs.files import write_file
from situs.labeler import Labeler
from situs.learn.augment import augment
from situs.learn.devices import CPU, Machine, open_machine
from situs.learn.loop import Plan, fit
from situs.learn.losses import site_map_weights
from situs.learn.recipe import COMPACT
from situs.runtime import Embedded, Runtime

SAMPLES = 100_000
WIDTH = 24  # so a step takes as long as one of BaseNet's
# As in `situs.learn.losses`: what is asked about counts more.
REGION_WEIGHT = 10.0
VIEWS = ("global", "local")
READINGS = {"U-Nets, both views": VIEWS, "U-Net, global view": ("global",), "U-Net, local view": ("local",)}
DENSE, RELATION, BASENET = "U-Nets, both views", "Relation Network", "BaseNet"

Numbers = NDArray[np.float32]
Views = NDArray[np.uint8]
Progress = Callable[[str, int, int, str], None]


class UNet(nn.Module):
    """A plain U-Net (Ronneberger et al. 2015): four levels of two convolutions, skips concatenated.

    Its first convolution takes every second pixel: it paints at half the size of its view, as the targets.

    Args:
        width: channels at the finest level, doubled at every coarser one
    """

    def __init__(self, n_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList([_block(n_channels, width, stride=2)])
        self.down += [_block(a, b) for a, b in pairwise(widths)]
        finer = list(zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.narrow = nn.ModuleList([nn.Conv2d(coarse, fine, 1) for fine, coarse in finer])
        self.up = nn.ModuleList([_block(2 * fine, fine) for fine, _ in finer])
        self.paint = nn.Conv2d(width, len(SITES) + 1, 1)

    def forward(self, view: Tensor) -> Tensor:
        """Logits (n, 16, s / 2, s / 2) of a view (n, channels, s, s) in bytes; s a multiple of 16."""
        x = view.float() / 127.5 - 1
        levels: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        for narrow, up, level in zip(self.narrow, self.up, levels[-2::-1], strict=True):
            x = up(torch.cat([F.interpolate(narrow(x), scale_factor=2.0, mode="nearest"), level], dim=1))
        return self.paint(x).float()


def _block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, step in ((n_in, stride), (n_out, 1)):
        layers += [nn.Conv2d(n, n_out, 3, step, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers)


def new_networks(n_channels: int, width: int, seed: int, machine: Machine) -> nn.ModuleDict:
    """An untrained U-Net for every view."""
    torch.manual_seed(seed)
    networks = nn.ModuleDict({view: UNet(n_channels, width) for view in VIEWS})
    return networks.to(machine.device, memory_format=torch.channels_last)


def painting_loss(logits: Tensor, sites: Tensor, region: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy of logits (n, 16, h, w) and site maps (n, h, w), `SITE_UNKNOWN` ignored, weighted by
    class (16,) and by how much of a pixel is region (n, h, w): as in `situs.learn`, without midline."""
    pixel_weights = 1 + (REGION_WEIGHT - 1) * region
    loss = F.cross_entropy(logits, sites, class_weights, ignore_index=SITE_UNKNOWN, reduction="none")
    known = (sites != SITE_UNKNOWN) * class_weights[sites.clamp(max=len(SITES))]
    return (loss * pixel_weights).sum() / (known * pixel_weights).sum().clamp(min=1e-6)


def train(
    networks: nn.ModuleDict,
    slices: Slices,
    chosen: NDArray[np.int64],
    samples: int,
    seed: int,
    work: Path,
    say: Progress,
    machine: Machine = CPU,
) -> dict[str, float]:
    """Train the U-Nets on the examples `chosen` (n,), or go on; the last figures of the log."""
    if slices.global_sites is None:
        raise ManifestError("the cohort has no site maps: a dense baseline learns nothing else")
    order = chosen[balanced_indices(slices.site[chosen], samples, np.random.default_rng([seed, 0]))]
    weights = site_map_weights(slices, chosen, seed).to(machine.device)

    def make(step: int) -> Batch:
        part = order[step * COMPACT.batch : (step + 1) * COMPACT.batch]
        return augment(slices.batch(np.sort(part)), slices.spec, np.random.default_rng([seed, 0, step]))

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        losses, scores = [], []
        for name in VIEWS:
            view, sites = machine.put(getattr(batch, f"{name}_view")), getattr(batch, f"{name}_sites")
            with machine.autocast():
                logits = networks[name](view)
            region = _region(view)
            losses.append(painting_loss(logits, machine.put(sites).long(), region, weights))
            scores.append(_read(logits.detach(), region))
        right = (sum(scores).argmax(dim=1) == machine.put(batch.site)).float().mean()
        return sum(losses) / len(losses), {"accuracy": float(right)}

    work.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        "dense",
        samples // COMPACT.batch,
        COMPACT.batch,
        COMPACT.learning_rate,
        COMPACT.weight_decay,
        None,
        [seed, 0],
        work / "dense.safetensors",
        _run_key(networks, slices, chosen, samples, seed),
        machine,
        COMPACT.averaged,
    )
    return fit(networks, make, loss_of, plan, say)


def _run_key(
    networks: nn.ModuleDict, slices: Slices, chosen: NDArray[np.int64], samples: int, seed: int
) -> str:
    """A name that changes with all that decides the weights."""
    shapes = [list(tensor.shape) for tensor in networks.state_dict().values()]
    settings = [slices.spec.to_dict(), shapes, samples, seed, COMPACT.averaged]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update("\n".join(slices.id[chosen].tolist()).encode() + slices.site[chosen].tobytes())
    return digest.hexdigest()[:16]


def _region(view: Tensor) -> Tensor:
    """(n, h, w) how much of each painted pixel is region: the last channel of the view."""
    return F.avg_pool2d(view[:, -1].float() / 255, 2)


def _read(logits: Tensor, region: Tensor) -> Tensor:
    """(n, 15) the probability of every site under the region, summed, as a share of the region."""
    under = (logits.softmax(dim=1)[:, 1:] * region[:, None]).sum(dim=(2, 3))
    return under / region.sum(dim=(1, 2)).clamp(min=1e-6)[:, None]


@torch.inference_mode()
def read_views(
    networks: nn.ModuleDict, views: tuple[Views, Views], which: tuple[str, ...] = VIEWS, batch: int = 32
) -> dict[str, Numbers]:
    """What is read under the region of the views (n, channels, s, s), the global and the local ones: (n, 15)
    by the name of the view, for the views `which`."""
    networks.eval()
    machine = Machine(next(networks.parameters()).device)
    read: dict[str, list[Numbers]] = {name: [] for name in which}
    for start in range(0, len(views[0]), batch):
        for name, whole in zip(VIEWS, views, strict=True):
            if name in which:
                view = machine.put(np.ascontiguousarray(whole[start : start + batch]))
                read[name].append(_read(networks[name](view), _region(view)).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in read.items()}


class InPlaceOfABundle:
    """Scores of sites as functions of the views, where the labeler expects a bundle's networks.

    Args:
        scores_of: gives (n, 15) of the global and the local views
        width: of the bundle's embeddings, which carry the scores to where the labeler asks for them
    """

    def __init__(self, scores_of: Callable[[Views, Views], Numbers], width: int) -> None:
        self._scores_of = scores_of
        self._width = width

    def embed(self, global_views: Views, local_views: Views) -> Embedded:
        """As `Runtime.embed`."""
        scores = self._scores_of(global_views, local_views)
        carrier = np.zeros((len(scores), self._width), np.float32)
        carrier[:, : len(SITES)] = scores
        return Embedded(carrier, scores)

    def relate(self, targets: Numbers, references: Numbers, present: NDArray[np.bool_]) -> Numbers:
        """As `Runtime.relate`: the scores, whatever the references."""
        return targets[:, : len(SITES)]


def score_rendered(
    networks: nn.ModuleDict, cohort: Path, bundle: Bundle, say: Progress
) -> dict[str, tuple[ScoreTable, ScoreTable]]:
    """Tables over the slices and over the regions of a rendered cohort, by who answered."""
    found = evaluate(bundle.path, cohort, progress=lambda what, done, n: say("bundle", done, n, what))
    if found.known_patients:
        print(f"NOT A TEST of the bundle: it has references of {found.known_patients} of these patients")
    tables = {BASENET: (found.basenet, found.basenet_rois), RELATION: (found.relation, found.relation_rois)}

    slices, paths = open_slices(cohort, COMPACT.spec), [str(row.scan) for row in read_manifest(cohort)]
    parts: list[dict[str, Numbers]] = []
    areas = np.zeros(len(slices))
    for start in range(0, len(slices), 256):
        which = np.arange(start, min(start + 256, len(slices)))
        batch = slices.batch(which)
        parts.append(read_views(networks, (batch.global_view, batch.local_view)))
        areas[which] = region_areas(batch.local_view, slices.spec)
        say("dense", int(which[-1]) + 1, len(slices), "slices")
    read = {name: np.concatenate([part[name] for part in parts]) for name in VIEWS}
    scans = np.array([paths[n] for n in slices.row])
    _, first = np.unique(slices.row, return_index=True)
    for title, which_views in READINGS.items():
        scores = sum(read[name] for name in which_views)
        joined = average_slices(scores, areas, slices.row)
        tables[title] = (
            score_table(slices.site, scores.argmax(axis=1), scans),
            score_table(slices.site[first], joined.argmax(axis=1), scans[first]),
        )
    return tables


def score_real(networks: nn.ModuleDict, data: Path, bundle: Bundle, say: Progress) -> dict[str, dict]:
    """What `real.summarize` says of landmarks and haemorrhages, by who answered."""
    runtime, width = Runtime(bundle), bundle.references.embeddings.shape[1]

    def reading(names: tuple[str, ...]) -> InPlaceOfABundle:
        def scores_of(*views: Views) -> Numbers:
            return sum(read_views(networks, views, names).values()) / len(names)

        return InPlaceOfABundle(scores_of, width)

    engines: dict[str, Any] = {
        BASENET: InPlaceOfABundle(lambda *views: runtime.embed(*views).site_probability, width),
        RELATION: runtime,
        **{title: reading(names) for title, names in READINGS.items()},
    }
    cases = {kind: read_cases(data / f"{kind}.csv") for kind in ("landmarks", "haemorrhages")}
    found = {}
    for n, (title, engine) in enumerate(engines.items(), start=1):
        labeler = Labeler(bundle, engine)
        found[title] = {
            kind: summarize(some, answer_cases(labeler, data, some)) for kind, some in cases.items()
        }
        say("real", n, len(engines), title)
    return found


def print_tables(rendered: dict[str, tuple[ScoreTable, ScoreTable]], real: dict[str, dict]) -> None:
    """As Markdown: who is right how often, and by site."""
    head, rows = ["answer"], [[title] for title in (rendered or real)]
    if rendered:
        slices, regions = next(iter(rendered.values()))
        head += [f"macro F1, {slices.support.sum():,} slices", "95 %", f"{regions.support.sum():,} regions"]
        for row in rows:
            a, b = (table.macro for table in rendered[row[0]])
            low, high = a.f1_interval or (np.nan, np.nan)
            row += [_short(a.f1), f"{_short(low)}-{_short(high)}", _short(b.f1)]
    if real:
        head += ["landmarks, mean over the sites", "landmarks", "haemorrhages"]
        for row in rows:
            marks, bleeds = (real[row[0]][kind] for kind in ("landmarks", "haemorrhages"))
            row += [_short(marks["mean_over_sites"]), _of(marks["acceptable"]), _of(bleeds["acceptable"])]
    print(_markdown([head, *rows]), end="\n\n")

    shown = (BASENET, RELATION, DENSE)
    head, rows = ["site"], [[site.name] for site in SITES]
    if rendered:
        head += [f"slice F1, {title}" for title in shown]
        for n, row in enumerate(rows):
            row += [_short(rendered[title][0].f1[n]) for title in shown]
    if real:
        head += [f"landmarks, {title}" for title in shown]
        for key, row in zip(SITE_KEYS, rows, strict=True):
            row += [_of(real[title]["landmarks"]["sites"][key]) for title in shown]
    print(_markdown([head, *rows]))


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    machine = open_machine("auto")
    bundle = read_bundle(options.bundle)
    if bundle.spec != COMPACT.spec:
        raise ManifestError("--bundle: its views are not those of the recipe compact, which the U-Nets see")
    say = _Counter()
    slices = open_slices(
        options.cohort,
        COMPACT.spec,
        COMPACT.max_slices,
        progress=lambda done, n: say("slices", done, n, "scans read"),
        training=True,
    )
    kept, _ = split_patients(slices.patient.tolist(), options.test_patient)
    chosen = np.flatnonzero(np.isin(slices.patient, kept))
    if options.test and (known := {row.patient for row in read_manifest(options.test)} & set(kept)):
        raise ManifestError(f"--test: {min(known)!r} is trained on; leave it out with --test-patient")

    networks = new_networks(len(COMPACT.spec.channels), options.width, options.seed, machine)
    n_parameters = sum(p.numel() for p in networks.parameters())
    print(f"{len(chosen):,} slices of {len(kept)} patients; two U-Nets, {n_parameters / 1e6:.1f} M weights")
    began = time.perf_counter()
    figures = train(networks, slices, chosen, options.samples, options.seed, options.work, say, machine)
    spent = time.perf_counter() - began
    arithmetic = "bfloat16" if machine.half else "float32"
    rate = say.counted("dense") * COMPACT.batch / spent
    last = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(
        f"{options.samples:,} samples, {last}; "
        f"in this run {spent / 60:.1f} min, {rate:.0f} samples/s, {options.threads} thread, {arithmetic}\n"
    )
    rendered = score_rendered(networks, options.test, bundle, say) if options.test else {}
    real = {}
    if (options.data / "landmarks.csv").is_file():
        real = score_real(networks, options.data, bundle, say)
    else:
        print(f"--data: no landmarks.csv in {options.data}: no real cases\n")
    if rendered or real:
        print(f"bundle: {bundle.name} {bundle.version}, {options.bundle or 'shipped'}\n")
        print_tables(rendered, real)
    if options.json:
        result = {
            "samples": options.samples,
            "patients": kept,
            "rendered": {
                title: {"slices": a.to_dict(), "regions": b.to_dict()} for title, (a, b) in rendered.items()
            },
            "real": real,
        }
        write_file(options.json, (json.dumps(result, indent=1) + "\n").encode())
    return 0


class _Counter:
    """Progress on one line of stderr; how often each stage was heard of."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int, message: str) -> None:
        self._calls[stage] = self._calls.get(stage, 0) + 1
        if (now := time.monotonic()) - self._said > 1 or done == total:
            self._said = now
            end = "\n" if done == total else ""
            print(f"\r{stage} {done}/{total} {message}\033[K", end=end, file=sys.stderr, flush=True)

    def counted(self, stage: str) -> int:
        return self._calls.get(stage, 0)


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def _of(counts: dict) -> str:
    return f"{counts['right']} of {counts['n']}"


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "ct"
    parser.add_argument("cohort", type=Path, help="rendered cohort to train on, with site maps")
    parser.add_argument("--test", type=Path, metavar="COHORT", help="rendered cohort of other heads")
    parser.add_argument(
        "--test-patient",
        action="append",
        default=[],
        metavar="NAME",
        help="leave this head out; repeatable",
    )
    parser.add_argument("--data", type=Path, default=beside, help="folder of the real cases, see real.py")
    parser.add_argument("--bundle", type=Path, help="folder of the bundle (default: the shipped one)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="examples seen (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels at the finest level (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--work", type=Path, default=Path("runs/dense"), help="keeps the checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there too")
    return parser.parse_args(args)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
