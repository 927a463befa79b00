"""The workers of a Dask scheduler, which label the scans of a batch on other computers.

joblib has a Dask backend too. With joblib 1.6 it waits for ever once a scan has killed its workers, so the
scheduler is asked directly.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from situs.batch.manifest import Case
from situs.batch.work import worker_state
from situs.errors import InputError, OutputError

__all__ = ["Cluster"]

_CONNECT_S = 10
_PER_THREAD = 2  # scans that are given to a worker's thread at a time: one waits while one is labelled


class Cluster:
    """A connection to a scheduler; a context manager.

    Args:
        address: Of the scheduler, such as ``tcp://host:8786``.

    Raises:
        InputError: It does not answer.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port

        self._address = address
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            # A client that finds nobody tries on in the background, and says so.
            socket.create_connection(get_address_host_port(address), timeout=_CONNECT_S).close()
            self._client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as problem:  # nobody is there; it is no address
            raise self._error(
                "does not answer: start it (dask scheduler) or correct the address, such as tcp://host:8786"
            ) from problem

    def _error(self, text: str) -> InputError:
        return InputError(f"--scheduler {self._address}: {text}")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def check(self, bundle: str | None, folders: Sequence[Path]) -> None:
        """Refuse workers that would label otherwise than this computer, or that do not see its files.

        Args:
            bundle: See `situs.batch.label_batch`.
            folders: That all of them must see.

        Raises:
            InputError: There is no worker, or one is of no use.
        """
        own = worker_state(bundle, folders)
        try:
            states = self._client.run(worker_state, bundle, folders, on_error="return")
        except Exception as problem:  # whatever a worker without situs makes of it
            raise self._error(
                f"the workers cannot use situs ({_first_line(problem)}): install it"
            ) from problem
        if not states:
            raise self._error(f"has no workers: start some (dask worker {self._address} --nthreads 1)")
        for worker, state in states.items():
            if isinstance(state, Exception):
                raise self._error(f"worker {worker}: {_first_line(state)}")
            if state != own:
                has = f"has {', '.join(state)}, expected {', '.join(own)}"
                raise self._error(f"worker {worker} {has}: install the same there")

    def label(self, label: Callable[[Case], None], cases: Iterator[Case]) -> Iterator[tuple[Case, bool]]:
        """Label cases on the workers; those that a lost worker had are given to another one.

        Args:
            label: Labels one, on a worker.
            cases: Twice as many as the workers have threads are taken ahead.

        Yields:
            Each case when it is done, and whether it killed its workers, so that it is not labelled.

        Raises:
            OutputError: A worker cannot write.
            InputError: The scheduler was lost.
        """
        from distributed import KilledWorker, as_completed

        running = as_completed(loop=self._client.loop)
        given: dict[Any, Case] = {}

        def give(count: int) -> None:
            for case in islice(cases, count):
                future = self._client.submit(label, case, pure=False)
                given[future.key] = case
                running.add(future)

        try:
            give(_PER_THREAD * max(1, sum(self._client.nthreads().values())))
            for future in running:
                if future.status in ("cancelled", "lost"):
                    raise ConnectionError
                error = future.exception() if future.status == "error" else None
                if error is not None and not isinstance(error, KilledWorker):
                    raise error
                give(1)
                yield given.pop(future.key), error is not None
        except OutputError:  # an OSError too, but the worker's
            raise
        except OSError as problem:
            raise self._error("was lost: the same command goes on with the scans that are left") from problem


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
