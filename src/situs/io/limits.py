"""How many voxels a scan or mask may have: 2^30, or fewer where a server reads what others send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["at_most", "most_voxels"]

# 512 x 512 x 4096; a scan of more is not of a head alone.
_most: ContextVar[int] = ContextVar("most_voxels", default=2**30)


def most_voxels() -> int:
    """The limit that holds here."""
    return _most.get()


@contextmanager
def at_most(voxels: int) -> Iterator[None]:
    """Refuse larger scans and masks within this context, which is of one thread or task.

    >>> with at_most(10):
    ...     print(most_voxels())
    10
    """
    token = _most.set(voxels)
    try:
        yield
    finally:
        _most.reset(token)
