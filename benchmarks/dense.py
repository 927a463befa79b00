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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import frame
import numpy as np
import torch
from cases import answer_cases, of, read_cases, summarize
from numpy.typing import NDArray
from torch import nn
from unet import VIEWS, WIDTH, Numbers, Views, new_networks, read_views, train

from situs.anatomy import SITE_KEYS, SITES
from situs.bundle import Bundle, read_bundle
from situs.cohort.answers import average_slices, region_areas
from situs.cohort.evaluate import evaluate
from situs.cohort.manifest import read_manifest
from situs.cohort.sampling import split_patients
from situs.cohort.scores import ScoreTable, score_table
from situs.cohort.slices import open_slices
from situs.errors import ManifestError
from situs.labeler import Labeler
from situs.learn.devices import open_machine
from situs.learn.recipe import COMPACT
from situs.progress import Progress
from situs.runtime import Embedded, Runtime
from situs.tables import markdown_table

SAMPLES = 100_000
READINGS = {"U-Nets, both views": VIEWS, "U-Net, global view": ("global",), "U-Net, local view": ("local",)}
DENSE, RELATION, BASENET = "U-Nets, both views", "Relation Network", "BaseNet"


class InPlaceOfABundle:
    """Scores of sites as functions of the views, where the labeler expects a bundle's networks.

    Args:
        scores_of: Gives (n, 15) of the global and the local views.
        width: Of the bundle's embeddings, which carry the scores to where the labeler asks for them.
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
    networks: nn.ModuleDict, cohort: Path, bundle: Bundle, progress: Progress
) -> dict[str, tuple[ScoreTable, ScoreTable]]:
    """Tables over the slices and over the regions of a rendered cohort, by method."""
    scores = evaluate(bundle.path, cohort, progress=progress)
    if scores.known_patients:
        print(f"NOT A TEST of the bundle: it has references of {scores.known_patients} of these patients")
    tables = {
        BASENET: (scores.basenet, scores.basenet_rois),
        RELATION: (scores.relation, scores.relation_rois),
    }

    slices, paths = open_slices(cohort, COMPACT.spec), [str(row.scan) for row in read_manifest(cohort)]
    parts: list[dict[str, Numbers]] = []
    areas = np.zeros(len(slices))
    for start in range(0, len(slices), 256):
        which = np.arange(start, min(start + 256, len(slices)))
        batch = slices.batch(which)
        parts.append(read_views(networks, (batch.global_view, batch.local_view)))
        areas[which] = region_areas(batch.local_view, slices.spec)
        progress("slices", int(which[-1]) + 1, len(slices), "U-Nets")
    read = {name: np.concatenate([part[name] for part in parts]) for name in VIEWS}
    scans = np.array([paths[n] for n in slices.row])
    _, first = np.unique(slices.row, return_index=True)
    for title, which_views in READINGS.items():
        of_slices = sum(read[name] for name in which_views)
        joined = average_slices(of_slices, areas, slices.row)
        tables[title] = (
            score_table(slices.site, of_slices.argmax(axis=1), scans),
            score_table(slices.site[first], joined.argmax(axis=1), scans[first]),
        )
    return tables


def score_real(networks: nn.ModuleDict, data: Path, bundle: Bundle, progress: Progress) -> dict[str, dict]:
    """The counts (`cases.summarize`) of landmarks and haemorrhages, by method."""
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
    results = {}
    for n, (title, engine) in enumerate(engines.items(), start=1):
        labeler = Labeler(bundle, engine)
        results[title] = {
            kind: summarize(asked, answer_cases(labeler, data, asked)) for kind, asked in cases.items()
        }
        progress("real cases", n, len(engines), title)
    return results


def print_tables(rendered: dict[str, tuple[ScoreTable, ScoreTable]], real: dict[str, dict]) -> None:
    """Tables in Markdown: how often each method is right, and by site."""
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
            row += [_short(marks["mean_over_sites"]), of(marks["acceptable"]), of(bleeds["acceptable"])]
    print(markdown_table(head, rows))

    shown = (BASENET, RELATION, DENSE)
    head, rows = ["site"], [[site.name] for site in SITES]
    if rendered:
        head += [f"slice F1, {title}" for title in shown]
        for n, row in enumerate(rows):
            row += [_short(rendered[title][0].f1[n]) for title in shown]
    if real:
        head += [f"landmarks, {title}" for title in shown]
        for key, row in zip(SITE_KEYS, rows, strict=True):
            row += [of(real[title]["landmarks"]["sites"][key]) for title in shown]
    print(markdown_table(head, rows), end="")


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    torch.set_num_threads(options.threads)
    machine = open_machine("auto")
    bundle = read_bundle(options.bundle)
    if bundle.spec != COMPACT.spec:
        raise ManifestError("--bundle: its views are not those of the recipe compact, which the U-Nets see")
    line = frame.ProgressLine()
    slices = open_slices(options.cohort, COMPACT.spec, COMPACT.max_slices, progress=line, training=True)
    kept, _ = split_patients(slices.patient.tolist(), options.test_patient)
    chosen = np.flatnonzero(np.isin(slices.patient, kept))
    if options.test and (known := {row.patient for row in read_manifest(options.test)} & set(kept)):
        raise ManifestError(f"--test: {min(known)!r} is trained on; leave it out with --test-patient")

    networks = new_networks(len(COMPACT.spec.channels), options.width, options.seed, machine)
    n_parameters = sum(p.numel() for p in networks.parameters())
    print(f"{len(chosen):,} slices of {len(kept)} patients; two U-Nets, {n_parameters / 1e6:.1f} M weights")
    steps = []

    def report(*step: Any) -> None:
        steps.append(step)
        line(*step)

    with frame.Timer() as timer:
        figures = train(
            networks, slices, chosen, options.samples, options.seed, options.work, report, machine
        )
    arithmetic = "bfloat16" if machine.half else "float32"
    rate = len(steps) * COMPACT.batch / timer.wall_s
    last = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(
        f"{options.samples:,} samples, {last}; in this run {timer.wall_s / 60:.1f} min, "
        f"{rate:.0f} samples/s, {options.threads} thread, {arithmetic}\n"
    )
    rendered = score_rendered(networks, options.test, bundle, line) if options.test else {}
    real = {}
    if (options.data / "landmarks.csv").is_file():
        real = score_real(networks, options.data, bundle, line)
    else:
        print(f"--data: no landmarks.csv in {options.data}: no real cases\n")
    if rendered or real:
        print(f"bundle: {bundle.name} {bundle.version}, {options.bundle or 'shipped'}\n")
        print_tables(rendered, real)
    tables = {title: {"slices": a.to_dict(), "regions": b.to_dict()} for title, (a, b) in rendered.items()}
    result = {"samples": options.samples, "patients": kept, "rendered": tables, "real": real}
    frame.write_json(options.json, result)
    return 0


def _short(figure: float) -> str:
    return f"{figure:.3f}".removeprefix("0")


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="rendered cohort to train on, with site maps")
    parser.add_argument("--test", type=Path, metavar="COHORT", help="rendered cohort of other heads")
    parser.add_argument(
        "--test-patient",
        action="append",
        default=[],
        metavar="NAME",
        help="leave this head out; repeatable",
    )
    parser.add_data()
    parser.add_bundle()
    parser.add_argument("--samples", type=int, default=SAMPLES, help="examples seen (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels at the finest level (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--work", type=Path, default=Path("runs/dense"), help="keeps the checkpoint")
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
