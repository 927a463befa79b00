"""What the server holds: the scans of each client, their regions and findings. In memory alone.

Only the thread of the event loop uses a store, so it needs no locks. Nobody learns of the scans of another
client: they are not found.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from situs.errors import SitusError
from situs.web.limits import Limits
from situs.web.work import Labelled, Regions, Scan

__all__ = ["Held", "NotFoundError", "Store", "TooManyError", "pick"]

Result = TypeVar("Result", Regions, Labelled)


class NotFoundError(SitusError):
    """There is nothing of this name, or no more, or it is another client's."""


class TooManyError(SitusError):
    """No more fits.

    Args:
        text: The line for the client.
        own: Whether the client can mend it by removing scans of its own.
    """

    def __init__(self, text: str, own: bool) -> None:
        super().__init__(text)
        self.own = own


@dataclass(eq=False)
class Held:
    """A scan of a client and what was made of it.

    Attributes:
        scan: The scan.
        used: When it was last asked for, in seconds of the store's clock.
        regions: Sets of regions by their ids.
        findings: Findings by their ids.
    """

    scan: Scan
    used: float
    regions: dict[str, Regions] = field(default_factory=dict)
    findings: dict[str, Labelled] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Bytes of all of it."""
        results: list[Regions | Labelled] = [*self.regions.values(), *self.findings.values()]
        return self.scan.n_bytes + sum(result.n_bytes for result in results)


class Store:
    """The scans of all clients.

    Args:
        limits: How many, and for how long.
        clock: Seconds, for tests.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._scans: dict[tuple[str, str], Held] = {}  # by client and id
        self._coming: list[str] = []  # the clients of scans that are being read

    def _refuse_too_large(self, n_bytes: int) -> None:
        if self._n_bytes() + n_bytes > self._limits.held_bytes:
            raise TooManyError("the server has no memory left for this: try again later", own=False)

    @contextmanager
    def room(self, client: str) -> Iterator[None]:
        """Keep room for one more scan while it is read.

        Raises:
            TooManyError: There is none.
        """
        self.drop_old()
        owners = [owner for owner, _ in self._scans] + self._coming
        if owners.count(client) >= self._limits.client_scans:
            raise TooManyError(
                f"{self._limits.client_scans} scans are held for this page already: remove one", own=True
            )
        if len(owners) >= self._limits.scans or self._n_bytes() >= self._limits.held_bytes:
            raise TooManyError("the server holds as many scans as it can: try again later", own=False)
        self._coming.append(client)
        try:
            yield
        finally:
            self._coming.remove(client)

    def add(self, client: str, scan: Scan) -> str:
        """Hold a scan.

        Returns:
            Its id.

        Raises:
            TooManyError: The scans together would be too large.
        """
        self._refuse_too_large(scan.n_bytes)
        name = _new_id()
        self._scans[client, name] = Held(scan, self._clock())
        return name

    def find(self, client: str, name: str) -> Held:
        """A scan of a client, which counts as used now.

        Raises:
            NotFoundError: There is none.
        """
        self.drop_old()
        held = self._scans.get((client, name))
        if held is None:
            raise NotFoundError(f"there is no scan {name!r}: it was dropped, or never there; send it again")
        held.used = self._clock()
        return held

    def remove(self, client: str, name: str) -> None:
        """Drop a scan of a client.

        Raises:
            NotFoundError: There is none.
        """
        self.find(client, name)
        del self._scans[client, name]

    def keep(self, results: dict[str, Result], result: Result) -> str:
        """Add a result to those of a scan; of too many, the oldest is dropped.

        Returns:
            Its id.

        Raises:
            TooManyError: All that is held would be too large.
        """
        self._refuse_too_large(result.n_bytes)
        while len(results) >= self._limits.results:
            del results[next(iter(results))]
        name = _new_id()
        results[name] = result
        return name

    def drop_old(self) -> None:
        """Drop the scans that nobody has asked for in time."""
        oldest = self._clock() - self._limits.keep_s
        for key in [key for key, held in self._scans.items() if held.used < oldest]:
            del self._scans[key]

    def clear(self) -> None:
        """Drop all scans."""
        self._scans.clear()

    def __len__(self) -> int:
        return len(self._scans)

    def _n_bytes(self) -> int:
        return sum(held.n_bytes for held in self._scans.values())


def pick(results: dict[str, Result], name: str, what: str) -> Result:
    """A result by its id.

    Raises:
        NotFoundError: There is none.
    """
    if name not in results:
        raise NotFoundError(f"there are no {what} {name!r}: they were dropped, or never there; ask again")
    return results[name]


def _new_id() -> str:
    return secrets.token_urlsafe(12)
