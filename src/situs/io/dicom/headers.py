"""What the headers of DICOM files say about their images. Positions and directions are DICOM's LPS in mm.

Of the tags that may identify the patient only PatientID is read, to tell whether images are of one patient.
Of free text, words are looked for; none of it is shown.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from situs.errors import ScanError
from situs.io.dicom.elements import look, numbers, safe_items, safe_text, texts, value_of, whole_text
from situs.io.dicom.files import DEFLATED, Source, check_deflated
from situs.io.dicom.frames import Frame
from situs.io.dicom.plain import PlainPixels, pixels_offset, plain_coding

__all__ = ["MOST_PIXELS", "read_frames"]

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber", "SeriesDescription", "BodyPartExamined", "ConvolutionKernel", "WindowWidth",
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "AcquisitionNumber", "TemporalPositionIdentifier",
    "AcquisitionDateTime", "AcquisitionTime", "InstanceNumber", "FrameOfReferenceUID", "ImagePositionPatient",
    "PixelSpacing", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "RescaleSlope", "RescaleIntercept",
    "PhotometricInterpretation", "PixelRepresentation", "BitsStored", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
# In these the images of a series differ; `_own_values` has what they say.
_OWN_TAGS = (
    "SOPInstanceUID", "AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "InstanceNumber",
    "ImagePositionPatient",
)  # fmt: skip
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_RESCALE = "PixelValueTransformationSequence"
_SHARP_KERNEL = re.compile(r"BONE|EDGE|LUNG|SHARP|^[A-Z][a-z]?[6-9]\d|^FC(3|5|8)\d|^Y[B-D]$|^[DE]$")
_NO_CONTRAST = re.compile(
    r"[0 ]*|(NO|NON(?! IONIC)|NONE|NOT|N|NIL|NA|NULL|NEG|FALSE|0|UNKNOWN|PLAIN|NATIVE?|NEGATIVE|WITHOUT|WO|"
    r"W O|UNENHANCED|OHNE|KEINE?S?|SANS|SIN|SENZA|НЕТ|无)\b.*"
)
_OF_ONE_MOMENT = re.compile(r"PERF|\bCTP|DYNAM|VPCT|\b4D")
_ANGIOGRAPHY = re.compile(r"ANGIO|\bCTA\b")
MOST_PIXELS = 4096  # along a side; CT has 256 to 2048
_PIXELS_UNJUDGED = 1024**2  # a compressed image with more takes a byte for each 300 of its own at the least
_MOST_PACKED = 300
_LEAST_PACKED_BYTES = 16
_PIXEL_MM = (0.01, 50.0)
_FARTHEST_MM = 1e5
_SLOPES = (1e-4, 1e3)
_MOST_INTERCEPT = 1e5


def read_frames(sources: list[Source]) -> tuple[list[Frame], int]:
    """The headers of all images; and how many DICOM files could not be read.

    Raises:
        ScanError: A file cannot be unpacked from its zip.
    """
    reader = _HeaderReader()
    frames, unreadable = [], 0
    for source in sources:
        try:
            check_deflated(source)
            frames += reader.read(source)
        except ScanError:
            raise
        except Exception:  # a damaged header can set off anything inside pydicom
            unreadable += 1
    return frames, unreadable


class _HeaderReader:
    """Reads headers. What the images of a series share is converted once."""

    def __init__(self) -> None:
        from pydicom.tag import Tag

        self._tags = [Tag(name) for name in _TAGS]
        self._own = {Tag(name) for name in _OWN_TAGS}
        self._known: dict[tuple[Any, ...], Frame] = {}

    def read(self, source: Source) -> list[Frame]:
        """The images of one file.

        Raises:
            Exception: Of any kind, if the header is damaged.
        """
        from pydicom import dcmread

        with source.open() as file:
            header = dcmread(file, force=True, stop_before_pixels=True, specific_tags=self._tags)
            shared = self._shared_values(header)
            known = self._known.get(shared)
            if known is not None and known.plain is not None:
                n_bytes = 2 * known.shape[0] * known.shape[1]
                if offset := pixels_offset(header, file, n_bytes, source.n_bytes):
                    return [_same_but(known, source, header, offset)]
            frames = _frames_of(header, source, file)
        if shared and len(frames) == 1 and not frames[0].problem:
            self._known[shared] = frames[0]
        return frames

    def _shared_values(self, header: Any) -> tuple[Any, ...]:
        """All that is not an image's own, as stored; empty if there are groups for frames."""
        elements = [element for element in header.values() if element.tag not in self._own]
        if any(name in header for name in _GROUPS):
            return ()
        # The character set and sequences without a length are converted already.
        values = (element.value if element.is_raw else str(element.value) for element in elements)
        of_file = (header.file_meta.get(name) for name in ("TransferSyntaxUID", "MediaStorageSOPClassUID"))
        return (*of_file, *((e.tag, e.VR, value) for e, value in zip(elements, values, strict=True)))


