"""The DICOM files of a folder or a zip.

What else lies there is left alone: other files, pipes, devices, links to folders. A file that can be reached
twice is taken once.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from situs.errors import ScanError

__all__ = ["DEFLATED", "Source", "check_deflated", "file_source", "open_sources"]

DEFLATED = "1.2.840.10008.1.2.1.99"  # the transfer syntax
_MOST_FILES = 200_000  # a folder with more is not one patient's; to look at them takes seconds
_MOST_ZIP_BYTES = 8 * 2**30
_ZIP_RATIO = 200  # CT is packed to a half or a third, pictures that are mostly air to a hundredth
_ZIP_BYTES_UNJUDGED = 500 * 2**20  # so much may be packed in any ratio
_BUFFER_BYTES = 2**16
_CORRUPT_ZIP = "truncated or corrupt zip file: copy or export it again"
_DIRECTORY = "DICOMDIR"
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"  # Media Storage Directory


@dataclass(frozen=True, eq=False)
class Source:
    """One DICOM file.

    Attributes:
        name: What errors call it: its place among the DICOM files, sorted by name. File names within a folder
            or zip may name the patient.
        n_bytes: How long it is.
        open: Opens it for reading.
    """

    name: str
    n_bytes: int
    open: Callable[[], Any]


@contextmanager
def open_sources(path: Path) -> Iterator[list[Source]]:
    """The DICOM files of a folder (walked to its depth), of a zip (never unpacked to disk), or the one file.

    A DICOMDIR, the directory of a CD, stands for the folder that it lies in.

    Raises:
        ScanError: The zip is broken, encrypted or too large, there are too many files, or none is DICOM.
    """
    if path.is_dir():
        yield _folder_sources(path)
    elif _is_zip(path):
        try:
            archive = zipfile.ZipFile(path)
        except Exception as problem:  # a broken directory of the zip: zipfile and struct errors
            raise ScanError(f"{path}: {_CORRUPT_ZIP}") from problem
        with archive:
            yield _zip_sources(archive, path)
    elif path.name.upper() == _DIRECTORY or _is_directory(path):
        yield _folder_sources(path.resolve().parent)
    else:
        is_dicom = _looks_dicom(path.open("rb"))
        yield _not_none([file_source(path)] if is_dicom else [], path)


def file_source(path: Path) -> Source:
    """A file that was given by its name."""
    return Source(path.name, path.stat().st_size, partial(_open_file, path))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        starts_so = file.read(2) == b"PK"
    if starts_so and not zipfile.is_zipfile(path):
        raise ScanError(f"{path}: {_CORRUPT_ZIP}")
    return starts_so


def _is_directory(path: Path) -> bool:
    """Whether a file's meta information says that it is a DICOMDIR."""
    with path.open("rb") as file:
        head = file.read(512)
    return head[128:132] == b"DICM" and _DIRECTORY_CLASS in head


def _looks_dicom(file: Any) -> bool:
    """The standard's mark, or a file without it that starts with a low group, little endian."""
    with file:
        head = file.read(132)
    bare = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
    return head[128:] == b"DICM" or (len(head) == 132 and bare)


def _folder_sources(path: Path) -> list[Source]:
    sources, links = [], 0
    seen: set[tuple[int, int]] = set()
    for file in sorted(_walk(path)):
        try:
            state = file.stat()
        except OSError:  # a link to nothing, or to itself
            continue
        if stat.S_ISDIR(state.st_mode):
            links += 1
        if not stat.S_ISREG(state.st_mode) or (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        try:
            is_dicom = file.name.upper() != _DIRECTORY and _looks_dicom(file.open("rb"))
        except OSError as problem:
            raise _unreadable(path, problem) from problem
        if is_dicom:
            sources.append(Source("", state.st_size, partial(_open_file, file)))
    if not sources and links:
        raise ScanError(
            f"{path}: holds no DICOM image but links to folders, which are not followed: give the folder "
            "that one leads to"
        )
    return _numbered(_not_none(sources, path))


def _walk(path: Path) -> list[Path]:
    """All that lies in a folder and is no folder itself; links to folders are listed, not entered."""

    def refuse(problem: OSError) -> None:
        raise _unreadable(path, problem) from problem

    files: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=refuse):
        here = Path(folder)
        files += [here / name for name in names]
        files += [here / name for name in folders if (here / name).is_symlink()]
        if len(files) > _MOST_FILES:
            raise ScanError(
                f"{path}: holds more than {_MOST_FILES} files, expected one examination: give its folder"
            )
    return files


