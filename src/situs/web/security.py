"""Who may ask: the Host, the origin and the token of every request, and the headers of every answer.

A page of another site can make a browser send requests here. It cannot read the token, and its requests name
its origin. If it lets a name of its own point here (DNS rebinding), that name is not among those answered to.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from situs.report.html import report_style
from situs.report.page import style_hash
from situs.web.answers import problem

__all__ = ["Access", "Guard"]

API = "/api/v1/"
OPEN = frozenset({"/api/v1/openapi.json"})  # of the API, what needs no token
# The report is shown in a tab that the page opens and that inherits this policy: its style sheet is allowed.
_STYLES = f"style-src 'self' {style_hash(report_style())}"
POLICY = (
    f"default-src 'none'; script-src 'self'; {_STYLES}; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_DRAIN_S, _SILENCE_S = 5.0, 0.5
_CLIENT = re.compile(r"[A-Za-z0-9_-]{8,64}")
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: The secret that each request to the API has in ``X-Situs-Token``.
        host: The address that the server listens on.
        is_local: Whether that is this computer alone; then the page is given the token.
    """

    token: str
    host: str
    is_local: bool

    def answers_to(self, host: str) -> bool:
        """Whether a request with this Host header may be answered; where every address is, every name is."""
        if self.host in _EVERYWHERE:
            return True
        name = re.sub(r":\d+$", "", host.strip().lower())
        own = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return name == own or (self.is_local and name in _LOCAL)


class _Body:
    """The body of a request, which knows whether all of it has come in."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_whole = receive, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_whole = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Take in what is left of a refused request, for a while: many clients read no answer before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self._is_whole:
                    await asyncio.wait_for(self.receive(), _SILENCE_S)


class Guard:
    """Middleware that refuses requests before they are looked at.

    Args:
        app: What answers the others.
        access: Who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        body = _Body(receive)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "server" in headers:
                    del headers["server"]
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, body.receive, send_guarded)
        else:
            await problem(*refusal)(scope, body.receive, send_guarded)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """The status and the line for a request that is refused."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._access.answers_to(host):
            return 421, "this server does not answer to that name: use the address that it printed"
        origin = headers.get("origin")
        if origin is not None and re.sub(r"^https?://", "", origin) != host:
            return 403, "the request comes from a page of another site"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and path != "/":
            return 403, "the request comes from a page of another site"
        if not path.startswith(API) or path in OPEN:
            return None
        token = headers.get("x-situs-token", "")
        if not secrets.compare_digest(token.encode(), self._access.token.encode()):
            return 401, "the header X-Situs-Token is missing or wrong: give the token that the server printed"
        if not _CLIENT.fullmatch(headers.get("x-situs-client", "")):
            return 400, "the header X-Situs-Client is missing or wrong: give 8 to 64 of A-Z a-z 0-9 _ -"
        return None
