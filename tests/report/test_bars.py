"""Bar charts: their lengths, and that they are well-formed whatever their names are."""

import xml.etree.ElementTree as ET

from situs.report.bars import bar_chart


def rects(svg):
    """The pieces of the bars: texture, tip, beginning and length."""
    return [
        (r.get("fill"), r.find("title").text, float(r.get("x")), float(r.get("width")))
        for r in ET.fromstring(svg).findall("rect")
    ]


def test_pieces_are_as_long_as_their_counts_and_lie_end_to_end():
    pieces = rects(bar_chart("k", "t", ("one", "two"), {"a": (30, 10), "b": (0, 20), "c": (0, 0)}))
    legend, pieces = pieces[:2], pieces[2:]
    assert [tip for _, tip, _, _ in legend] == ["one", "two"]
    assert [(fill, tip) for fill, tip, _, _ in pieces] == [
        ("url(#k0)", "a, one: 30"),
        ("url(#k1)", "a, two: 10"),
        ("url(#k1)", "b, two: 20"),
    ]
    (_, _, x, longest), (_, _, second, third), (_, _, below, half) = pieces
    assert second == x + longest and below == x
    assert longest / third == 3 and half / third == 2


def test_each_row_has_its_sum_and_each_texture_is_defined_once():
    root = ET.fromstring(bar_chart("k", "t", ("one",), {"a": (3,), "b": (0,)}))
    assert [text.text for text in root.findall("text")] == ["a", "3", "b", "0"]
    assert [pattern.get("id") for pattern in root.findall("defs/pattern")] == ["k0"]


def test_names_of_others_are_text_and_nothing_else():
    name = "<script>\"'&"
    root = ET.fromstring(bar_chart("k", name, (name, "two"), {name: (1, 2)}))
    assert root.get("aria-label") == name
    assert [text.text for text in root.findall("text")] == [name, "two", name, "3"]
