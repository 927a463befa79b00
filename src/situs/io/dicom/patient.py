"""Whose scan it is. Read only for DICOM objects of the same study, and shown nowhere else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from situs.errors import InputError
from situs.io.dicom.files import open_sources
from situs.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["read_patient"]

# What the Patient and General Study modules of PS3.3 require, be it empty (types 1 and 2).
_TAGS = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
]  # fmt: skip


def read_patient(path: Path, volume: Volume) -> Dataset:
    """The attributes of the Patient and General Study modules that the standard requires.

    Args:
        path: The folder, zip or file that the scan was read from.
        volume: The scan.

    Returns:
        These attributes alone, as the first image of the scan has them. What it lacks is empty.

    Raises:
        InputError: The scan was not read from DICOM, or lacks a UID that a DICOM object about it must name.
        ScanError: The files cannot be read again.
    """
    from pydicom import Dataset, dcmread

    source = volume.source
    if source is None:
        raise InputError(
            f"{path}: is no DICOM, so no DICOM object can be written about it: give the DICOM series"
        )
    images = source.images
    if not source.study or not all(image.sop_class and image.instance and image.series for image in images):
        raise InputError(
            f"{path}: its images lack a UID that a DICOM object about them must name (of the study, the "
            "series, the SOP class or the instance): export the original CT"
        )
    with warnings.catch_warnings(), open_sources(path) as files:
        warnings.simplefilter("ignore")  # pydicom's quote the values
        for file in files:
            with file.open() as stream:
                tags = [*_TAGS, "SOPInstanceUID"]
                header = dcmread(stream, force=True, stop_before_pixels=True, specific_tags=tags)
            if header.get("SOPInstanceUID") == images[0].instance:
                patient = Dataset()
                for tag in _TAGS:
                    setattr(patient, tag, header.get(tag, ""))
                return patient
    raise InputError(f"{path}: the images changed while they were read: run it again")
