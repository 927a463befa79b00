"""The versions of all that an answer rests on, for reports of faults."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

from situs.errors import BundleError

__all__ = ["versions_text"]

_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_NOT_USED = {"bench", "dev", "docs"}  # extras of whoever works on situs


def versions_text() -> str:
    """One line each: Python, the machine, the shipped bundle, and every library that is installed."""
    lines = [f"Python {platform.python_version()}", platform.platform(), _bundle()]
    needed, optional = set[str](), set[str]()
    for line in requires("situs") or ():
        extra, name = _EXTRA.search(line), re.match(r"[\w.-]+", line)
        if name and name[0] != "situs" and (extra is None or extra[1] not in _NOT_USED):
            (needed if extra is None else optional).add(name[0])
    names = [*sorted(needed), *sorted(optional - needed)]
    return "\n".join([*lines, *(f"{name} {_version(name)}" for name in names)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _bundle() -> str:
    """The shipped bundle, or what is wrong with it."""
    from situs.bundle import read_bundle

    try:
        bundle = read_bundle()
    except BundleError as error:
        return f"bundle: {error}"
    return f"bundle {bundle.name} {bundle.version}"
