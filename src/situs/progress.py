"""How long work reports its progress: one protocol for all of it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """What long work calls as it goes on; a plain function will do."""

    def __call__(self, stage: str, done: int, total: int, message: str = "", /) -> None:
        """Report progress.

        Args:
            stage: what is counted, such as ``scans`` or ``slices``; each stage counts from 0
            done: how many are done
            total: how many there are
            message: more about it, such as the loss of a training
        """


def silent(stage: str, done: int, total: int, message: str = "", /) -> None:
    """A `Progress` that reports to nobody."""
