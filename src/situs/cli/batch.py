"""The command that labels many scans."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from situs.cli.console import check_outputs, no_warnings, print_text, resumable_progress_bar
from situs.cli.options import BundleOption, LanguageOption
from situs.errors import InputError

__all__ = ["batch"]

_FINISHING = b"\nsitus: finishing the scans that were begun; Ctrl-C again stops at once\n"


def batch(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the findings. If it holds the beginning of this batch, the work goes on there.",
        ),
    ],
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MANIFEST]",
            help="CSV or Parquet file with a row for each scan: columns scan, roi, optional id, series, "
            "mask_space. Paths are relative to its folder.",
        ),
    ] = None,
    scans: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Instead of MANIFEST: the scans, with one '*', such as 'scans/*.nii.gz'."
        ),
    ] = None,
    rois: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="With --scans: their regions of interest, such as 'masks/*.nii.gz'. The '*' stands for the "
            "same text in both.",
        ),
    ] = None,
    bundle: BundleOption = None,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of processes that label scans in parallel.")
    ] = 1,
    backend: Annotated[
        Literal["loky", "dask"],
        typer.Option(
            help="What labels the scans: processes here (loky), or the workers of --scheduler (dask)."
        ),
    ] = "loky",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --backend dask: the scheduler, such as tcp://host:8786. Its workers must see all "
            "files at the same places.",
        ),
    ] = None,
    parquet: Annotated[
        bool | None,
        typer.Option(help="Write findings.parquet too. Default: if pyarrow is installed."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON file for each scan too.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page for people for each scan too, with pictures.")
    ] = False,
    language: LanguageOption = "en",
    page: Annotated[
        bool | None,
        typer.Option(
            "--summary/--no-summary", help="Write summary.html, with plots. Default: if jinja2 is installed."
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="With --scans and --rois: go on, and label each scan that arrives, until Ctrl-C.",
        ),
    ] = False,
    every: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="With --watch: pause between two looks. Files that did not change meanwhile are complete.",
        ),
    ] = 10.0,
    retry: Annotated[
        bool, typer.Option("--retry", help="Label again the scans that failed in an earlier run.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no summary.")] = False,
) -> None:
    """Label many scans into one table, and go on where an earlier run was stopped.

    A scan that cannot be labelled is a row with the reason. It does not stop the others.
    """
    source = _source(manifest, scans, rois)
    if watch and isinstance(source, Path):
        raise InputError("--watch: looks for files that match --scans and --rois; give these, not MANIFEST")
    if (backend == "dask") != (scheduler is not None):
        raise InputError("--backend dask and --scheduler ADDRESS: expected both or neither")
    if scheduler is not None and jobs != 1:
        raise InputError("--jobs: is for processes here; with --backend dask start more workers instead")
    inputs = [Path(bundle)] if bundle else []
    inputs += [source] if isinstance(source, Path) else []
    tables = {
        f"--out {out}: {name}": out / name for name in ("findings.csv", "findings.parquet", "summary.html")
    }
    check_outputs(tables, inputs, [out])
    with no_warnings():
        from situs.batch import label_batch

        with_parquet = find_spec("pyarrow") is not None if parquet is None else parquet
        with_page = find_spec("jinja2") is not None if page is None else page
        with resumable_progress_bar() as progress, _stoppable() as stop:
            summary = label_batch(
                source,
                out,
                bundle,
                jobs,
                parquet=with_parquet,
                json=json,
                retry=retry,
                progress=progress,
                stop=stop,
                language=language if html else None,
                page=with_page,
                every=every if watch else None,
                scheduler=scheduler,
            )
            if summary is None:
                raise KeyboardInterrupt
    if not quiet:
        print_text(summary.format_text() + f"\nThe table is {out / 'findings.csv'}\n")
        if watch:
            print_text("The same command goes on watching.\n")
        for file, package, there in (
            ("findings.parquet", "pyarrow", parquet is not None or with_parquet),
            ("summary.html", "jinja2", page is not None or with_page),
        ):
            if not there:
                print_text(f"No {file}: it needs {package}, pip install 'situs[batch]'\n")


def _source(manifest: Path | None, scans: str | None, rois: str | None) -> Path | tuple[str, str]:
    """The manifest or the two patterns, whichever was given."""
    if manifest is not None and scans is None and rois is None:
        return manifest
    if manifest is None and scans is not None and rois is not None:
        return scans, rois
    raise InputError("expected either MANIFEST, or both --scans and --rois (see 'situs batch --help')")


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first one is noted; the second raises KeyboardInterrupt."""
    pressed = False

    def handle(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        os.write(2, _FINISHING)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
