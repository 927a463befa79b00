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

    def label_batch(*args, **options):
        calls.append((*args, options))
        return Summary()

    monkeypatch.setattr("situs.batch.label_batch", label_batch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("scan,roi\na,b\n")
    return calls


def test_options_are_passed_on(asked, capsys):
    assert main(["batch", "m.csv", "--out", "o", "--jobs", "2", "--json", "--retry", "--no-parquet"]) == 0
    source, out, bundle, jobs, options = asked[0]
    assert (str(source), str(out), bundle, jobs) == ("m.csv", "o", None, 2)
    given = {name: options[name] for name in ("parquet", "json", "retry")}
    assert given == {"parquet": False, "json": True, "retry": True}
    assert {options[name] for name in ("language", "every", "scheduler")} == {None}
    text, err = capsys.readouterr()
    assert text.startswith("0 scans: 0 labelled, 0 failed") and "o/findings.csv" in text and not err
    args = ["batch", "--scans", "a/*", "--rois", "b/*", "--out", "o", "--quiet"]
    assert main(args) == 0 and asked[1][0] == ("a/*", "b/*")
    assert capsys.readouterr() == ("", "")
    args = ["batch", "--scans", "a/*", "--rois", "b/*", "--out", "o", "--watch", "--every", "5"]
    args += ["--html", "--no-summary", "--backend", "dask", "--scheduler", "tcp://a:1"]
    assert main(args) == 0
    given = {name: asked[2][-1][name] for name in ("language", "page", "every", "scheduler")}
    assert given == {"language": "en", "page": False, "every": 5.0, "scheduler": "tcp://a:1"}
    assert "goes on watching" in capsys.readouterr().out


def test_without_the_extra_there_is_a_csv_only_unless_more_is_asked_for(asked, capsys, monkeypatch):
    monkeypatch.setattr("situs.cli.batch.find_spec", lambda name: None)
    assert main(["batch", "m.csv", "--out", "o"]) == 0
    assert (asked[0][-1]["parquet"], asked[0][-1]["page"]) == (False, False)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.partition(":")[0] for line in lines] == ["No findings.parquet", "No summary.html"]
    assert all(line.endswith("pip install 'situs[batch]'") for line in lines)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("package", "args", "extra"),
    [
        ("pyarrow", ["--parquet"], "batch"),
        ("joblib", ["--jobs", "2"], "batch"),
        ("distributed", ["--backend", "dask", "--scheduler", "tcp://127.0.0.1:1"], "dask"),
    ],
)
def test_a_missing_package_is_told_before_the_work(tmp_path, capsys, monkeypatch, package, args, extra):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "m.csv").write_text("scan,roi\na,b\n")
    args = ["batch", str(tmp_path / "m.csv"), "--out", str(tmp_path / "o"), "--no-parquet", *args]
    refused(capsys, args, f"{package} is not installed: pip install 'situs[{extra}]'")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "either MANIFEST, or both --scans and --rois"),
        (["m.csv", "--scans", "a/*", "--rois", "b/*"], "either MANIFEST"),
        (["--scans", "a/*"], "either MANIFEST"),
        (["findings.csv", "--watch"], "--watch: looks for files"),
        (["m.csv", "--backend", "dask"], "--scheduler ADDRESS: expected both or neither"),
        (["m.csv", "--scheduler", "tcp://a:1"], "--scheduler ADDRESS: expected both or neither"),
        (["m.csv", "--backend", "dask", "--scheduler", "tcp://a:1", "--jobs", "2"], "start more workers"),
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

    def label_batch(*args, stop, **options):
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        if left:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")
        left.append("the scan that ran was finished")
        return None

    monkeypatch.setattr("situs.batch.label_batch", label_batch)
    before = signal.getsignal(signal.SIGINT)  # a shell's background job has another one than a terminal's
    for _ in range(2):
        assert main(["batch", "m.csv", "--out", "o"]) == 130
        out, err = capfd.readouterr()
        assert not out and "Ctrl-C again stops at once" in err and "the same command resumes" in err
        assert signal.getsignal(signal.SIGINT) is before
    assert len(left) == 1
