"""Bar charts as inline SVG, for pages.

Series differ by texture, so that the charts are read and printed without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

__all__ = ["BARS_CSS", "MOST_SERIES", "bar_chart"]

_TEXTURES = (
    '<path class="ink" d="M0,0 h8 v8 h-8 z"/>',
    '<path class="stroke" d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4"/>',
    '<circle class="ink" cx="4" cy="4" r="1.6"/>',
    '<path class="stroke" d="M0,4 h8 M4,0 v8"/>',
)
MOST_SERIES = len(_TEXTURES)

BARS_CSS = """
.bars { display: block; width: 100%; max-width: 44rem; height: auto; font-size: 13px; }
.bars text { fill: var(--ink); }
.bars .stroke { stroke: var(--bar); stroke-width: 1.6; fill: none; }
.bars .ink { fill: var(--bar); }
.bars rect { stroke: var(--ink); stroke-width: 1; }
"""

_WIDTH, _LABEL, _NUMBER = 700, 190, 60  # of the picture, and of its columns to the left and right of the bars
_ROW, _BAR, _TEXT = 24, 16, 17  # the height of a row, of its bar, and where its text stands


def bar_chart(key: str, title: str, series: Sequence[str], rows: Mapping[str, Sequence[int]]) -> Markup:
    """A horizontal bar for each row: a piece for each series, and their sum at the end.

    Args:
        key: Begins the ids of this chart; no other chart of the page has it.
        title: Says what is counted, to those who do not see the picture.
        series: Their names, at most `MOST_SERIES`. One alone needs no legend.
        rows: The counts of each row, one for each series.
    """
    legend = list(series) if len(series) > 1 else []
    scale = (_WIDTH - _LABEL - _NUMBER) / max([sum(counts) for counts in rows.values()] + [1])
    height = _ROW * (len(rows) + bool(legend))
    textures = "".join(
        f'<pattern id="{key}{n}" width="8" height="8" patternUnits="userSpaceOnUse">{_TEXTURES[n]}</pattern>'
        for n in range(len(series))
    )
    parts = [
        f'<svg class="bars" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}">',
        f"<defs>{textures}</defs>",
    ]
    for n, name in enumerate(legend):
        x = _LABEL + n * (_WIDTH - _LABEL) / len(legend)
        parts += [_piece(f"{key}{n}", x, 0, _BAR, name), _text(x + _BAR + 6, 0, name)]
    for row, (name, counts) in enumerate(rows.items(), start=bool(legend)):
        x = float(_LABEL)
        parts.append(_text(_LABEL - 8, row, name, "end"))
        for n, count in enumerate(counts):
            if count:
                parts.append(_piece(f"{key}{n}", x, row, count * scale, f"{name}, {series[n]}: {count}"))
            x += count * scale
        parts.append(_text(x + 6, row, str(sum(counts))))
    return Markup("".join([*parts, "</svg>"]))


def _piece(texture: str, x: float, row: int, width: float, tip: str) -> str:
    place = f'x="{x:.1f}" y="{row * _ROW + (_ROW - _BAR) / 2:.0f}" width="{width:.1f}" height="{_BAR}"'
    return f'<rect fill="url(#{texture})" {place}><title>{escape(tip)}</title></rect>'


def _text(x: float, row: int, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{row * _ROW + _TEXT}" text-anchor="{anchor}">{escape(text)}</text>'
