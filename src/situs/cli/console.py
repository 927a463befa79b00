"""What the terminal sees: text in its encoding, progress bars, one line for an error."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from situs.errors import MissingExtraError, OutputError, SitusError
from situs.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = [
    "STDOUT",
    "check_outputs",
    "explain",
    "no_warnings",
    "print_text",
    "progress_bar",
    "resumable_progress_bar",
    "write_text",
]

STDOUT = Path("-")
_LONGEST_ERROR = 600  # characters; what is longer loses its middle


def check_outputs(
    files: Mapping[str, Path | None], inputs: Sequence[Path], folders: Sequence[Path | None] = ()
) -> None:
    """Refuse, before the work, outputs that could not be written after it.

    What killed runs left beside the files is removed.

    Args:
        files: The file of each option, such as ``--json``; `STDOUT` for standard output.
        inputs: Files and folders that the command reads.
        folders: Folders that the command makes unless they are there.

    Raises:
        OutputError: If two outputs are one, or one cannot be written or would overwrite an input.
    """
    from situs.files import check_file, check_folder, sweep

    given = {option: path for option, path in files.items() if path is not None}
    for (one, path), (other, second) in combinations(given.items(), 2):
        if path == second == STDOUT:
            raise OutputError(f"{one} - and {other} -: standard output takes one of them; name a file")
        if path.resolve() == second.resolve():
            raise OutputError(f"{one} and {other}: both are {path}; name two files")
    made = [folder for folder in folders if folder is not None]
    for folder in made:
        check_folder(folder)
    for path in given.values():
        if path != STDOUT:
            check_file(path, inputs, made)
            sweep(path.resolve().parent)


def write_text(path: Path, text: str) -> None:
    """Write text to a file, whole or not at all, or to standard output if the path is `STDOUT`."""
    from situs.files import write_file

    if path == STDOUT:
        print_text(text)
    else:
        write_file(path, text.encode("utf-8", "replace"))


def print_text(text: str) -> None:
    """Print text to standard output. A character that its encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


@contextmanager
def no_warnings() -> Iterator[None]:
    """Show no warnings: those of DICOM readers quote header values, which may name the patient."""
    with warnings.catch_warnings():
        if not os.environ.get("SITUS_DEBUG"):
            warnings.simplefilter("ignore")
        yield


@contextmanager
def progress_bar(least: int = 0) -> Iterator[Progress]:
    """Show progress bars on standard error, one per stage; none if it is not a terminal.

    Args:
        least: A stage of fewer items gets no bar. rich is imported for the first bar.
    """
    tasks: dict[str, TaskID] = {}
    bars: Bars | None = None

    def report(stage: str, done: int, total: int, message: str = "", /) -> None:
        nonlocal bars
        if total < least or not sys.stderr.isatty():
            return
        if bars is None:
            from rich.console import Console
            from rich.progress import Progress as Bars

            bars = Bars(console=Console(stderr=True))
            bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage)
        text = f"{stage}: {message}" if message else stage
        bars.update(tasks[stage], completed=done, total=total, description=text)

    try:
        yield report
    finally:
        if bars is not None:
            bars.stop()


@contextmanager
def resumable_progress_bar() -> Iterator[Progress]:
    """`progress_bar` for work that the same command resumes after Ctrl-C."""
    try:
        with progress_bar() as report:
            yield report
    except KeyboardInterrupt:
        print("situs: stopped; the same command resumes the work", file=sys.stderr)
        raise


def explain(error: Exception) -> int:
    """Print an error as one line on standard error.

    Returns:
        The exit code: 2 if the user can mend it, 1 for a fault of situs itself.
    """
    code, debug = 2, bool(os.environ.get("SITUS_DEBUG"))
    if debug:
        import traceback

        traceback.print_exception(error)
    error = MissingExtraError.from_import(error) or error
    if isinstance(error, SitusError):
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
    line = " ".join(text.split())
    if len(line) > _LONGEST_ERROR:  # names and values come from files of others
        half = _LONGEST_ERROR // 2
        line = f"{line[:half]} [...] {line[-half:]}"
    print(f"situs: error: {line}", file=sys.stderr)
    return code
