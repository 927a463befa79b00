"""The contract with clients: what requests and answers hold. Lengths in mm, positions RAS+ mm of the scan."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from situs.io.shapes import Shape

__all__ = [
    "Example",
    "FindingsRequest",
    "Health",
    "Problem",
    "Progress",
    "RegionsMade",
    "RegionsRequest",
    "ScanMade",
    "SeriesItem",
    "SeveralSeries",
    "Version",
]


class Example(Struct, forbid_unknown_fields=True):
    """Asks for the example scan."""

    example: Literal[True]


class RegionsRequest(Struct, forbid_unknown_fields=True):
    """Asks for the lesions of the example scan, or for shapes, in RAS+ mm of the scan as it is served."""

    example: bool = False
    shapes: Annotated[list[Shape], Meta(min_length=1, max_length=1000)] | None = None


class FindingsRequest(Struct, forbid_unknown_fields=True):
    """Asks for the findings on a set of regions."""

    roi: str


class ScanMade(Struct):
    """A scan that was read. It is dropped after so many seconds without a request for it."""

    id: str
    slices: int
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    notes: list[str]
    expires_in_s: int


class SeriesItem(Struct):
    """A CT series of an upload."""

    id: str
    description: str
    slices: int


class SeveralSeries(Struct):
    """There are several head CT series: the upload is sent again with the field `series`."""

    error: str
    series: list[SeriesItem]


class RegionsMade(Struct):
    """A set of regions that was read."""

    id: str
    lesions: int


class Progress(Struct):
    """An event `progress`."""

    done: int
    total: int
    text: str


class Problem(Struct):
    """What is wrong, in one line."""

    error: str


class Health(Struct):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Version(Struct):
    """What answers."""

    situs: str
    bundle_name: str
    bundle_version: str
