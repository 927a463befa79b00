"""The page of `regime.py`: for every axis and test a chart of all methods, with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in dashes and marks too.
STYLES = (
    ("#000000", "-", "s"),
    ("#0072b2", "--", "o"),
    ("#d55e00", "-", "o"),
    ("#009e73", ":", "^"),
    ("#cc79a7", ":", "v"),
    ("#e69f00", "-.", "D"),
    ("#56b4e9", "-.", "x"),
)
STEP = 0.06  # between the methods at one place, so that their intervals can be told apart
TITLES = {
    "balanced": "every site equally frequent: macro F1",
    "test": "the paper's site frequencies: weighted F1",
}
RC: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "situs", "font.size": 9}


def draw_regime(rows: Sequence[Sequence[Any]], methods: Sequence[str]) -> str:
    """The page as SVG.

    Args:
        rows: Of the axis, the value on it, the test, the mean of F1, the method, F1 and its interval's ends.
        methods: In the order of the legend.
    """
    axes = list(dict.fromkeys(row[0] for row in rows))
    with matplotlib.rc_context(RC):
        figure = Figure((4 * len(axes), 7.4), layout="constrained", facecolor="white")
        charts = figure.subplots(len(TITLES), len(axes), sharey=True, squeeze=False)
        for line, (test, title) in zip(charts, TITLES.items(), strict=True):
            for chart, axis in zip(line, axes, strict=True):
                values = list(dict.fromkeys(row[1] for row in rows if row[0] == axis))
                for n, (method, (colour, dashes, mark)) in enumerate(zip(methods, STYLES, strict=True)):
                    found = {
                        row[1]: row[5:8] for row in rows if (row[0], row[2], row[4]) == (axis, test, method)
                    }
                    y, low, high = np.array([found[value] for value in values]).T
                    x = np.arange(len(values)) + STEP * (n - (len(methods) - 1) / 2)
                    chart.errorbar(
                        x,
                        y,
                        # The mean of the seeds may lie outside a bootstrap of four heads by rounding.
                        np.maximum([y - low, high - y], 0),
                        color=colour,
                        linestyle=dashes,
                        marker=mark,
                        markersize=4,
                        linewidth=1,
                        elinewidth=0.8,
                        label=method,
                    )
                chart.set_xticks(np.arange(len(values)), values)
                chart.set_title(title, fontsize=9)
                chart.set_xlabel(axis)
                chart.grid(axis="y", color="#ddd")
                chart.set_ylim(0, 1)
        handles, labels = charts[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(methods), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": "situs"})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
