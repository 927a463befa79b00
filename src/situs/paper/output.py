"""The folder of results of `situs reproduce`: tables, figures, and a README that says what was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from situs.cohort.scores import macro_f1, weighted_f1
from situs.files import make_folder, write_file
from situs.paper.figures import draw_confusions, draw_curves
from situs.paper.results import METHODS, Results
from situs.paper.tables import EARLY, format_score, make_claims, make_methods, make_table1, make_table2
from situs.tables import markdown_table

__all__ = ["write_results"]

_PAPER_SCANS, _PAPER_TEST_SCANS = 216, 43
_PAPER_EARLY = {"BaseNet+RN": 0.53, "BaseNet+RN+NN": 0.59}  # weighted F1 after `EARLY` epochs
_FILES = {
    "[table1.md](table1.md)": "slices of every site, the paper's beside ours",
    "[table2.md](table2.md)": "precision, recall, F1 of the three methods, the paper's beside ours",
    "[methods.md](methods.md)": "the same with the baselines: mean F1s",
    "[claims.md](claims.md)": "the paper's claims as paired tests",
    "`f1_*.svg`, `curves.csv`": "F1 after every epoch, against epochs and seconds",
    "`confusion_*.svg`, `confusion.csv`": "confusion matrices",
}


def write_results(out: Path, results: Results, settings: dict[str, Any]) -> None:
    """Write all tables and figures into a folder, with a ``README.md``.

    Args:
        out: The folder; it is made unless it is there.
        results: What all methods gave.
        settings: What was run, as `situs.paper.experiment.reproduce` notes it.

    Raises:
        OutputError: If a file cannot be written.
    """
    make_folder(out)
    files = {
        **make_table1(results),
        **make_table2(results),
        **make_methods(results),
        **make_claims(results),
        **draw_curves(results),
        **draw_confusions(results),
        "README.md": _readme(results, settings),
    }
    for name, text in files.items():
        write_file(out / name, text.encode())


def _readme(results: Results, settings: dict[str, Any]) -> str:
    cohorts, recipe = settings["cohorts"], settings["recipe"]
    weights = "without ImageNet weights" if settings["weights"] is None else f"from {settings['weights']}"
    network = f", VGG16 {weights}" if recipe["network"] == "vgg16" else ""
    network += ", its convolutions frozen" if recipe["frozen"] else ""
    macro = {m: macro_f1(c.sum(axis=1)).mean() for m, c in results.counts["balanced"].items()}
    best = max(macro, key=lambda method: float(macro[method]))
    heads = [f"- Heads to test on: {', '.join(cohorts['test_heads'])}. No head is on both sides."]
    if cohorts["train_cohort"] is None:
        heads.insert(0, f"- Heads to train on: {', '.join(cohorts['train_heads'])}.")
    lines = [
        "# Results of `situs reproduce`",
        "",
        f"Recipe `{recipe['name']}`{network}; seeds: {settings['seeds']}; on {settings['device']}. "
        "Tested on rendered scans only: no patient's.",
        *(f"**{remark}**" for remark in _remarks(results, settings)),
        "",
        *heads,
        f"- BaseNet saw {settings['basenet_examples']:,} examples. The Relation Networks saw "
        f"{settings['epochs']} epochs of {results.n_related:,}.",
        f"- Highest macro F1 on the balanced cohort: {best}, {format_score(macro[best])}; "
        f"{METHODS[-1]} has {format_score(macro[METHODS[-1]])}.",
        "- Intervals: 95 %, bootstrap over the test heads, mean of the seeds. ± is the standard deviation"
        " over the seeds. With few heads both understate how much heads differ.",
        "- Tests: sign flips of the differences by head and seed. Pairs of one head, or of one seed, are not"
        " independent, so p is too small rather than too large.",
        "- Prior-adjusted: the logarithm of each site's frequency among the test slices is added to its"
        " logit.",
        "",
        _early_table(results),
        markdown_table(
            ["stage", "CPU hours"],
            [[stage, f"{hours:.2f}"] for stage, hours in settings["hours"].items()],
        ),
        "CPU hours: of one seed, the mean of the seeds; those of `features` are of all seeds together.",
        "",
        markdown_table(["file", "what"], list(_FILES.items())),
        "How to run it: `docs/reproduce.md` of situs.",
    ]
    return "\n".join(lines) + "\n"


def _remarks(results: Results, settings: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know first."""
    cohorts, n = settings["cohorts"], results.scans
    on_paper_scans = cohorts["train_cohort"] is None
    remarks = []
    if not on_paper_scans:
        remarks.append(
            f"Trained on {n['train']:,} scans of the cohort `{cohorts['train_cohort']}`, not on "
            "the paper's 173; the tests are the same."
        )
    if n["test"] < _PAPER_TEST_SCANS or (on_paper_scans and n["train"] + n["test"] < _PAPER_SCANS):
        remarks.append("A small run: fewer scans than the paper's. Its figures mean nothing.")
    if results.untrained:
        remarks.append(f"Nothing to train on, so always missed: {', '.join(results.untrained)}.")
    if settings["samples"] < 1:
        remarks.append(f"BaseNet was trained on {100 * settings['samples']:.2g} % of the recipe's examples.")
    return remarks


def _early_table(results: Results) -> str:
    """Weighted F1 early in the training of the Relation Networks, the paper's beside ours."""
    nearest = METHODS[-1]
    head = [
        "weighted F1",
        f"paper, {EARLY} epochs",
        f"here, {EARLY} epochs",
        f"here, after as many seconds as {EARLY} epochs of RN+NN take",
        "here, at the end",
        "minutes of training",
    ]
    rows = []
    for method, published in _PAPER_EARLY.items():
        counts = (
            results.after_epoch("test", method, EARLY),
            results.at_equal_time("test", method, nearest, EARLY),
            results.counts["test"][method],
        )
        scores = [weighted_f1(of.sum(axis=1)).mean() for of in counts]
        minutes = np.mean([seconds[-1] for seconds in results.seconds[method]]) / 60
        rows.append([method, *map(format_score, [published, *scores]), f"{minutes:.2f}"])
    return markdown_table(head, rows)
