"""The tables, from results made up so that every number can be calculated by hand."""

import csv

import pytest
from phantoms.made_up_results import made_up_results

from situs.anatomy import SITE_KEYS
from situs.paper.results import METHODS
from situs.paper.tables import make_claims, make_methods, make_table1, make_table2


@pytest.fixture(scope="module")
def results():
    return made_up_results()


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_table1_counts(results):
    table = {row["site"]: row for row in rows(make_table1(results)["table1.csv"])}
    falx = table["along falx/tentorium"]
    assert [falx[c] for c in ("paper", "here", "to train on", "to test on", "balanced test")] == [
        "1025", "11", "7", "4", "4"
    ]  # fmt: skip
    assert table["slices"]["paper"] == "15425" and table["slices"]["here"] == "20"
    assert table["scans"]["paper"] == table["scans"]["here"] == "216"


def test_table2_has_the_paper_s_numbers_beside_ours(results):
    files = make_table2(results)
    table = {
        (row["cohort"], row["metric"], row["method"], row["site"]): row for row in rows(files["table2.csv"])
    }
    falx = table["test", "f1", "BaseNet+RN", "along_falx_tentorium"]
    assert (falx["paper"], falx["mean"], falx["spread"]) == ("0.5540", "1.0000", "0.0000")
    # BaseNet: 4 of 10 right, all called parietal.
    parietal = table["test", "precision", "BaseNet", "parietal_region"]
    assert (parietal["paper"], parietal["mean"]) == ("0.4010", "0.4000")
    mean = table["test", "f1", "BaseNet", "weighted_mean"]
    assert mean["paper"] == "0.3720" and float(mean["mean"]) == pytest.approx(0.4 * 2 * 4 / 14, abs=1e-4)
    assert float(table["test", "f1", "BaseNet", "macro_mean"]["mean"]) == pytest.approx(8 / 14 / 3, abs=1e-4)
    assert table["test", "f1", "BaseNet", "thalamus"]["paper"] == ""  # the paper does not show it
    assert table["test", "f1", "BaseNet", "brainstem"]["mean"] == ""  # no slice of it here
    assert {site for *_, site in table} == {*SITE_KEYS, "weighted_mean", "macro_mean"}
    line = next(li for li in files["table2.md"].splitlines() if li.startswith("| thalamus | 2 |"))
    assert line.split("|")[3].strip() == ".000 ± .000" and line.split("|")[4].strip() == "-"
    assert "1.000 ± .000" in line


def test_baselines_and_priors_are_in_the_table_of_methods(results):
    table = {(r["cohort"], r["method"], r["f1"]): r for r in rows(make_methods(results)["methods.csv"])}
    knn = table["balanced", "kNN", "weighted"]
    base = 0.4 * 8 / 14
    assert float(knn["mean"]) == pytest.approx((1 + base) / 2, abs=1e-4)
    assert float(knn["spread"]) == pytest.approx((1 - base) / 2, abs=1e-4)
    names = {*METHODS, "kNN"}
    assert {method for _, method, _ in table} == names | {f"{name}, prior-adjusted" for name in names}
    # Always the falx: a precision of .4, a recall of 1, for 4 of 10 slices.
    assert float(table["test", "kNN, prior-adjusted", "weighted"]["mean"]) == pytest.approx(base, abs=1e-4)


def test_claims_compare_the_same_heads(results):
    table = {(r["cohort"], r["claim"], r["F1"]): r for r in rows(make_claims(results)["claims.csv"])}
    cohort = "the paper's site frequencies"
    rare = table[cohort, "BaseNet+RN+NN against BaseNet+RN", "six rarest"]
    assert (rare["difference"], rare["pairs ahead"]) == ("+1.000", "4 of 4")
    assert table[cohort, "BaseNet+RN+NN against BaseNet", "macro"]["p"] == "0.125"  # 2 of 16 flips
    early = table[cohort, "BaseNet+RN+NN after 5 epochs against BaseNet+RN at its end", "six rarest"]
    assert early["difference"] == "+1.000"
