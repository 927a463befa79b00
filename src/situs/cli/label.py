"""The command that labels a scan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from situs.cli.console import (
    STDOUT,
    check_outputs,
    no_warnings,
    print_text,
    progress_bar,
    write_text,
)
from situs.cli.options import CsvOption, JsonOption
from situs.progress import Progress, silent

if TYPE_CHECKING:
    from situs.bundle import Bundle
    from situs.finding import Finding
    from situs.volume import Roi, Volume

__all__ = ["label"]

# Slices or pictures that take about five seconds; fewer are not worth the import of rich.
_MANY = 150


def label(
    scan: Annotated[
        Path, typer.Argument(metavar="SCAN", help="Head CT: a NIfTI file, a DICOM folder or a zip of one.")
    ],
    roi: Annotated[
        Path,
        typer.Option(
            "--roi",
            metavar="ROI",
            help="Regions of interest: a NIfTI mask or a DICOM segmentation (SEG). Each value or segment is "
            "a region.",
        ),
    ],
    bundle: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of a trained bundle, instead of the one in the package."),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            metavar="SERIES",
            help="DICOM series to read, by SeriesNumber or SeriesInstanceUID. "
            "Without it, the plain axial head CT that the mask meets.",
        ),
    ] = None,
    mask_space: Annotated[
        Literal["index", "world"] | None,
        typer.Option(
            help="How to place the mask on the scan. 'index': by voxel indices, the headers are ignored. "
            "'world': by the coordinates in the headers. Default: decided from both headers."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Of a fractional DICOM segmentation, take pixels with at least this probability. "
            "Default: 0.5.",
        ),
    ] = None,
    json_file: JsonOption = None,
    csv_file: CsvOption = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write one picture per lesion to this folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table and no progress.")] = False,
) -> None:
    """Name the anatomical site of each lesion in a head CT.

    A lesion is a connected part of a region of interest.
    """
    inputs = [scan, roi] if bundle is None else [scan, roi, Path(bundle)]
    check_outputs(json_file, csv_file, png, inputs)
    with no_warnings():
        from situs.io import read_rois, read_volume
        from situs.labeler import Labeler
        from situs.volume import OutsideRoi, Roi, split_lesions

        volume = read_volume(scan, series, None if mask_space == "index" else roi)
        regions = read_rois(roi, volume, mask_space, threshold)
        lesions = [
            lesion for region in regions if isinstance(region, Roi) for lesion in split_lesions(region)
        ]
        outside = [region for region in regions if isinstance(region, OutsideRoi)]
        labeler = Labeler.load(bundle)
        if png is not None:
            _ = labeler.bundle.pictures  # damaged pictures are refused before the work
        with _progress(quiet) as progress:
            findings = labeler.label(volume, [*lesions, *outside], progress)
            if png is not None:
                _write_pictures(volume, lesions, findings, labeler.bundle, png, progress)
    _write_tables(volume, findings, json_file, csv_file)
    if not quiet and STDOUT not in (json_file, csv_file):
        from situs.report import format_text

        print_text(format_text(volume, findings))


def _progress(quiet: bool) -> AbstractContextManager[Progress]:
    """Bars for a person who waits for many slices or pictures."""
    return nullcontext(silent) if quiet else progress_bar(_MANY)


def _write_pictures(
    volume: Volume,
    lesions: Sequence[Roi],
    findings: Sequence[Finding],
    bundle: Bundle,
    folder: Path,
    progress: Progress,
) -> None:
    from situs.files import make_folder, write_file
    from situs.report.picture import iter_pictures

    make_folder(folder)
    pictures = iter_pictures(volume, lesions, findings, bundle.picture)
    for number, (name, content) in enumerate(pictures, start=1):
        write_file(folder / name, content)
        progress("pictures", number, len(lesions))


def _write_tables(
    volume: Volume, findings: Sequence[Finding], json_file: Path | None, csv_file: Path | None
) -> None:
    from situs.report import format_csv, format_json

    for path, form in ((csv_file, format_csv), (json_file, format_json)):
        if path is not None:
            write_text(path, form(volume, findings))
