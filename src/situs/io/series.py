"""Which images of a DICOM folder or zip make the scan: finding, grouping and choosing a series.

Headers only; the pixels are read by `situs.io.dicom`. Positions and directions are DICOM's LPS in mm.
Tags that may identify the patient are never read, and nothing but series numbers goes into a text.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from situs.errors import ScanError

__all__ = ["Frame", "choose_series", "open_sources", "read_frames"]

_TAGS = [
    "SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "BodyPartExamined",
    "ConvolutionKernel", "WindowWidth", "ContrastBolusAgent", "ImagePositionPatient", "PixelSpacing",
    "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "RescaleSlope",
    "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_MAX_ZIP_BYTES = 8 * 2**30
_RESCALE = "PixelValueTransformationSequence"
_SHARP_KERNEL = re.compile(r"BONE|EDGE|LUNG|SHARP|^[A-Z][a-z]?[6-9]\d|^FC(3|5|8)\d|^Y[B-D]$|^[DE]$")


@dataclass(frozen=True, eq=False)
class Source:
    """One DICOM file: its name within the folder or zip, and how to open it."""

    name: str
    open: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and what its header says about it; empty where the header says nothing.

    Attributes:
        index: number of the image within a multi-frame file, else 0
        position: (3,) centre of the first pixel, LPS mm
        orientation: (6,) directions of growing column number and of growing row number, LPS
        spacing: (2,) distance between rows and between columns, mm
        shape: (rows, columns)
        slope: stored value to HU
        intercept: See `slope`.
    """

    source: Source
    index: int
    uid: str
    number: str
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    sharp: bool
    contrast: bool
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, int]
    slope: float
    intercept: float

    @property
    def plane(self) -> str:
        """``axial``, ``coronal``, ``sagittal``; ``localizer`` or ``unplaced`` if it is no slice of a scan."""
        if "LOCALIZER" in self.image_type:
            return "localizer"
        if not (self.position and self.orientation and self.spacing):
            return "unplaced"
        normal = np.abs(np.cross(self.orientation[:3], self.orientation[3:]))
        return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]


Group = list[Frame]

_RANKS = ("not the head", "covers less", "derived", "sharp kernel", "contrast medium", "fewer slices")


@contextmanager
def open_sources(path: Path) -> Iterator[list[Source]]:
    """The DICOM files of a folder (walked to its depth), of a zip (never unpacked to disk), or the one file.

    Raises:
        ScanError: the zip is broken, encrypted or too large, or nothing in it is DICOM
    """
    if path.is_dir():
        yield _not_none(_folder_sources(path), path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _not_none(_zip_sources(archive, path), path)
    elif path.read_bytes()[:2] == b"PK":
        raise ScanError(f"{path}: truncated or corrupt zip file: copy or export it again")
    else:
        found = [Source(path.name, partial(path.open, "rb"))] if _looks_dicom(path.open("rb")) else []
        yield _not_none(found, path)


def read_frames(sources: list[Source]) -> tuple[list[Frame], int]:
    """The headers of all images; and how many DICOM files could not be read."""
    from pydicom import dcmread

    frames, unreadable = [], 0
    for source in sources:
        try:
            with source.open() as file:
                header = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            frames += _frames_of(header, source)
        except ScanError:
            raise
        except Exception:  # a damaged header can set off anything inside pydicom
            unreadable += 1
    return frames, unreadable


def choose_series(
    frames: list[Frame], series: str | None, name: str, fewest: int = 3
) -> tuple[Group, tuple[str, ...]]:
    """The images of the axial head CT, and a sentence on the choice if there was one.

    Of several, in this order: the head before other parts of the body, the one that covers the head, original
    before derived, soft before sharp kernels, without before with contrast medium, more slices before fewer.

    Raises:
        ScanError: there is no such series; the text lists what there is
    """
    groups = _group(frames)
    usable = [g for g in groups if g[0].plane == "axial" and g[0].modality == "CT" and len(g) >= fewest]
    if series is not None:
        wanted = [g for g in usable if series in (g[0].number, g[0].uid)]
        if len({g[0].uid for g in wanted}) > 1:
            raise ScanError(f"{name}: several series have the number {series}: give the SeriesInstanceUID")
        if not wanted:
            raise ScanError(f"{name}: no axial CT series {series}; there is: {_list_text(groups)}")
        usable = wanted
    if not usable:
        there_is = _list_text(groups)
        raise ScanError(f"{name}: no axial CT series of at least {fewest} slices; there is: {there_is}")
    widest = max(_extent_mm(g) for g in usable)
    ranked = sorted(usable, key=lambda g: _rank(g, widest))
    best = ranked[0]
    if len(groups) == 1:
        return best, ()
    text = f"Series {best[0].number} was read ({len(best)} slices)"
    if series is not None:
        return best, (f"{text}, as asked for.",)
    others = [f"{_group_text(g)}: {_why_not(g, best, widest)}" for g in ranked[1:]]
    others += [_group_text(g) for g in groups if g not in usable]
    shown = "; ".join(others[:10]) + f"; and {len(others) - 10} more" * (len(others) > 10)
    return best, (f"{text}; not {shown}.",)


def _looks_dicom(file: Any) -> bool:
    """The standard's mark, or a file without it that starts with a low group, little endian."""
    with file:
        head = file.read(132)
    bare = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
    return head[128:] == b"DICM" or (len(head) == 132 and bare)


def _folder_sources(path: Path) -> list[Source]:
    try:
        files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name.upper() != "DICOMDIR"]
        return [Source(p.name, partial(p.open, "rb")) for p in files if _looks_dicom(p.open("rb"))]
    except OSError as problem:
        raise ScanError(f"{path}: {problem.filename} cannot be read ({problem.strerror})") from problem


