"""A made-up CT series and a segmentation of it, as DICOM files, for `dicom.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["write_series"]

SPACING_MM, DISTANCE_MM = 0.45, 0.5
_PRIVATE_ELEMENTS = 40  # as many as scanners write, and more


def write_series(scan: Path, roi: Path, images: int, pixels: int, segments: int) -> None:
    """Write a CT series to a folder, explicit little endian, and a SEG of some lesions.

    Args:
        scan: The folder; it is made.
        roi: The file of the segmentation, as highdicom writes it: binary, one frame for each slice that a
            segment meets, each with its source image.
        images: How many images the series has.
        pixels: Rows and columns of each.
        segments: How many lesions there are. They lie apart, on 5 to 9 mm around their centres.
    """
    import warnings

    scan.mkdir()
    lesions = np.zeros((images, pixels, pixels), dtype=np.uint8)
    for number, (centre, radius) in enumerate(_lesions(images, segments), start=1):
        _draw(lesions, centre, radius, number)
    random = np.random.default_rng(0)
    headers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the private elements
        for k in range(images):
            image = _header(k, images, pixels)
            hu = _slice((k - (images - 1) / 2) * DISTANCE_MM, pixels) + 35 * (lesions[k] > 0)
            noise = random.normal(0, 5, hu.shape)
            outside = hu < -1000  # beyond the field of view all is one value
            stored = np.where(outside, hu, np.rint(hu + noise)) + 1024
            image.PixelData = stored.astype("<i2").tobytes()
            image.save_as(scan / f"{k:04}.dcm", enforce_file_format=True)
            del image.PixelData
            headers.append(image)
        _write_segmentation(roi, headers, lesions)


def _lesions(images: int, segments: int) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Centre (x, y, z) and radius of each lesion, mm from the middle: two rings, one above the other."""
    for n in range(segments):
        angle, up = 2 * np.pi * n / segments, 1 if n % 2 else -1
        height = up * min(20.0, images * DISTANCE_MM / 4)
        yield np.array([45 * np.cos(angle), 45 * np.sin(angle), height]), 5 + n % 5


def _draw(lesions: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, number: int) -> None:
    """Mark a ball in (images, rows, columns)."""
    middle = (np.array(lesions.shape) - 1) / 2
    step = np.array([DISTANCE_MM, SPACING_MM, SPACING_MM])
    low, high = (np.rint(middle + (centre[::-1] + end * radius) / step).astype(int) for end in (-1, 1))
    box = tuple(slice(max(0, a), b + 1) for a, b in zip(low, high, strict=True))
    at = np.meshgrid(*[np.arange(n)[s] for n, s in zip(lesions.shape, box, strict=True)], indexing="ij")
    away = sum(((a - m) * s - c) ** 2 for a, m, s, c in zip(at, middle, step, centre[::-1], strict=True))
    lesions[box][away < radius**2] = number


def _slice(z: float, pixels: int) -> NDArray[np.float64]:
    """(rows, columns) HU of a head of shells; the field of view is round, and outside it all is one value."""
    at = (np.arange(pixels) - (pixels - 1) / 2) * SPACING_MM
    x, y = at[None, :], at[:, None]
    head = np.sqrt((x / 75) ** 2 + (y / 95) ** 2 + (z / 110) ** 2)
    hu = np.select([head < 0.88, head < 0.95, head < 1], [32.0, 1000.0, 20.0], -990.0)
    return np.where(x**2 + y**2 > (0.5 * pixels * SPACING_MM) ** 2, -1024, hu)


def _header(k: int, images: int, pixels: int) -> Dataset:
    """What a scanner says about an image, but for the pixels."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    half = (pixels - 1) / 2 * SPACING_MM
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceCreationDate": "20260101", "InstanceCreationTime": "120000", "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"2.25.{1000 + k}", "StudyDate": "20260101", "SeriesDate": "20260101",
        "AcquisitionDate": "20260101", "ContentDate": "20260101", "StudyTime": "120000",
        "SeriesTime": "120100", "AcquisitionTime": "120130.5", "ContentTime": "120200",
        "AccessionNumber": "", "Modality": "CT", "Manufacturer": "Made up", "InstitutionName": "",
        "ReferringPhysicianName": "", "StationName": "CT1", "StudyDescription": "Head",
        "SeriesDescription": "Head thin", "OperatorsName": "", "ManufacturerModelName": "Made up",
        "PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": "", "PatientAge": "050Y",
        "BodyPartExamined": "HEAD", "ScanOptions": "HELICAL MODE", "SliceThickness": DISTANCE_MM,
        "KVP": 120, "SpacingBetweenSlices": DISTANCE_MM, "DataCollectionDiameter": 250,
        "DeviceSerialNumber": "1", "SoftwareVersions": "1", "ProtocolName": "Head",
        "ReconstructionDiameter": pixels * SPACING_MM, "DistanceSourceToDetector": 949,
        "DistanceSourceToPatient": 541, "GantryDetectorTilt": 0, "TableHeight": 150,
        "RotationDirection": "CW", "ExposureTime": 1000, "XRayTubeCurrent": 200, "Exposure": 5,
        "FilterType": "HEAD FILTER", "GeneratorPower": 24, "FocalSpots": 0.7, "ConvolutionKernel": "SOFT",
        "PatientPosition": "HFS", "RevolutionTime": 1.0, "SingleCollimationWidth": 0.625,
        "TotalCollimationWidth": 20.0, "TableSpeed": 20.0, "SpiralPitchFactor": 0.53,
        "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "StudyID": "", "SeriesNumber": 3,
        "AcquisitionNumber": 1, "InstanceNumber": k + 1,
        "ImagePositionPatient": [-half, -half, (k - (images - 1) / 2) * DISTANCE_MM],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "FrameOfReferenceUID": "2.25.4",
        "PositionReferenceIndicator": "OM", "SliceLocation": (k - (images - 1) / 2) * DISTANCE_MM,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels, "Columns": pixels,
        "PixelSpacing": [SPACING_MM, SPACING_MM], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "PixelPaddingValue": -2000, "WindowCenter": 40, "WindowWidth": 80,
        "RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU",
    }  # fmt: skip
    image = Dataset()
    for name, value in values.items():
        setattr(image, name, value)
    block = image.private_block(0x0009, "MADE UP", create=True)
    for element in range(_PRIVATE_ELEMENTS):
        block.add_new(element, "LO" if element % 2 else "DS", f"{element}")
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _write_segmentation(path: Path, headers: list[Dataset], lesions: NDArray[np.uint8]) -> None:
    import highdicom as hd
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence("made up", codes.DCM.ArtificialIntelligence, "1")
    segments = [
        SegmentDescription(
            number,
            f"lesion {number}",
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Lesion,
            SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm,
        )
        for number in range(1, int(lesions.max()) + 1)
    ]
    Segmentation(
        source_images=headers,
        pixel_array=lesions,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid="2.25.5",
        series_number=9,
        sop_instance_uid="2.25.6",
        instance_number=1,
        manufacturer="Made up",
        manufacturer_model_name="Made up",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