def _same_but(known: Frame, source: Source, header: Any, offset: int) -> Frame:
    """An image that differs from a known one in nothing but `_OWN_TAGS` and where its pixels lie."""
    assert known.plain is not None
    place: tuple[Any, ...] = ({}, {}, header)
    position = _positions([place])[0][0]
    return replace(
        known,
        source=source,
        position=position,
        problem=_place_problem(position, known.orientation, known.spacing),
        plain=replace(known.plain, offset=offset),
        **_own_values(place, 0),
    )


def _frames_of(header: Any, source: Source, file: Any) -> list[Frame]:
    """The images of one file, read up to its pixels: one, or the frames of a multi-frame one.

    Raises:
        Exception: Of any kind, if the header is damaged.
    """
    sop_class = _sop_class(header)
    modality = safe_text(header, "Modality") or ("CT" if sop_class in _CT_CLASSES else "")
    if "Rows" not in header and sop_class and sop_class not in _CT_CLASSES:
        return []  # a report, a structure set, ...
    rows, columns = int(header.Rows), int(header.Columns)  # every image has them; a file without was cut
    count = max(1, int(header.get("NumberOfFrames") or 1))
    size_problem, truncated = _check_size(header, source, (rows, columns), count)
    if size_problem or truncated:
        count = 1
    groups = safe_items(header, "PerFrameFunctionalGroupsSequence")
    if groups and not (size_problem or truncated) and len(groups) != count:
        raise ValueError("groups of another number than frames")
    shared = (safe_items(header, "SharedFunctionalGroupsSequence") or [{}])[0]
    places: list[tuple[Any, ...]] = [(own, shared, header) for own in groups[:count] or [{}] * count]
    description = safe_text(header, "SeriesDescription").upper()
    image_type = texts(header.get("ImageType"))
    positions, stacked_by = _positions(places)
    plain = None if size_problem or truncated else _plain_pixels(header, source, file, count)
    frames = []
    for index, (place, position) in enumerate(zip(places, positions, strict=True)):
        kernel = (texts(look(place, "CTReconstructionSequence", "ConvolutionKernel")) or ("",))[0]
        width = numbers(look(place, "FrameVOILUTSequence", "WindowWidth"), 1)
        slope, intercept, rescale_problem = _rescale(place)
        orientation = numbers(look(place, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
        spacing = numbers(look(place, "PixelMeasuresSequence", "PixelSpacing"), 2)
        frames.append(
            Frame(
                source,
                index,
                sop_class=sop_class,
                uid=safe_text(header, "SeriesInstanceUID"),
                number=whole_text(value_of(header, "SeriesNumber")) or "without number",
                study=safe_text(header, "StudyInstanceUID"),
                patient=hash(safe_text(header, "PatientID")),
                reference=safe_text(header, "FrameOfReferenceUID"),
                modality="colour" if (value_of(header, "SamplesPerPixel") or 1) != 1 else modality,
                image_type=image_type,
                body_part=safe_text(header, "BodyPartExamined"),
                kernel=kernel,
                sharp=bool(_SHARP_KERNEL.search(kernel.upper())) or (width or (0,))[0] >= 1000,
                contrast=_has_contrast(header) or bool(_ANGIOGRAPHY.search(description)),
                dynamic=bool(_OF_ONE_MOMENT.search(" ".join([description, *image_type]))),
                moment=_moment(place, header),
                position=position,
                orientation=orientation,
                spacing=spacing,
                thickness=numbers(look(place, "PixelMeasuresSequence", "SliceThickness"), 1),
                stacked_by=stacked_by,
                shape=(rows, columns),
                slope=slope,
                intercept=intercept,
                problem=size_problem or rescale_problem or _place_problem(position, orientation, spacing),
                truncated=truncated,
                plain=plain,
                **_own_values(place, index),
            )
        )
    return frames


def _moment(place: tuple[Any, ...], header: Any) -> str:
    """The number of an image's moment, among several at which a place was scanned."""
    index = look(place, "FrameContentSequence", "TemporalPositionIndex")
    return whole_text(index or value_of(header, "TemporalPositionIdentifier"))


def _own_values(place: tuple[Any, ...], index: int) -> dict[str, Any]:
    """What `_OWN_TAGS` say of an image, but for its position."""
    header = place[-1]
    return {
        "instance": safe_text(header, "SOPInstanceUID"),
        "acquisition": whole_text(
            look(place, "FrameContentSequence", "FrameAcquisitionNumber")
            or value_of(header, "AcquisitionNumber")
        ),
        "order": (
            str(
                look(place, "FrameContentSequence", "FrameAcquisitionDateTime")
                or value_of(header, "AcquisitionDateTime")
                or value_of(header, "AcquisitionTime")
                or ""
            ),
            int(whole_text(value_of(header, "InstanceNumber")) or 0),
            index,
        ),
    }


def _plain_pixels(header: Any, source: Source, file: Any, count: int) -> PlainPixels | None:
    """The pixels, if they lie in the file uncompressed and it has one image."""
    try:
        coding = plain_coding(header, count)
    except Exception:  # a damaged tag: what decodes the image says what is wrong with it
        return None
    n_bytes = 2 * int(header.Rows) * int(header.Columns)
    offset = pixels_offset(header, file, n_bytes, source.n_bytes) if coding is not None else 0
    return PlainPixels(offset, coding) if coding is not None and offset else None


def _sop_class(header: Any) -> str:
    """What kind of object it is; some writers say so in the file meta information alone."""
    of_file = getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID")
    return safe_text(header, "SOPClassUID") or str(of_file or "")


def _check_size(header: Any, source: Source, shape: tuple[int, int], count: int) -> tuple[str, str]:
    """What is wrong with the size of the images; and whether the file is too short for them."""
    rows, columns = shape
    text = f"{rows} x {columns} pixels"
    if not (1 <= rows <= MOST_PIXELS and 1 <= columns <= MOST_PIXELS):
        return f"images of {text}, expected 1 to {MOST_PIXELS} each way", ""
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    least = -(-rows * columns * int(value_of(header, "SamplesPerPixel") or 1) * _bits(header) // 8)
    if syntax is not None and (str(syntax) == DEFLATED or syntax.is_compressed):
        least = _LEAST_PACKED_BYTES if rows * columns <= _PIXELS_UNJUDGED else least // _MOST_PACKED
    if count * least <= source.n_bytes:
        return "", ""
    images = f"{count} images of {text}" if count > 1 else text
    return "", f"truncated or corrupt pixels, fewer than the {images} of its header: copy or export it again"


def _place_problem(
    position: tuple[float, ...], orientation: tuple[float, ...], spacing: tuple[float, ...]
) -> str:
    """What is wrong with where an image lies, if its header says so."""
    if position and max(map(abs, position)) > _FARTHEST_MM:
        return "an ImagePositionPatient that lies far from the scanner"
    if orientation:
        along = np.reshape(orientation, (2, 3))
        if np.abs(along @ along.T - np.eye(2)).max() > 0.02:
            return "an ImageOrientationPatient that is no pair of perpendicular directions"
    if spacing and not _PIXEL_MM[0] <= min(spacing) <= max(spacing) <= _PIXEL_MM[1]:
        return f"a PixelSpacing of {spacing[0]:g} x {spacing[1]:g} mm"
    return ""


def _bits(header: Any) -> int:
    return int(value_of(header, "BitsAllocated") or 16)


def _positions(places: list[tuple[Any, ...]]) -> tuple[list[tuple[float, ...]], str]:
    """Where the first pixel of each frame lies, and the tag by which they were stacked if none says so."""
    positions = [numbers(look(p, "PlanePositionSequence", "ImagePositionPatient"), 3) for p in places]
    if len(places) == 1 or any(place[0].get("PlanePositionSequence") for place in places):
        return positions, ""
    orientation = numbers(look(places[0], "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        step = numbers(look(places[0], "PixelMeasuresSequence", tag), 1)
        if step and step[0] > 0 and orientation and positions[0]:
            way = np.cross(orientation[:3], orientation[3:]) * step[0]
            return [_triple(np.array(positions[0]) + n * way) for n in range(len(places))], tag
    return [()] * len(places), ""


def _triple(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _rescale(place: tuple[Any, ...]) -> tuple[float, float, str]:
    """Slope and intercept, and what is wrong with them, if anything."""
    values = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
    for tag in values:
        value = look(place, _RESCALE, tag)
        if value is not None and value != "":
            values[tag] = (numbers(value, 1) or (np.nan,))[0]
    slope, intercept = values.values()
    usual = _SLOPES[0] <= abs(slope) <= _SLOPES[1] and abs(intercept) <= _MOST_INTERCEPT
    return slope, intercept, "" if usual else f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g}"


def _has_contrast(header: Any) -> bool:
    """Whether a contrast medium is named; some sites name its absence."""
    agent = re.sub(r"[\W_]+", " ", safe_text(header, "ContrastBolusAgent").upper()).strip()
    return bool(safe_items(header, "ContrastBolusAgentSequence")) or not _NO_CONTRAST.fullmatch(agent)
