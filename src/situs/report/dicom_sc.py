"""The pictures of the findings as DICOM Secondary Capture images, for viewers that show no SR."""

from __future__ import annotations

import io

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from situs.finding import Finding
from situs.report.dicom_object import new_object, to_bytes

__all__ = ["format_capture"]

_SERIES_NUMBER = 9001  # after that of the Structured Report


def format_capture(
    png: bytes, title: str, finding: Finding, patient: Dataset, key: str, number: int
) -> bytes:
    """A picture as the bytes of a DICOM file.

    Args:
        png: The picture (`situs.report.picture.iter_pictures`).
        title: What the picture is called.
        finding: A finding; it names the bundle that answered.
        patient: The attributes of the Patient and General Study modules, see
            `situs.io.dicom.patient.read_patient`.
        key: What the UIDs are derived from. Pictures of the same key are one series.
        number: The number of the picture in that series, from 1.
    """
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    made = new_object(patient, finding, SecondaryCaptureImageStorage, "OT", _SERIES_NUMBER, key, number)
    made.ConversionType = "WSD"  # made by a workstation
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.BodyPartExamined, made.PatientOrientation = "HEAD", ""
    made.ImageComments = title
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = pixels.tobytes()
    return to_bytes(made)
