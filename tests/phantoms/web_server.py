"""A server in a thread of the test, whose labeler answers with made-up findings, and a client for it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import uvicorn

from phantoms.small_case import FakeLabeler
from situs.anatomy import SITES
from situs.web.limits import Limits
from situs.web.security import Access
from situs.web.server import listen, make_config
from situs.web.service import Service

TOKEN = "token-for-the-tests-0123"
SCANS = "/api/v1/scans"
QUICK = Limits(pause_s=0.5, grace_s=5.0)


class StubLabeler(FakeLabeler):
    """Answers with made-up findings; it waits at `gate`, and the bundle has no pictures."""

    bundle = SimpleNamespace(name="fake", version="1", sites=SITES, picture=lambda reference_id: None)

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()

    def label(self, volume, rois, progress=lambda *args: None):
        for done in (1, 2):
            self.gate.wait(30)
            progress("slices", done, 2)
        return super().label(volume, rois)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self):
        return json.loads(self.content)

    @property
    def line(self):
        """The one line of an error."""
        line = self.json["error"]
        assert self.json == {"error": line} and "\n" not in line and len(line) > 10
        return line


@dataclass
class Site:
    """A server and what it uses."""

    port: int
    service: Service

    @property
    def labeler(self) -> StubLabeler:
        return self.service.labeler

    @property
    def folder(self) -> Path:
        return self.service.folder

    def headers(self, client="client-one", **changes):
        return {"X-Situs-Token": TOKEN, "X-Situs-Client": client, **changes}

    def ask(self, method, path, body=None, client="client-one", **headers) -> Answer:
        """A request with JSON or with bytes, and its answer; a header that is None is left out."""
        given = self.headers(client, **headers)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            given.setdefault("Content-Type", "application/json")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            kept = {name: value for name, value in given.items() if value is not None}
            connection.request(method, path, body, kept)
            return read_answer(connection.getresponse())
        finally:
            connection.close()

    def send(self, path, files, client="client-one", **fields) -> Answer:
        """A multipart request with files, by name or as pairs."""
        pairs = files.items() if isinstance(files, dict) else files
        content, kind = multipart(pairs, fields)
        return self.ask("POST", path, content, client, **{"Content-Type": kind})

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def read_answer(response: HTTPResponse) -> Answer:
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def multipart(files, fields=None, boundary="b0undary"):
    """The bytes and the Content-Type of a multipart request."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (fields or {}).items()
    ]
    for name, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


@contextmanager
def running(limits=QUICK, host="127.0.0.1", is_local=True, labeler=None, **changes):
    """A `Site` that answers."""
    sockets = listen("127.0.0.1", 0)
    with TemporaryDirectory() as folder:
        access = Access(TOKEN, host, is_local)
        service = Service(labeler or StubLabeler(), access, replace(limits, **changes), Path(folder))
        server = uvicorn.Server(make_config(service))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([sockets])))
        thread.start()
        try:
            yield Site(sockets.getsockname()[1], service)
        finally:
            server.should_exit = True
            thread.join(30)
            sockets.close()
        assert not thread.is_alive() and not list(Path(folder).iterdir()) and not len(service.store)
