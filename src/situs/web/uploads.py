"""How files come in: piece by piece into a private folder, within the limits, under harmless names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from situs.errors import SitusError
from situs.web.limits import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["RequestError", "Upload", "read_json_bytes", "read_upload", "safe_name"]

_MOST_FIELDS = 8
_MOST_FIELD_BYTES = 1000
_MOST_NAME = 100  # characters
_MOST_HEADER_BYTES = 4096  # of one part


class RequestError(SitusError):
    """A request cannot be taken.

    Args:
        status: The status of the answer.
        text: Its line.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Upload:
    """The parts of a request.

    Attributes:
        folder: Where its files lie.
        files: Their number.
        fields: The other parts by their names.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The one file, or the folder of several."""
        return self.files[0] if len(self.files) == 1 else self.folder


async def pieces(request: Request, most: int, limits: Limits) -> AsyncIterator[bytes]:
    """The body of a request.

    Args:
        request: The request.
        most: Bytes that it may have.
        limits: How slow it may be.

    Raises:
        RequestError: It is too large or too slow.
        ClientDisconnect: The client went away.
    """
    too_large = RequestError(413, f"the request is too large: expected at most {most:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    stream, began, got = request.stream().__aiter__(), time.monotonic(), 0
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, b""), limits.pause_s)
        except TimeoutError as error:
            raise RequestError(408, "the request came too slowly: send it again") from error
        if not piece:
            return
        got += len(piece)
        if got > most:
            raise too_large
        taken = time.monotonic() - began
        if taken > limits.grace_s and got < taken * limits.least_rate:
            raise RequestError(408, "the request came too slowly: send it again")
        yield piece


async def read_json_bytes(request: Request, limits: Limits) -> bytes:
    """The body of a request that holds JSON.

    Raises:
        RequestError: As for `pieces`.
    """
    return b"".join([piece async for piece in pieces(request, limits.json_bytes, limits)])


async def read_upload(request: Request, folder: Path, limits: Limits) -> Upload:
    """The parts of a multipart request; each file is written to the folder.

    Raises:
        RequestError: It is malformed, too large or too slow, or has no file.
        OSError: The files cannot be written.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestError(415, "expected multipart/form-data with files, or JSON")
    writer = _PartWriter(Upload(folder), limits)
    try:
        parser = MultipartParser(options[b"boundary"], writer.callbacks())
        async for piece in pieces(request, limits.upload_bytes, limits):
            parser.write(piece)
        parser.finalize()
    except (ValueError, UnicodeDecodeError) as error:  # the parser's own errors are among them
        raise RequestError(400, "the multipart request is malformed: send it again") from error
    finally:
        writer.close()
    if not writer.is_whole:
        raise RequestError(400, "the multipart request ends early: send it again")
    if not writer.upload.files:
        raise RequestError(400, "the request has no file: send one or more as 'files'")
    return writer.upload


def safe_name(name: str) -> str:
    """A name for a file within one folder, like that which a client gave.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\scans\\\\a b.nii.gz"), safe_name("..")
    ('passwd', 'a b.nii.gz', 'file')
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .")
    return kept[-_MOST_NAME:].strip(" .").encode("utf-8", "ignore").decode()[-_MOST_NAME:] or "file"


class _PartWriter:
    """Takes the parts of a request from the parser."""

    def __init__(self, upload: Upload, limits: Limits) -> None:
        self.upload, self.is_whole = upload, False
        self._limits = limits
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        self._file: BinaryIO | None = None
        self._field, self._text = "", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._all,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers, self._name, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > _MOST_HEADER_BYTES or len(self._headers) > _MOST_FIELDS:
            raise ValueError("the headers of a part are too long")

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        file_name, self._field = (
            options.get(key, b"").decode("utf-8", "replace") for key in (b"filename", b"name")
        )
        self._text = b""
        if b"filename" not in options:
            if len(self.upload.fields) >= _MOST_FIELDS:
                raise RequestError(413, f"the request has too many fields: expected at most {_MOST_FIELDS}")
            return
        if len(self.upload.files) >= self._limits.files:
            raise RequestError(
                413, f"the request has too many files: expected at most {self._limits.files:,}"
            )
        path = self.upload.folder / safe_name(file_name)
        if path.exists():  # the same name in several folders of a DICOM medium
            path = path.with_name(f"{len(self.upload.files):05d}-{path.name}"[: 2 * _MOST_NAME])
        self._file = path.open("xb")
        self.upload.files.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _MOST_FIELD_BYTES:
            raise RequestError(413, f"the field {self._field[:20]!r} is too long")

    def _end(self) -> None:
        if self._file is None:
            self.upload.fields[self._field] = self._text.decode("utf-8", "replace")
        self.close()

    def _all(self) -> None:
        self.is_whole = True
