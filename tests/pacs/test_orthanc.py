"""Against a real archive: the CT and its segmentation go in, one report comes out, whatever is restarted."""

import io
import os
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pydicom
import pytest
from highdicom import sr
from phantoms.dicom_case import PATIENT, write_scan
from phantoms.dicom_rois import write_seg
from phantoms.io_cases import CT
from phantoms.orthanc import PASSWORD, USER, Orthanc
from phantoms.small_bundle import small_bundle

from situs.cli import main
from situs.labeler import Labeler
from situs.pacs.access import VARIABLE, read_access
from situs.pacs.archive import Archive, ArchiveError
from situs.pacs.work import Watcher, Worker

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Invalid value for VR")]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"basic {USER}:{PASSWORD}")
    monkeypatch.delenv("SITUS_DEBUG", raising=False)
    server = Orthanc(tmp_path)
    yield server
    server.stop()


def segment(folder, path):
    """A segmentation of two segments, on three slices of a scan."""
    slices = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda ds: ds.InstanceNumber)
    masks = np.zeros((2, 3, slices[0].Rows, slices[0].Columns), np.uint8)
    rows, columns = slices[0].Rows // 2, slices[0].Columns // 3
    masks[0, :, rows : rows + 8, columns : columns + 8] = 1
    masks[1, 1, rows : rows + 6, 2 * columns : 2 * columns + 6] = 1
    write_seg(path, slices[1:4], masks)
    return slices[0].StudyInstanceUID


def test_a_study_is_labelled_once_and_its_report_is_found_again(archive, tmp_path, capfd):
    study = segment(write_scan(tmp_path / "ct"), tmp_path / "seg.dcm")
    archive.store(tmp_path / "ct")
    archive.store(tmp_path / "seg.dcm")
    command = ["pacs", "label", study, "--url", archive.url, "--bundle", str(small_bundle())]
    assert main(command) == 0
    out, err = capfd.readouterr()
    assert err == "" and "report stored (roi01_lesion1" in out
    assert archive.count("SR") == 1
    assert main(command) == 0
    assert "was labelled before" in capfd.readouterr().out
    archive.stop()
    archive.start()
    assert main(command) == 0
    assert archive.count("SR") == 1
    report = archive.only("SR")
    with Archive(read_access(archive.url)) as client:
        client.store(report, study)  # as another watch may do at the same time
    assert archive.count("SR") == 1
    document = sr.srread(io.BytesIO(report))
    assert (document.PatientID, document.StudyInstanceUID) == (PATIENT["PatientID"], study)
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["roi01_lesion1", "roi02_lesion1"]
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    for group in groups:
        item = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert item.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    for word in (PASSWORD, "Jörg", "P-0815", "A-4711"):
        assert word not in out


@pytest.fixture
def watcher(archive):
    """Starts a watch of the archive."""
    with ExitStack() as stack:

        def start():
            access = read_access(archive.url)
            opened = stack.enter_context(Archive(access, pause=lambda seconds: None))
            return Watcher(Worker(opened, Labeler.load(small_bundle()), head_only=True))

        yield start


def test_the_watch_labels_each_new_segmentation_once_and_outlives_restarts(archive, watcher, tmp_path):

    first = watcher()
    assert list(first.look()) == []
    for name in ("one", "two"):
        segment(write_scan(tmp_path / name), tmp_path / f"{name}.dcm")
    archive.store(tmp_path / "one")
    archive.store(tmp_path / "one.dcm")
    archive.store(tmp_path / "two.dcm")  # its CT has not come yet
    with Archive(read_access(archive.url)) as client:
        found = [len(client.series("SEG", since=date)) for date in ("", "20200304", "20200305")]
    assert found == [2, 1, 0]  # the second study has no date
    done = list(first.look())
    assert sorted(str(one.error) for one in done)[0] == "None"
    assert "no CT series" in sorted(str(one.error) for one in done)[1]
    assert archive.count("SR") == 1
    archive.stop()
    with pytest.raises(ArchiveError, match="cannot be reached"):
        list(first.look())
    archive.start()
    archive.store(tmp_path / "two")
    assert [one.error for one in watcher().look()] == [None]  # another watch labels the second alone
    assert list(watcher().look()) == list(first.look()) == []
    assert archive.count("SR") == 2


def test_a_ct_that_is_not_of_the_head_is_left_alone(archive, watcher, tmp_path):
    segment(write_scan(tmp_path / "ct", BodyPartExamined="CHEST"), tmp_path / "seg.dcm")
    archive.store(tmp_path / "ct")
    archive.store(tmp_path / "seg.dcm")
    (done,) = watcher().look()
    assert "not of the head" in str(done.error)


def test_the_command_that_watches_stops_cleanly(archive, tmp_path):
    """It runs as a process: it prints each line at once, and SIGTERM ends it without a trace of the scan."""
    segment(write_scan(tmp_path / "ct"), tmp_path / "seg.dcm")
    archive.store(tmp_path / "ct")
    archive.store(tmp_path / "seg.dcm")
    (tmp_path / "tmp").mkdir()
    command = ["pacs", "watch", "--url", archive.url, "--every", "1", "--pictures"]
    process = subprocess.Popen(
        [sys.executable, "-m", "situs", *command, "--bundle", str(small_bundle())],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "report stored (roi01_lesion1" in process.stdout.readline()
    process.terminate()
    assert process.communicate() == ("", "") and process.returncode == 0
    assert list((tmp_path / "tmp").glob("situs*")) == []
    assert (archive.count("SR"), archive.count("OT")) == (1, 2)


def test_a_wrong_password_is_one_line_without_it(archive, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, f"basic {USER}:wrong-word")
    assert main(["pacs", "label", "1.2.3", "--url", archive.url, "--bundle", str(small_bundle())]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1 and "401" in err and "wrong-word" not in err


@pytest.mark.skipif(not (CT / "ge").is_dir(), reason="the real CT is not here")
def test_the_real_tilted_ct_of_uneven_slices_comes_back_with_a_report(archive, tmp_path):
    study = segment(CT / "ge", tmp_path / "seg.dcm")
    archive.store(CT / "ge")
    archive.store(tmp_path / "seg.dcm")
    assert main(["pacs", "label", study, "--url", archive.url, "--quiet"]) == 0
    document = sr.srread(io.BytesIO(archive.only("SR")))
    assert document.StudyInstanceUID == study
    groups = document.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["roi01_lesion1", "roi02_lesion1"]
