"""The threads that read and label scans: few at a time, so that time and memory stay within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from situs.io.limits import at_most
from situs.web.limits import Limits
from situs.web.uploads import RequestError

__all__ = ["Workers"]

P = ParamSpec("P")
Result = TypeVar("Result")


class Workers:
    """Threads that do the work.

    Args:
        limits: How many, and how many requests may wait for them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = CapacityLimiter(limits.workers)
        self._asked = 0

    async def run(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Call a function in a thread, when one is free.

        Raises:
            RequestError: Too many are waiting.
        """
        if self._asked >= self._limits.workers + self._limits.waiting:
            raise RequestError(503, "the server is busy: try again in a few seconds")

        def work() -> Result:
            with at_most(self._limits.voxels):
                return function(*args, **kwargs)

        self._asked += 1
        try:
            return await to_thread.run_sync(work, limiter=self._free)
        finally:
            self._asked -= 1
