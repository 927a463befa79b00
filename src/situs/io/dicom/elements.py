"""Values out of a DICOM data set: numbers, texts and the items of sequences.

Of what is not needed, `value_of`, `safe_text` and `safe_items` give nothing where it is damaged. The others
raise whatever pydicom raises at damaged values: a caller reads them where damage is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "items",
    "look",
    "numbers",
    "safe_items",
    "safe_text",
    "text_of",
    "texts",
    "value_of",
    "whole_text",
]


def look(place: tuple[Any, ...], sequence: str, key: str) -> Any:
    """A value from a frame's own groups, else from the shared ones, else from the plain header."""
    for where in place:
        items = where.get(sequence)
        value = (items[0] if items else where).get(key)
        if value is not None:
            return value
    return None


def value_of(header: Any, key: str) -> Any:
    """A value that is not needed; None if it is damaged."""
    try:
        return header.get(key)
    except Exception:  # whatever a value of the wrong kind sets off inside pydicom
        return None


def safe_text(header: Any, key: str) -> str:
    """A value that is not needed as text; empty if it is damaged."""
    value = value_of(header, key)
    return str(value).strip() if value is not None else ""


def whole_text(value: Any) -> str:
    """A whole number as text; empty if it is none."""
    try:
        return str(int(value))
    except (TypeError, ValueError, OverflowError):
        return ""


def safe_items(header: Any, key: str) -> list[Any]:
    """The items of a sequence that is not needed; none if it is damaged."""
    return list(value_of(header, key) or [])


def numbers(value: Any, count: int) -> tuple[float, ...]:
    """The first `count` numbers of a tag; empty if there are fewer or one is not finite."""
    if value is None or value == "":
        return ()
    found = tuple(float(v) for v in (value if hasattr(value, "__len__") else [value]))[:count]
    return found if len(found) == count and np.isfinite(found).all() else ()


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a tag with one or several."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def items(dataset: Any, *keys: str) -> list[Any]:
    """All items of a sequence, or of the sequence within each item of a sequence, and so on."""
    found = [dataset]
    for key in keys:
        found = [item for outer in found for item in outer.get(key) or []]
    return found


def text_of(dataset: Any, key: str) -> str:
    """A value as text; empty if there is none."""
    value = dataset.get(key)
    return "" if value is None else str(value).strip()
