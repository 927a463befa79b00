"""What DICOM segmentations and structure sets share: their header, and whether they belong to a scan.

Nothing but UIDs ties such an object to a scan, and positions where there are no UIDs. No UID is shown.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from situs.errors import InputError, RoiError
from situs.io.dicom.elements import text_of
from situs.io.dicom.files import check_deflated, file_source
from situs.io.dicom.series import UID
from situs.io.kinds import roi_kind
from situs.sentences import Sentence
from situs.volume import DicomImage, Volume

if TYPE_CHECKING:
    from situs.io.dicom.stacks import Stack

__all__ = ["References", "check_belongs", "names_share", "open_dataset", "region_object"]

_KINDS = {"SEG": "DICOM segmentation (SEG)", "RTSTRUCT": "DICOM structure set (RTSTRUCT)"}

# What a stack of images gets that the object names; more than twice what its position can give.
_NAMED = 4.0
_WORLD = "or --mask-space world to place it by its coordinates alone"


@dataclass(frozen=True)
class References:
    """What a DICOM object says about the images that it was drawn on.

    Attributes:
        study: StudyInstanceUID.
        frame_of_reference: FrameOfReferenceUID of its coordinates.
        series: The SeriesInstanceUIDs that it names.
        images: The SOPInstanceUIDs that it names.
    """

    study: str
    frame_of_reference: str
    series: frozenset[str]
    images: frozenset[str]

    def name_any_of(self, series: set[str], images: set[str]) -> bool:
        """Whether one of these images, or without named images one of these series, is named."""
        return bool(self.images & images if self.images else self.series & series)


@contextmanager
def open_dataset(path: Path, kind: str) -> Iterator[Any]:
    """The content of a DICOM file that is no image of the scan.

    Args:
        path: The file.
        kind: What it is, ``SEG`` or ``RTSTRUCT``.

    Raises:
        RoiError: It is damaged; also if reading its values within the context fails.
    """
    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about values that break the standard
        try:
            source = file_source(path)
            check_deflated(source)
            with source.open() as file:
                dataset = dcmread(file, force=True)
            yield dataset
        except InputError:
            raise
        except Exception as problem:  # a damaged file can set off anything inside pydicom
            raise RoiError(f"{path}: the {_KINDS[kind]} is damaged: export it again") from problem


def region_object(path: Path, volume: Volume) -> DicomImage | None:
    """What a segmentation or structure set itself is called; None if it lacks a UID, or for other files.

    Args:
        path: The file of the regions.
        volume: The scan.

    Raises:
        RoiError: It is damaged.
    """
    kind = roi_kind(path)
    if kind not in _KINDS:
        return None
    keys = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    with open_dataset(path, kind) as dataset:
        sop_class, instance, series, study = (text_of(dataset, key) for key in keys)
    if not all(map(UID.fullmatch, (sop_class, instance, series, study))):
        return None
    same = volume.source is not None and study == volume.source.study
    return DicomImage(sop_class, instance, series, study="" if same else study)


def check_belongs(
    references: References, volume: Volume, name: str, by_place: bool
) -> tuple[tuple[str, ...], tuple[Sentence, ...]]:
    """Whether a DICOM object is of a scan.

    It is if it names images of the scan. If it names others, its study and its frame of reference must be the
    scan's, so that its coordinates hold for the scan too.

    Args:
        references: What the object says.
        volume: The scan.
        name: The file, for the error text.
        by_place: Whether its coordinates are to be believed, whatever the UIDs say.

    Returns:
        Notes and doubts.

    Raises:
        RoiError: It is of another study, or its coordinates are of another frame of reference.
    """
    source = volume.source
    if volume.stored is not None and not volume.stored.oriented:
        raise RoiError(
            f"{name}: cannot be placed on the scan, whose header has no orientation: give the DICOM scan"
        )
    if by_place:
        return ("The regions were placed by their coordinates, as asked for.",), ()
    if source is None:
        return ("The scan has no DICOM UIDs; the regions were placed by their coordinates alone.",), ()
    frames = {references.frame_of_reference, source.frame_of_reference}
    if references.name_any_of({i.series for i in source.images}, {i.instance for i in source.images}):
        if "" in frames or len(frames) == 1:
            return (), ()
        return (), (Sentence("doubt.other_frame"),)
    if references.study and source.study and references.study != source.study:
        raise RoiError(
            f"{name}: is of another study than the scan (StudyInstanceUID), and names none of its images: "
            f"give the regions of this scan, {_WORLD}"
        )
    if "" in frames:
        return (), (Sentence("doubt.no_frame"),)
    if len(frames) > 1:
        raise RoiError(
            f"{name}: its coordinates are of another frame of reference than the scan's "
            f"(FrameOfReferenceUID), and it names none of its images: give the regions of this scan, {_WORLD}"
        )
    return (
        "The regions were drawn on other images of the scan's frame of reference; they were placed by their "
        "coordinates.",
    ), ()


def names_share(references: References, stack: Stack) -> float:
    """How strongly an object's UIDs speak for a stack of images: 0, or more than any position can."""
    own = {f.uid for f in stack.frames}, {f.instance for f in stack.frames}
    return _NAMED if references.name_any_of(*own) else 0.0
