"""What the terminal sees: text in its encoding, progress bars, one line for an error."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from situs.errors import MissingExtraError, SitusError

__all__ = ["STDOUT", "explain", "no_warnings", "print_text", "progress_bar", "write_text"]

STDOUT = Path("-")


def write_text(path: Path, text: str) -> None:
    """To a file, whole or not at all, or to standard output where the path is `STDOUT`; see `write_file`."""
    from situs.files import write_file

    if path == STDOUT:
        print_text(text)
    else:
        write_file(path, text.encode("utf-8", "replace"))


def print_text(text: str) -> None:
    """To standard output, in whatever encoding it has."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


@contextmanager
def no_warnings() -> Iterator[None]:
    """Readers of DICOM quote header values when they warn, and those may name the patient."""
    with warnings.catch_warnings():
        if not os.environ.get("SITUS_DEBUG"):
            warnings.simplefilter("ignore")
        yield


@contextmanager
def progress_bar() -> Iterator[Callable[..., None]]:
    """Bars on standard error for work that can be resumed.

    Yields what is to be called with what is counted, how many are done, of how many, and a message if any.
    """
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    bar = Progress(console=Console(stderr=True))

    def update(what: str, done: int, total: int, message: str = "") -> None:
        bar.start()  # not before: what is refused is told in one line
        if what not in tasks:
            tasks[what] = bar.add_task(what)
        text = f"{what}: {message}" if message else what
        bar.update(tasks[what], completed=done, total=total, description=text)

    try:
        yield update
    except KeyboardInterrupt:
        print("situs: stopped; the same command goes on from here", file=sys.stderr)
        raise
    finally:
        if tasks:  # a bar that was never started would still print an empty line
            bar.stop()


def explain(error: Exception) -> int:
    """One line on standard error, and the exit code."""
    code, debug = 2, bool(os.environ.get("SITUS_DEBUG"))
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("situs"):
        text = str(MissingExtraError(str(error.name).partition(".")[0], "train"))
    elif isinstance(error, SitusError):
        text = str(error)
    elif hasattr(error, "format_message"):  # a usage error of typer, whose class moves between its releases
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "situs"
        text = f"{error.format_message()} (see '{path} --help')"
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    else:
        code = 1
        hint = "see above" if debug else "run again with SITUS_DEBUG=1 to see where"
        text = f"internal fault: {type(error).__name__}: {error} ({hint})"
    print(f"situs: error: {' '.join(text.split())}", file=sys.stderr)
    return code
