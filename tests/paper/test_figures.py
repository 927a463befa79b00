"""Figures: well-formed, and points where the numbers are."""

import re
from xml.etree import ElementTree

import numpy as np

from situs.paper.figures import Line, confusion_chart, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def points(element):
    return np.array([[float(x) for x in pair.split(",")] for pair in element.get("points").split()])


def test_lines_are_where_the_numbers_are():
    x = np.array([1.0, 5.0, 10.0])
    y = np.array([0.2, 0.4, 0.6])
    chart = ElementTree.fromstring(
        line_chart("T < U", "epochs", "F1", [Line("RN & NN", x, y, y - 0.1, y + 0.1)])
    )
    (line,) = chart.iter(f"{SVG}polyline")
    drawn = points(line)
    # Equal steps of the numbers are equal steps on the page; up is up.
    steps = np.diff(drawn, axis=0)
    assert np.isclose(steps[0, 0] / 4, steps[1, 0] / 5, atol=0.1) and steps[0, 0] > 0
    assert np.isclose(steps[0, 1], steps[1, 1], atol=0.2) and steps[0, 1] < 0
    (band,) = chart.iter(f"{SVG}polygon")
    edge = points(band)
    assert len(edge) == 6 and (edge[:3, 1] > drawn[:, 1]).all() and (edge[:2:-1, 1] < drawn[:, 1]).all()
    texts = [t.text for t in chart.iter(f"{SVG}text")]
    assert {"T < U", "RN & NN", "epochs", "F1"} <= set(texts)
    # The ticks name the band's ends, rounded outwards to twentieths.
    assert {"0.10", "0.70"} <= set(texts)


def test_a_flat_line_can_be_drawn():
    y = np.array([0.5, 0.5])
    text = line_chart("flat", "x", "y", [Line("a", np.array([1, 2]), y, y, y)])
    assert "nan" not in text and "inf" not in text
    ElementTree.fromstring(text)


def test_confusion_has_every_count_in_its_place():
    confusion = np.array([[8, 2], [0, 5]])
    chart = ElementTree.fromstring(confusion_chart("C", confusion, ["sulci", "falx/tentorium"]))
    cells = list(chart.iter(f"{SVG}rect"))[1:]
    assert [float(cell.get("fill-opacity")) for cell in cells] == [0.8, 0.2, 0, 1]
    texts = [t.text for t in chart.iter(f"{SVG}text")]
    assert [t for t in texts if re.fullmatch("[0-9]+", t or "")] == ["8", "2", "5"]
    assert texts.count("sulci") == 2
