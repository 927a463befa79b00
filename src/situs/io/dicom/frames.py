"""An image of a DICOM file, as its header describes it. Positions and directions are DICOM's LPS in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from situs.io.dicom.files import Source
from situs.io.dicom.plain import PlainPixels

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and what its header says about it; empty where the header says nothing.

    Attributes:
        source: The file.
        index: The number of the image within a multi-frame file, else 0.
        sop_class: SOPClassUID.
        instance: SOPInstanceUID.
        uid: SeriesInstanceUID.
        number: SeriesNumber.
        study: StudyInstanceUID.
        patient: A number that is the same for the same PatientID, in this process alone; 0 without one.
        reference: FrameOfReferenceUID.
        modality: ``CT``, ``MR``, ...; ``colour`` for a colour picture.
        image_type: ``ORIGINAL``, ``PRIMARY``, ``AXIAL``, ...
        body_part: BodyPartExamined.
        kernel: The convolution kernel.
        sharp: Whether it was made to look at bone or lung.
        contrast: Whether a contrast medium was given.
        dynamic: Whether it shows one moment of a perfusion study or the like.
        acquisition: The number of the acquisition.
        moment: The number of the moment, where several are told apart.
        order: When it was taken and its number, to sort by.
        position: (3,) centre of the first pixel, LPS mm.
        orientation: (6,) directions of growing column number and of growing row number, LPS.
        spacing: (2,) distance between rows and between columns, mm.
        thickness: (1,) SliceThickness, mm.
        stacked_by: The tag by which the frames of a file were stacked that gives them no positions.
        shape: (rows, columns).
        slope: From the stored value to HU, together with `intercept`.
        intercept: HU of the stored value 0.
        problem: What in the header cannot be true, if anything.
        truncated: Why the pixels cannot be read, if so.
        plain: The pixels, if they lie in the file uncompressed and it has one image.
    """

    source: Source
    index: int
    sop_class: str
    instance: str
    uid: str
    number: str
    study: str
    patient: int
    reference: str
    modality: str
    image_type: tuple[str, ...]
    body_part: str
    kernel: str
    sharp: bool
    contrast: bool
    dynamic: bool
    acquisition: str
    moment: str
    order: tuple[str, int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: tuple[float, ...]
    stacked_by: str
    shape: tuple[int, int]
    slope: float
    intercept: float
    problem: str
    truncated: str
    plain: PlainPixels | None

    @property
    def missing(self) -> tuple[str, ...]:
        """The tags without which it cannot be placed in the patient."""
        tags = {
            "ImagePositionPatient": self.position,
            "ImageOrientationPatient": self.orientation,
            "PixelSpacing": self.spacing,
        }
        return tuple(name for name, value in tags.items() if not value)

    @property
    def plane(self) -> str:
        """``axial``, ``coronal``, ``sagittal``; ``localizer`` or ``unplaced`` if it is no slice of a scan."""
        if "LOCALIZER" in self.image_type:
            return "localizer"
        if self.missing or self.problem:
            return "unplaced"
        normal = np.abs(np.cross(self.orientation[:3], self.orientation[3:]))
        return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
