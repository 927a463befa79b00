"""Writing bundles: replaced only by a whole one, and nothing else is overwritten."""

import hashlib
import json

import pytest
from phantoms.toy_bundle import content, toy_pictures, write_toy

from situs.bundle import Bundle, read_bundle
from situs.bundle.card import model_card
from situs.bundle.change import replace_evaluation
from situs.errors import BundleError, OutputError


def test_files_are_listed_with_size_and_hash(tmp_path):
    folder = write_toy(tmp_path / "mine")
    listed = json.loads((folder / "bundle.json").read_text())["files"]
    assert sorted(listed) == ["basenet.onnx", "references.npz", "relation.onnx"]
    for name, entry in listed.items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_same_content_gives_the_same_bytes(tmp_path):
    assert content(write_toy(tmp_path / "a")) == content(write_toy(tmp_path / "b"))


def test_an_older_bundle_is_replaced(tmp_path):
    write_toy(tmp_path / "mine", version="1")
    write_toy(tmp_path / "mine", version="2")
    assert read_bundle(tmp_path / "mine").version == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_used(tmp_path):
    assert read_bundle(write_toy(tmp_path)).path == tmp_path


def test_a_failed_check_leaves_the_older_bundle(tmp_path):
    before = content(write_toy(tmp_path / "mine", version="1"))
    seen = []

    def check(bundle: Bundle) -> None:
        seen.append(bundle.version)
        raise BundleError("the networks differ")

    with pytest.raises(BundleError, match="the networks differ"):
        write_toy(tmp_path / "mine", version="2", check=check)
    assert seen == ["2"]
    assert content(tmp_path / "mine") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_failed_rename_brings_the_older_bundle_back(tmp_path, monkeypatch):
    out = tmp_path / "mine"
    before = content(write_toy(out, version="1"))
    rename = type(out).replace

    def fail_for_new(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(out), "replace", fail_for_new)
    with pytest.raises(OutputError, match="mine: cannot be written: No space left on device"):
        write_toy(out, version="2")
    assert content(out) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_bundle_that_a_killed_process_moved_aside_is_read(tmp_path):
    before = content(write_toy(tmp_path / "mine"))
    (tmp_path / ".writing-99999999.mine").mkdir()
    (tmp_path / "mine").rename(tmp_path / ".writing-99999999.mine" / "old")
    read_bundle(tmp_path / "mine")
    assert content(tmp_path / "mine") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("names", [["thesis.txt"], ["thesis.txt", "bundle.json"], ["README.md"]])
def test_folders_of_other_things_are_not_overwritten(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(OutputError, match="not overwritten"):
        write_toy(tmp_path)
    assert content(tmp_path) == before


def test_a_file_is_not_overwritten(tmp_path):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"x")
    with pytest.raises(OutputError, match="not overwritten"):
        write_toy(file)
    with pytest.raises(OutputError, match="cannot be written"):
        write_toy(file / "bundle")
    assert file.read_bytes() == b"x"


def test_an_evaluation_is_added_and_one_of_the_same_title_replaced(tmp_path):
    folder = write_toy(tmp_path / "mine", pictures=toy_pictures())
    before = content(folder)
    for title, text in (("A", "first"), ("B", "second"), ("A", "third")):
        assert replace_evaluation(read_bundle(folder), {"title": title, "text": text}) == folder
    bundle = read_bundle(folder)
    assert bundle.description["evaluation"] == [
        {"title": "A", "text": "third"},
        {"title": "B", "text": "second"},
    ]
    after = content(folder)
    assert after["README.md"].decode() == model_card(bundle.description)
    assert {name for name in before if before[name] != after[name]} == {"README.md", "bundle.json"}
    assert bundle.version == "1"


def test_a_change_goes_to_another_folder_if_one_is_named(tmp_path):
    folder = write_toy(tmp_path / "mine")
    before = content(folder)
    out = replace_evaluation(read_bundle(folder), {"title": "A"}, tmp_path / "new")
    assert out == tmp_path / "new" and read_bundle(out).description["evaluation"] == [{"title": "A"}]
    assert content(folder) == before


def test_a_change_that_another_process_has_not_seen_is_not_undone(tmp_path):
    bundle = read_bundle(write_toy(tmp_path / "mine"))
    replace_evaluation(bundle, {"title": "A"})
    with pytest.raises(BundleError, match="changed meanwhile"):
        replace_evaluation(bundle, {"title": "B"})
    assert [entry["title"] for entry in read_bundle(bundle.path).description["evaluation"]] == ["A"]


def test_the_shipped_bundle_is_never_changed(tmp_path):
    bundle = read_bundle()
    before = content(bundle.path)
    (tmp_path / "link").symlink_to(bundle.path)
    for out in (None, bundle.path, tmp_path / "link"):
        with pytest.raises(BundleError, match="give --out NEW_BUNDLE"):
            replace_evaluation(bundle, {"title": "A"}, out)
    assert content(bundle.path) == before
