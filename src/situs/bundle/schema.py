"""What ``bundle.json`` may hold, declared once and checked whenever a bundle is read.

A good hash says that a file is whole, not that whoever wrote it meant well: numbers are limited to what a
bundle can need, so that no value makes the program crawl or fill the memory.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from situs.anatomy import MOST_SITES
from situs.views import CHANNELS

__all__ = ["LARGEST_FILE", "MOST_REFERENCES", "check_description"]

LARGEST_FILE = 2**31  # bytes
MOST_REFERENCES = 2_000_000

_Text = Annotated[str, Meta(max_length=10_000)]
_Key = Annotated[str, Meta(min_length=1, max_length=200)]
_Fraction = Annotated[float, Meta(ge=0, le=1)]
_Logit = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Millimetres = Annotated[float, Meta(ge=0.1, le=1000)]
_Channel = Annotated[str, Meta(pattern=f"^({'|'.join(CHANNELS)})$")]


class _Site(Struct, forbid_unknown_fields=True):
    """See `situs.anatomy.Site`, which checks the rest."""

    key: _Key
    name: _Key
    group: _Text = ""  # of bundles from before the groupings
    paired: bool = False
    code_scheme: _Text = ""
    code: _Text = ""
    code_meaning: _Text = ""
    code_source: _Text = ""
    parent: _Text = ""
    labels: _Text = ""
    groups: dict[_Key, _Text] = {}


class _Recipe(Struct):
    """Of a recipe only what is used without training; all else is for the card."""

    name: _Text = ""
    max_slices: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class _Views(Struct, forbid_unknown_fields=True):
    size_px: Annotated[int, Meta(ge=16, le=512)]
    global_mm: _Millimetres
    local_mm: _Millimetres
    channels: Annotated[list[_Channel], Meta(min_length=1, max_length=len(CHANNELS))]
    fill_hu: Annotated[float, Meta(ge=-1024, le=4000)]
    away_mm: _Millimetres
    upright: bool


class _File(Struct):
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Meta(ge=1, le=LARGEST_FILE)]


class _Calibration(Struct):
    level: _Fraction
    thresholds: dict[_Key, _Fraction]
    farthest: Annotated[float, Meta(ge=0, le=1e9)]
    least_inside: _Fraction
    regions: _Count
    patients: _Count
    pooled: _Fraction = 0.0
    folds: list[_Text] = []
    alone: _Calibration | None = None


class _Pictures(Struct):
    rendered: _Count
    patients: _Count


class _Changes(Struct):
    added: _Count
    removed: _Count


class _Scores(Struct):
    precision: _Fraction
    recall: _Fraction
    f1: _Fraction


class _Means(Struct):
    weighted: _Scores
    macro: _Scores


class _Evaluation(Struct):
    """An evaluation in words or figures, see `situs.bundle.card.model_card`."""

    title: _Text
    text: _Text | list[_Text] = ""
    sites: dict[_Key, _Scores] = {}
    weighted: _Scores | None = None
    macro: _Scores | None = None
    rois: _Means | None = None
    facts: dict[str, Any] = {}


class _Tensor(Struct):
    type: _Key
    shape: list[int | str]
    meaning: _Text


class _Network(Struct):
    inputs: dict[_Key, _Tensor]
    outputs: dict[_Key, _Tensor]


class _Description(Struct):
    """All of ``bundle.json`` but its format, which is looked at first."""

    name: _Key
    version: _Key
    created_by: _Text
    recipe: _Recipe
    sites: Annotated[list[_Key | _Site], Meta(min_length=1, max_length=MOST_SITES)]
    views: _Views
    n_neighbors: Annotated[int, Meta(ge=1, le=200)]
    embedding_width: Annotated[int, Meta(ge=1, le=65_536)]
    n_references: Annotated[int, Meta(ge=1, le=MOST_REFERENCES)]
    networks: dict[_Key, _Network]
    training: dict[str, Any]
    evaluation: list[_Evaluation]
    files: dict[_Key, _File]
    n_trained_sites: Annotated[int, Meta(ge=1, le=MOST_SITES)] = MOST_SITES
    score_offsets: dict[_Key, _Logit] = {}
    score_weights: dict[_Key, list[_Logit]] = {}
    certainty: _Calibration | None = None
    pictures: _Pictures | None = None
    references: _Changes | None = None


def check_description(description: dict[str, Any]) -> None:
    """Check the content of ``bundle.json``.

    Raises:
        ValueError: If something is missing, of another type or out of range; the text says what and where.
    """
    checked = msgspec.convert(description, _Description)
    for key, weights in checked.score_weights.items():
        if len(weights) != checked.embedding_width:
            raise ValueError(
                f"expected {checked.embedding_width} numbers, got {len(weights)} "
                f"- at `$.score_weights[{key!r}]`"
            )
