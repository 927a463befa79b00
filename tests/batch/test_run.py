"""Batches of a small head: failures are rows, a batch goes on, and processes do not change its tables."""

from itertools import count

import nibabel as nib
import pytest
from kill.commands import content
from phantoms import small_case
from phantoms.dying_worker import label_or_die
from phantoms.small_bundle import small_bundle

from situs.batch import label_batch
from situs.batch.parts import page_path, part_path, read_part
from situs.errors import InputError, OutputError
from situs.files import locked
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.report import to_json_object

ROWS = ["a.nii", "absent.nii", "b.nii", "text.nii", "a.nii", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scans with one mask, a file of text, and a manifest of `ROWS`."""
    folder = tmp_path_factory.mktemp("batch")
    for name, data in (
        ("a.nii", small_case.head_hu()),
        ("b.nii", small_case.head_hu()[::-1].copy()),
        ("m.nii", small_case.lesion_mask()),
    ):
        nib.save(nib.Nifti1Image(data, small_case.AFFINE), folder / name)
    (folder / "text.nii").write_text("no scan")
    (folder / "m.csv").write_text("scan,roi\n" + "".join(f"{scan},m.nii\n" for scan in ROWS))
    return folder


def run(folder, out, **options):
    return label_batch(folder / "m.csv", out, str(small_bundle()), **options)


@pytest.fixture(scope="module")
def whole(folder):
    """The files of a batch that ran to its end, and its summary."""
    summary = run(folder, folder / "whole", json=True)
    return content(folder / "whole"), summary


def test_a_failed_scan_is_a_row_and_stops_no_other(folder, whole):
    _, summary = whole
    assert (summary.scans, summary.failed, summary.lesions) == (6, 4, 6)
    parts = [read_part(folder / "whole", row) for row in range(1, 7)]
    words = ["", "absent.nii", "", "text.nii", "is a duplicate", "scan is empty"]
    assert all(word in part.error for part, word in zip(parts, words, strict=True))
    assert not any(str(folder) in part.error for part in parts)
    volume = read_volume(folder / "a.nii")
    findings = Labeler.load(small_bundle()).label(volume, read_rois(folder / "m.nii", volume))
    assert parts[0].report == to_json_object(volume, findings)


def test_a_stopped_batch_goes_on_and_ends_alike(folder, whole, tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 2

    assert run(folder, tmp_path / "out", json=True, stop=stop) is None
    left = content(tmp_path / "out")
    assert sum(name.startswith("parts/") for name in left) == 2 and "findings.csv" not in left
    reports = []
    summary = run(folder, tmp_path / "out", json=True, progress=lambda *report: reports.append(report[:3]))
    assert reports == [("scans", done, 6) for done in range(2, 7)]
    assert (content(tmp_path / "out"), summary) == whole


@pytest.mark.slow
def test_a_clock_that_goes_backwards_changes_nothing(folder, whole, tmp_path, monkeypatch):
    clock = count(2_000_000_000, -3600)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    monkeypatch.setattr("time.time_ns", lambda: next(clock) * 10**9)
    assert run(folder, tmp_path / "out", json=True) == whole[1]
    assert run(folder, tmp_path / "out", json=True) == whole[1]
    assert content(tmp_path / "out") == whole[0]


@pytest.mark.slow
def test_pages_are_written_on_request_and_for_what_was_labelled_without(folder, whole, tmp_path):
    """The tables stay the same; a scan that failed has no page, and what has one is not labelled again."""
    pytest.importorskip("jinja2")
    out = tmp_path / "out"
    run(folder, out, json=True)
    assert run(folder, out, json=True, language="en") == whole[1]
    pages = {path.name: path.read_text() for path in out.rglob("*.html")}
    assert sorted(pages) == ["000000001.html", "000000003.html"]
    assert all(page.startswith("<!DOCTYPE html>") and page.count("<article") == 3 for page in pages.values())
    assert {name: data for name, data in content(out).items() if not name.startswith("html/")} == whole[0]
    page_path(out, 3).unlink()
    before = page_path(out, 1).stat().st_mtime_ns
    run(folder, out, json=True, language="en")
    assert page_path(out, 3).read_text() == pages["000000003.html"]
    assert page_path(out, 1).stat().st_mtime_ns == before


def test_an_unknown_language_is_told_before_the_work(folder, tmp_path):
    with pytest.raises(InputError, match="--language xx"):
        run(folder, tmp_path / "out", language="xx")
    assert not (tmp_path / "out").exists()


def test_a_finished_batch_labels_nothing_again(folder, whole, monkeypatch):
    monkeypatch.setattr("situs.batch.run.label_case", lambda *_: pytest.fail("labelled again"))
    assert run(folder, folder / "whole", json=True) == whole[1]
    assert content(folder / "whole") == whole[0]


def test_retry_labels_what_failed(folder, tmp_path):
    out = tmp_path / "out"
    assert run(folder, out).failed == 4
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), folder / "absent.nii")
    try:
        assert run(folder, out).failed == 4
        assert run(folder, out, retry=True).failed == 3
        assert read_part(out, 2).report["findings"]
    finally:
        (folder / "absent.nii").unlink()


def test_a_fault_of_situs_is_a_row_too(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a name")

    monkeypatch.setattr("situs.batch.work.read_rois", fail)
    run(folder, tmp_path / "out")
    assert read_part(tmp_path / "out", 1).error == "internal fault: ZeroDivisionError"


def test_what_belongs_to_another_batch_or_run_is_refused(folder, whole, tmp_path):
    (tmp_path / "m.csv").write_text("scan,roi\na,b\n")
    with pytest.raises(OutputError, match="other settings"):
        label_batch(tmp_path / "m.csv", folder / "whole", str(small_bundle()))
    with locked(folder / "whole"), pytest.raises(OutputError, match="another run is writing it"):
        run(folder, folder / "whole")
    assert content(folder / "whole") == whole[0]


def test_patterns(folder, tmp_path):
    """Their manifest is written once, so that a file that comes later does not shift the rows."""
    patterns = (f"{folder}/*.nii", f"{tmp_path}/m_*.nii")
    (tmp_path / "m_a.nii").write_bytes((folder / "m.nii").read_bytes())
    summary = label_batch(patterns, tmp_path / "out", str(small_bundle()))
    (tmp_path / "m_0.nii").touch()
    assert label_batch(patterns, tmp_path / "out", str(small_bundle())) == summary
    assert (summary.scans, summary.failed, summary.lesions) == (4, 3, 3)
    with pytest.raises(OutputError, match="other settings"):
        label_batch(patterns[::-1], tmp_path / "out", str(small_bundle()))


def test_a_damaged_part_and_a_lost_folder_are_named(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(folder, out)
    path = part_path(out, 3)
    path.write_text("{")
    with pytest.raises(OutputError, match=r"000000003\.json: is missing or damaged"):
        run(folder, out)
    path.unlink()
    assert run(folder, out).failed == 4
    path.unlink()

    def lose(*_):
        path.parent.rename(tmp_path / "lost")

    with pytest.raises(OutputError, match="cannot be written: No such file"):
        run(folder, out, progress=lose)


@pytest.mark.slow
def test_two_processes_make_the_same_files(folder, whole, tmp_path):
    pytest.importorskip("joblib")
    assert run(folder, tmp_path / "out", json=True, jobs=2) == whole[1]
    assert content(tmp_path / "out") == whole[0]


@pytest.mark.slow
def test_a_scan_that_kills_its_process_is_a_row(folder, whole, tmp_path, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.setattr("situs.batch.run.label_in_process", label_or_die)
    out = tmp_path / "out"
    assert run(folder, out, jobs=2).failed == 5
    assert "was killed" in read_part(out, 3).error
    parts = {name: data for name, data in content(out).items() if name.startswith("parts/")}
    parts.pop("parts/000000/000000003.json")
    assert parts.items() <= whole[0].items()
