"""How the search for neighbours grows to a million references: time, recall, scores, memory, opening.

Goal: with 1,000,000 references at most twice the time for a slice as with 12,000; at least .99 of the
neighbours in all sites; under 1.5 GB. Run:

    python benchmarks/neighbors.py --test COHORT --work DIR [--sizes 12000 100000 1000000]

Targets are the slices of COHORT's regions. References are made of those of a bundle, without COHORT's
patients. A new one is a reference of its site, moved by a random part (standard deviation .5 / 4) of the way
to each of its 16 nearest of the site (manifold Parzen windows, Vincent and Bengio 2003), and by a random part
(.3) of the way from some reference of any site to one near it. So it lies off the known ones as the slices of
other patients do: the run prints how both lie, by the share of the variance on 47 axes of the known, the
local dimension, and the distance to the nearest known. Sites have the frequencies of the paper.

DIR keeps the bundles, and the targets. Every bundle is opened and searched in a process of its own, one slice
at a time and 30 at a time, each by its index, if it has one, and exactly. Times are CPU time on one thread:
set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import frame
import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle, read_bundle
from situs.bundle.change import replace_references
from situs.cohort.references import embed_slices
from situs.cohort.slices import open_slices
from situs.errors import InputError
from situs.neighbors import References, nearest
from situs.records import take_rows
from situs.runtime import Runtime, relate_to_nearest
from situs.synth.cohort import paper_slices
from situs.tables import text_table

SMALL, LARGE = 12_000, 1_000_000
BATCH, N_TARGETS = 30, 240
MOST_RATIO, LEAST_RECALL, MOST_MB = 2.0, 0.99, 1500.0
NEAR, ALONG, OFF = 16, 0.5, 0.3
AXES = 47
Floats = NDArray[np.float32]


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    if options.measure:
        print(json.dumps(measure(options.measure, options.work / "targets.npz")))
        return 0
    if options.build:
        build(options)
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    source = read_bundle(options.bundle)
    targets = embed_targets(source, options.test, options.work / "targets.npz")
    known = take_rows(source.references, ~np.isin(source.references.patients, targets.patients))
    print(f"{N_TARGETS} of {len(targets)} slices are targets; references made of {len(known)}\n")
    print(text_table(_likeness(known, targets)), end="\n\n", flush=True)
    results = []
    for size in options.sizes:
        folder, built = options.work / f"{size}", options.work / f"{size}.json"
        this = [sys.executable, __file__, "--work", str(options.work)]
        if not built.exists():
            bundle = ["--bundle", str(options.bundle)] if options.bundle else []
            subprocess.run([*this, *bundle, "--build", str(size)], check=True)
        found = subprocess.run([*this, "--measure", str(folder)], check=True, stdout=subprocess.PIPE).stdout
        results.append({"references": size, **json.loads(built.read_bytes()), **json.loads(found)})
    print(text_table(_table(results)), end="\n\n")
    frame.write_json(options.json, results)
    small, large = (next((r for r in results if r["references"] == n), None) for n in (SMALL, LARGE))
    if small and large:
        ratios = [large["search"][n]["ms"] / small["search"][n]["ms"] for n in ("1", str(BATCH))]
        frame.print_promises(
            [
                frame.Promise("time over that of 12,000, one slice", ratios[0], MOST_RATIO),
                frame.Promise(f"time over that of 12,000, {BATCH} slices", ratios[1], MOST_RATIO),
                frame.Promise("recall in all sites", large["recall"], LEAST_RECALL, at_least=True),
                frame.Promise("memory", large["mb"], MOST_MB, "MB"),
            ]
        )
    return 0


def build(options: Any) -> None:
    """Write a bundle of so many references, in this process alone, and what that cost."""
    source = read_bundle(options.bundle)
    targets = embed_targets(source, options.test, options.work / "targets.npz")
    known = take_rows(source.references, ~np.isin(source.references.patients, targets.patients))
    rng = np.random.default_rng(options.build)
    references = grow(known, draw_sites(source, options.build, rng), rng)
    with frame.Timer() as timer:
        replace_references(
            source,
            references,
            added=options.build,
            removed=0,
            out=options.work / f"{options.build}",
            progress=frame.ProgressLine(),
        )
    cost = {"build_s": timer.cpu_s, "build_mb": frame.peak_mb()}
    frame.write_json(options.work / f"{options.build}.json", cost)


def embed_targets(bundle: Bundle, cohort: Path | None, kept: Path) -> References:
    """The cohort's slices in random order, embedded; kept for the next run."""
    if not kept.exists():
        if cohort is None:
            raise InputError("--test: name a cohort of rendered scans of other heads")
        slices = open_slices(cohort, bundle.spec, 4, progress=frame.ProgressLine())
        embedded = embed_slices(bundle, slices, bundle.sites, frame.ProgressLine())
        rows = np.random.default_rng(0).permutation(len(embedded))
        names = ("embeddings", "sites", "ids", "patients")
        np.savez(kept, **{name: getattr(embedded, name)[rows] for name in names})
    with np.load(kept) as arrays:
        return References(**arrays, n_sites=len(bundle.sites))


