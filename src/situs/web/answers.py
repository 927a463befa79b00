"""Answers as bytes: JSON by the contract, and one line for what is wrong."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from situs.web.schemas import Problem

__all__ = ["json_answer", "problem"]

_MOST_TEXT = 600  # characters


def json_answer(content: object, status: int = 200) -> Response:
    """An answer that holds JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def problem(status: int, text: str) -> Response:
    """An answer that says what is wrong."""
    answer = json_answer(Problem(" ".join(text.split())[:_MOST_TEXT]), status)
    if status in (429, 503):
        answer.headers["retry-after"] = "5"
    return answer