def _zip_sources(archive: zipfile.ZipFile, path: Path) -> list[Source]:
    entries = [e for e in archive.infolist() if not e.is_dir()]
    if any(e.flag_bits & 1 for e in entries):
        raise ScanError(f"{path}: the zip is encrypted: unpack it with its password and give the folder")
    if sum(e.file_size for e in entries) > _MAX_ZIP_BYTES:
        limit = f"{_MAX_ZIP_BYTES >> 30} GB"
        raise ScanError(f"{path}: the zip holds more than {limit}: unpack it and give the folder")
    sources = []
    for entry in sorted(entries, key=lambda e: e.filename):
        name = entry.filename.rsplit("/", 1)[-1]
        try:
            is_dicom = name.upper() != "DICOMDIR" and _looks_dicom(archive.open(entry))
        except Exception as problem:  # a broken entry: zlib, zipfile and struct errors
            raise ScanError(f"{path}: truncated or corrupt zip file: copy or export it again") from problem
        if is_dicom:
            sources.append(Source(name, partial(_read_entry, archive, entry, path)))
    return sources


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> BinaryIO:
    try:
        return io.BytesIO(archive.read(entry))
    except Exception as problem:  # as above
        raise ScanError(f"{path}: truncated or corrupt zip file: copy or export it again") from problem


def _not_none(sources: list[Source], path: Path) -> list[Source]:
    if not sources:
        raise ScanError(f"{path}: holds no DICOM image: give a DICOM folder, a zip of one, or a NIfTI file")
    return sources


def _frames_of(header: Any, source: Source) -> list[Frame]:
    """The images of one file: one, or the frames of an enhanced (multi-frame) CT."""
    kind = header.SOPClassUID  # every DICOM object has it; a file without was cut
    if "Rows" not in header and "CT Image" not in kind.name:
        return []  # a report, a structure set, ...
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or [{}] * count
    frames = []
    for index, own in enumerate(per_frame):
        places = (own, shared, header)
        kernel = _texts(_look(places, "CTReconstructionSequence", "ConvolutionKernel"))
        width = _numbers(_look(places, "FrameVOILUTSequence", "WindowWidth"), 1)
        frames.append(
            Frame(
                source,
                index,
                uid=str(header.get("SeriesInstanceUID", "")),
                number=str(header.get("SeriesNumber") or "without number"),
                modality="colour"
                if header.get("SamplesPerPixel", 1) != 1
                else str(header.get("Modality", "")),
                image_type=_texts(header.get("ImageType")),
                body_part=str(header.get("BodyPartExamined") or ""),
                sharp=bool(kernel and _SHARP_KERNEL.search(kernel[0].upper())) or (width or (0,))[0] >= 1000,
                contrast=bool(header.get("ContrastBolusAgent")),
                position=_numbers(_look(places, "PlanePositionSequence", "ImagePositionPatient"), 3),
                orientation=_numbers(_look(places, "PlaneOrientationSequence", "ImageOrientationPatient"), 6),
                spacing=_numbers(_look(places, "PixelMeasuresSequence", "PixelSpacing"), 2),
                shape=(int(header.Rows), int(header.Columns)),
                slope=(_numbers(_look(places, _RESCALE, "RescaleSlope"), 1) or (1.0,))[0],
                intercept=(_numbers(_look(places, _RESCALE, "RescaleIntercept"), 1) or (0.0,))[0],
            )
        )
    return frames


def _look(places: tuple[Any, ...], sequence: str, key: str) -> Any:
    """A value from a frame's own groups, else from the shared ones, else from the plain header."""
    for place in places:
        items = place.get(sequence)
        value = (items[0] if items else place).get(key)
        if value is not None:
            return value
    return None


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """The first `count` numbers of a tag; empty if there are fewer or one is not finite."""
    if value is None or value == "":
        return ()
    numbers = tuple(float(v) for v in (value if hasattr(value, "__len__") else [value]))[:count]
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else ()


def _texts(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def _group(frames: list[Frame]) -> list[Group]:
    """Images of one series and one plane, ordered by series number."""
    groups: dict[tuple[str, str, str, str], Group] = {}
    for frame in frames:
        groups.setdefault((frame.uid, frame.number, frame.plane, frame.modality), []).append(frame)
    return sorted(groups.values(), key=lambda g: (len(g[0].number), g[0].number))


def _extent_mm(group: Group) -> float:
    heights = [frame.position[2] for frame in group]
    return max(heights) - min(heights)


def _rank(group: Group, widest_mm: float) -> tuple[int, ...]:
    """Smaller is better; one entry for each of `_RANKS`, the last one to settle ties."""
    first = group[0]
    part = first.body_part.upper()
    head = 0 if any(word in part for word in ("HEAD", "BRAIN", "SKULL")) else 1 if not part else 2
    return (
        head,
        int(_extent_mm(group) < 0.6 * widest_mm),
        int("DERIVED" in first.image_type),
        int(first.sharp),
        int(first.contrast),
        -len(group),
    )


def _why_not(group: Group, best: Group, widest_mm: float) -> str:
    pairs = zip(_RANKS, _rank(group, widest_mm), _rank(best, widest_mm), strict=True)
    return next((reason for reason, mine, its in pairs if mine != its), "comes later")


def _group_text(group: Group) -> str:
    plane = "" if group[0].plane == "unplaced" else f"{group[0].plane} "
    count = f"{len(group)} image{'s' if len(group) != 1 else ''}"
    return f"series {group[0].number} ({plane}{group[0].modality or 'of unknown modality'}, {count})"


def _list_text(groups: list[Group]) -> str:
    shown = [_group_text(g) for g in groups[:12]] + ["..."] * (len(groups) > 12)
    return ", ".join(shown) or "no image"
