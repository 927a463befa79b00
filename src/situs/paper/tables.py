"""The tables of `situs reproduce`: the paper's figures beside ours, as Markdown and CSV."""

from __future__ import annotations

import csv
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.cohort.scores import Counts, Measure, all_scores, bootstrap, macro_f1, weighted_f1
from situs.paper.claims import compare, rare_f1
from situs.paper.results import METHODS, Results
from situs.synth.cohort import paper_slices
from situs.tables import csv_text, markdown_table

__all__ = [
    "COHORT_NAMES",
    "EARLY",
    "format_csv",
    "format_score",
    "make_claims",
    "make_methods",
    "make_table1",
    "make_table2",
]

COHORT_NAMES = {"test": "the paper's site frequencies", "balanced": "balanced"}
EARLY = 5  # epochs, after which the paper compares both Relation Networks

_METRICS = ("precision", "recall", "f1")
_ROWS = (*SITE_KEYS, "weighted_mean", "macro_mean")
_ROW_NAMES = (*(site.name for site in SITES), "weighted mean", "macro mean")
_MEASURES: dict[str, Measure] = {"weighted": weighted_f1, "macro": macro_f1, "six rarest": rare_f1}

Files = dict[str, str]  # the text of every file by its name


def make_table1(results: Results) -> Files:
    """The paper's Table 1: the slices of every site."""
    paper = paper_slices()
    columns = [results.train_sites, results.truth["test"], results.truth["balanced"]]
    counts = np.stack([np.bincount(sites, minlength=len(SITES)) for sites in columns], axis=1)
    head = ["site", "paper", "here", "to train on", "to test on", "balanced test"]
    rows = [
        [site.name, paper[site.key], train + test, train, test, balanced]
        for site, (train, test, balanced) in zip(SITES, counts.tolist(), strict=True)
    ]
    train, test, balanced = counts.sum(axis=0).tolist()
    rows.append(["slices", sum(paper.values()), train + test, train, test, balanced])
    n = results.scans
    rows.append(["scans", 216, n["train"] + n["test"], n["train"], n["test"], n["balanced"]])
    return {
        "table1.md": _titled("Table 1: slices of every site", head, rows),
        "table1.csv": csv_text(head, rows),
    }


def make_table2(results: Results) -> Files:
    """The paper's Table 2: precision, recall and F1 of its three methods for every site."""
    paper = _paper_table2()
    parts, flat = [], []
    for cohort, cohort_name in COHORT_NAMES.items():
        with_paper = cohort == "test"
        scores = {method: _scores(results.counts[cohort][method], all_scores) for method in METHODS}
        support = np.bincount(results.truth[cohort], minlength=len(SITES)).tolist()
        sizes = [*support, sum(support), sum(support)]
        for m, metric in enumerate(_METRICS):
            head = ["site", "slices"]
            for method in METHODS:
                head += [method, "paper"] if with_paper else [method]
            head += [f"{METHODS[-1]}, 95 %"]
            rows = []
            for r, (row, name) in enumerate(zip(_ROWS, _ROW_NAMES, strict=True)):
                cells = [name, str(sizes[r])]
                for method in METHODS:
                    mean, spread, low, high = scores[method][:, m, r]
                    published = paper.get((metric, method, row))
                    cells.append(f"{format_score(mean)} ± {format_score(spread)}" if sizes[r] else "-")
                    cells += [format_score(published)] if with_paper else []
                    numbers = [format_csv(x) for x in (published, mean, spread, low, high)]
                    flat.append([cohort, metric, method, row, sizes[r], *numbers])
                cells.append(_format_interval(scores[METHODS[-1]][2:, m, r]))
                rows.append(cells)
            parts.append(_titled(f"Table 2, {cohort_name}: {metric}", head, rows))
    head = ["cohort", "metric", "method", "site", "slices", "paper", "mean", "spread", "low", "high"]
    return {"table2.md": "\n".join(parts), "table2.csv": csv_text(head, flat)}


