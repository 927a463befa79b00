"""Whose scan it is: read from the scan's own images, whatever else lies beside them."""

import zipfile

import pytest
from phantoms import small_case
from phantoms.dicom_case import PATIENT, write_scan
from phantoms.io_cases import dicom_slices, write_dicom

from situs.errors import InputError, ScanError
from situs.io import read_volume
from situs.io.dicom.patient import read_patient

TAGS = PATIENT.keys() - {"SpecificCharacterSet"}


def test_a_folder_and_a_zip_give_the_patient_and_the_study_and_no_more(tmp_path):
    folder = write_scan(tmp_path / "ct")
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    for scan in (folder, tmp_path / "ct.zip"):
        volume = read_volume(scan)
        patient = read_patient(scan, volume)
        assert {tag: str(patient[tag].value) for tag in TAGS} == {tag: PATIENT[tag] for tag in TAGS}
        assert {element.keyword for element in patient} == {*TAGS, "StudyInstanceUID"}
        assert patient.StudyInstanceUID == volume.source.study


def test_another_patient_in_the_same_folder_is_not_taken(tmp_path):
    other = dicom_slices(
        range(-40, 41, 20), PatientName="Another^One", BodyPartExamined="CHEST", SeriesNumber=1
    )
    write_dicom(tmp_path / "ct", other, prefix="0")
    own = read_volume(write_scan(tmp_path / "alone")).source
    for path in (tmp_path / "alone").iterdir():
        path.rename(tmp_path / "ct" / path.name)
    with pytest.raises(ScanError, match="CT of several patients"):
        read_volume(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct", series=own.images[0].series)
    assert read_patient(tmp_path / "ct", volume).PatientName == PATIENT["PatientName"]


def test_what_the_scan_lacks_is_empty(tmp_path):
    slices = dicom_slices(range(-40, 41, 20))
    for ds in slices:
        del ds.PatientName
    folder = write_dicom(tmp_path / "ct", slices)
    patient = read_patient(folder, read_volume(folder))
    assert all(patient[tag].is_empty for tag in TAGS - {"PatientID"})


@pytest.mark.parametrize("tag", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_images_without_a_uid_are_refused(tmp_path, tag):
    slices = dicom_slices(range(-40, 41, 20))
    for ds in slices:
        setattr(ds, tag, "")
    folder = write_dicom(tmp_path / "ct", slices)
    with pytest.raises(InputError, match="lack a UID") as error:
        read_patient(folder, read_volume(folder))
    assert "SECRET" not in str(error.value)


def test_a_scan_that_is_no_dicom_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no DICOM"):
        read_patient(tmp_path, small_case.volume())
