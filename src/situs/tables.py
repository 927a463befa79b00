"""Tables as text: aligned for a terminal, Markdown, CSV. Cells are anything that `str` turns into text."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from typing import Any

__all__ = ["csv_text", "markdown_table", "text_table"]


def text_table(
    rows: Sequence[Sequence[Any]], rules: Collection[int] = (1,), left: Collection[int] = (0,)
) -> str:
    """Rows of cells as aligned plain text, without a newline at the end.

    Args:
        rows: the head and what follows, all of one length; one row at least
        rules: the rows before which a line is drawn; ``len(rows)`` draws one at the end
        left: the columns that are aligned to the left; the others are to the right

    >>> print(text_table([["site", "n"], ["thalamus", 7]]))
    site      n
    -----------
    thalamus  7
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = []
    for number, row in enumerate(cells):
        if number in rules:
            lines.append(rule)
        aligned = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    if len(cells) in rules:
        lines.append(rule)
    return "\n".join(lines)


def markdown_table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, which ends in a newline.

    >>> print(markdown_table(["site", "n"], [["thalamus", 7]]), end="")
    | site | n |
    | --- | --- |
    | thalamus | 7 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def csv_text(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """CSV whose lines end in a bare newline.

    >>> csv_text(["site", "n"], [["thalamus", 7]])
    'site,n\\nthalamus,7\\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