def make_methods(results: Results) -> Files:
    """Every method, baselines included, with its mean F1s."""
    rows, flat = [], []
    for method in results.counts["test"]:
        cells = [method]
        for cohort in COHORT_NAMES:
            for name, measure in _MEASURES.items():
                mean, spread, low, high = _scores(results.counts[cohort][method], measure)
                interval = _format_interval(np.array([low, high]))
                cells.append(f"{format_score(mean)} ± {format_score(spread)} ({interval})")
                flat.append([cohort, method, name, *(format_csv(x) for x in (mean, spread, low, high))])
        rows.append(cells)
    head = ["method", *(f"{name} F1, {what}" for what in COHORT_NAMES.values() for name in _MEASURES)]
    flat_head = ["cohort", "method", "f1", "mean", "spread", "low", "high"]
    return {
        "methods.md": _titled("Every method on the same embeddings", head, rows),
        "methods.csv": csv_text(flat_head, flat),
    }


def make_claims(results: Results) -> Files:
    """The paper's claims as paired comparisons."""
    base, related, nearest = METHODS
    rows = []
    for cohort, cohort_name in COHORT_NAMES.items():
        counts = results.counts[cohort]
        early = results.after_epoch(cohort, nearest, EARLY)
        pairs = {
            f"{nearest} against {related}": (counts[nearest], counts[related]),
            f"{nearest} against {base}": (counts[nearest], counts[base]),
            f"{related} against {base}": (counts[related], counts[base]),
            f"both after {EARLY} epochs": (early, results.after_epoch(cohort, related, EARLY)),
            f"{nearest} after {EARLY} epochs against {related} after as many seconds": (
                early,
                results.at_equal_time(cohort, related, nearest, EARLY),
            ),
            f"{nearest} after {EARLY} epochs against {related} at its end": (early, counts[related]),
        }
        for claim, (first, second) in pairs.items():
            for name, measure in _MEASURES.items():
                result = compare(first, second, measure)
                numbers = ["-"] * 3
                if result.pairs:
                    interval = _format_interval(np.array([result.low, result.high]))
                    numbers = [f"{result.difference:+.3f}", interval, f"{result.p:.3f}"]
                rows.append([cohort_name, claim, name, *numbers, f"{result.better} of {result.pairs}"])
    head = ["cohort", "claim", "F1", "difference", "95 %", "p", "pairs ahead"]
    return {
        "claims.md": _titled("The claims, paired by head and seed", head, rows),
        "claims.csv": csv_text(head, rows),
    }


def format_score(value: Any) -> str:
    """Three decimals without the 0 before them, as in the paper; a dash for no value."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}".replace("0.", ".", 1)


def format_csv(value: Any) -> str:
    """Four decimals; empty for no value."""
    return "" if value is None or np.isnan(value) else f"{value:.4f}"


def _scores(counts: Counts, measure: Measure) -> NDArray[np.float64]:
    """A measure's mean and standard deviation over the seeds and its interval's ends: (4, ...)."""
    each = measure(counts.sum(axis=1))
    return np.stack([each.mean(axis=0), each.std(axis=0), *bootstrap(counts, measure)])


def _paper_table2() -> dict[tuple[str, str, str], float]:
    """The paper's Table 2: (metric, method, row) -> value; it leaves four sites out."""
    text = resources.files("situs").joinpath("data/paper_table2.csv").read_text(encoding="utf-8")
    names = {"support_weighted_mean": "weighted_mean"}
    return {
        (row["metric"], row["method"], names.get(row["site"], row["site"])): float(row["value"])
        for row in csv.DictReader(text.splitlines())
    }


def _titled(title: str, head: list[str], rows: list[list[Any]]) -> str:
    return f"### {title}\n\n{markdown_table(head, rows)}"


def _format_interval(ends: NDArray[np.floating]) -> str:
    return "-" if np.isnan(ends).any() else f"{format_score(ends[0])} to {format_score(ends[1])}"
