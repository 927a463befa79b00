"""The bytes of one file in their order, unpacked on the way if the file is gzip.

Nothing is unpacked before it is asked for, so that a header can be judged before the voxels that it promises.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from situs.errors import InputError

__all__ = ["ByteStream", "is_folder"]

_PACKED_CHUNK = 2**16
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032  # deflate packs a byte into at least 1/1032 of a byte
_MOST_AFTER = 2**26  # so many bytes after the voxels are unpacked to reach the checksum


def is_folder(path: Path, error: type[InputError]) -> bool:
    """Whether a path is a folder or a regular file; anything else is refused.

    Raises:
        InputError: `error`, if there is nothing, or a pipe or a device, on which reading could wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file or folder: check the name") from problem
    except ValueError as problem:  # a NUL byte
        raise error(f"{str(path)!r}: cannot be the name of a file: check the name") from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise error(f"{path}: is a pipe or a device, expected a file: save it to a file and give that")
    return stat.S_ISDIR(mode)


class ByteStream:
    """The content of a regular file, from its beginning; a context manager.

    Args:
        path: The file.
        error: What a file that cannot be read raises.
        start: So many bytes of the file are left out.
        packed: Whether what follows is packed (gzip or zlib); None to tell from its first bytes (gzip).

    Attributes:
        packed: Whether it is.
        most_bytes: More bytes than this the content cannot have.

    Raises:
        InputError: `error`, if there is no such file, it is a folder, it is empty, or it cannot be read.
    """

    def __init__(
        self, path: Path, error: type[InputError], start: int = 0, packed: bool | None = None
    ) -> None:
        self.path, self._error = path, error
        if is_folder(path, error):
            raise error(f"{path}: is a folder, expected a file")
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as problem:
            raise error(f"{path}: cannot be read ({problem.strerror})") from problem
        size = path.stat().st_size
        first = self._read_file(2) if size else b""
        if not first:
            self._file.close()
            raise error(f"{path}: the file is empty: copy or export it again")
        self.packed = first == _GZIP if packed is None else packed
        self.most_bytes = max(0, size - start) * (_DEFLATE_RATIO if self.packed else 1)
        self._file.seek(start)
        self._pieces = self._unpacked() if self.packed else iter(lambda: self._read_file(_CHUNK), b"")
        self._rest = memoryview(b"")
        self._checked = not self.packed  # whether the checksum of all bytes so far was met

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def failure(self, text: str) -> InputError:
        """The error to raise about this file."""
        return self._error(f"{self.path}: {text}")

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer than `count` at the end; they stay to be read."""
        target = bytearray(count)
        start = bytes(target[: self.read_into(memoryview(target))])
        self._rest = memoryview(start + self._rest)
        return start

    def read_into(self, target: memoryview) -> int:
        """Fill a buffer of bytes; returns how many there were, fewer than its length at the end."""
        done = 0
        while done < len(target) and self._next_piece():
            count = min(len(self._rest), len(target) - done)
            target[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count
        return done

    def skip(self, count: int) -> None:
        """Pass over bytes, or over all that there are."""
        while count > 0 and self._next_piece():
            step = min(count, len(self._rest))
            self._rest = self._rest[step:]
            count -= step

    def check(self) -> None:
        """Unpack as far as the checksum, unless more than 64 MiB lie before it. What follows it is ignored.

        Raises:
            InputError: the class given, if the checksum is wrong or missing.
        """
        self._rest = memoryview(b"")
        after = 0
        while not self._checked and after < _MOST_AFTER:
            after += len(next(self._pieces, b""))

    def _next_piece(self) -> bool:
        """Whether there is a byte left; `_rest` is not empty then."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._rest = memoryview(piece)
        return True

    def _unpacked(self) -> Iterator[bytes]:
        """Packed content, all members of a gzip file joined; rubbish after a member ends it."""
        packed = b""
        while True:
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # header and checksum are checked too
            while not unpacker.eof:
                packed = packed or self._read_file(_PACKED_CHUNK)
                if not packed:
                    raise self._corrupt()
                try:
                    piece = unpacker.decompress(packed, _CHUNK)
                except zlib.error as problem:
                    raise self._corrupt() from problem
                packed = unpacker.unconsumed_tail
                self._checked = unpacker.eof
                yield piece
            packed = (unpacker.unused_data + self._read_file(_PACKED_CHUNK)).lstrip(b"\0")
            if packed[:2] != _GZIP:
                return

    def _corrupt(self) -> InputError:
        return self.failure("truncated or corrupt gzip file: copy or export it again")

    def _read_file(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as problem:
            raise self.failure(f"cannot be read ({problem.strerror})") from problem
