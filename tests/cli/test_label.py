"""`situs label`: what it writes and where, and one line with exit code 2 for whatever is wrong."""

import csv
import io
import os
import sys

import nibabel as nib
import pytest
from phantoms import small_case
from phantoms.commands import refused
from phantoms.findings_schema import read_findings
from phantoms.small_case import FakeLabeler

from situs.cli import main
from situs.errors import BundleError, RoiError, ScanError
from situs.report import DISCLAIMER


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with scan.nii.gz and mask.nii.gz, which is also the working folder."""
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), tmp_path / "mask.nii.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("situs.labeler.Labeler", FakeLabeler)
    monkeypatch.delenv("SITUS_DEBUG", raising=False)
    return tmp_path


LABEL = ["label", "scan.nii.gz", "--roi", "mask.nii.gz"]


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


def test_label_prints_a_table_and_nothing_else(files, capsys):
    assert main(LABEL) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "scan.nii.gz: 3 lesions" in out and out.count("thalamus") >= 2 and DISCLAIMER in out
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_label_writes_json_csv_and_pictures(files, capsys):
    assert main([*LABEL, "--json", "out/f.json", "--csv", "out/f.csv", "--png", "out", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert names(files / "out") == [
        "f.csv",
        "f.json",
        "roi01_lesion1.png",
        "roi01_lesion2.png",
        "roi07_lesion1.png",
    ]
    report = read_findings((files / "out" / "f.json").read_text())
    assert [f["roi_value"] for f in report["findings"]] == [1, 1, 7]
    assert len(list(csv.reader((files / "out" / "f.csv").read_text().splitlines()))) == 4


def test_label_writes_a_page(files, capsys):
    assert main([*LABEL, "--html", "page.html"]) == 0
    out, err = capsys.readouterr()
    assert "3 lesions" in out and err == ""
    page = (files / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n") and "scan.nii.gz" in page
    assert names(files) == ["mask.nii.gz", "page.html", "scan.nii.gz"]
    assert main([*LABEL, "--html", "-"]) == 0
    assert capsys.readouterr().out == page


def test_damaged_pictures_of_references_are_refused_only_where_they_are_wanted(files, capsys, monkeypatch):
    class Damaged:
        name, version = "fake", "1"

        @property
        def pictures(self):
            raise BundleError("pictures.npz was changed after its export")

    monkeypatch.setattr(FakeLabeler, "bundle", Damaged())
    assert main([*LABEL, "--json", "f.json"]) == 0
    capsys.readouterr()
    for option in ("--png", "--html"):
        refused(capsys, [*LABEL, "--json", "g.json", option, "out"], "pictures.npz was changed")
    assert names(files) == ["f.json", "mask.nii.gz", "scan.nii.gz"]


@pytest.mark.parametrize(
    ("slices", "terminal", "options", "shown"),
    [(500, True, [], True), (20, True, [], False), (500, False, [], False), (500, True, ["--quiet"], False)],
)
def test_progress_is_shown_on_a_terminal_and_for_many_slices(
    files, capsys, monkeypatch, slices, terminal, options, shown
):
    class SlowLabeler(FakeLabeler):
        def label(self, volume, rois, progress=None):
            progress("slices", slices // 2, slices)
            return super().label(volume, rois)

    monkeypatch.setattr("situs.labeler.Labeler", SlowLabeler)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main([*LABEL, *options]) == 0
    assert ("slices" in capsys.readouterr().err) == shown


@pytest.mark.slow
@pytest.mark.parametrize("many", [3, 4])
def test_progress_is_shown_for_many_pictures(files, capsys, monkeypatch, many):
    monkeypatch.setattr("situs.cli.label._MANY", many)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main([*LABEL, "--png", "out"]) == 0
    assert ("pictures" in capsys.readouterr().err) == (many == 3)


def test_standard_output_holds_json_alone(files, capsys):
    assert main([*LABEL, "--json", "-", "--csv", "f.csv"]) == 0
    out, err = capsys.readouterr()
    assert len(read_findings(out)["findings"]) == 3 and err == ""
    assert (files / "f.csv").exists()


def test_standard_output_holds_csv_alone(files, capsys):
    assert main([*LABEL, "--csv", "-"]) == 0
    out, _ = capsys.readouterr()
    assert len(list(csv.DictReader(io.StringIO(out)))) == 3


def test_pictures_of_other_names_stay(files):
    (files / "out").mkdir()
    (files / "out" / "roi99_lesion1.png").write_text("mine")
    (files / "out" / "roi01_lesion1.png").write_text("old")
    assert main([*LABEL, "--png", "out", "--quiet"]) == 0
    assert (files / "out" / "roi99_lesion1.png").read_text() == "mine"
    assert (files / "out" / "roi01_lesion1.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json", "-", "--csv", "-"], ["--json -", "--csv -"]),
        (["--json", "a", "--csv", "./a"], ["both are"]),
        (["--json", "absent/a.json"], ["absent/a.json", "no folder"]),
        (["--csv", "absent/a.csv"], ["absent/a.csv", "no folder"]),
        (["--json", "scan.nii.gz"], ["scan.nii.gz", "overwrite the input"]),
        (["--csv", "mask.nii.gz"], ["mask.nii.gz", "overwrite the input"]),
        (["--json", "."], ["is a folder"]),
        (["--json", "a", "--sr", "./a"], ["--json and --sr", "both are"]),
        (["--html", "absent/a.html"], ["absent/a.html", "no folder"]),
        (["--html", "mask.nii.gz"], ["mask.nii.gz", "overwrite the input"]),
        (["--html", "-", "--json", "-"], ["--html -", "--json -"]),
        (["--csv", "a", "--html", "a"], ["--csv and --html", "both are"]),
        (["--html", "a.html", "--language", "xx"], ["--language xx", "is neither one of en"]),
        (["--sr", "-"], ["--sr -", "name a file"]),
        (["--seg-out", "-"], ["--seg-out -", "name a file"]),
        (["--seg-out", "a.dcm"], ["--seg-out", "mask.nii.gz is none", "leave it out"]),
        (["--sr", "mask.nii.gz"], ["mask.nii.gz", "overwrite the input"]),
        (["--sc", "scan.nii.gz"], ["scan.nii.gz", "not a folder"]),
        (["--png", "scan.nii.gz"], ["scan.nii.gz", "not a folder"]),
        (["--png", "absent/out"], ["absent/out", "no folder"]),
    ],
)
def test_outputs_are_refused_before_the_work(files, capsys, monkeypatch, options, words):
    monkeypatch.setattr("situs.io.read_volume", lambda *_, **__: pytest.fail("the work began"))
    before = {p: p.read_bytes() for p in files.iterdir()}
    refused(capsys, [*LABEL, *options], *words)
    assert {p: p.read_bytes() for p in files.iterdir()} == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["label", "absent.nii.gz", "--roi", "mask.nii.gz"], ["absent.nii.gz", "no such file"]),
        (["label", "scan.nii.gz", "--roi", "absent.nii.gz"], ["absent.nii.gz"]),
        (["label", "scan.nii.gz"], ["--roi", "situs label --help"]),
        (["label", "--roi", "mask.nii.gz"], ["SCAN"]),
        (["label"], ["SCAN"]),
        ([*LABEL, "--jsno", "f.json"], ["--jsno", "--json"]),
        ([*LABEL, "--js", "f.json"], ["--js"]),
        ([*LABEL, "second.nii.gz"], ["second.nii.gz"]),
        ([*LABEL, "--json"], ["--json"]),
        ([*LABEL, "--series", "3"], ["series"]),
        (["lable", "scan.nii.gz"], ["lable", "label"]),
        (["--verison"], ["--verison", "--version"]),
    ],
)
def test_bad_usage_is_one_line(files, capsys, args, words):
    refused(capsys, args, *words)
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


@pytest.mark.parametrize(
    "error", [ScanError("scan: bad"), RoiError("mask: bad"), PermissionError(13, "no", "x")]
)
def test_errors_of_the_work_write_nothing(files, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(FakeLabeler, "label", fail)
    refused(capsys, [*LABEL, "--json", "f.json", "--csv", "f.csv", "--png", "out"])
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_a_bundle_that_is_none_is_refused(files, capsys, monkeypatch):
    monkeypatch.undo()
    os.chdir(files)
    refused(capsys, [*LABEL, "--bundle", "absent", "--json", "f.json"], "absent", "bundle")
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_an_error_of_several_lines_is_shown_as_one(files, capsys, monkeypatch):
    monkeypatch.setattr(FakeLabeler, "label", lambda *_: (_ for _ in ()).throw(RoiError("one\ntwo")))
    assert "one two" in refused(capsys, LABEL)


def test_a_fault_of_situs_is_one_line_with_a_hint(files, capsys, monkeypatch):
    monkeypatch.setattr(FakeLabeler, "label", lambda *_: 1 // 0)
    assert main(LABEL) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ZeroDivisionError" in err and "SITUS_DEBUG=1" in err
    monkeypatch.setenv("SITUS_DEBUG", "1")
    assert main(LABEL) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(files, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeLabeler, "label", stop)
    assert main([*LABEL, "--json", "f.json", "--png", "out"]) == 130
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


def test_ctrl_c_while_writing_leaves_no_half_written_file(files, monkeypatch):
    from situs.report import picture

    whole = picture.iter_pictures

    def stop(*args):
        yield next(whole(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "iter_pictures", stop)
    assert main([*LABEL, "--json", "f.json", "--png", "out"]) == 130
    assert names(files) == ["mask.nii.gz", "out", "roi01_lesion1.png", "scan.nii.gz"]
    assert (files / "out" / "roi01_lesion1.png").read_bytes().endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("option", [["--sr", "r.dcm"], ["--sc", "out"]])
def test_dicom_objects_are_only_for_scans_that_are_dicom(files, capsys, option):
    refused(capsys, [*LABEL, *option], "scan.nii.gz: is no DICOM", "give the DICOM series")
    assert names(files) == ["mask.nii.gz", "scan.nii.gz"]


@pytest.mark.parametrize(
    ("option", "modules", "package", "extra"),
    [("--sr", ["dicom_sr"], "highdicom", "dicom"), ("--html", ["html", "page"], "jinja2", "report")],
)
def test_a_report_without_its_extra_names_the_pip_line_before_the_work(
    files, capsys, monkeypatch, option, modules, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    for module in modules:  # those that import it
        monkeypatch.delitem(sys.modules, f"situs.report.{module}", raising=False)
    monkeypatch.setattr("situs.io.read_volume", lambda *_, **__: pytest.fail("the work began"))
    refused(capsys, [*LABEL, option, "r"], f"{package} is not installed: pip install 'situs[{extra}]'")


def test_a_missing_extra_names_the_pip_line(files, capsys, monkeypatch):
    def load(bundle=None):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(FakeLabeler, "load", load)
    refused(capsys, LABEL, "torch is not installed", "pip install 'situs[train]'")


def test_a_missing_package_that_no_extra_installs_is_a_fault(files, capsys, monkeypatch):
    def load(bundle=None):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(FakeLabeler, "load", load)
    assert main(LABEL) == 1
    assert "No module named 'numpy'" in capsys.readouterr().err