def _unreadable(path: Path, problem: OSError) -> ScanError:
    return ScanError(
        f"{path}: a file or folder in it cannot be read ({problem.strerror}): change its permissions"
    )


def _zip_sources(archive: zipfile.ZipFile, path: Path) -> list[Source]:
    entries = [e for e in archive.infolist() if not e.is_dir()]
    if any(e.flag_bits & 1 for e in entries):
        raise ScanError(f"{path}: the zip is encrypted: unpack it with its password and give the folder")
    if len(entries) > _MOST_FILES:
        raise ScanError(
            f"{path}: holds more than {_MOST_FILES} files, expected one examination: unpack it and give the "
            "folder of the examination"
        )
    # What an entry says about its length holds: `zipfile` unpacks no more.
    total, packed = sum(e.file_size for e in entries), path.stat().st_size
    if total > _MOST_ZIP_BYTES or total > max(_ZIP_BYTES_UNJUDGED, _ZIP_RATIO * packed):
        raise ScanError(
            f"{path}: the zip of {packed / 2**20:.0f} MB unpacks to {total / 2**30:.1f} GB, more than a CT's "
            "does: unpack it and give the folder"
        )
    sources = []
    for entry in sorted(entries, key=lambda e: e.filename):
        name = entry.filename.rsplit("/", 1)[-1]
        if name.upper() == _DIRECTORY:
            continue
        try:
            is_dicom = _looks_dicom(archive.open(entry))
        except Exception as problem:  # a broken entry: zlib, zipfile and struct errors
            raise ScanError(f"{path}: {_CORRUPT_ZIP}") from problem
        if is_dicom:
            sources.append(Source("", entry.file_size, partial(_open_entry, archive, entry, path)))
    return _numbered(_not_none(sources, path))


def _open_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> _Bounded:
    return _Bounded(io.BufferedReader(_Entry(archive, entry, path), _BUFFER_BYTES), entry.file_size)


class _Entry(io.RawIOBase):
    """An entry of a zip, unpacked as far as it is read; a broken one is a `ScanError`."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
        self._path = path
        self._file = self._try(lambda: archive.open(entry))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        def fill() -> int:
            data = self._file.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

        return int(self._try(fill))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._try(lambda: self._file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _try(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception as problem:  # zlib, zipfile and struct errors
            raise ScanError(f"{self._path}: {_CORRUPT_ZIP}") from problem


class _Bounded:
    """A file that is asked for no more than it has: headers may say that a value is 4 GB long."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        self._file, self._n_bytes = file, n_bytes
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, count: int = -1) -> bytes:
        if 0 <= count <= _BUFFER_BYTES:
            return self._file.read(count)
        left = max(0, self._n_bytes - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_file(path: Path) -> _Bounded:
    return _Bounded(path.open("rb"), path.stat().st_size)


def _not_none(sources: list[Source], path: Path) -> list[Source]:
    if not sources:
        raise ScanError(f"{path}: holds no DICOM image: give a DICOM folder, a zip of one, or a NIfTI file")
    return sources


def _numbered(sources: list[Source]) -> list[Source]:
    return [replace(s, name=f"DICOM file {n} of {len(sources)}") for n, s in enumerate(sources, start=1)]


def check_deflated(source: Source) -> None:
    """Refuse a deflated file that holds more than pictures do: pydicom unpacks it in one go.

    Raises:
        ValueError: It unpacks to more than 64 MiB and twenty times its own bytes.
    """
    with source.open() as file:
        head = file.read(1024)
        if DEFLATED.encode() not in head:
            return
        packed = head + file.read()
    start = 144 + int.from_bytes(packed[140:144], "little")  # after the file meta information
    unpacker, left = zlib.decompressobj(-zlib.MAX_WBITS), 2**26 + 20 * source.n_bytes
    packed = packed[start:]
    while packed and not unpacker.eof:
        left -= len(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
        if left < 0:
            raise ValueError("deflated too far")
