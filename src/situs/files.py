"""Results on disk: refused before the work where they cannot be written, and never half-written.

A file or folder is written under a temporary name beside its final one and then renamed. So a reader meets
the old one, the new one or none. What is not a regular file (a pipe, ``/dev/null``) is written as it is.

A temporary name, ``.writing-<number>.<name>``, holds the number of the process that writes. What a process
left that no longer runs is removed by the next run (`sweep`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from situs.errors import InputError, OutputError

__all__ = [
    "check_file",
    "check_folder",
    "claim_folder",
    "digest",
    "locked",
    "make_folder",
    "read_whole",
    "replacing",
    "replacing_folder",
    "stem",
    "sweep",
    "write_file",
]

_HIDDEN = ".writing-"
_NEW, _OLD = "new", "old"  # in a temporary folder: what is written, and what it replaces
_open: set[Path] = set()  # the temporary files and folders that this process is writing


def check_file(path: Path, inputs: Iterable[Path] = (), made: Iterable[Path] = ()) -> None:
    """Refuse a file that could not be written, or that would overwrite something that is read.

    Args:
        path: the file to be written
        inputs: files and folders that are read; what lies in such a folder is not replaced either
        made: folders that will exist by then

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
    if any(folder == other.resolve() for other in made):
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
    """Make a folder, and those it lies in, unless it is there; clear it of what killed runs left in it.

    Raises:
        OutputError: it cannot be made
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(path, error) from error
    sweep(path)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make a folder, unless it is there, for one process at a time. The lock ends with the process.

    Args:
        folder: keeps an empty file ``.lock``
        wait: whether to wait for another process; else it is refused

    Raises:
        OutputError: another process has the lock, or the folder cannot be made or written
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    lock = FileLock(folder / ".lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{folder}: another run is writing it; wait until it has ended, or choose another folder"
        ) from error
    except OSError as error:
        raise _failed(folder, error) from error
    try:
        yield
    finally:
        lock.release()


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
    try:
        with _temporary(path) as temporary:
            yield temporary
            temporary.replace(path)
    except OSError as error:
        raise _failed(path, error) from error


@contextmanager
def replacing_folder(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """A hidden folder to fill beside `path`, which it replaces when it is whole; else it is removed.

    There is no portable way to exchange two folders at once: the old one is moved aside first. If the process
    is killed just then, `sweep` brings the old one back.

    Args:
        path: a folder or nothing; a link keeps pointing where it did
        check: is given the old folder, if there is one, when it is moved aside, so that no other process
            changes it; raises an error to keep it

    Raises:
        OutputError: the disk is full, another process wrote `path` meanwhile, ...
    """
    target = path.resolve()
    try:
        make_folder(target.parent)
        with _temporary(target) as temporary:
            new, old = temporary / _NEW, temporary / _OLD
            new.mkdir(parents=True)
            yield new
            with suppress(FileNotFoundError):
                target.replace(old)
                if check is not None:
                    check(old)
            new.replace(target)
    except OSError as error:
        raise _failed(path, error) from error


def claim_folder(
    folder: Path, note: str, settings: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Open a folder for a run, new or to go on with; it belongs to one run of these settings.

    Args:
        folder: is made unless it is there, see `make_folder`
        note: name of the file in it that holds the settings
        settings: all that tells this run from others; JSON-able
        defaults: settings that notes of earlier versions lack, with the values that they stood for

    Raises:
        OutputError: if the folder holds a run of other settings, its note is damaged, or it cannot be written
    """
    make_folder(folder)
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


def sweep(*folders: Path) -> None:
    """Remove from folders what processes that were killed while they wrote left there.

    A folder that such a process had moved aside comes back, unless another one has taken its place.
    """
    for folder in folders:
        for temporary in folder.glob(f"{_HIDDEN}*"):
            number, _, name = temporary.name.removeprefix(_HIDDEN).partition(".")
            if number.isdecimal() and name and not _is_written(temporary, int(number)):
                _remove(temporary)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The name beside `path` that this process writes it under; what bears it is removed in the end."""
    temporary = path.with_name(f"{_HIDDEN}{os.getpid()}.{path.name}")
    _remove(temporary)  # of a killed process that had this one's number
    key = temporary.resolve()
    _open.add(key)
    try:
        yield temporary
    finally:  # Ctrl-C too leaves nothing behind
        _remove(temporary)
        _open.discard(key)


def _is_written(temporary: Path, number: int) -> bool:
    """Whether the process of this number is still there to write the file or folder."""
    if number == os.getpid():  # in a container, every process may have the number of the last one
        return temporary.resolve() in _open
    if os.name == "nt":  # there, os.kill would stop it
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _remove(temporary: Path) -> None:
    """Remove a temporary file or folder; an old folder in it comes back, see `sweep`."""
    with suppress(OSError):
        if not temporary.is_dir():
            temporary.unlink(missing_ok=True)
            return
        target = temporary.with_name(temporary.name.removeprefix(_HIDDEN).partition(".")[2])
        if (temporary / _OLD).exists() and not target.exists():
            (temporary / _OLD).replace(target)
        shutil.rmtree(temporary)


def _failed(path: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENOTEMPTY:  # of a folder that was not there before
        return OutputError(f"{path}: was written meanwhile by another process; run it again")
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def _check_writable(folder: Path) -> None:
    # Only trying tells: permission bits know nothing of read-only disks, and root passes all of them.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error.strerror or error}") from error
