"""The command that labels a scan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import uuid4

import typer

from situs.cli.console import (
    STDOUT,
    check_outputs,
    no_warnings,
    print_text,
    progress_bar,
    write_text,
)
from situs.cli.options import BundleOption, CsvOption, JsonOption, LanguageOption
from situs.errors import OutputError
from situs.progress import Progress, silent

if TYPE_CHECKING:
    from pydicom import Dataset

    from situs.bundle import Bundle
    from situs.finding import Finding
    from situs.volume import DicomImage, Roi, Volume

__all__ = ["label"]

# Slices or pictures that take about five seconds; fewer are not worth the import of rich.
_MANY = 150


def label(
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="SCAN", help="Head CT: a file (NIfTI, NRRD, MetaImage), a DICOM folder or a zip of one."
        ),
    ],
    roi: Annotated[
        Path,
        typer.Option(
            "--roi",
            metavar="ROI",
            help="Regions of interest: a mask (NIfTI, NRRD, MetaImage), a DICOM segmentation (SEG), "
            "a DICOM structure set (RTSTRUCT), or boxes and points (JSON, CSV). Each value, segment, "
            "structure or shape is a region.",
        ),
    ],
    bundle: BundleOption = None,
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
            help="For a map of probabilities or a fractional DICOM segmentation: take voxels with at least "
            "this probability. Default: 0.5 for DICOM.",
        ),
    ] = None,
    json_file: JsonOption = None,
    csv_file: CsvOption = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write one picture per lesion to this folder.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page for people, with pictures, that prints and needs no other file. "
            "'-' is standard output.",
        ),
    ] = None,
    language: LanguageOption = "en",
    sr: Annotated[
        Path | None,
        typer.Option(
            "--sr", metavar="FILE", help="Write a DICOM Structured Report. It names the patient of the scan."
        ),
    ] = None,
    sc: Annotated[
        Path | None,
        typer.Option(
            "--sc",
            metavar="DIR",
            help="Write the pictures as DICOM images to this folder. They name the patient of the scan.",
        ),
    ] = None,
    seg_out: Annotated[
        Path | None,
        typer.Option(
            "--seg-out",
            metavar="FILE",
            help="Write the DICOM segmentation of --roi again, with the site and side of each segment. "
            "It names the patient of the scan.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table and no progress.")] = False,
) -> None:
    """Name the anatomical site of each lesion in a head CT.

    A lesion is a connected part of a region of interest.
    """
    outputs = _Outputs(json_file, csv_file, png, html, sr, sc, seg_out)
    outputs.check([scan, roi] if bundle is None else [scan, roi, Path(bundle)])
    with no_warnings():
        from situs.io import read_rois, read_volume
        from situs.labeler import Labeler
        from situs.volume import split_regions

        outputs.import_extras()
        outputs.check_roi(roi)
        texts = outputs.read_texts(language)
        volume = read_volume(scan, series, None if mask_space == "index" else roi)
        patient = regions_object = None
        if outputs.name_the_patient:
            from situs.io.dicom.patient import read_patient
            from situs.io.dicom.rois import region_object

            patient, regions_object = read_patient(scan, volume), region_object(roi, volume)
        regions = read_rois(roi, volume, mask_space, threshold)
        lesions, outside = split_regions(regions)
        labeler = Labeler.load(bundle)
        if outputs.have_pictures:
            _ = labeler.bundle.pictures  # damaged pictures are refused before the work
        with _progress(quiet) as progress:
            findings = labeler.label(volume, [*lesions, *outside], progress)
            outputs.write_pictures(volume, lesions, findings, labeler.bundle, patient, progress)
        outputs.write_reports(volume, findings, patient, regions_object)
        outputs.write_segmentation(roi, findings, patient)
        outputs.write_page(volume, lesions, findings, labeler.bundle, texts)
    if not quiet and STDOUT not in (json_file, csv_file, html):
        from situs.report import format_text

        print_text(format_text(volume, findings))


def _progress(quiet: bool) -> AbstractContextManager[Progress]:
    """Bars for a person who waits for many slices or pictures."""
    return nullcontext(silent) if quiet else progress_bar(_MANY)


@dataclass(frozen=True)
class _Outputs:
    """Where the findings are written to; None where they are not."""

    json: Path | None
    csv: Path | None
    png: Path | None
    html: Path | None
    sr: Path | None
    sc: Path | None
    seg_out: Path | None

    @property
    def name_the_patient(self) -> bool:
        """Whether there are DICOM objects among them."""
        return any(path is not None for path in (self.sr, self.sc, self.seg_out))

    @property
    def have_pictures(self) -> bool:
        """Whether there are pictures among them or in them."""
        return self.png is not None or self.sc is not None or self.html is not None

    def import_extras(self) -> None:
        """Import what extras install, so that one that is missing is told before the work."""
        if self.sr is not None:
            import situs.report.dicom_sr
        if self.html is not None:
            import situs.report.html  # noqa: F401

    def read_texts(self, language: str) -> dict[str, str]:
        """The words of the page; none if there is no page."""
        if self.html is None:
            return {}
        from situs.report.html import read_texts

        return read_texts(language)

    def check(self, inputs: Sequence[Path]) -> None:
        """Refuse what could not be written after the work."""
        dicom = {"--sr": self.sr, "--seg-out": self.seg_out}
        files = {"--json": self.json, "--csv": self.csv, "--html": self.html, **dicom}
        check_outputs(files, inputs, [self.png, self.sc])
        for option, path in dicom.items():
            if path == STDOUT:
                raise OutputError(f"{option} -: standard output takes no DICOM; name a file")

    def check_roi(self, roi: Path) -> None:
        """Refuse to write a segmentation again that is none."""
        if self.seg_out is not None:
            from situs.io.kinds import roi_kind

            if roi_kind(roi) != "SEG":
                raise OutputError(
                    f"--seg-out writes the DICOM segmentation of --roi again, and {roi} is none: leave it out"
                )

    def write_pictures(
        self,
        volume: Volume,
        lesions: Sequence[Roi],
        findings: Sequence[Finding],
        bundle: Bundle,
        patient: Dataset | None,
        progress: Progress,
    ) -> None:
        """Write a picture of each lesion; the patient is needed for DICOM images only."""
        if self.png is None and self.sc is None:
            return
        from situs.files import make_folder, write_file
        from situs.report.picture import iter_pictures

        for folder in (self.png, self.sc):
            if folder is not None:
                make_folder(folder)
        series = uuid4().hex
        pictures = iter_pictures(volume, lesions, findings, bundle.picture)
        for number, (name, content) in enumerate(pictures, start=1):
            if self.png is not None:
                write_file(self.png / name, content)
            if self.sc is not None and patient is not None:
                from situs.report.dicom_sc import format_capture

                title = Path(name).stem
                capture = format_capture(content, title, findings[0], patient, series, number)
                write_file(self.sc / f"{title}.dcm", capture)
            progress("pictures", number, len(lesions))

    def write_reports(
        self,
        volume: Volume,
        findings: Sequence[Finding],
        patient: Dataset | None,
        regions: DicomImage | None,
    ) -> None:
        """Write the tables, and for the patient the Structured Report, which names the regions' object."""
        from situs.report import format_csv, format_json

        if self.sr is not None and patient is not None:
            from situs.files import write_file
            from situs.report.dicom_sr import format_sr

            write_file(self.sr, format_sr(volume, findings, patient, regions))
        for path, form in ((self.csv, format_csv), (self.json, format_json)):
            if path is not None:
                write_text(path, form(volume, findings))

    def write_segmentation(self, roi: Path, findings: Sequence[Finding], patient: Dataset | None) -> None:
        """Write the segmentation of the regions, with their sites."""
        if self.seg_out is not None and patient is not None:
            from situs.files import write_file
            from situs.io.dicom.rois import open_dataset
            from situs.report.dicom_seg import format_segmentation

            with open_dataset(roi, "SEG") as original:
                content = format_segmentation(original, findings, patient)
            write_file(self.seg_out, content)

    def write_page(
        self,
        volume: Volume,
        lesions: Sequence[Roi],
        findings: Sequence[Finding],
        bundle: Bundle,
        texts: dict[str, str],
    ) -> None:
        """Write the page for people."""
        if self.html is not None:
            from situs.report.html import format_html

            write_text(self.html, format_html(volume, lesions, findings, bundle.picture, texts))
