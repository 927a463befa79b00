"""The Structured Report: highdicom reads the findings back, and the checkers of DICOM find no fault."""

import io
import re
from dataclasses import replace

import pydicom
import pytest
from highdicom import sr
from phantoms import REPO
from phantoms.dicom_case import PATIENT, assert_valid, case, checked, write_scan

from situs.anatomy import SITES, SiteList
from situs.errors import InputError
from situs.io.dicom.patient import read_patient
from situs.report import dicom_sr
from situs.report.dicom_sr import format_sr
from situs.volume import DicomImage

KEYS = {(site.code_scheme, site.code): site.key for site in SITES}
SIDES = {"Left": "left", "Right": "right", "Bilateral": "bilateral", "Midline": "midline"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a scan, its volume, the findings, and the file of their report."""
    folder = write_scan(tmp_path_factory.mktemp("sr") / "ct")
    volume, findings = case(folder)
    path = folder.parent / "report.dcm"
    path.write_bytes(format_sr(volume, findings, read_patient(folder, volume), key="one"))
    return folder, volume, findings, path


@pytest.fixture(scope="module")
def document(made):
    return sr.srread(made[3])


def key_of(concept):
    return KEYS[concept.scheme_designator, concept.value]


def values(group, name):
    """{site: value} of the measurements of a name."""
    return {
        key_of(measurement.finding_sites[0].value): measurement.value
        for measurement in group.get_measurements()
        if measurement.name.value == name
    }


def texts(group, code):
    return [
        item.TextValue
        for item in group[0].ContentSequence
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def evaluations(group, name):
    return [e.value for e in group.get_qualitative_evaluations() if e.name.value == name]


def side_of(group):
    (site,) = group.finding_sites
    (code,) = [c for c in (site.laterality, site.topographical_modifier) if c is not None]
    return SIDES[code.meaning]


def test_highdicom_reads_the_findings_back(made, document):
    groups = document.content.get_image_measurement_groups()
    assert len(groups) == len(made[2]) == 4
    for group, finding in zip(groups, made[2], strict=True):
        assert group.tracking_identifier == f"roi{finding.roi_value:02d}_lesion{finding.component}"
        assert [key_of(s.value) for s in group.finding_sites] == ([finding.site] if finding.site else [])
        if finding.site is not None:
            assert side_of(group) == finding.side
        (volume,) = [m for m in group.get_measurements() if m.name.meaning == "Volume"]
        assert volume.value == pytest.approx(finding.volume_ml, abs=1e-6) and volume.unit.value == "ml"
        assert values(group, "RELATION_SCORE") == pytest.approx(finding.scores, abs=1e-6)
        shares = {key: share for key, share in finding.shares.items() if share > 0}
        assert values(group, "SHARE") == pytest.approx(shares, abs=1e-6)
        assert [e.value for e in evaluations(group, "CERTAINTY")] == ["SURE" if finding.sure else "NOT_SURE"]
        assert [key_of(e) for e in evaluations(group, "POSSIBLE_SITE")] == list(finding.site_set)
        assert texts(group, "DOUBT") == list(finding.doubts)
        assert texts(group, "121106") == list(finding.notes)
        assert texts(group, "ROI_NAME") == ([finding.roi_name] if finding.roi_name else [])


def test_each_lesion_refers_to_the_images_that_it_lies_in(made, document):
    _, volume, findings, _ = made
    for group, finding in zip(document.content.get_image_measurement_groups(), findings, strict=True):
        images = [image.referenced_sop_instance_uid for image in group.source_images]
        assert images == [volume.source.images[k].instance for k in finding.slices]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    named = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert named == {image.instance for image in volume.source.images}


def test_the_algorithm_and_its_version_are_named(made, document):
    (observer,) = document.content.get_observer_contexts()
    assert observer.observer_identifying_attributes.name == "situs"
    for group in document.content.get_image_measurement_groups():
        assert texts(group, "111001") == ["situs, bundle compact"]
        assert texts(group, "111003") == [f"{document.SoftwareVersions}, bundle 3"]
        assert len(texts(group, "111002")) == 2


def test_the_patient_and_the_study_are_those_of_the_scan_and_no_more_is_copied(made, document):
    scan = pydicom.dcmread(next(made[0].iterdir()))
    for tag in PATIENT.keys() - {"SpecificCharacterSet"}:
        assert document[tag].value == scan[tag].value
    assert document.StudyInstanceUID == scan.StudyInstanceUID
    assert document.SeriesInstanceUID != scan.SeriesInstanceUID
    own = {element.keyword for element in document if element.tag.group in (0x10, 0x32, 0x38)}
    assert own == {"PatientName", "PatientID", "PatientBirthDate", "PatientSex"}


def test_the_checkers_of_dicom_find_no_fault(made):
    assert_valid(made[3])
    dump = checked("dsrdump", made[3])
    assert not re.search(r"^[EF]:", dump, re.MULTILINE) and dump.count("Measurement Group") == 4


def test_the_report_is_of_the_same_patient_and_study_for_dcentvfy(tmp_path):
    """It compares bytes, so the name is written in ASCII here: the report is in UTF-8."""
    folder = write_scan(tmp_path / "ct", PatientName="Muller^Jorg")
    volume, findings = case(folder)
    (tmp_path / "report.dcm").write_bytes(format_sr(volume, findings, read_patient(folder, volume)))
    assert "Error" not in checked("dcentvfy", tmp_path / "report.dcm", *folder.iterdir())


def test_the_same_key_gives_the_same_uids(made):
    folder, volume, findings, path = made
    patient = read_patient(folder, volume)
    uids = [
        pydicom.dcmread(io.BytesIO(format_sr(volume, findings, patient, key=key))).SOPInstanceUID
        for key in ("one", "two", "", "")
    ]
    assert uids[0] == pydicom.dcmread(path).SOPInstanceUID
    assert len(set(uids)) == 4


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_values_that_the_scan_lacks_or_spoils_stay_as_they_are(tmp_path):
    spoilt = {"PatientName": "JUST A NAME", "PatientBirthDate": "2.1.1950", "StudyTime": "noon"}
    folder = write_scan(tmp_path / "ct", **spoilt, PatientSex="male", StudyID=None)
    volume, findings = case(folder)
    document = pydicom.dcmread(io.BytesIO(format_sr(volume, findings, read_patient(folder, volume))))
    assert {tag: str(document[tag].value) for tag in spoilt} == spoilt
    assert document.PatientSex == "male" and document["StudyID"].is_empty


@pytest.mark.slow
def test_frames_of_one_file_are_told_apart(tmp_path, made):
    folder, volume, findings, _ = made
    images = [replace(volume.source.images[0], frame=k + 1) for k in range(volume.geometry.shape[2])]
    one_file = replace(volume, source=replace(volume.source, images=tuple(images)))
    patient = read_patient(folder, volume)
    path = tmp_path / "r.dcm"
    path.write_bytes(format_sr(one_file, findings, patient))
    group = sr.srread(path).content.get_image_measurement_groups()[0]
    (image,) = group.source_images
    assert image.referenced_frame_numbers == [k + 1 for k in findings[0].slices]
    cut = replace(one_file, source=replace(one_file.source, are_slices=False))
    path.write_bytes(format_sr(cut, findings, patient))
    (image,) = sr.srread(path).content.get_image_measurement_groups()[0].source_images
    assert image.referenced_frame_numbers == [image.frame for image in images]


def test_a_lesion_of_a_segmentation_refers_to_its_segment(made, tmp_path):
    folder, volume, findings, _ = made
    seg = DicomImage("1.2.840.10008.5.1.4.1.1.66.4", "2.25.17", "2.25.18")
    path = tmp_path / "r.dcm"
    path.write_bytes(format_sr(volume, findings, read_patient(folder, volume), seg))
    document = sr.srread(path)
    groups = document.content.get_volumetric_roi_measurement_groups()
    for group, finding in zip(groups, findings, strict=True):
        segment = group.referenced_segment
        item = segment[0].ReferencedSOPSequence[0]
        assert (item.ReferencedSOPInstanceUID, item.ReferencedSegmentNumber) == ("2.25.17", finding.roi_value)
        if finding.slices:
            images = [image.referenced_sop_instance_uid for image in segment.source_images_for_segmentation]
            assert images == [volume.source.images[k].instance for k in finding.slices]
        assert values(group, "RELATION_SCORE") == pytest.approx(finding.scores, abs=1e-6)
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == 2
    assert_valid(path)


def test_a_lesion_of_a_structure_set_refers_to_its_structure(made, tmp_path):
    folder, volume, findings, _ = made
    structures = DicomImage("1.2.840.10008.5.1.4.1.1.481.3", "2.25.17", "2.25.18", study="2.25.19")
    path = tmp_path / "r.dcm"
    path.write_bytes(format_sr(volume, findings, read_patient(folder, volume), structures))
    document = sr.srread(path)
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(findings)
    for group, finding in zip(groups, findings, strict=True):
        (item,) = [item for item in group[0].ContentSequence if item.ValueType == "COMPOSITE"]
        assert item.ConceptNameCodeSequence[0].CodeValue == "130488"  # Region in Space
        assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.17"
        assert item.ContentSequence[0].TextValue == str(finding.roi_value)
    named = {
        study.StudyInstanceUID: [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence]
        for study in document.CurrentRequestedProcedureEvidenceSequence
    }
    assert named == {volume.source.study: [volume.source.images[0].series], "2.25.19": ["2.25.18"]}
    assert_valid(path)
    assert not re.search(r"^[EF]:", checked("dsrdump", path), re.MULTILINE)


def test_every_private_code_is_documented():
    text = (REPO / "docs" / "dicom.md").read_text(encoding="utf-8")
    concepts = [value for value in vars(dicom_sr).values() if isinstance(value, sr.CodedConcept)]
    private = [concept.value for concept in concepts if concept.scheme_designator == "99SITUS"]
    assert len(private) == 8
    assert [code for code in private if f"99SITUS {code}" not in text and f"or {code}" not in text] == []


def test_a_site_without_a_code_is_refused(made):
    folder, volume, findings, _ = made
    codeless = SiteList(replace(s, code="", code_scheme="") if s.key == "thalamus" else s for s in SITES)
    with pytest.raises(InputError, match="site thalamus: has no code, and DICOM needs one"):
        format_sr(volume, [replace(f, sites=codeless) for f in findings], read_patient(folder, volume))
