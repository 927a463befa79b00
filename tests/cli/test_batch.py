"""`situs batch`: what it asks for, prints and refuses, and Ctrl-C."""

import signal
import sys

import pytest
from phantoms.commands import refused

from situs.batch.summary import Summary
from situs.cli import main


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What `label_batch` is called with; it answers with a summary of nothing."""
    calls = []

    def label_batch(*args):
        calls.append(args)
        return Summary()

    monkeypatch.setattr("situs.batch.label_batch", label_batch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("scan,roi\na,b\n")
    return calls


def test_options_are_passed_on(asked, capsys):
    assert main(["batch", "m.csv", "--out", "o", "--jobs", "2", "--json", "--retry", "--no-parquet"]) == 0
    source, out, *others = asked[0]
    assert (str(source), str(out)) == ("m.csv", "o")
    assert others[:5] == [None, 2, False, True, True]
    text, err = capsys.readouterr()
    assert text.startswith("0 scans: 0 labelled, 0 failed") and "o/findings.csv" in text and not err
    args = ["batch", "--scans", "a/*", "--rois", "b/*", "--out", "o", "--quiet"]
    assert main(args) == 0 and asked[1][0] == ("a/*", "b/*")
    assert capsys.readouterr() == ("", "")


def test_without_pyarrow_there_is_a_csv_only_unless_parquet_is_asked_for(asked, capsys, monkeypatch):
    monkeypatch.setattr("situs.cli.batch.find_spec", lambda name: None)
    assert main(["batch", "m.csv", "--out", "o"]) == 0
    assert asked[0][4] is False and "pip install 'situs[batch]'" in capsys.readouterr().out
    monkeypatch.undo()


@pytest.mark.parametrize(("package", "args"), [("pyarrow", ["--parquet"]), ("joblib", ["--jobs", "2"])])
def test_a_missing_package_is_told_before_the_work(tmp_path, capsys, monkeypatch, package, args):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "m.csv").write_text("scan,roi\na,b\n")
    args = ["batch", str(tmp_path / "m.csv"), "--out", str(tmp_path / "o"), "--no-parquet", *args]
    refused(capsys, args, f"{package} is not installed: pip install 'situs[batch]'")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "either MANIFEST, or both --scans and --rois"),
        (["m.csv", "--scans", "a/*", "--rois", "b/*"], "either MANIFEST"),
        (["--scans", "a/*"], "either MANIFEST"),
        (["findings.csv"], "would overwrite the input"),
        (["absent.csv"], "is not a file"),
        (["empty.csv"], "has no rows"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, capsys, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "findings.csv").touch()
    (tmp_path / "empty.csv").write_text("scan,roi\n")
    refused(capsys, ["batch", *args, "--out", "."], words)
    assert {path.name for path in tmp_path.iterdir()} == {"findings.csv", "empty.csv"}


def test_the_first_ctrl_c_finishes_what_runs_and_the_second_stops(asked, capfd, monkeypatch):
    left = []

    def label_batch(*args):
        *_, stop, _ = args
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        if left:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")
        left.append("the scan that ran was finished")
        return None

    monkeypatch.setattr("situs.batch.label_batch", label_batch)
    for _ in range(2):
        assert main(["batch", "m.csv", "--out", "o"]) == 130
        out, err = capfd.readouterr()
        assert not out and "Ctrl-C again stops at once" in err and "the same command resumes" in err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(left) == 1
