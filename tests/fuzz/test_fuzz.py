"""Sixty of the mutants that ``make fuzz`` runs 5,000 of."""

import pytest

from fuzz.base import make_base
from fuzz.runner import report, run_mutants


@pytest.mark.slow
def test_no_mutant_is_a_fault(tmp_path):
    outcomes = run_mutants(0, 60, make_base(tmp_path))
    assert len(outcomes) == 60
    assert {o.outcome for o in outcomes} == {"answered", "refused"}, report(outcomes)
