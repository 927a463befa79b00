"""The findings of a scan as a DICOM Structured Report: TID 1500 with one measurement group for each lesion.

``docs/dicom.md`` describes its content and the codes of the private scheme 99SITUS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, RTStructureSetStorage
from pydicom.valuerep import DS

from situs import __version__
from situs.anatomy import Site
from situs.finding import Finding, Side
from situs.report.dicom_items import encoded, like, mark_encoded
from situs.report.dicom_object import MAKER, derived_uid, new_object, site_code, to_bytes
from situs.volume import DicomImage, Volume

__all__ = ["format_sr"]

_SERIES_NUMBER = 9000  # beyond those of scanners
_SMALLEST_SHARE = 0.005

# SOP class and instance of a file, and the numbers of its frames; None for a file of one image.
_Reference = tuple[str, str, list[int] | None]

_SCHEME = "99SITUS"
_MILLILITRE = sr.CodedConcept("ml", "UCUM", "milliliter")
_NO_UNITS = sr.CodedConcept("1", "UCUM", "no units")
_RELATION_SCORE = sr.CodedConcept("RELATION_SCORE", _SCHEME, "Relation score")
_SHARE = sr.CodedConcept("SHARE", _SCHEME, "Share of the lesion")
_CERTAINTY = sr.CodedConcept("CERTAINTY", _SCHEME, "Certainty of the site")
_SURE = sr.CodedConcept("SURE", _SCHEME, "Sure")
_NOT_SURE = sr.CodedConcept("NOT_SURE", _SCHEME, "Not sure")
_POSSIBLE_SITE = sr.CodedConcept("POSSIBLE_SITE", _SCHEME, "Possible site")
_DOUBT = sr.CodedConcept("DOUBT", _SCHEME, "Reason for doubt")
_ROI_NAME = sr.CodedConcept("ROI_NAME", _SCHEME, "Name of the region")


def format_sr(
    volume: Volume,
    findings: Sequence[Finding],
    patient: Dataset,
    regions: DicomImage | None = None,
    key: str = "",
) -> bytes:
    """A Comprehensive 3D SR document as the bytes of a DICOM file.

    Args:
        volume: The scan, read from DICOM.
        findings: What was found, at least one.
        patient: The attributes of the Patient and General Study modules, see
            `situs.io.dicom.patient.read_patient`.
        regions: The DICOM segmentation or structure set that the lesions are of, if they are of one.
        key: What the UIDs of the document are derived from: the same key gives the same UIDs. By default they
            are new.

    Raises:
        InputError: If a site of the bundle has no code.
    """
    key = key or uuid4().hex
    document = new_object(patient, findings[0], Comprehensive3DSRStorage, "SR", _SERIES_NUMBER, key)
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag, document.PreliminaryFlag = "COMPLETE", "PRELIMINARY"
    document.VerificationFlag = "UNVERIFIED"
    document.CodingSchemeIdentificationSequence = [
        CodingSchemeIdentificationItem(_SCHEME, name="Private codes of situs", responsible_organization=MAKER)
    ]
    document.CurrentRequestedProcedureEvidenceSequence = [*_evidence(volume, regions)]
    document.update(_report(volume, findings, regions, key)[0])
    mark_encoded(document)
    return to_bytes(document)


def _report(
    volume: Volume, findings: Sequence[Finding], regions: DicomImage | None, key: str
) -> sr.MeasurementReport:
    first = findings[0]
    software = f"situs {__version__}, bundle {first.bundle_name} {first.bundle_version}"
    device = sr.DeviceObserverIdentifyingAttributes(derived_uid(software), "situs", MAKER, software)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=codes.SCT.ComputedTomographyOfHead,
        imaging_measurements=[_group(volume, finding, regions, key) for finding in findings],
    )


def _group(volume: Volume, finding: Finding, regions: DicomImage | None, key: str) -> Any:
    """The measurement group of one lesion: TID 1411 if it is of a segment or structure, else TID 1501."""
    name = finding.lesion_name
    named = [] if finding.site is None else [_finding_site(finding.sites.site(finding.site), finding.side)]
    content = dict(
        tracking_identifier=sr.TrackingIdentifier(derived_uid(key, name), name),
        finding_type=codes.SCT.Lesion,
        finding_sites=named,
        algorithm_id=sr.AlgorithmIdentification(
            name=f"situs, bundle {finding.bundle_name}",
            version=f"{__version__}, bundle {finding.bundle_version}",
            parameters=[f"roi_value={finding.roi_value}", f"component={finding.component}"],
            manufacturer=MAKER,
        ),
        measurements=[sr.Measurement(codes.SCT.Volume, round(finding.volume_ml, 6), _MILLILITRE)],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_CERTAINTY, _SURE if finding.sure else _NOT_SURE),
            *(
                sr.QualitativeEvaluation(_POSSIBLE_SITE, _code(finding.sites.site(key)))
                for key in finding.site_set
            ),
        ],
    )
    files = _references(_images_of(volume, finding))
    if regions is None or regions.sop_class == RTStructureSetStorage:
        images = [sr.SourceImageForMeasurementGroup(*file) for file in files[:1]]
        group: Any = sr.MeasurementsAndQualitativeEvaluations(**content, source_images=images)
    else:
        assert volume.source is not None
        segment = sr.ReferencedSegment(
            regions.sop_class,
            regions.instance,
            finding.roi_value,
            source_images=[sr.SourceImageForSegmentation(*file) for file in files[:1]] or None,
            source_series=sr.SourceSeriesForSegmentation(volume.source.images[0].series),
        )
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(**content, referenced_segment=segment)
    items = [*group[0].ContentSequence]
    items += _other_images(items[-1], files[1:])
    volume_at = next(number for number, item in enumerate(items) if item.ValueType == "NUM")
    items[volume_at + 1 : volume_at + 1] = _by_site(finding)
    if regions is not None and regions.sop_class == RTStructureSetStorage:
        group[0].ContentTemplateSequence[0].TemplateIdentifier = "1411"
        items.append(_structure(regions, finding.roi_value))
    group[0].add_new("ContentSequence", "SQ", [*items, *_texts(finding)])
    return group


def _structure(regions: DicomImage, number: int) -> Any:
    """The reference to a structure of a structure set; highdicom reads it, but cannot make it."""
    item = sr.CompositeContentItem(
        codes.DCM.RegionInSpace, regions.sop_class, regions.instance, sr.RelationshipTypeValues.CONTAINS
    )
    name, relation = codes.DCM.ReferencedRegionOfInterestIdentifier, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    item.ContentSequence = sr.ContentSequence([sr.TextContentItem(name, str(number), relation)])
    return item


def _texts(finding: Finding) -> list[sr.TextContentItem]:
    texts = [(_ROI_NAME, finding.roi_name)] if finding.roi_name else []
    texts += [(_DOUBT, doubt) for doubt in finding.doubts]
    texts += [(codes.DCM.Comment, note) for note in finding.notes]
    return [sr.TextContentItem(name, text, sr.RelationshipTypeValues.CONTAINS) for name, text in texts]


def _by_site(finding: Finding) -> Iterator[Dataset]:
    """One measurement for each relation score and share; its finding site is the site that it is of."""
    shares = {key: share for key, share in finding.shares.items() if share >= _SMALLEST_SHARE}
    for name, values in ((_RELATION_SCORE, finding.scores), (_SHARE, shares)):
        for key, value in values.items():
            model, measured = _measurement(name, finding.sites.site(key))
            rounded = round(value, 6)
            number = like(measured, NumericValue=DS(rounded, auto_format=True), FloatingPointValue=rounded)
            yield like(model, MeasuredValueSequence=[number])


@cache
def _measurement(name: sr.CodedConcept, site: Site) -> tuple[Dataset, Dataset]:
    """A measurement of a site, and its measured value, to be copied with other values."""
    (item,) = sr.Measurement(name, 0.0, _NO_UNITS, finding_sites=[_finding_site(site, None)])
    return encoded(item), encoded(item.MeasuredValueSequence[0])


@cache
def _finding_site(site: Site, side: Side | None) -> sr.FindingSite:
    laterality = {"left": codes.SCT.Left, "right": codes.SCT.Right, "bilateral": codes.SCT.Bilateral}
    midline = codes.SCT.Midline if side == "midline" else None  # no laterality of CID 244
    return sr.FindingSite(_code(site), laterality.get(side or ""), midline)


@cache
def _code(site: Site) -> sr.CodedConcept:
    return sr.CodedConcept(*site_code(site))


def _images_of(volume: Volume, finding: Finding) -> Sequence[DicomImage]:
    """The images that a lesion lies in; all of them if the slices were cut across the images."""
    assert volume.source is not None
    images = volume.source.images
    return [images[k] for k in finding.slices] if volume.source.are_slices else images


def _references(images: Iterable[DicomImage]) -> list[_Reference]:
    frames: dict[tuple[str, str], list[int] | None] = {}
    for image in images:
        of_file = frames.setdefault((image.sop_class, image.instance), [] if image.frame else None)
        if of_file is not None:
            of_file.append(image.frame)
    return [(*file, of_file) for file, of_file in frames.items()]


def _other_images(first: Dataset, references: Iterable[_Reference]) -> list[Dataset]:
    """The items of other images, made like that of the first."""
    model = encoded(first)
    return [like(model, ReferencedSOPSequence=[_reference(*reference)]) for reference in references]


def _reference(sop_class: str, instance: str, frames: list[int] | None = None) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, instance
    if frames is not None:
        made.ReferencedFrameNumber = frames
    return made


def _evidence(volume: Volume, regions: DicomImage | None) -> Iterator[Dataset]:
    """All files of the scan, series by series, and that of the regions; an item for each study."""
    assert volume.source is not None
    files: dict[str, dict[str, dict[str, str]]] = {}
    for image in (*volume.source.images, *([regions] if regions else [])):
        series = files.setdefault(image.study or volume.source.study, {})
        series.setdefault(image.series, {})[image.instance] = image.sop_class
    for uid, of_study in files.items():
        study = Dataset()
        study.StudyInstanceUID = uid
        study.ReferencedSeriesSequence = []
        for series_uid, classes in of_study.items():
            item = Dataset()
            item.SeriesInstanceUID = series_uid
            item.ReferencedSOPSequence = [
                _reference(sop_class, instance) for instance, sop_class in classes.items()
            ]
            study.ReferencedSeriesSequence.append(item)
        yield study
