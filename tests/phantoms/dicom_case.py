"""A small head as a DICOM series with three lesions and made-up findings, and the checkers of DICOM files."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from phantoms import small_case
from phantoms.io_cases import dicom_slices, write_dicom
from situs.io import read_volume
from situs.volume import Roi

# What the standard requires of the patient and the study, as a scanner writes it.
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Jörg",
    "PatientID": "P-0815",
    "PatientBirthDate": "19500102",
    "PatientSex": "M",
    "StudyDate": "20200304",
    "StudyTime": "101112",
    "ReferringPhysicianName": "Doe^Jane",
    "StudyID": "17",
    "AccessionNumber": "A-4711",
}


def write_scan(folder, **tags):
    """The folder of a series of six slices."""
    return write_dicom(folder, dicom_slices(range(-40, 41, 16), **{**PATIENT, **tags}))


def case(folder):
    """The scan that lies in a folder, and made-up findings on four lesions: one too small, one outside."""
    volume = read_volume(folder)
    mask = np.zeros(volume.geometry.shape, np.uint8)
    mask[10:18, 20:30, 1:4] = 1
    mask[30:32, 40:42, 5] = 1
    mask[30:36, 20:24, 2] = 7
    findings = small_case.findings(
        [Roi.from_mask(mask == value, volume.geometry, value, "blöod" * (value == 1)) for value in (1, 7)]
    )
    findings[2] = replace(findings[2], side="midline", doubts=(), site_set=("thalamus",))
    return volume, [*findings, small_case.outside()]


def checked(program, *args):
    """What a checker of DICOM files prints; the test is skipped where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install dicom3tools dcmtk)")
    run = subprocess.run([program, *map(str, args)], capture_output=True, text=True, errors="replace")
    return run.stdout + run.stderr


def assert_valid(path):
    """`dciodvfy` finds no error in a DICOM file; of its warnings, only those that private codes set off."""
    lines = checked("dciodvfy", "-new", path).splitlines()
    known = ("Unrecognized defined term = <99SITUS>",)
    assert not [line for line in lines if "Error" in line or "Abort" in line]
    assert not [line for line in lines if "Warning" in line and not line.endswith(known)]
