"""100 of the mutants that ``make fuzz`` runs 5,000 of, and what the outcome of a mutant is called."""

import pytest

from fuzz.base import make_base
from fuzz.judge import compare
from fuzz.runner import report, run_mutants
from fuzz.spoil import ALL


def test_no_mutant_is_a_fault(tmp_path):
    outcomes = list(run_mutants(0, 100, make_base(tmp_path)))
    assert len(outcomes) == 100
    assert not any(o.is_fault for o in outcomes), "\n".join(
        [report(outcomes), *(str(o) for o in outcomes if o.is_fault)]
    )
    assert {"refused", "same answer", "other content"} <= {o.outcome for o in outcomes}


def finding(**changes):
    return {"site": "thalamus", "side": "left", "doubts": [], "notes": ["whole"], **changes}


def findings(*found, assumptions=("whole",)):
    return {"findings": list(found), "assumptions": list(assumptions)}


PLAIN = findings(finding(), finding(side="right"))


@pytest.mark.parametrize(
    ("report", "keeps", "expected"),
    [
        (PLAIN, ALL, "same answer"),
        (findings(finding(), finding(side="left")), ALL, "silent change"),
        (findings(finding(), finding(side="left", doubts=["?"])), ALL, "doubt or note"),
        (findings(finding(), finding(side="left", notes=["!"])), ALL, "doubt or note"),
        (findings(finding(doubts=["?"]), finding(side="left")), ALL, "silent change"),  # of the other lesion
        (findings(finding(), finding(side="left"), assumptions=["!"]), ALL, "doubt or note"),
        (findings(finding(), finding(side="right", site="falx")), ALL, "silent change"),
        (findings(finding(), finding(side="right", site="falx")), ("side",), "same answer"),
        (findings(finding()), ("side",), "silent change"),
        (findings(finding(doubts=["?"])), ("side",), "doubt or note"),
    ],
)
def test_an_answer_that_changed_without_a_word_is_a_silent_change(report, keeps, expected):
    assert compare(report, PLAIN, keeps) == expected
