"""Labels segmentations of an archive and stores a Structured Report for each, once.

The UID of a report is derived from the segmentation's UID and from the bundle's name and version. So the
archive itself says whether a segmentation was labelled, and a report that is sent again is the same object.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from situs.errors import InputError, SitusError
from situs.finding import Finding
from situs.io import read_rois, read_volume
from situs.io.dicom.elements import text_of
from situs.io.dicom.patient import read_patient
from situs.io.dicom.rois import open_dataset, region_object
from situs.io.dicom.segmentation import segment_references
from situs.io.dicom.series import is_head
from situs.labeler import Labeler
from situs.pacs.archive import Archive, ArchiveError, Series
from situs.report.dicom_object import MAKER, object_uids
from situs.report.dicom_sc import format_capture
from situs.report.dicom_sr import format_sr
from situs.report.picture import iter_pictures
from situs.volume import OutsideRoi, Roi, split_lesions

__all__ = ["Labelled", "Watcher", "Worker"]

_MOST_LOOKS = 64  # between two attempts at a segmentation


@dataclass(frozen=True)
class Labelled:
    """What became of one segmentation.

    Attributes:
        instance: Its SOPInstanceUID.
        findings: The findings of the report that was stored; none if there was a report, or after an error.
        error: Why it was not labelled.
    """

    instance: str
    findings: tuple[Finding, ...] = ()
    error: SitusError | None = None


@dataclass(frozen=True)
class Worker:
    """Labels segmentations of an archive.

    Attributes:
        archive: The archive.
        labeler: The labeler.
        pictures: Whether a picture of each lesion is stored too.
        head_only: Whether a CT is left alone that is not of the head by its BodyPartExamined.
    """

    archive: Archive
    labeler: Labeler
    pictures: bool = False
    head_only: bool = False

    def label_study(self, study: str) -> Iterator[Labelled]:
        """Label each segmentation of a study that has no report yet.

        Args:
            study: StudyInstanceUID.

        Raises:
            ArchiveError: The archive does not answer.
            InputError: The study has no segmentation.
        """
        found = self.archive.series("SEG", study)
        if not found:
            raise InputError(
                "the study holds no DICOM segmentation (SEG), or there is no such study: check STUDY"
            )
        for series in found:
            for instance in self.archive.instances(series):
                yield self.label_once(series, instance)

    def label_once(self, series: Series, instance: str) -> Labelled:
        """Label a segmentation unless the archive has its report."""
        folder = ""
        key = f"{instance}/{self.labeler.bundle.name}/{self.labeler.bundle.version}"
        try:
            if self.archive.has(series.study, *object_uids(key, "SR")):
                return Labelled(instance)
            with tempfile.TemporaryDirectory(prefix="situs-pacs-") as folder:
                return self._label(series, instance, key, Path(folder))
        except InputError as error:
            return Labelled(instance, error=InputError(str(error).replace(f"{folder}/", "")))
        except SitusError as error:
            return Labelled(instance, error=error)

    def _label(self, series: Series, instance: str, key: str, folder: Path) -> Labelled:
        roi, scan = folder / "segmentation.dcm", folder / "scan"
        self.archive.fetch_instance(series, instance, roi)
        if _is_own(roi):
            return Labelled(instance)
        self._fetch_scan(series, roi, scan)
        volume = read_volume(scan, roi=roi)
        patient = read_patient(scan, volume)
        regions = read_rois(roi, volume)
        lesions = [part for region in regions if isinstance(region, Roi) for part in split_lesions(region)]
        outside = [region for region in regions if isinstance(region, OutsideRoi)]
        findings = self.labeler.label(volume, [*lesions, *outside])
        if self.pictures:
            pictures = iter_pictures(volume, lesions, findings, self.labeler.bundle.picture)
            for number, (name, png) in enumerate(pictures, start=1):
                capture = format_capture(png, Path(name).stem, findings[0], patient, key, number)
                self.archive.store(capture, series.study)
        # The report comes last: where it is, the work is done.
        report = format_sr(volume, findings, patient, region_object(roi, volume), key)
        self.archive.store(report, series.study)
        return Labelled(instance, tuple(findings))

    def _fetch_scan(self, series: Series, roi: Path, folder: Path) -> None:
        """Fetch the CT series of the study that a segmentation names; all of them if it names none of them.

        Raises:
            ArchiveError: The CT has not come to the archive, or not all images that the segmentation names.
            InputError: With `head_only`, no CT may be of a head.
        """
        scans = self.archive.series("CT", series.study)
        if not scans:
            raise ArchiveError(
                "its study holds no CT series: store the CT that it was drawn on", temporary=True
            )
        references = segment_references(roi)
        named = [scan for scan in scans if scan.uid in references.series]
        scans = named or scans
        if self.head_only:
            scans = [scan for scan in scans if not scan.body_part or is_head(scan.body_part)]
            if not scans:
                raise InputError("its CT is not of the head (BodyPartExamined): it was left alone")
        images: set[str] = set()
        for number, scan in enumerate(scans):
            (folder / str(number)).mkdir(parents=True)
            images |= self.archive.fetch_series(scan, folder / str(number))
        if named and (missing := len(references.images - images)):
            raise ArchiveError(
                f"{missing} images that it names are not in the archive: store them", temporary=True
            )


def _is_own(roi: Path) -> bool:
    """Whether a segmentation was written by ``situs label --seg-out``, so that another one has the report."""
    with open_dataset(roi, "SEG") as dataset:
        return text_of(dataset, "Manufacturer") == MAKER


class Watcher:
    """Labels the segmentations that come to an archive.

    Args:
        worker: Labels one.
        since: Only studies from this date on, YYYYMMDD. Empty for all.
    """

    def __init__(self, worker: Worker, since: str = "") -> None:
        self._worker = worker
        self._since = since
        self._finished: set[Series] = set()  # with their counts: a series that grows is looked at again
        self._refused: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._next: dict[str, int] = {}
        self._looks = 0

    def look(self) -> Iterator[Labelled]:
        """Label what is new.

        A segmentation that cannot be labelled is left alone from then on. If it is the archive that fails, it
        is tried again, by the next look and then more and more rarely.

        Raises:
            ArchiveError: The archive does not answer.
        """
        self._looks += 1
        for series in self._worker.archive.series("SEG", since=self._since):
            if series in self._finished:
                continue
            open_ends = series.n_instances == 0
            for instance in self._worker.archive.instances(series):
                if instance in self._refused:
                    continue
                if self._next.get(instance, 0) > self._looks:
                    open_ends = True
                    continue
                done = self._label(series, instance)
                open_ends |= isinstance(done.error, ArchiveError)
                if done.error is not None or done.findings:
                    yield done
            if not open_ends:
                self._finished.add(series)

    def _label(self, series: Series, instance: str) -> Labelled:
        try:
            done = self._worker.label_once(series, instance)
        except Exception as fault:  # the watch goes on; the text may quote a header
            done = Labelled(instance, error=SitusError(f"internal fault: {type(fault).__name__}"))
        if isinstance(done.error, ArchiveError):
            self._failures[instance] += 1
            self._next[instance] = self._looks + min(2 ** (self._failures[instance] - 1), _MOST_LOOKS)
        elif done.error is not None:
            self._refused.add(instance)
        return done
