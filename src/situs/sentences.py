"""Sentences of findings from the catalogue of texts, so that a report can say them in its own language."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["CATALOGUES", "Sentence", "english", "list_either"]

CATALOGUES = resources.files("situs") / "data" / "texts"  # a file for each language


class Sentence(str):
    """A sentence in English that can be said in another language.

    Args:
        key: Its key in a catalogue.
        values: What its text has in braces, as texts without words. `sites` is an exception: it holds the
            names of the lesion's possible sites, which another language replaces by its own.

    Attributes:
        key: As above.
        values: As above.
    """

    key: str
    values: dict[str, str]

    def __new__(cls, key: str, **values: str) -> Sentence:
        made = super().__new__(cls, english()[key].format_map(values))
        made.key, made.values = key, values
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        return (self.key,), self.values

    def said_in(self, texts: Mapping[str, str], sites: str) -> str:
        """The sentence in the language of a catalogue.

        Args:
            texts: The catalogue.
            sites: The names of the lesion's possible sites in that language (`list_either`).
        """
        return texts[self.key].format_map({**self.values, "sites": sites})


@cache
def english() -> Mapping[str, str]:
    """The English catalogue."""
    texts: dict[str, Any] = json.loads((CATALOGUES / "en.json").read_text(encoding="utf-8"))
    return texts


def list_either(names: Sequence[str], texts: Mapping[str, str]) -> str:
    """Names as alternatives: ``a, b or c``."""
    *others, last = names
    return texts["either"].format(others=", ".join(others), last=last) if others else last
