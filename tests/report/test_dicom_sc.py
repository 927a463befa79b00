"""Pictures as DICOM images: the same pixels, the scan's patient and study, one series."""

import io

import numpy as np
import pydicom
from phantoms.dicom_case import PATIENT, assert_valid, case, checked, write_scan
from PIL import Image

from situs.io.dicom.patient import read_patient
from situs.report.dicom_sc import format_capture


def test_a_picture_becomes_a_valid_image_of_the_same_pixels_and_patient(tmp_path):
    folder = write_scan(tmp_path / "ct", PatientName="Muller^Jorg")
    volume, findings = case(folder)
    patient = read_patient(folder, volume)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG")
    for number in (1, 2):
        content = format_capture(png.getvalue(), f"roi0{number}", findings[0], patient, "one", number)
        (tmp_path / f"{number}.dcm").write_bytes(content)
    first, second = (pydicom.dcmread(tmp_path / f"{number}.dcm") for number in (1, 2))
    np.testing.assert_array_equal(first.pixel_array, pixels)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    scan = pydicom.dcmread(next(folder.iterdir()))
    for tag in PATIENT.keys() - {"SpecificCharacterSet"}:
        assert first[tag].value == scan[tag].value
    assert first.StudyInstanceUID == scan.StudyInstanceUID
    assert "Error" not in checked("dcentvfy", tmp_path / "1.dcm", *folder.iterdir())
    assert_valid(tmp_path / "1.dcm")
