"""Figures as SVG text: line charts and confusion matrices, readable on white and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Line", "confusion_chart", "line_chart"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito: told apart by colour-blind readers
_LEFT, _TOP, _WIDTH, _HEIGHT = 60, 36, 480, 260


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart, with a band around it.

    Attributes:
        name: in the legend
        x: (n,)
        y: See `x`.
        low: (n,) ends of the band
        high: See `low`.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]


def line_chart(title: str, x_name: str, y_name: str, lines: Sequence[Line], note: str = "") -> str:
    """A chart of lines over a common x axis from 0; the y axis fits the bands.

    Args:
        note: stands under the x axis
    """
    right = max(float(line.x.max()) for line in lines)
    bottom = _floor(min(float(line.low.min()) for line in lines))
    top = max(_ceil(max(float(line.high.max()) for line in lines)), bottom + 0.05)

    def place(x: ArrayLike, y: ArrayLike) -> str:
        across = _LEFT + np.asarray(x, dtype=float) / right * _WIDTH
        down = _TOP + (top - np.asarray(y, dtype=float)) / (top - bottom) * _HEIGHT
        return " ".join(f"{a:.1f},{d:.1f}" for a, d in zip(np.ravel(across), np.ravel(down), strict=True))

    parts = []
    for tick in np.linspace(bottom, top, 6):
        x, y = place(0, tick).split(",")
        parts.append(f'<path d="M{x} {y}h{_WIDTH}" stroke="#ddd"/>')
        parts.append(_text(f"{tick:.2f}", _LEFT - 8, float(y) + 4, "end"))
    for tick in np.linspace(0, right, 6):
        x = place(tick, bottom).split(",")[0]
        parts.append(_text(f"{tick:.3g}", float(x), _TOP + _HEIGHT + 18, "middle"))
    for n, (line, colour) in enumerate(zip(lines, _COLOURS, strict=False)):
        band = f"{place(line.x, line.low)} {place(line.x[::-1], line.high[::-1])}"
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(
            f'<polyline points="{place(line.x, line.y)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        below = _TOP + _HEIGHT - 14 - 18 * (len(lines) - 1 - n)
        parts.append(f'<path d="M{_LEFT + _WIDTH - 190} {below - 4}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(line.name, _LEFT + _WIDTH - 160, below))
    middle = _LEFT + _WIDTH / 2
    parts.append(_text(x_name, middle, _TOP + _HEIGHT + 38, "middle"))
    parts.append(_text(note, middle, _TOP + _HEIGHT + 56, "middle"))
    parts.append(
        f'<g transform="translate(16 {_TOP + _HEIGHT / 2}) rotate(-90)">{_text(y_name, 0, 0, "middle")}</g>'
    )
    return _svg(title, _LEFT + _WIDTH + 24, _TOP + _HEIGHT + 68, parts)


def confusion_chart(title: str, confusion: NDArray[np.integer], names: Sequence[str]) -> str:
    """A confusion matrix (n, n), row the true class: shares of a row as shades, counts as numbers."""
    cell, left, top = 34, 170, 175
    size = cell * len(names)
    parts = [_text("true", left - 8, top - 8, "end"), _text("predicted", left + size / 2, 38, "middle")]
    totals = np.maximum(confusion.sum(axis=1), 1)
    for r, (row, name) in enumerate(zip(confusion.tolist(), names, strict=True)):
        y = top + r * cell
        parts.append(_text(name, left - 8, y + 22, "end"))
        x = left + r * cell + 20
        parts.append(f'<g transform="translate({x} {top - 8}) rotate(-60)">{_text(name, 0, 0)}</g>')
        for c, count in enumerate(row):
            share = count / totals[r]
            x = left + c * cell
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="#0072b2" '
                f'fill-opacity="{share:.3f}" stroke="#ddd"/>'
            )
            if count:
                shade = "#fff" if share > 0.5 else "#222"
                parts.append(_text(str(count), x + cell / 2, y + 22, "middle", shade))
    return _svg(title, left + size + 60, top + size + 16, parts)


def _floor(value: float) -> float:
    return float(np.floor(value * 20) / 20)


def _ceil(value: float) -> float:
    return float(np.ceil(value * 20) / 20)


def _text(text: str, x: float, y: float, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>{_text(title, width / 2, 20, "middle")}'
    )
    return "\n".join([head, *parts, "</svg>\n"])
