"""The segmentation that the lesions are of, written again with the site of each segment."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any
from uuid import uuid4

from pydicom import Dataset

from situs.anatomy import Site
from situs.finding import Finding, Side
from situs.report.dicom_object import new_object, site_code, to_bytes

__all__ = ["format_segmentation"]

_SERIES_NUMBER = 9002  # after those of the Structured Report and the pictures
# What the Image Pixel, Segmentation Image, Multi-frame and Frame of Reference modules hold (PS3.3, A.51). No
# other attribute of the file is copied.
_COPIED = (
    "ImageType", "ContentLabel", "FrameOfReferenceUID",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "ICCProfile",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "SegmentationType",
    "SegmentationFractionalType", "MaximumFractionalValue", "SegmentsOverlap", "SegmentSequence",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ReferencedSeriesSequence",
    "StudiesContainingOtherReferencedInstancesSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
# Free texts in the items of its sequences that the standard does not require.
_LEFT_OUT = ("SegmentDescription", "FrameComments", "FrameLabel")
_LATERALITY: dict[Side, tuple[str, str]] = {
    "left": ("7771000", "Left"),
    "right": ("24028007", "Right"),
    "bilateral": ("51440002", "Right and left"),
}


def format_segmentation(
    original: Dataset, findings: Sequence[Finding], patient: Dataset, key: str = ""
) -> bytes:
    """A new DICOM segmentation (SEG) as the bytes of a file.

    Its segments and pixels are those of the original. A segment gets the site of its lesions as its anatomic
    region, with their side, if they are sure and have one site. A segment that has a region keeps it.

    Args:
        original: The segmentation, not changed.
        findings: What was found on it, at least one.
        patient: The attributes of the Patient and General Study modules, see
            `situs.io.dicom.patient.read_patient`.
        key: What the UIDs are derived from: the same key gives the same UIDs. By default they are new.

    Raises:
        InputError: A site has no code.
    """
    sop_class = str(original.SOPClassUID)
    made = new_object(patient, findings[0], sop_class, "SEG", _SERIES_NUMBER, key or uuid4().hex)
    made.file_meta.TransferSyntaxUID = original.file_meta.TransferSyntaxUID
    for name in _COPIED:
        if name in original:
            made[name] = deepcopy(original[name])
    made.remove_private_tags()
    made.walk(_leave_out)
    made.SeriesDescription = "situs: segments with sites (research only)"
    # Free texts of type 2.
    made.ContentCreatorName = made.ContentDescription = made.PositionReferenceIndicator = ""
    for segment in made.SegmentSequence:
        own = [f for f in findings if f.roi_value == segment.SegmentNumber and f.site is not None]
        sites = {f.sites.site(f.site) for f in own if f.site is not None}
        if len(sites) == 1 and all(f.sure for f in own) and not segment.get("AnatomicRegionSequence"):
            segment.AnatomicRegionSequence = [_region(sites.pop(), {finding.side for finding in own})]
    return to_bytes(made)


def _leave_out(dataset: Dataset, element: Any) -> None:
    if element.keyword in _LEFT_OUT:
        del dataset[element.tag]


def _region(site: Site, sides: set[Side | None]) -> Dataset:
    """The code of a site, with its side if it has one that is left, right or both."""
    region = _code(*site_code(site))
    side = sides.pop() if len(sides) == 1 else "midline" if "midline" in sides else "bilateral"
    if side in _LATERALITY:
        value, meaning = _LATERALITY[side]
        region.AnatomicRegionModifierSequence = [_code(value, "SCT", meaning)]
    return region


def _code(value: str, scheme: str, meaning: str) -> Any:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
