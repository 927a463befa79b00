"""Coverage of site sets, by hand."""

import numpy as np
import pytest

from situs.anatomy import SITE_INDEX
from situs.certainty import Judgement
from situs.cohort.coverage import measure_coverage

THALAMUS, BRAINSTEM = SITE_INDEX["thalamus"], SITE_INDEX["brainstem"]
TRUTH = np.array([THALAMUS, THALAMUS, THALAMUS, BRAINSTEM])
JUDGEMENTS = [
    Judgement(("thalamus",), ()),
    Judgement(("brainstem", "thalamus"), ("More than one site fits.",)),
    Judgement(("brainstem",), ()),
    Judgement(("brainstem",), ()),
]


def test_figures_by_hand():
    coverage = measure_coverage(JUDGEMENTS, TRUTH, 0.9)
    assert coverage.level == 0.9
    assert coverage.overall == 3 / 4  # the third set lacks the thalamus
    assert coverage.sites == {"thalamus": pytest.approx(2 / 3), "brainstem": 1}
    assert coverage.worst_site == "thalamus"
    assert coverage.mean_size == 5 / 4
    assert coverage.sure == 3 / 4
    assert coverage.right_if_sure == pytest.approx(2 / 3)
    assert coverage.right_if_not == 0
    # Thalamus and brainstem share the compartment; of the four sets, three hold one site each.
    assert coverage.groups == {
        "compartment": {"shared": 1, "right_if_shared": 1},
        "tentorium": {"shared": 3 / 4, "right_if_shared": pytest.approx(2 / 3)},
        "ich_location": {"shared": 3 / 4, "right_if_shared": pytest.approx(2 / 3)},
    }
    assert "in 0.750, of thalamus in 0.667 (the least);\nmean size 1.25; 0.750 are sure;" in coverage.text()
    assert "a group of tentorium in 0.750; 0.667 of these are right" in coverage.text()


def test_without_a_sure_or_an_unsure_answer_there_is_no_fraction_of_right_ones():
    all_sure = measure_coverage(JUDGEMENTS[2:], TRUTH[2:], 0.9)
    assert (all_sure.right_if_sure, all_sure.right_if_not) == (0.5, None)
    assert "right among the others" not in all_sure.facts() and "the others" not in all_sure.text()
    none_sure = measure_coverage(JUDGEMENTS[1:2], TRUTH[1:2], 0.9)
    assert (none_sure.right_if_sure, none_sure.right_if_not) == (None, 0)
    assert "right among the sure answers" not in none_sure.facts() and "the sure" not in none_sure.text()
