"""What is done on a scan: reading, labelling, formatting. Plain functions for worker threads."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from situs.bundle import Bundle
from situs.errors import InputError, RoiError, SitusError
from situs.finding import Finding
from situs.io import read_rois, read_volume
from situs.io.shapes import SCHEMA
from situs.labeler import Labeler
from situs.progress import Progress, silent
from situs.report import format_csv, to_json_object
from situs.report.findings import json_text
from situs.volume import DicomImage, OutsideRoi, Roi, Volume, split_regions
from situs.web.schemas import RegionsRequest

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "FORMATS",
    "Labelled",
    "Regions",
    "Scan",
    "example_file",
    "label",
    "lesion_picture",
    "read_asked",
    "read_example",
    "read_regions",
    "read_scan",
    "reference_strip",
    "without_folder",
]

_FINDING_BYTES = 2**14
_HEADERS = (".mhd", ".nhdr", ".hdr")  # of files whose voxels lie beside them


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan that was read. Its files are not needed any more.

    Attributes:
        volume: The scan.
        patient: What a DICOM object about it must name; the reason why there can be none otherwise.
        is_example: Whether it is the example scan.
    """

    volume: Volume
    patient: Dataset | SitusError
    is_example: bool = False

    @property
    def n_bytes(self) -> int:
        """Bytes of its voxels."""
        return int(self.volume.hu.nbytes)


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions that were read for a scan.

    Attributes:
        lesions: Their lesions, in the order of the findings.
        outside: What lies outside the scan.
        source: The DICOM segmentation or structure set that they come from.
    """

    lesions: list[Roi]
    outside: list[OutsideRoi]
    source: DicomImage | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of their masks."""
        return sum(lesion.mask.nbytes for lesion in self.lesions)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The findings on a set of regions.

    Attributes:
        scan: The scan.
        regions: The regions.
        findings: The findings.
        document: Their JSON object (`situs.report.to_json_object`).
    """

    scan: Scan
    regions: Regions
    findings: list[Finding]
    document: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        """Bytes, roughly: a finding has some 70 numbers and a few sentences."""
        return _FINDING_BYTES * len(self.findings)


def example_file(name: str) -> Path:
    """A file of the example in the package."""
    return Path(str(resources.files("situs").joinpath(f"data/example/{name}")))


def read_scan(path: Path, series: str | None = None) -> Scan:
    """Read a scan from its file or from the folder of its files.

    Raises:
        ScanError: See `situs.io.read_volume`.
        SeveralSeriesError: It holds several head CT series, and none was asked for.
    """
    path = _main_file(path)
    volume = read_volume(path, series, ask=True)
    return Scan(volume, _patient(path, volume))


def read_regions(path: Path, scan: Scan, threshold: float | None = None, drawn: bool = False) -> Regions:
    """Read regions for a scan.

    Args:
        path: Their file, or a folder with it and the file of its voxels.
        scan: The scan.
        threshold: See `situs.io.read_rois`.
        drawn: Whether they were drawn on the scan as the server shows it. Then its geometry counts, even if
            it is a guess because the scan's header has none.

    Raises:
        RoiError: See `situs.io.read_rois`.
    """
    path = _main_file(path)
    volume = replace(scan.volume, stored=None) if drawn else scan.volume
    lesions, outside = split_regions(read_rois(path, volume, threshold=threshold))
    source = None
    if scan.volume.source is not None and not drawn:
        from situs.io.dicom.rois import region_object

        source = region_object(path, scan.volume)
    return Regions(lesions, outside, source)


def read_example() -> Scan:
    """The example scan."""
    return replace(read_scan(example_file("head.nii.gz")), is_example=True)


def read_asked(asked: RegionsRequest, scan: Scan, folder: Path) -> Regions:
    """The lesions of the example, or shapes that were drawn.

    Args:
        asked: Which of them.
        scan: The scan.
        folder: Private; the shapes are written there for `situs.io.read_rois`.

    Raises:
        RoiError: Neither or both are asked for, the scan is not the example, or see `situs.io.read_rois`.
    """
    if asked.example == (asked.shapes is not None):
        raise RoiError("expected either example or shapes")
    if asked.example:
        if not scan.is_example:
            raise RoiError("the lesions of the example belong to the example scan: ask for it first")
        return read_regions(example_file("lesions.nii.gz"), scan)
    shapes = [msgspec.structs.replace(shape, name=shape.name or shape.kind) for shape in asked.shapes or ()]
    content = {"schema": SCHEMA, "space": "ras", "shapes": shapes}
    with tempfile.TemporaryDirectory(dir=folder) as private, without_folder(Path(private)):
        path = Path(private, "shapes")
        path.write_bytes(msgspec.json.encode(content))
        return read_regions(path, scan, drawn=True)


@contextmanager
def without_folder(folder: Path) -> Iterator[None]:
    """Take the name of a private folder out of the errors that are raised here."""
    try:
        yield
    except SitusError as error:
        text = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "the upload")
        error.args = (text, *error.args[1:])
        raise


def label(labeler: Labeler, scan: Scan, regions: Regions, progress: Progress = silent) -> Labelled:
    """The findings on regions of a scan."""
    found = labeler.label(scan.volume, [*regions.lesions, *regions.outside], progress)
    return Labelled(scan, regions, found, to_json_object(scan.volume, found))


def lesion_picture(labelled: Labelled, number: int, bundle: Bundle) -> bytes | None:
    """The picture of a lesion as PNG; None if there is none of this number, or it lies outside the scan."""
    from situs.report.picture import draw_finding, iter_lesions

    finding = _finding(labelled, number)
    for other, lesion, others in iter_lesions(labelled.regions.lesions, labelled.findings):
        if other is finding:
            return _png(draw_finding(labelled.scan.volume, finding, lesion, others, bundle.picture))
    return None


def reference_strip(labelled: Labelled, number: int, bundle: Bundle) -> bytes | None:
    """The references that a lesion is compared with as one PNG; None without pictures."""
    from situs.report.picture import draw_references

    finding = _finding(labelled, number)
    picture = None if finding is None else draw_references(finding, bundle.picture)
    return None if picture is None else _png(picture)


def _csv(labelled: Labelled, bundle: Bundle, texts: Mapping[str, str]) -> bytes:
    return format_csv(labelled.scan.volume, labelled.findings).encode("utf-8", "replace")


def _json(labelled: Labelled, bundle: Bundle, texts: Mapping[str, str]) -> bytes:
    return json_text(labelled.document).encode()


def _html(labelled: Labelled, bundle: Bundle, texts: Mapping[str, str]) -> bytes:
    from situs.report.html import format_html

    scan, regions = labelled.scan, labelled.regions
    page = format_html(scan.volume, regions.lesions, labelled.findings, bundle.picture, texts)
    return page.encode("utf-8", "replace")


def _sr(labelled: Labelled, bundle: Bundle, texts: Mapping[str, str]) -> bytes:
    from situs.report.dicom_sr import format_sr

    scan = labelled.scan
    if isinstance(scan.patient, SitusError):
        raise scan.patient
    return format_sr(scan.volume, labelled.findings, scan.patient, labelled.regions.source)


Format = Callable[[Labelled, Bundle, Mapping[str, str]], bytes]
# By the ending of the address: the media type, and what makes the bytes.
FORMATS: dict[str, tuple[str, Format]] = {
    "json": ("application/json", _json),
    "csv": ("text/csv; charset=utf-8", _csv),
    "html": ("text/html; charset=utf-8", _html),
    "dcm": ("application/dicom", _sr),
}


def _finding(labelled: Labelled, number: int) -> Finding | None:
    """Finding number 1, 2, ..."""
    return labelled.findings[number - 1] if 1 <= number <= len(labelled.findings) else None


def _png(picture: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def _main_file(path: Path) -> Path:
    """Of a folder with one header and the file of its voxels, the header; else the path."""
    if not path.is_dir():
        return path
    files = [file for file in path.iterdir() if file.suffix.lower() in _HEADERS]
    return files[0] if len(files) == 1 else path


def _patient(path: Path, volume: Volume) -> Dataset | SitusError:
    if volume.source is None:
        return InputError("the scan is no DICOM, so no DICOM object can be written about it: send the series")
    from situs.io.dicom.patient import read_patient

    try:
        return read_patient(path, volume)
    except SitusError as error:
        return error
