"""Results on disk: refused before the work where they cannot be written, and never half-written.

A file is written under a temporary name beside its final one and then renamed, so that a reader meets the
old file, the new one or none. What is not a regular file (a pipe, ``/dev/null``) is written as it is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from situs.errors import InputError, OutputError

__all__ = [
    "check_file",
    "check_folder",
    "claim_folder",
    "digest",
    "make_folder",
    "read_whole",
    "replacing",
    "stem",
    "sweep",
    "write_file",
]

_HIDDEN = ".writing-"


def check_file(path: Path, inputs: Iterable[Path] = (), made: Path | None = None) -> None:
    """Refuse a file that could not be written, or that would overwrite something that is read.

    Args:
        path: the file to be written
        inputs: files and folders that are read; what lies in such a folder is not replaced either
        made: a folder that will exist by then

    Raises:
        OutputError: the folder is missing or not writable, the file is a folder, read-only or an input
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path}: would overwrite the input {source}; choose another name")
        if path.is_file() and source.is_dir() and path.resolve().is_relative_to(source.resolve()):
            raise OutputError(f"{path}: would overwrite a file of the input {source}; choose another name")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path}: is read-only; choose another name or change its permissions")
        if not path.is_file():
            return
    folder = path.resolve().parent
    if made is not None and folder == made.resolve():
        return
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; create it first")
    _check_writable(folder)


def check_folder(path: Path) -> None:
    """Refuse a folder into which nothing could be written; it need not exist, but its parent must.

    Raises:
        OutputError: it is not a folder, its parent is missing, or it may not be written
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is not a folder; name another")
    if not path.exists() and not path.resolve().parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; create it first")
    _check_writable(path if path.exists() else path.resolve().parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those it lies in, unless it is there.

    Raises:
        OutputError: it cannot be made
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(path, error) from error


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all or nothing; a link keeps pointing where it did.

    Raises:
        OutputError: the disk is full, the folder went away, ...
    """
    target = path.resolve()
    if target.is_file() or not target.exists():
        with replacing(target) as temporary:
            temporary.write_bytes(content)
        return
    try:
        target.write_bytes(content)
    except OSError as error:
        raise _failed(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file to write beside `path`, which it replaces when it is whole; else it is removed.

    Raises:
        OutputError: the disk is full, the folder went away, ...
    """
    temporary = path.with_name(f"{_HIDDEN}{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:  # Ctrl-C too leaves nothing behind
        with suppress(OSError):
            temporary.unlink()


def claim_folder(
    folder: Path, note: str, settings: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Open a folder for a run, new or to go on with; it belongs to one run of these settings.

    What a killed run left half written is removed.

    Args:
        folder: is made unless it is there
        note: name of the file in it that holds the settings
        settings: all that tells this run from others; JSON-able
        defaults: settings that notes of earlier versions lack, with the values that they stood for

    Raises:
        OutputError: if the folder holds a run of other settings, its note is damaged, or it cannot be written
    """
    make_folder(folder)
    sweep(folder)
    path = folder / note
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        before = None if stored is None else {**(defaults or {}), **stored}
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path}: is damaged: delete {folder} or choose another folder") from error
    if before is None:
        write_file(path, json.dumps(settings, indent=1).encode())
    elif before != json.loads(json.dumps(settings)):
        raise OutputError(f"{folder}: holds a run of other settings: delete it or choose another folder")


def digest(source: Path | bytes) -> str:
    """The SHA-256 of a file or of bytes, as 64 hexadecimal digits.

    Raises:
        InputError: if the file cannot be read
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        with source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from error


def read_whole(path: Path, most: int) -> bytes:
    """The content of a regular file; what would block, as a pipe does, or fill the memory is not opened.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: If it is missing, no regular file, larger, or cannot be read; `strerror` says which.
    """
    try:
        status = path.stat()
    except ValueError as error:  # a NUL byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, expected at most {most:,}", str(path))
    return path.read_bytes()


def stem(path: Path) -> str:
    """A file's name without ``.nii`` or ``.nii.gz``.

    >>> stem(Path("scans/01.nii.gz"))
    '01'
    """
    return path.name.removesuffix(".gz").removesuffix(".nii")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in a folder and in those in it."""
    for pattern in (f"{_HIDDEN}*", f"*/{_HIDDEN}*"):
        for temporary in folder.glob(pattern):
            temporary.unlink(missing_ok=True)


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def _check_writable(folder: Path) -> None:
    # Only trying tells: permission bits know nothing of read-only disks, and root passes all of them.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error.strerror or error}") from error
