"""The results of `situs reproduce`: the paper's tables beside ours, curves, tests and figures, as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.files import make_folder, write_file
from situs.paper.claims import (
    Counts,
    Measure,
    all_scores,
    bootstrap,
    compare,
    count,
    macro_f1,
    rare_f1,
    weighted_f1,
)
from situs.paper.figures import Line, confusion_chart, line_chart
from situs.synth.cohort import paper_slices

__all__ = ["METHODS", "Answers", "write_results"]

METHODS = ("BaseNet", "BaseNet+RN", "BaseNet+RN+NN")  # as in the paper's Table 2
_METRICS = ("precision", "recall", "f1")
_ROWS = (*SITE_KEYS, "weighted_mean", "macro_mean")
_NAMES = (*(site.name for site in SITES), "weighted mean", "macro mean")
_MEASURES: dict[str, Measure] = {"weighted": weighted_f1, "macro": macro_f1, "six rarest": rare_f1}
_COHORTS = {"test": "the paper's mix", "balanced": "balanced"}
_EARLY = 5  # epochs, after which the paper looked at both Relation Networks: .53 and .59
_PAPER_EARLY = {"BaseNet+RN": 0.53, "BaseNet+RN+NN": 0.59}


@dataclass(frozen=True, eq=False)
class Answers:
    """What every method said about the test slices, with every seed.

    Attributes:
        truth: of every cohort (n,): sites and heads; cohorts are ``test`` and ``balanced``
        heads: See `truth`.
        said: cohort -> method -> for every seed (n,) sites; `METHODS` first, then the baselines, then all
            with the mix of sites known
        curves: cohort -> Relation Network -> for every seed (epochs, n) sites
        seconds: Relation Network -> for every seed (epochs,) of training until then
        train_sites: (n,) of the slices that BaseNet was trained on
        n_related: how many of them the Relation Networks saw
        scans: of every cohort, ``train`` too
    """

    truth: dict[str, NDArray[np.int64]]
    heads: dict[str, NDArray[np.str_]]
    said: dict[str, dict[str, list[NDArray[Any]]]]
    curves: dict[str, dict[str, list[NDArray[Any]]]]
    seconds: dict[str, list[NDArray[np.float64]]]
    train_sites: NDArray[np.int64]
    n_related: int
    scans: dict[str, int]

    @cached_property
    def untrained(self) -> list[str]:
        """The names of the sites that are tested on, but of which there was nothing to train on."""
        tested = np.unique(np.concatenate(list(self.truth.values())))
        return [SITES[site].name for site in np.setdiff1d(tested, self.train_sites)]

    @cached_property
    def counts(self) -> dict[str, dict[str, Counts]]:
        """Cohort -> method -> counts, see `situs.paper.claims`."""
        return {
            cohort: {m: count(self.truth[cohort], said, self.heads[cohort]) for m, said in methods.items()}
            for cohort, methods in self.said.items()
        }

    def after(self, cohort: str, method: str, epoch: int) -> Counts:
        """The counts of a Relation Network after an epoch, from 1; after the last where there are fewer."""
        curves = self.curves[cohort][method]
        said = [curve[min(epoch, len(curve)) - 1] for curve in curves]
        return count(self.truth[cohort], said, self.heads[cohort])

    def at_the_time(self, cohort: str, method: str, other: str, epoch: int) -> Counts:
        """The counts of a Relation Network when, with the same seed, the other one has trained for `epoch`
        epochs: after its last whole epoch by then, or its first."""
        said = []
        for curve, own, others in zip(
            self.curves[cohort][method], self.seconds[method], self.seconds[other], strict=True
        ):
            by_then = int((own <= others[min(epoch, len(others)) - 1]).sum())
            said.append(curve[max(by_then, 1) - 1])
        return count(self.truth[cohort], said, self.heads[cohort])


def write_results(out: Path, answers: Answers, settings: dict[str, Any]) -> None:
    """Write all tables and figures into a folder; see its ``README.md``.

    Raises:
        OutputError: if something cannot be written
    """
    make_folder(out)
    files = {
        **_table1(answers),
        **_table2(answers),
        **_methods(answers),
        **_claims(answers),
        **_curves(answers),
        **_confusions(answers),
    }
    for name, text in files.items():
        write_file(out / name, text.encode())
    write_file(out / "README.md", _readme(answers, settings).encode())


# --- tables ---------------------------------------------------------------------------------------------


def _table1(answers: Answers) -> dict[str, str]:
    paper = paper_slices()
    columns = [answers.train_sites, answers.truth["test"], answers.truth["balanced"]]
    counts = np.stack([np.bincount(sites, minlength=len(SITES)) for sites in columns], axis=1)
    head = ["site", "paper", "here", "to train on", "to test on", "balanced test"]
    rows = [
        [site.name, paper[site.key], train + test, train, test, balanced]
        for site, (train, test, balanced) in zip(SITES, counts.tolist(), strict=True)
    ]
    train, test, balanced = counts.sum(axis=0).tolist()
    rows.append(["slices", sum(paper.values()), train + test, train, test, balanced])
    n = answers.scans
    rows.append(["scans", 216, n["train"] + n["test"], n["train"], n["test"], n["balanced"]])
    return {
        "table1.md": _markdown("Table 1: slices of every site", head, rows),
        "table1.csv": _csv(head, rows),
    }


def _table2(answers: Answers) -> dict[str, str]:
    paper = _paper_table2()
    parts, flat = [], []
    for cohort, what in _COHORTS.items():
        beside = cohort == "test"
        found = {}
        for method in METHODS:
            counts = answers.counts[cohort][method]
            each = all_scores(counts.sum(axis=1))  # (seeds, 3, 17)
            found[method] = each.mean(axis=0), each.std(axis=0), bootstrap(counts, all_scores)
        support = np.bincount(answers.truth[cohort], minlength=len(SITES)).tolist()
        sizes = [*support, sum(support), sum(support)]
        for m, metric in enumerate(_METRICS):
            head = ["site", "slices"]
            for method in METHODS:
                head += [method, "paper"] if beside else [method]
            head += [f"{METHODS[-1]}, 95 %"]
            rows = []
            for r, (row, name) in enumerate(zip(_ROWS, _NAMES, strict=True)):
                cells = [name, str(sizes[r])]
                for method in METHODS:
                    mean, spread, ends = (found[method][n][..., m, r] for n in range(3))
                    theirs = paper.get((metric, method, row))
                    cells.append(f"{_short(mean)} ± {_short(spread)}" if sizes[r] else "-")
                    cells += [_short(theirs)] if beside else []
                    flat.append(
                        [cohort, metric, method, row, sizes[r], _number(theirs)]
                        + [_number(x) for x in (mean, spread, *ends)]
                    )
                cells.append(_range(found[METHODS[-1]][2][:, m, r]))
                rows.append(cells)
            parts.append(_markdown(f"Table 2, {what}: {metric}", head, rows))
    head = ["cohort", "metric", "method", "site", "slices", "paper", "mean", "spread", "low", "high"]
    return {"table2.md": "\n".join(parts), "table2.csv": _csv(head, flat)}


def _methods(answers: Answers) -> dict[str, str]:
    """Every method, baselines included, with its mean F1s."""
    rows, flat = [], []
    for method in answers.said["test"]:
        cells = [method]
        for cohort in _COHORTS:
            counts = answers.counts[cohort][method]
            for name, measure in _MEASURES.items():
                each = measure(counts.sum(axis=1))
                ends = bootstrap(counts, measure)
                cells.append(f"{_short(each.mean())} ± {_short(each.std())} ({_range(ends)})")
                flat.append([cohort, method, name, *(_number(x) for x in (each.mean(), each.std(), *ends))])
        rows.append(cells)
    head = ["method", *(f"{name} F1, {what}" for what in _COHORTS.values() for name in _MEASURES)]
    flat_head = ["cohort", "method", "f1", "mean", "spread", "low", "high"]
    return {
        "methods.md": _markdown("Every method on the same embeddings", head, rows),
        "methods.csv": _csv(flat_head, flat),
    }


def _claims(answers: Answers) -> dict[str, str]:
    base, related, nearest = METHODS
    rows = []
    for cohort, what in _COHORTS.items():
        counts = answers.counts[cohort]
        early = answers.after(cohort, nearest, _EARLY)
        pairs = {
            f"{nearest} against {related}": (counts[nearest], counts[related]),
            f"{nearest} against {base}": (counts[nearest], counts[base]),
            f"{related} against {base}": (counts[related], counts[base]),
            f"both after {_EARLY} epochs": (early, answers.after(cohort, related, _EARLY)),
            f"{nearest} after {_EARLY} epochs against {related} after as many seconds": (
                early,
                answers.at_the_time(cohort, related, nearest, _EARLY),
            ),
            f"{nearest} after {_EARLY} epochs against {related} at its end": (early, counts[related]),
        }
        for text, (first, second) in pairs.items():
            for name, measure in _MEASURES.items():
                found = compare(first, second, measure)
                ends = np.array([found.low, found.high])
                numbers = ["-"] * 3
                if found.pairs:
                    numbers = [f"{found.difference:+.3f}", _range(ends), f"{found.p:.3f}"]
                rows.append([what, text, name, *numbers, f"{found.better} of {found.pairs}"])
    head = ["cohort", "claim", "F1", "difference", "95 %", "p", "pairs ahead"]
    return {
        "claims.md": _markdown("The claims, paired by head and seed", head, rows),
        "claims.csv": _csv(head, rows),
    }


# --- figures --------------------------------------------------------------------------------------------


def _curves(answers: Answers) -> dict[str, str]:
    files, flat = {}, []
    for cohort, what in _COHORTS.items():
        name, measure = ("weighted", weighted_f1) if cohort == "test" else ("macro", macro_f1)
        by_epoch, by_second = [], []
        for method, seconds in answers.seconds.items():
            epochs = np.arange(1, len(seconds[0]) + 1)
            every = [answers.after(cohort, method, int(epoch)).sum(axis=1) for epoch in epochs]
            scores = np.stack([measure(counts) for counts in every], axis=1)  # (seeds, epochs)
            band = scores.mean(axis=0), scores.min(axis=0), scores.max(axis=0)
            by_epoch.append(Line(method, epochs, *band))
            by_second.append(Line(method, np.mean(seconds, axis=0), *band))
            for seed, (row, clock) in enumerate(zip(scores, seconds, strict=True)):
                for epoch, f1, second in zip(epochs.tolist(), row, clock, strict=True):
                    flat.append([cohort, method, seed, epoch, f"{second:.2f}", name, _number(f1)])
        note = "mean of the seeds; band: lowest to highest"
        for axis, lines in (("epochs", by_epoch), ("seconds", by_second)):
            title = f"F1 ({name}) on {what} against {axis} of training"
            files[f"f1_{cohort}_{axis}.svg"] = line_chart(title, axis, f"{name} F1", lines, note)
    head = ["cohort", "method", "seed", "epoch", "seconds", "mean", "f1"]
    return {**files, "curves.csv": _csv(head, flat)}


def _confusions(answers: Answers) -> dict[str, str]:
    files, flat = {}, []
    for cohort, what in _COHORTS.items():
        for method in METHODS:
            confusion = answers.counts[cohort][method].sum(axis=(0, 1))
            slug = method.lower().replace("+", "_")
            title = f"{method}, {what}, all seeds together"
            names = [site.name for site in SITES]
            files[f"confusion_{cohort}_{slug}.svg"] = confusion_chart(title, confusion, names)
            flat += [
                [cohort, method, SITE_KEYS[i], SITE_KEYS[j], int(confusion[i, j])]
                for i, j in np.argwhere(confusion)
            ]
    return {**files, "confusion.csv": _csv(["cohort", "method", "true", "predicted", "slices"], flat)}


# --- text -----------------------------------------------------------------------------------------------


def _readme(answers: Answers, settings: dict[str, Any]) -> str:
    cohorts, recipe = settings["cohorts"], settings["recipe"]
    of_paper = cohorts["train_cohort"] is None
    remarks, n = [], answers.scans
    if not of_paper:
        remarks.append(
            f"Trained on {n['train']:,} scans of the cohort `{cohorts['train_cohort']}`, not on "
            "the paper's 173; the tests are the same."
        )
    if n["test"] < 43 or (of_paper and n["train"] + n["test"] < 216):
        remarks.append("A small run: fewer scans than the paper's. Its figures say nothing.")
    if answers.untrained:
        remarks.append(f"Nothing to train on, so always missed: {', '.join(answers.untrained)}.")
    if settings["samples"] < 1:
        remarks.append(f"BaseNet was trained on {100 * settings['samples']:.2g} % of the recipe's examples.")
    warning = "".join(f"**{remark}**\n" for remark in remarks)
    weights = "without ImageNet weights" if settings["weights"] is None else f"from {settings['weights']}"
    network = f", VGG16 {weights}" if recipe["network"] == "vgg16" else ""
    early = {m: weighted_f1(answers.after("test", m, _EARLY).sum(axis=1)).mean() for m in _PAPER_EARLY}
    minutes = {m: np.mean([s[-1] for s in seconds]) / 60 for m, seconds in answers.seconds.items()}
    macro = {m: macro_f1(c.sum(axis=1)).mean() for m, c in answers.counts["balanced"].items()}
    best = max(macro, key=lambda method: float(macro[method]))
    lines = [
        "# Results of `situs reproduce`",
        "",
        f"Recipe `{recipe['name']}`{network}; seeds: {settings['seeds']}; on {settings['device']}. "
        "Tested on rendered scans only: no patient's.",
        warning,
        *([f"- Heads to train on: {', '.join(cohorts['train_heads'])}."] if of_paper else []),
        f"- Heads to test on: {', '.join(cohorts['test_heads'])}. No head is on both sides.",
        f"- BaseNet saw {settings['basenet_examples']:,} examples; the Relation "
        f"Networks {settings['epochs']} epochs of {answers.n_related:,}.",
        f"- Highest macro F1 on the balanced cohort: {best}, {_short(macro[best])}; "
        f"{METHODS[-1]} has {_short(macro[METHODS[-1]])}.",
        "- Intervals: 95 %, bootstrap over the test heads, mean of the seeds. ± is the standard deviation"
        " over the seeds. With few heads both understate how much heads differ.",
        "- Tests: sign flips of the differences by head and seed; pairs of one head, or of one seed, are not"
        " independent, so p is too small rather than too large.",
        "",
        f"| weighted F1 | paper, {_EARLY} epochs | here, {_EARLY} epochs | here, after as many seconds as "
        f"{_EARLY} epochs of RN+NN take | here, at the end | minutes of training |",
        "|---|---|---|---|---|---|",
    ]
    for method, theirs in _PAPER_EARLY.items():
        then, end = (
            weighted_f1(counts.sum(axis=1)).mean()
            for counts in (
                answers.at_the_time("test", method, METHODS[-1], _EARLY),
                answers.counts["test"][method],
            )
        )
        numbers = f"{_short(early[method])} | {_short(then)} | {_short(end)} | {minutes[method]:.2f}"
        lines.append(f"| {method} | {_short(theirs)} | {numbers} |")
    lines += [
        "",
        "| file | what |",
        "|---|---|",
        "| [table1.md](table1.md) | slices of every site, the paper's beside ours |",
        "| [table2.md](table2.md) | precision, recall, F1 of the three methods, the paper's beside ours |",
        "| [methods.md](methods.md) | the same with the baselines: mean F1s |",
        "| [claims.md](claims.md) | the paper's claims as paired tests |",
        "| `f1_*.svg`, `curves.csv` | F1 after every epoch, against epochs and seconds |",
        "| `confusion_*.svg`, `confusion.csv` | confusion matrices |",
        "",
        "How to run it: `docs/reproduce.md` of situs.",
    ]
    return "\n".join(lines) + "\n"


def _paper_table2() -> dict[tuple[str, str, str], float]:
    """The paper's Table 2: (metric, method, row) -> value; it leaves four sites out."""
    text = resources.files("situs").joinpath("data/paper_table2.csv").read_text(encoding="utf-8")
    names = {"support_weighted_mean": "weighted_mean"}
    return {
        (row["metric"], row["method"], names.get(row["site"], row["site"])): float(row["value"])
        for row in csv.DictReader(text.splitlines())
    }


def _markdown(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _short(value: Any) -> str:
    """Three decimals without the 0 before them, as in the paper."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}".replace("0.", ".", 1)


def _number(value: Any) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.4f}"


def _range(ends: NDArray[np.floating]) -> str:
    return "-" if np.isnan(ends).any() else f"{_short(ends[0])} to {_short(ends[1])}"
