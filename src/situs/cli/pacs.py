"""The commands that label segmentations in a DICOM archive."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from situs.cli.console import no_warnings, print_text
from situs.errors import InputError, SitusError

if TYPE_CHECKING:
    from situs.labeler import Labeler
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
BundleOption = Annotated[
    str | None,
    typer.Option(
        "--bundle", metavar="DIR", help="Folder of a trained bundle, instead of the one in the package."
    ),
]


@app.command("label")
def label_study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="StudyInstanceUID of the study.")],
    url: UrlOption,
    bundle: BundleOption = None,
    auth_file: AuthOption = None,
    ca_file: CaOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Label each segmentation of a study that has no report of this bundle yet."""
    from situs.io.series import UID

    if not UID.fullmatch(study):
        raise InputError("STUDY: expected a StudyInstanceUID, digits and dots")
    with no_warnings():
        archive, labeler = _open(url, bundle, auth_file, ca_file)
        from situs.pacs import work

        errors = []
        with archive:
            for done in work.label_study(archive, study, labeler):
                if done.error is not None:
                    errors.append(done.error)
                if not quiet:
                    print_text(_line(done))
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
) -> None:
    """Label each segmentation of a head CT that comes to the archive, until Ctrl-C.

    A segmentation is labelled once, also after a restart: the archive is asked for its report. Errors are
    printed, and the watch goes on.
    """
    if since and not (len(since) == 8 and since.isascii() and since.isdecimal()):
        raise InputError(f"--since: expected a date as YYYYMMDD, got {since!r}")
    with no_warnings():
        archive, labeler = _open(url, bundle, auth_file, ca_file)
        from situs.pacs.archive import ArchiveError
        from situs.pacs.work import Watcher

        # An end that leaves no scan in the temporary folder.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        watcher, pause = Watcher(archive, labeler, since), every
        while True:
            try:
                for done in watcher.look():
                    print_text(_line(done))
                pause = every
            except ArchiveError as error:
                print_text(f"{_now()} error: {_one_line(error)}\n")
                pause = min(2 * pause, max(every, _LONGEST_PAUSE_S))
            time.sleep(pause)


def _open(
    url: str, bundle: str | None, auth_file: Path | None, ca_file: Path | None
) -> tuple[Archive, Labeler]:
    from situs.labeler import Labeler
    from situs.pacs.access import read_access
    from situs.pacs.archive import Archive

    archive = Archive(read_access(url, auth_file, ca_file))
    return archive, Labeler.load(bundle)


def _line(done: Labelled) -> str:
    """A line on a segmentation, with its findings beneath."""
    line = f"{_now()} segmentation {done.instance}: "
    if done.error is not None:
        return f"{line}error: {_one_line(done.error)}\n"
    if not done.findings:
        return f"{line}was labelled before\n"
    from situs.report.findings import site_name

    sites = ", ".join(f"{finding.lesion_name} {site_name(finding)}" for finding in done.findings)
    return f"{line}report stored ({sites})\n"


def _one_line(error: SitusError) -> str:
    return " ".join(str(error).split())


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
