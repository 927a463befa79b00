"""Findings on request: labelled by a worker thread, at once or with progress as server-sent events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from situs.progress import Progress as Report
from situs.web import schemas, work
from situs.web.faults import fault_line
from situs.web.limits import Limits
from situs.web.service import Service
from situs.web.store import Held
from situs.web.uploads import RequestError

__all__ = ["Watch", "label_regions", "stream_findings"]


class Watch:
    """A `Progress` that stops the work when its time is over or its client has gone."""

    def __init__(self, limits: Limits, report: Callable[[schemas.Progress], None] | None = None) -> None:
        self.gone = threading.Event()
        self._report, self._end = report, time.monotonic() + limits.work_s

    def __call__(self, stage: str, done: int, total: int, message: str = "", /) -> None:
        if self.gone.is_set():
            raise RequestError(400, "the client went away")
        if time.monotonic() > self._end:
            raise RequestError(422, "the regions take too long to be labelled: send fewer")
        if self._report is not None:
            self._report(schemas.Progress(done, total, stage))


async def label_regions(
    service: Service, held: Held, regions: work.Regions, progress: Report
) -> dict[str, Any]:
    """The JSON document of the findings on regions, which are kept with their scan."""
    labelled = await service.workers.run(work.label, service.labeler, held.scan, regions, progress)
    return {**labelled.document, "id": service.store.keep(held.findings, labelled)}


async def stream_findings(service: Service, held: Held, regions: work.Regions) -> AsyncIterator[bytes]:
    """The progress and then the findings, or what is wrong, as server-sent events."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[schemas.Progress | None] = asyncio.Queue()

    def report(progress: schemas.Progress) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, progress)

    watch = Watch(service.limits, report)
    task = asyncio.create_task(label_regions(service, held, regions, watch))

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not print it
        queue.put_nowait(None)

    task.add_done_callback(ended)
    yield _event("progress", schemas.Progress(0, 1, "waiting"))
    try:
        while (progress := await queue.get()) is not None:
            yield _event("progress", progress)
        error = task.exception()
        if error is None:
            yield _event("findings", task.result())
        else:
            yield _event("error", schemas.Problem(fault_line(error)[1]))
    finally:
        watch.gone.set()


def _event(kind: str, content: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(content))
