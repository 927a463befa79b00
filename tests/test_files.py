"""Files are refused before the work, or written whole."""

import os
from pathlib import Path

import pytest

from situs.errors import InputError, OutputError
from situs.files import (
    check_file,
    check_folder,
    claim_folder,
    digest,
    locked,
    replacing,
    replacing_folder,
    sweep,
    write_file,
)

NOBODY = 99999999  # no process has this number


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("a longer text that was there before")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stop_while_writing_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.json"
    path.write_text("old")

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_file(path, b"0123456789")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "note"
    path.write_text("old")
    with pytest.raises(OutputError, match="disk full"), replacing(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["note"]


def test_what_a_killed_process_left_is_swept(tmp_path):
    """Not what another process is writing, nor this one, nor what bears such a name by chance."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        for number in (NOBODY, os.getpid(), os.getppid(), "notes"):
            (folder / f".writing-{number}.c.csv").touch()
        (folder / "c.csv").touch()
    with replacing(tmp_path / "a" / "d.csv") as temporary:
        temporary.touch()
        sweep(tmp_path / "a", tmp_path / "b")
        kept = {f".writing-{os.getppid()}.c.csv", ".writing-notes.c.csv", "c.csv"}
        assert {p.name for p in (tmp_path / "b").iterdir()} == kept
        assert {p.name for p in (tmp_path / "a").iterdir()} == kept | {temporary.name}
    assert (tmp_path / "a" / "d.csv").is_file()


def write_folder(folder, text):
    with replacing_folder(folder) as new:
        (new / "note").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "link").symlink_to("real")
    for text in ("first", "second"):
        write_folder(tmp_path / "link", text)
        assert (tmp_path / "real" / "note").read_text() == text
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "real") as new:
        (new / "note").write_text("third")
        raise ZeroDivisionError
    assert (tmp_path / "link" / "note").read_text() == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_that_is_not_as_expected_stays(tmp_path):
    def check(old):
        assert (old / "note").read_text() == "first" and not (tmp_path / "a").exists()
        raise ZeroDivisionError

    write_folder(tmp_path / "a", "first")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "a", check):
        pass
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["a", "a/note"]


def test_a_folder_that_another_process_wrote_meanwhile_stays(tmp_path, monkeypatch):
    with (
        pytest.raises(OutputError, match="a: was written meanwhile by another process; run it again"),
        replacing_folder(tmp_path / "a") as new,
    ):
        (new / "note").write_text("ours")
        rename = Path.replace

        def replace(self, target):
            if self.name == "a":  # theirs takes its place as soon as it is free
                (tmp_path / "a").mkdir()
                (tmp_path / "a" / "note").write_text("theirs")
                raise FileNotFoundError
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", replace)
    assert (tmp_path / "a" / "note").read_text() == "theirs"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_a_killed_process_moved_aside_comes_back(tmp_path, replaced):
    hidden = tmp_path / f".writing-{NOBODY}.a.b"
    for folder in (hidden / "old", hidden / "new"):
        folder.mkdir(parents=True)
        (folder / "note").write_text(folder.name)
    if replaced:
        (hidden / "new").rename(tmp_path / "a.b")
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.b"]
    assert (tmp_path / "a.b" / "note").read_text() == ("new" if replaced else "old")


def test_a_folder_is_locked_for_one_run(tmp_path):
    with locked(tmp_path / "a"):
        with pytest.raises(OutputError, match="another run is writing it"), locked(tmp_path / "a"):
            pass
        with locked(tmp_path / "b"):
            pass
    with locked(tmp_path / "a"):
        pass
    (tmp_path / "c").touch()
    with pytest.raises(OutputError, match="c: cannot be written"), locked(tmp_path / "c"):
        pass


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_file(tmp_path / "link.json", b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


def test_a_device_is_written_not_replaced():
    check_file(Path(os.devnull))
    write_file(Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()


def test_full_disk_is_one_line(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"):
        write_file(full, b"x")


def test_what_cannot_be_a_file_is_refused(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(OutputError, match="there is no folder"):
        check_file(tmp_path / "absent" / "a.json")
    (tmp_path / "plain").write_text("")
    with pytest.raises(OutputError, match="there is no folder"):
        check_file(tmp_path / "plain" / "a.json")


def test_inputs_are_not_overwritten(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    scan.write_text("")
    (tmp_path / "link.json").symlink_to(scan)
    folder = tmp_path / "dicom"
    folder.mkdir()
    (folder / "1.dcm").write_text("")
    for path in (scan, tmp_path / "link.json", tmp_path / "dicom" / ".." / "scan.nii.gz", folder / "1.dcm"):
        with pytest.raises(OutputError, match="would overwrite"):
            check_file(path, [scan, folder])
    check_file(folder / "new.json", [scan, folder])
    check_file(tmp_path / "new.json", [scan, folder])


def test_a_folder_that_will_be_made_counts(tmp_path):
    check_file(tmp_path / "out" / "a.json", made=[tmp_path / "out"])
    check_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()  # checking writes nothing


def test_what_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        check_folder(tmp_path / "plain")
    with pytest.raises(OutputError, match="there is no folder"):
        check_folder(tmp_path / "absent" / "out")


def test_read_only_places_are_refused(tmp_path):
    proc = Path("/proc")
    if not (proc / "self").exists():
        pytest.skip("no /proc here")
    with pytest.raises(OutputError, match="cannot be written to"):
        check_folder(proc)
    with pytest.raises(OutputError, match="cannot be written to"):
        check_file(proc / "a.json")


def test_a_folder_belongs_to_one_run_of_its_settings(tmp_path):
    folder = tmp_path / "deep" / "work"
    claim_folder(folder, "run.json", {"seed": 1, "sizes": (2, 3)})
    (folder / f".writing-{NOBODY}.weights").touch()  # of a killed run
    (folder / "weights").touch()
    claim_folder(folder, "run.json", {"sizes": (2, 3), "seed": 1})
    assert sorted(p.name for p in folder.iterdir()) == ["run.json", "weights"]
    with pytest.raises(OutputError, match="other settings"):
        claim_folder(folder, "run.json", {"seed": 2, "sizes": (2, 3)})
    for damaged in ("{", "[1]"):
        (folder / "run.json").write_text(damaged)
        with pytest.raises(OutputError, match="damaged"):
            claim_folder(folder, "run.json", {"seed": 1, "sizes": (2, 3)})


def test_a_note_of_an_earlier_version_stands_for_the_defaults(tmp_path):
    claim_folder(tmp_path, "run.json", {"seed": 1})
    claim_folder(tmp_path, "run.json", {"seed": 1, "size": 3}, defaults={"size": 3})
    for settings in ({"seed": 1, "size": 4}, {"seed": 2, "size": 3}):
        with pytest.raises(OutputError, match="other settings"):
            claim_folder(tmp_path, "run.json", settings, defaults={"size": 3})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # The first example of FIPS 180-2.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(path) == digest(b"abc") == expected
    with pytest.raises(InputError, match="cannot be read"):
        digest(tmp_path / "absent")
