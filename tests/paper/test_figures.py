"""Figures: well-formed SVG, points where the numbers are, and the same bytes every time."""

import csv
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from phantoms.made_up_results import made_up_results

from situs.paper import figures
from situs.paper.figures import Curve, confusion_chart, curve_chart, draw_confusions, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def texts(chart):
    return [text.text for text in chart.iter(f"{SVG}text")]


def points(path):
    """The corners (n, 2) of a path."""
    return np.array([float(word) for word in path.get("d").split() if word not in "MLz"]).reshape(-1, 2)


def place(element):
    return float(element.get("x")), float(element.get("y"))


def test_curves_are_where_the_numbers_are():
    x, y = np.array([1.0, 5.0, 10.0]), np.array([0.2, 0.4, 0.6])
    curve = Curve("RN & NN", x, y, y - 0.1, y + 0.2)
    chart = ElementTree.fromstring(curve_chart("T < U", "epochs", "F1", [curve]))
    blue = [path for path in chart.iter(f"{SVG}path") if "stroke: #0072b2" in path.get("style", "")]
    line = next(corners for corners in map(points, blue) if len(corners) == 3)
    # Equal steps of the numbers are equal steps on the page; up is up.
    steps = np.diff(line, axis=0)
    assert np.isclose(steps[0, 0] / 4, steps[1, 0] / 5, atol=0.1) and steps[0, 0] > 0
    assert np.isclose(steps[0, 1], steps[1, 1], atol=0.1) and steps[0, 1] < 0
    (use,) = (use for use in chart.iter(f"{SVG}use") if "fill: #0072b2" in use.get("style"))
    name = use.get("{http://www.w3.org/1999/xlink}href").removeprefix("#")
    band = points(next(path for path in chart.iter(f"{SVG}path") if path.get("id") == name)) + place(use)
    unit = -steps[0, 1] / 0.2
    for across, down in zip(line[:, 0], line[:, 1], strict=True):
        edges = band[np.isclose(band[:, 0], across, atol=0.01), 1]
        assert np.isclose([edges.min(), edges.max()], [down - 0.2 * unit, down + 0.1 * unit], atol=0.1).all()
    assert {"T < U", "RN & NN", "epochs", "F1"} <= set(texts(chart))


def test_a_flat_curve_can_be_drawn():
    y = np.array([0.5, 0.5])
    text = curve_chart("flat", "x", "y", [Curve("a", np.array([1, 2]), y, y, y)])
    assert "nan" not in text and "inf" not in text
    ElementTree.fromstring(text)


def test_confusion_has_every_count_in_its_place():
    confusion = np.array([[8, 2], [0, 5]])
    chart = ElementTree.fromstring(confusion_chart("C", confusion, ["sulci", "falx/tentorium"]))
    places = {text.text: place(text) for text in chart.iter(f"{SVG}text") if text.text.isdigit()}
    assert set(places) == {"8", "2", "5"}
    assert places["8"][1] == places["2"][1] < places["5"][1]  # of one row
    assert places["8"][0] < places["2"][0] == places["5"][0]  # of one column
    assert texts(chart).count("sulci") == 2


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of every chart, none of which is drawn."""
    calls = []
    monkeypatch.setattr(figures, "curve_chart", lambda *given: calls.append(given) or "<svg/>")
    monkeypatch.setattr(figures, "confusion_chart", lambda *given: calls.append(given) or "<svg/>")
    return calls


def test_curves_have_every_epoch(drawn):
    files = draw_curves(made_up_results())
    assert sorted(files) == [
        "curves.csv",
        *(f"f1_{c}_{a}.svg" for c in ("balanced", "test") for a in ("epochs", "seconds")),
    ]
    rows = list(csv.DictReader(files["curves.csv"].splitlines()))
    nearest = [r for r in rows if (r["cohort"], r["seed"], r["method"]) == ("test", "1", "BaseNet+RN+NN")]
    assert [float(r["seconds"]) for r in nearest] == [3, 6, 9, 12, 15, 18]
    assert [r["f1"] for r in nearest][2:] == ["1.0000"] * 4 and float(nearest[0]["f1"]) < 0.3
    _, by_second, *_ = drawn  # of the cohort ``test``
    title, axis, _, (curve, _) = by_second
    assert title.endswith("against seconds of training") and axis == "seconds"
    np.testing.assert_allclose(curve.x, 2 * np.arange(1, 7))  # mean of 1 and 3 s an epoch
    # RN at its end: F1 is 1 for the falx, .8 for parietal (4 of 6 called so), 0 for the thalamus.
    assert curve.y[-1] == pytest.approx((4 * 1 + 4 * 0.8) / 10)


def test_confusions_have_every_slice(drawn):
    files = draw_confusions(made_up_results())
    assert len(files) == 1 + 2 * 3 and all(confusion.sum() == 2 * 10 for _, confusion, _ in drawn)
    rows = list(csv.DictReader(files["confusion.csv"].splitlines()))
    base = [r for r in rows if (r["cohort"], r["method"]) == ("test", "BaseNet")]
    # 4, 4 and 2 slices, two seeds
    assert {(r["true"], r["predicted"], r["slices"]) for r in base} == {
        ("along_falx_tentorium", "parietal_region", "8"),
        ("parietal_region", "parietal_region", "8"),
        ("thalamus", "parietal_region", "4"),
    }


def test_the_same_numbers_give_the_same_bytes():
    y = np.array([0.5, 0.6])
    curves = [Curve("a", np.array([1, 2]), y, y - 0.1, y)]
    once, again = (curve_chart("T", "x", "y", curves) for _ in range(2))
    assert once == again and "<dc:date>" not in once


def test_without_matplotlib_the_missing_extra_is_named():
    """Before any work, because what writes the results cannot even be imported."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from situs.cli.console import explain\n"
        "try:\n    import situs.paper.output\n"
        "except ImportError as error:\n    sys.exit(explain(error))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "situs: error: matplotlib is not installed: pip install 'situs[plots]'\n"
