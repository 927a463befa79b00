from dataclasses import dataclass

import numpy as np
import pytest

from situs.records import join_rows, map_arrays, take_rows


@dataclass(frozen=True, eq=False)
class Numbers:
    values: np.ndarray
    names: np.ndarray
    weights: np.ndarray | None = None
    unit: str = "mm"


RECORD = Numbers(np.arange(8).reshape(4, 2), np.array(list("abcd")), unit="cm")


@pytest.mark.parametrize(
    "rows", [slice(1, 4, 2), np.array([1, 3]), np.array([False, True, False, True])], ids=str
)
def test_rows_are_taken_of_every_array_and_the_rest_stays(rows):
    taken = take_rows(RECORD, rows)
    assert taken.values.tolist() == [[2, 3], [6, 7]] and taken.names.tolist() == ["b", "d"]
    assert taken.weights is None and taken.unit == "cm"


def test_joining_undoes_taking():
    parts = [take_rows(RECORD, part) for part in (slice(0, 1), slice(1, 1), slice(1, 4))]
    joined = join_rows(parts)
    assert np.array_equal(joined.values, RECORD.values) and np.array_equal(joined.names, RECORD.names)
    assert joined.weights is None and joined.unit == "cm"


def test_a_function_changes_the_arrays_alone():
    changed = map_arrays(RECORD, lambda array: array[::-1])
    assert changed.names.tolist() == list("dcba") and changed.weights is None
    assert RECORD.names.tolist() == list("abcd")
