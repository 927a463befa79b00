"""What to do with N labelled cases of each site of a list of one's own: what each way brings and costs.

Three ways: the cases as references of a trained bundle; learning on from its weights; training from scratch.
Both trainings see the same number of examples. The cases are chosen at random, evenly over the patients, from
one rendered cohort of the list; another one, of other heads, is the test. Run:

    python benchmarks/own_cases.py COHORT --test COHORT --bundle DIR [--cases 5 20] [--way WAY ...]

Minutes are those of a core: CPU time, views of the cases included. Every way runs in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import frame

from situs.tables import text_table

WAYS = ("references", "learning on", "from scratch")
RELATION_EXAMPLES = 10_000


@dataclass(frozen=True)
class Task:
    """One way with one number of cases.

    Attributes:
        way: One of `WAYS`.
        cases: The cases of each site, at most.
        cohort: Where they are taken from.
        test: The cohort that the result is asked about.
        bundle: What the first two ways start from.
        examples: How many BaseNet sees in a training.
        out: A file for the result.
    """

    way: str
    cases: int
    cohort: Path
    test: Path
    bundle: Path
    examples: int
    out: Path


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("cohort", type=Path, help="folder of the cohort that the cases are taken from")
    parser.add_argument("--test", type=Path, required=True, help="folder of the cohort of other heads")
    parser.add_argument(
        "--bundle", type=Path, required=True, help="a bundle that has not seen the other heads"
    )
    parser.add_argument("--cases", type=frame.positive, nargs="+", default=[5, 20], metavar="N")
    parser.add_argument("--way", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument("--examples", type=frame.positive, default=3000, metavar="N", help="of a training")
    parser.add_json()
    options = parser.parse_args(args)
    rows: list[dict[str, Any]] = []
    for cases in options.cases:
        for way in options.way:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "result.json")
                task = Task(way, cases, options.cohort, options.test, options.bundle, options.examples, out)
                # A process of its own: its peak memory is what is asked for.
                process = multiprocessing.get_context("spawn").Process(target=measure, args=(task,))
                process.start()
                process.join()
                if process.exitcode:
                    return 1
                rows.append(json.loads(out.read_text()))
            print(format_rows(rows[-1:]), flush=True)
            frame.write_json(options.json, rows)
    print(format_rows(rows))
    return 0


def measure(task: Task) -> None:
    """Do a task in a temporary folder and write what came out."""
    from situs.bundle import read_bundle
    from situs.cohort.evaluate import evaluate
    from situs.cohort.manifest import read_cohort_sites
    from situs.cohort.references import add_references
    from situs.learn.recipe import COMPACT
    from situs.learn.train import train

    sites = read_cohort_sites(task.cohort).keys
    known = read_bundle(task.bundle).sites.keys
    with tempfile.TemporaryDirectory() as folder:
        few, out = Path(folder, "few"), Path(folder, "bundle")
        with frame.Timer() as timer:
            n = write_subset(task.cohort, task.cases, few)
            if task.way == "references":
                add_references(task.bundle, few, out, new_sites=[key for key in sites if key not in known])
            else:
                # `train` gives a training that goes on a third of BaseNet's examples, none to paint.
                whole = 3 * task.examples, 0
                painted = task.examples * 3 // 4, task.examples // 4
                basenet, paint = whole if task.way == "learning on" else painted
                recipe = replace(
                    COMPACT,
                    basenet_samples=basenet,
                    paint_samples=paint,
                    relation_samples=RELATION_EXAMPLES,
                )
                train(few, out, recipe, init=task.bundle if task.way == "learning on" else ())
        peak_mb = frame.peak_mb()
        result = evaluate(out, task.test, n_boot=1).to_dict()
    own, others = (
        {k: v for k, v in result["rois"]["sites"].items() if (k in known) is there and v["support"]}
        for there in (False, True)
    )

    def mean(sites: dict[str, Any], measure: str) -> float:
        return sum(v[measure] for v in sites.values()) / max(1, len(sites))

    row = {
        "way": task.way,
        "cases": task.cases,
        "regions": n,
        "macro_f1": result["rois"]["macro"]["f1"],
        "new_sites_f1": mean(own, "f1"),
        "new_sites_recall": mean(own, "recall"),
        "new_sites_precision": mean(own, "precision"),
        "known_sites_f1": mean(others, "f1"),
        "cpu_min": timer.cpu_s / 60,
        "peak_mb": peak_mb,
        "task": {k: str(v) for k, v in asdict(task).items()},
    }
    task.out.write_text(json.dumps(row))


def write_subset(cohort: Path, n: int, out: Path) -> int:
    """A cohort of at most `n` regions of each site of another one, spread over its patients; how many."""
    import numpy as np

    from situs.cohort.manifest import (
        read_cohort_sites,
        read_manifest,
        write_cohort_sites,
        write_manifest,
    )
    from situs.cohort.sampling import choose_evenly

    rows, listed = read_manifest(cohort), read_cohort_sites(cohort)
    sites = np.array([listed.numbers[row.site] for row in rows])
    patients = np.array([row.patient for row in rows])
    chosen = choose_evenly(sites, patients, n, np.random.default_rng(n))
    out.mkdir()
    write_cohort_sites(out, listed)
    own = []
    for row in (rows[i] for i in chosen.tolist()):
        scan = out / f"own_{row.scan.name}"  # the bundle's references may have its number
        if not scan.exists():
            scan.symlink_to(row.scan.resolve())
        own.append(replace(row, scan=scan))
    write_manifest(out, own)
    return len(chosen)


def format_rows(rows: list[dict[str, Any]]) -> str:
    """A row for each way and number of cases: mean scores over the sites, of regions, and cost."""
    head = ["macro F1", "new sites", "recall", "precision", "known sites"]
    keys = ("macro_f1", "new_sites_f1", "new_sites_recall", "new_sites_precision", "known_sites_f1")
    table = [["cases a site", "way", *head, "CPU min", "peak MB"]]
    for row in rows:
        scores = (f"{row[key]:.3f}" for key in keys)
        cost = f"{row['cpu_min']:.1f}", f"{row['peak_mb']:.0f}"
        table.append([str(row["cases"]), row["way"], *scores, *cost])
    return text_table(table)


if __name__ == "__main__":
    frame.run(main)
