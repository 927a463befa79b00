"""What went wrong, as a status and one line. What is no error of situs is not quoted."""

from __future__ import annotations

import errno
import os
import traceback

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from situs.errors import (
    BundleError,
    InputError,
    MissingExtraError,
    SeveralSeriesError,
    SitusError,
)
from situs.web.answers import json_answer, problem
from situs.web.schemas import SeriesItem, SeveralSeries
from situs.web.store import NotFoundError, TooManyError
from situs.web.uploads import RequestError

__all__ = ["answer_fault", "fault_line"]

_NO_SPACE = "the server has no memory or disk space left for this: send a smaller scan"


def answer_fault(error: BaseException) -> Response:
    """The answer for an error."""
    status, line = fault_line(error)
    if isinstance(error, SeveralSeriesError):
        return json_answer(SeveralSeries(line, [SeriesItem(*item) for item in error.series]), status)
    return problem(status, line)


def fault_line(error: BaseException) -> tuple[int, str]:
    """The status and the line for an error."""
    if isinstance(error, Exception):
        error = MissingExtraError.from_import(error) or error
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, NotFoundError):
        return 404, str(error)
    if isinstance(error, TooManyError):
        return (429 if error.own else 503), str(error)
    if isinstance(error, msgspec.MsgspecError):
        return 400, f"the JSON is not as the description says: {error}"
    if isinstance(error, ClientDisconnect):
        return 400, "the client went away"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return 507, _NO_SPACE
    if isinstance(error, SitusError):
        statuses = (
            (SeveralSeriesError, 409),
            (MissingExtraError, 501),
            (BundleError, 500),
            (InputError, 422),
        )
        return next((status for kind, status in statuses if isinstance(error, kind)), 500), str(error)
    if os.environ.get("SITUS_DEBUG"):
        traceback.print_exception(error)
    return 500, f"internal fault: {type(error).__name__}"
