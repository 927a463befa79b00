"""The commands that label segmentations in a DICOM archive."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from situs.cli.console import no_warnings, print_text
from situs.cli.options import BundleOption
from situs.errors import InputError

if TYPE_CHECKING:
    from situs.pacs.archive import Archive
    from situs.pacs.work import Labelled

__all__ = ["app"]

app = typer.Typer(
    help="Label the DICOM segmentations of an archive (DICOMweb), and store a Structured Report for each.",
    rich_markup_mode=None,
)

_LONGEST_PAUSE_S = 600.0

UrlOption = Annotated[
    str,
    typer.Option("--url", metavar="URL", help="Root of the archive's DICOMweb services, https://HOST/PATH."),
]
AuthOption = Annotated[
    Path | None,
    typer.Option(
        "--auth-file",
        metavar="FILE",
        help="File with one line: 'basic USER:PASSWORD' or 'bearer TOKEN'. Default: the environment variable "
        "SITUS_PACS_AUTH, which has the same form.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", metavar="FILE", help="Certificates (PEM) to trust, for an archive with its own."
    ),
]


PicturesOption = Annotated[
    bool,
    typer.Option(
        "--pictures", help="Store a picture of each lesion too, for viewers that show no Structured Report."
    ),
]


@app.command("label")
def label_study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="StudyInstanceUID of the study.")],
    url: UrlOption,
    bundle: BundleOption = None,
    auth_file: AuthOption = None,
    ca_file: CaOption = None,
    pictures: PicturesOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Label each segmentation of a study that has no report of this bundle yet."""
    from situs.io.dicom.series import UID

    if not UID.fullmatch(study):
        raise InputError("STUDY: expected a StudyInstanceUID, digits and dots")
    with no_warnings(), _open(url, auth_file, ca_file) as archive:
        from situs.labeler import Labeler
        from situs.pacs.work import Worker

        errors = []
        for done in Worker(archive, Labeler.load(bundle), pictures).label_study(study):
            if done.error is not None:
                errors.append(done.error)
            if not quiet:
                _print_line(_result(done))
    if errors:
        raise errors[0]


@app.command()
def watch(
    url: UrlOption,
    every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Pause between two looks at the archive.")
    ] = 60.0,
    since: Annotated[
        str,
        typer.Option(metavar="YYYYMMDD", help="Only studies from this date on. Default: all studies."),
    ] = "",
    bundle: BundleOption = None,
    auth_file: AuthOption = None,
    ca_file: CaOption = None,
    pictures: PicturesOption = False,
) -> None:
    """Label each segmentation of a head CT that comes to the archive, until Ctrl-C.

    A segmentation is labelled once, also after a restart: the archive is asked for its report. Errors are
    printed, and the watch goes on.
    """
    if since and not (len(since) == 8 and since.isascii() and since.isdecimal()):
        raise InputError(f"--since: expected a date as YYYYMMDD, got {since!r}")
    with no_warnings(), _open(url, auth_file, ca_file) as archive:
        from situs.labeler import Labeler
        from situs.pacs.archive import ArchiveError
        from situs.pacs.work import Watcher, Worker

        worker = Worker(archive, Labeler.load(bundle), pictures, head_only=True)
        watcher, pause = Watcher(worker, since), every
        # An end that leaves no scan in the temporary folder.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            try:
                for done in watcher.look():
                    _print_line(_result(done))
                pause = every
            except ArchiveError as error:
                _print_line(f"error: {error}")
                pause = min(2 * pause, max(every, _LONGEST_PAUSE_S))
            time.sleep(pause)


def _open(url: str, auth_file: Path | None, ca_file: Path | None) -> Archive:
    from situs.pacs.access import read_access
    from situs.pacs.archive import Archive

    return Archive(read_access(url, auth_file, ca_file))


def _result(done: Labelled) -> str:
    """What became of a segmentation."""
    if done.error is not None:
        result = f"error: {done.error}"
    elif not done.findings:
        result = "was labelled before"
    else:
        from situs.report.findings import site_name

        sites = ", ".join(f"{finding.lesion_name} {site_name(finding)}" for finding in done.findings)
        result = f"report stored ({sites})"
    return f"segmentation {done.instance}: {result}"


def _print_line(text: str) -> None:
    """Print a line with the time; at once, because a log is read while it grows."""
    print_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(text.split())}\n")
    sys.stdout.flush()