def draw_sites(bundle: Bundle, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The sites of n references, with the frequencies of the paper."""
    counts = np.array([paper_slices()[key] for key in bundle.sites.keys], dtype=np.float64)
    return rng.choice(len(counts), n, p=counts / counts.sum())


def grow(known: References, sites: NDArray[np.int64], rng: np.random.Generator) -> References:
    """New references of these sites (r,) made of known ones; the text above says how."""
    embeddings = np.empty((len(sites), known.embeddings.shape[1]), dtype=np.float16)
    of_site = {site: known.embeddings[known.sites == site].astype(np.float32) for site in np.unique(sites)}
    near = {site: np.argsort(_distances(e, e), axis=1)[:, 1 : NEAR + 1] for site, e in of_site.items()}
    steps = np.concatenate(
        [(e[near[site]] - e[:, None]).reshape(-1, e.shape[1]) for site, e in of_site.items()]
    )
    for site, own in of_site.items():
        rows = np.flatnonzero(sites == site)
        for a in range(0, len(rows), 4096):
            n = len(rows[a : a + 4096])
            start = rng.integers(0, len(own), n)
            parts = rng.normal(size=(n, NEAR)).astype(np.float32) * ALONG / np.sqrt(NEAR)
            made = own[start] * (1 - parts.sum(axis=1, keepdims=True))
            for j in range(NEAR):
                made += parts[:, j, None] * own[near[site][start, j]]
            off = OFF * rng.normal(size=(n, 1)).astype(np.float32)
            made += off * steps[rng.integers(0, len(steps), n)]
            np.maximum(made, 0, out=made)  # as BaseNet's
            embeddings[rows[a : a + 4096]] = made / np.linalg.norm(made, axis=1, keepdims=True)
    ids = np.char.add("scan", np.arange(len(sites)).astype(np.str_))
    patients = np.char.add("patient", (np.arange(len(sites)) // 50).astype(np.str_))
    return References(embeddings, sites, ids, patients, known.n_sites)


def measure(folder: Path, kept: Path) -> dict[str, Any]:
    """A bundle's figures, in this process alone."""
    with frame.Timer() as opening:
        bundle = read_bundle(folder)
    open_mb = frame.peak_mb()
    with np.load(kept) as arrays:
        targets = arrays["embeddings"][:N_TARGETS].astype(np.float32)
        truth = arrays["sites"][:N_TARGETS]
    references = bundle.references
    search = {str(n): _time(references, targets, bundle.n_neighbors, n) for n in (1, BATCH)}
    found, scores = relate_to_nearest(Runtime(bundle), bundle, targets)
    mb = frame.peak_mb()
    plain = replace(bundle, references=replace(references))  # without an index
    exact, exact_scores = relate_to_nearest(Runtime(bundle), plain, targets)
    hit = (exact.indices[..., None] == found.indices[..., None, :]).any(axis=-1).mean(axis=-1)
    return {
        "open_ms": 1e3 * opening.wall_s,
        "open_mb": open_mb,
        "search": search,
        "exact": {
            str(n): _time(plain.references, targets[: 2 * n], bundle.n_neighbors, n) for n in (1, BATCH)
        },
        "mb": mb,
        "recall": float(hit.mean()),
        "recall_worst_site": float(hit.mean(axis=0).min()),
        "recall_own_site": float(hit[np.arange(len(truth)), truth].mean()),
        "same_site": float((scores.argmax(axis=1) == exact_scores.argmax(axis=1)).mean()),
        "score_difference": float(np.abs(scores - exact_scores).max()),
        "score_difference_top": float(np.abs(scores.max(axis=1) - exact_scores.max(axis=1)).max()),
    }


def _time(references: References, targets: Floats, k: int, n: int) -> dict[str, float]:
    """Median milliseconds a target of searching n at a time, and of wall time."""
    nearest(targets[:n], references, k)  # the first reads what later ones find in memory
    timers = []
    for a in range(0, len(targets) - n + 1, n):
        with frame.Timer() as timer:
            nearest(targets[a : a + n], references, k)
        timers.append(timer)
    return {
        "ms": 1e3 * median(timer.cpu_s for timer in timers) / n,
        "wall_ms": 1e3 * median(timer.wall_s for timer in timers) / n,
    }


def _likeness(known: References, targets: References) -> list[list[str]]:
    """A table of how targets and made references lie among the known ones, means over the sites."""
    made = grow(known, np.repeat(np.arange(known.n_sites), 100), np.random.default_rng(0))
    rows = [["beside the known references", "variance on 47 axes", "local dimension", "nearest known"]]
    for name, some in (("targets", targets), ("made references", made)):
        figures = []
        for site in np.intersect1d(np.unique(known.sites), np.unique(some.sites)):
            e = known.embeddings[known.sites == site].astype(np.float32)
            x = some.embeddings[some.sites == site].astype(np.float32)[:100]
            if len(x) < 14:
                continue
            centred = x - e.mean(axis=0)
            axes = np.linalg.eigh(np.cov(e.T))[1][:, -AXES:]
            own = np.sort(_distances(x, x), axis=1)[:, 1:13]
            dimension = np.median(11 / np.log(own[:, -1:] / np.maximum(own[:, :-1], 1e-6)).sum(axis=1))
            share = ((centred @ axes) ** 2).sum() / (centred**2).sum()
            figures.append([share, dimension, np.median(_distances(x, e).min(axis=1))])
        rows.append([name, *(f"{value:.3f}" for value in np.median(figures, axis=0))])
    return rows


def _distances(a: Floats, b: Floats) -> Floats:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def _table(results: list[dict[str, Any]]) -> list[list[str]]:
    def row(name: str, *path: str, digits: int = 0) -> list[str]:
        cells = [name]
        for result in results:
            value: Any = result
            for key in path:
                value = value[key]
            cells.append(f"{value:.{digits}f}")
        return cells

    b = str(BATCH)
    return [
        ["references", *(f"{result['references']:,}" for result in results)],
        row("a slice, one at a time, CPU ms", "search", "1", "ms", digits=1),
        row(f"a slice, {b} at a time, CPU ms", "search", b, "ms", digits=1),
        row("exactly, one at a time, CPU ms", "exact", "1", "ms", digits=1),
        row(f"exactly, {b} at a time, CPU ms", "exact", b, "ms", digits=1),
        row("recall, all sites", "recall", digits=4),
        row("recall, worst site", "recall_worst_site", digits=4),
        row("recall, the target's own site", "recall_own_site", digits=4),
        row("same site as by the exact search", "same_site", digits=4),
        row("largest difference of a score", "score_difference", digits=4),
        row("largest difference of the best score", "score_difference_top", digits=4),
        row("peak memory, MB", "mb"),
        row("opening, ms", "open_ms"),
        row("memory after opening, MB", "open_mb"),
        row("writing with the index, CPU s", "build_s", digits=1),
        row("peak of writing, MB", "build_mb"),
    ]


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_json()
    parser.add_argument("--test", type=Path, metavar="COHORT", help="a rendered cohort, whose slices ask")
    parser.add_argument("--work", type=Path, metavar="DIR", required=True, help="keeps bundles and targets")
    parser.add_argument("--sizes", type=frame.positive, nargs="+", default=[SMALL, 100_000, LARGE])
    parser.add_argument("--build", type=int, help="write a bundle of so many; used by the script itself")
    parser.add_argument("--measure", type=Path, help="measure this bundle alone; used by the script itself")
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
