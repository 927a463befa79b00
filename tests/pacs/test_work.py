"""Labelling what an archive holds, with a folder in the archive's place: once, and naming nobody."""

import io
import logging
import re
import sys
import tempfile

import numpy as np
import pydicom
import pytest
from phantoms.dicom_rois import write_seg
from phantoms.io_cases import write_dicom
from phantoms.small_case import FakeLabeler
from phantoms.telltale import TELLTALE, assert_silent, named_slices

from situs.cli import main
from situs.pacs.archive import ArchiveError, Series
from situs.report.dicom_object import MAKER

# What the Patient and General Study modules require; a report repeats it.
REQUIRED = {
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
}


class FolderArchive:
    """An archive of one study: the files of a folder, and what was stored."""

    def __init__(self, files):
        self.objects = {}
        for path in files:
            self.add(path.read_bytes())

    def add(self, content):
        dataset = pydicom.dcmread(io.BytesIO(content))
        self.objects[str(dataset.SOPInstanceUID)] = (dataset, content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def series(self, modality, study=None, since=""):
        found = {ds.SeriesInstanceUID for ds, _ in self.objects.values() if ds.Modality == modality}
        return [Series(study, uid) for uid in sorted(found)]

    def instances(self, series):
        return [uid for uid, (ds, _) in self.objects.items() if ds.SeriesInstanceUID == series.uid]

    def has(self, study, series, instance):
        return instance in self.objects

    def fetch_instance(self, series, instance, path):
        path.write_bytes(self.objects[instance][1])

    def fetch_series(self, series, folder):
        uids = self.instances(series)
        for uid in uids:
            self.fetch_instance(series, uid, folder / f"{uid}.dcm")
        return set(uids)

    def store(self, content, study):
        self.add(content)

    def reports(self):
        return [ds for ds, _ in self.objects.values() if ds.Modality == "SR"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The files of a CT and its segmentation, whose every text tag tells."""
    folder = tmp_path_factory.mktemp("study")
    slices = named_slices()
    for ds in slices:
        ds.BodyPartExamined = "HEAD"
    write_dicom(folder, slices)
    masks = np.zeros((1, 2, slices[0].Rows, slices[0].Columns), np.uint8)
    masks[0, :, 24:32, 12:18] = 1
    write_seg(folder / "seg.dcm", slices[2:4], masks)
    return folder


@pytest.fixture
def archive(study, tmp_path, monkeypatch):
    """An archive of this study, in the place of a real one; temporary folders are made in ``tmp``."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    made = FolderArchive(study.iterdir())
    monkeypatch.setattr("situs.pacs.archive.Archive", lambda access: made)
    monkeypatch.setattr("situs.labeler.Labeler", FakeLabeler)
    return made


def run(capfd, caplog):
    with caplog.at_level(logging.DEBUG, "situs"):
        code = main(["pacs", "label", "1.2.3", "--url", "https://host"])
    out, err = capfd.readouterr()
    for text in (out, err, caplog.text):
        assert_silent(text)
    return code, out, err


def test_the_report_alone_names_the_patient_and_nothing_is_left_on_disk(archive, tmp_path, capfd, caplog):
    code, out, err = run(capfd, caplog)
    assert (code, err) == (0, "") and re.fullmatch(
        r"\S+ \S+ segmentation [\d.]+: report stored \(.*\)\n", out
    )
    assert list((tmp_path / "tmp").iterdir()) == []
    (report,) = archive.reports()
    assert TELLTALE in str(report.PatientName)
    for tag in REQUIRED:
        del report[tag]
    rest = io.BytesIO()
    report.save_as(rest, enforce_file_format=True)
    assert_silent(rest.getvalue())


def test_a_segmentation_is_labelled_once(archive, capfd, caplog):
    run(capfd, caplog)
    code, out, _ = run(capfd, caplog)
    assert code == 0 and out.endswith("was labelled before\n")
    assert len(archive.reports()) == 1


def test_a_segmentation_that_situs_wrote_is_left_alone(archive, capfd, caplog):
    for ds, _ in archive.objects.values():
        if ds.Modality == "SEG":
            ds.Manufacturer = MAKER
            content = io.BytesIO()
            ds.save_as(content)
    archive.add(content.getvalue())
    assert run(capfd, caplog)[0] == 0
    assert archive.reports() == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda archive: remove(archive, "CT", 99), "its study holds no CT series"),
        (lambda archive: remove(archive, "CT", 4), "images that it names are not in the archive"),
        (lambda archive: remove(archive, "SEG", 1), "holds no DICOM segmentation"),
        (lambda archive: cut(archive, "SEG"), "segmentation.dcm: the DICOM segmentation (SEG) is damaged"),
        (lambda archive: cut(archive, "CT"), "scan"),
    ],
)
def test_what_cannot_be_labelled_is_told_without_a_name(archive, tmp_path, capfd, caplog, spoil, words):
    spoil(archive)
    code, _, err = run(capfd, caplog)
    assert code == 2 and words in err and err.count("\n") == 1 and "situs-pacs-" not in err
    assert archive.reports() == [] and list((tmp_path / "tmp").iterdir()) == []


def remove(archive, modality, count):
    uids = [uid for uid, (ds, _) in archive.objects.items() if ds.Modality == modality]
    for uid in uids[:count]:
        del archive.objects[uid]


def cut(archive, modality):
    for uid, (ds, content) in archive.objects.items():
        if ds.Modality == modality:
            archive.objects[uid] = (ds, content[: len(content) // 2])


def test_an_archive_that_refuses_the_report_is_one_line(archive, monkeypatch, capfd, caplog):
    def refuse(content, study):
        raise ArchiveError("https://host: it refuses the object (409 Conflict)", 409)

    monkeypatch.setattr(archive, "store", refuse)
    code, out, err = run(capfd, caplog)
    assert code == 2 and "409" in out and err.count("\n") == 1


def test_a_missing_extra_names_the_pip_line(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("situs.pacs.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dicomweb_client", None)
    assert main(["pacs", "label", "1.2.3", "--url", "https://host"]) == 2
    assert "pip install 'situs[dicom]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["label", "Doe^Jane", "--url", "https://host"], "STUDY"),
        (["label", "1.2.3"], "--url"),
        (["watch", "--url", "https://host", "--since", "2026-01-01"], "YYYYMMDD"),
        (["watch", "--url", "https://host", "--every", "0"], "--every"),
    ],
)
def test_bad_usage_is_one_line(capsys, args, words):
    assert main(["pacs", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err and "Jane" not in err
