"""The figures of `situs reproduce` as SVG: F1 after every epoch, and confusion matrices, with their CSV.

Figures have a white ground, so that they can be read on dark pages too. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.cohort.scores import macro_f1, weighted_f1
from situs.paper.results import METHODS, Results
from situs.paper.tables import COHORT_NAMES, Files, format_csv
from situs.tables import csv_text

__all__ = ["Curve", "confusion_chart", "curve_chart", "draw_confusions", "draw_curves"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in their dashes too.
_STYLES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#cc79a7", ":"))
# Texts stay text, in the font that matplotlib brings; names in the file depend on the salt alone.
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "situs",
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
}


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of a chart, with a band around it.

    Attributes:
        name: Its name in the legend.
        x: Its places (n,).
        y: Its values (n,).
        low: The lower ends of the band (n,).
        high: The upper ends of the band (n,).
    """

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]


def draw_curves(results: Results) -> Files:
    """F1 after every epoch of the Relation Networks, against epochs and against seconds of training."""
    files, rows = {}, []
    for cohort, cohort_name in COHORT_NAMES.items():
        mean_name, measure = ("weighted", weighted_f1) if cohort == "test" else ("macro", macro_f1)
        by_epoch, by_second = [], []
        for method, seconds in results.seconds.items():
            epochs = np.arange(1, len(seconds[0]) + 1)
            counts = [results.after_epoch(cohort, method, int(epoch)).sum(axis=1) for epoch in epochs]
            scores = np.stack([measure(of_epoch) for of_epoch in counts], axis=1)  # (seeds, epochs)
            band = scores.mean(axis=0), scores.min(axis=0), scores.max(axis=0)
            by_epoch.append(Curve(method, epochs, *band))
            by_second.append(Curve(method, np.mean(seconds, axis=0), *band))
            for seed, (of_seed, clock) in enumerate(zip(scores, seconds, strict=True)):
                for epoch, f1, second in zip(epochs.tolist(), of_seed, clock, strict=True):
                    rows.append([cohort, method, seed, epoch, f"{second:.2f}", mean_name, format_csv(f1)])
        for axis, curves in (("epochs", by_epoch), ("seconds", by_second)):
            title = f"F1 ({mean_name}) on {cohort_name} against {axis} of training"
            files[f"f1_{cohort}_{axis}.svg"] = curve_chart(title, axis, f"{mean_name} F1", curves)
    head = ["cohort", "method", "seed", "epoch", "seconds", "mean", "f1"]
    return {**files, "curves.csv": csv_text(head, rows)}


def draw_confusions(results: Results) -> Files:
    """The confusion matrices of the paper's methods, all seeds together."""
    files, rows = {}, []
    for cohort, cohort_name in COHORT_NAMES.items():
        for method in METHODS:
            confusion = results.counts[cohort][method].sum(axis=(0, 1))
            slug = method.lower().replace("+", "_")
            title = f"{method}, {cohort_name}, all seeds together"
            names = [site.name for site in SITES]
            files[f"confusion_{cohort}_{slug}.svg"] = confusion_chart(title, confusion, names)
            rows += [
                [cohort, method, SITE_KEYS[i], SITE_KEYS[j], int(confusion[i, j])]
                for i, j in np.argwhere(confusion)
            ]
    return {**files, "confusion.csv": csv_text(["cohort", "method", "true", "predicted", "slices"], rows)}


def curve_chart(title: str, x_name: str, y_name: str, curves: Sequence[Curve]) -> str:
    """A chart of curves over a common axis, as SVG; the bands are from the lowest to the highest seed."""
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(title, 6, 3.8)
        for curve, (colour, dashes) in zip(curves, _STYLES, strict=False):
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.x, curve.y, color=colour, linestyle=dashes, label=curve.name)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{x_name}\nmean of the seeds; band: lowest to highest")
        axes.set_ylabel(y_name)
        axes.grid(color="#ddd")
        axes.legend()
        return _svg(figure)


def confusion_chart(title: str, confusion: NDArray[np.integer], names: Sequence[str]) -> str:
    """A confusion matrix (n, n) as SVG, row the true class: fractions of a row as shades, counts as text."""
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(title, 7, 6.6)
        axes.pcolormesh(fractions, cmap="Blues", vmin=0, vmax=1, edgecolor="#ddd", linewidth=0.5)
        for row, column in np.argwhere(confusion).tolist():
            colour = "white" if fractions[row, column] > 0.5 else "#222"
            count = str(confusion[row, column])
            axes.text(column + 0.5, row + 0.5, count, ha="center", va="center", color=colour, fontsize=7)
        places = np.arange(len(names)) + 0.5
        axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return _svg(figure)


def _figure(title: str, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with one pair of axes."""
    figure = Figure((width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": "situs"})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
