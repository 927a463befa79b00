"""The process: its socket, its private folder, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from situs.errors import InputError
from situs.labeler import Labeler
from situs.web.app import make_app
from situs.web.limits import Limits
from situs.web.security import Access
from situs.web.service import Service

__all__ = ["listen", "make_config", "run_server"]

_PREFIX = "situs-serve-"
_CONNECTIONS = 256
_HEADER_S = 15.0  # from the connection, or the last answer, to the end of a request's headers
_END_S = 3  # for requests that are under way when the server is stopped


class _Protocol(H11Protocol):
    """HTTP/1.1 that ends connections which do not ask for anything in time, or not at once to the end."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        self._impatient.cancel()
        self._wait_for_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._impatient.cancel()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self._impatient = self.loop.call_later(_HEADER_S, self._end_silence)

    def _end_silence(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        InputError: The port is in use, or the address is not one of this computer.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        made = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise InputError(f"--host {host}: there is no such address ({error.strerror})") from error
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}): choose another port, or "
            "stop what uses it"
        ) from error
    return made


def run_server(
    labeler: Labeler,
    sockets: socket.socket,
    access: Access,
    limits: Limits,
    texts: dict[str, str],
    started: Callable[[], None],
) -> None:
    """Answer until Ctrl-C or SIGTERM. Then all scans are dropped, and what lies on disk is removed.

    Args:
        labeler: Answers.
        sockets: Of `listen`.
        access: Who may ask.
        limits: How much.
        texts: The words of reports.
        started: Is called when the server answers.
    """
    with _private_folder() as folder:
        config = make_config(Service(labeler, access, limits, folder, texts))
        server = _Server(config, started)
        with suppress(KeyboardInterrupt), _ended_by_sigterm(), _no_log():
            asyncio.run(server.serve([sockets]))


def make_config(service: Service) -> uvicorn.Config:
    """How a service is served: without a log, and with an end to every wait."""
    return uvicorn.Config(
        make_app(service),
        http=_Protocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_END_S,
    )


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()


@contextmanager
def _no_log() -> Iterator[None]:
    """Libraries log nothing: they quote what was sent."""
    before = logging.root.manager.disable
    if not os.environ.get("SITUS_DEBUG"):
        logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM is like Ctrl-C here."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for uploads that nobody else can read; those of servers that were killed are removed."""
    shared = Path(tempfile.gettempdir())
    for left in shared.glob(f"{_PREFIX}*"):
        number = left.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _runs(number: int) -> bool:
    """Whether a process of this number is there; another user's counts as running."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return number != os.getpid()
