"""The scripts of `benchmarks/` as modules."""

from importlib import import_module
from types import ModuleType

import pytest

from phantoms import REPO


def load_benchmark(name: str) -> ModuleType:
    """A script, imported once for all tests; it finds its neighbours, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "benchmarks")
        return import_module(name)
