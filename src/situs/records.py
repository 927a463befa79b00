"""Records of arrays: dataclasses whose arrays hold one row an example.

What else a record holds, such as None for an array that is not there, belongs to all rows and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["join_rows", "map_arrays", "take_rows"]

Record = TypeVar("Record", bound="DataclassInstance")
Array = NDArray[Any]
Rows = slice | NDArray[np.integer] | NDArray[np.bool_]


def map_arrays(record: Record, change: Callable[[Array], Array]) -> Record:
    """A copy of a record whose arrays went through a function."""
    return replace(record, **{name: change(array) for name, array in _arrays(record).items()})


def take_rows(record: Record, rows: Rows) -> Record:
    """The examples `rows` of a record alone.

    Args:
        record: Its arrays are (n, ...).
        rows: A slice, indices (m,), or a mask (n,) of bool.
    """
    return map_arrays(record, lambda array: array[rows])


def join_rows(records: Sequence[Record]) -> Record:
    """The examples of all records, at least one, in their order; all have the same arrays."""
    joined = {name: np.concatenate([getattr(r, name) for r in records]) for name in _arrays(records[0])}
    return replace(records[0], **joined)


def _arrays(record: Record) -> dict[str, Array]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
