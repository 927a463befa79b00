"""A bundle of many references: mapped and not read, with an index, and changed like any other."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms.toy_bundle import content, toy_pictures, toy_references, write_toy

from situs.bundle import mapped, read_bundle
from situs.bundle.change import replace_evaluation, replace_index, replace_references
from situs.bundle.format import INDEX_FILE, MAPPED_FILES
from situs.cli import main
from situs.errors import BundleError
from situs.neighbors import nearest

N = 400


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A bundle that has an index, because few references count as many here."""
    monkeypatch.setattr(mapped, "INDEXED_FROM", 50)
    return write_toy(tmp_path / "mine", references=toy_references(N), pictures=toy_pictures())


def by_id(references) -> dict:
    rows = zip(references.ids.tolist(), references.sites.tolist(), references.patients.tolist(), strict=True)
    return {row: e.tobytes() for row, e in zip(rows, references.embeddings, strict=True)}


def test_the_references_are_mapped_and_all_there(folder):
    opened, expected = read_bundle(folder), toy_references(N)
    for array in (opened.references.embeddings, opened.references.ids, opened.references.patients):
        assert isinstance(array, np.memmap)
    expected = replace(expected, embeddings=expected.embeddings.astype(np.float16))
    assert by_id(opened.references) == by_id(expected)
    assert sorted(opened.pictures) == sorted(toy_pictures())
    listed = json.loads((folder / "bundle.json").read_text())["files"]
    assert {INDEX_FILE, *MAPPED_FILES.values()} < set(listed)
    for name, entry in listed.items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_few_of_a_site_are_found_as_by_the_exact_search(folder):
    opened = read_bundle(folder)
    targets = toy_references(8).embeddings
    found, exact = nearest(targets, opened.references, 4), nearest(targets, replace(opened.references), 4)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-6)


def test_few_references_are_stored_as_ever(folder, tmp_path):
    few = toy_references(40)
    changed = replace_references(read_bundle(folder), few, added=0, removed=N - 40, out=tmp_path / "few")
    assert "references.npz" in content(changed) and INDEX_FILE not in content(changed)
    assert read_bundle(changed).references.ids.tolist() == few.ids.tolist()


def test_an_evaluation_leaves_the_references_as_they_are(folder):
    before = content(folder)
    after = content(replace_evaluation(read_bundle(folder), {"title": "A", "text": "b"}))
    assert {name for name in before if before[name] != after[name]} == {"bundle.json", "README.md"}


def test_a_new_index_of_the_same_references_is_the_same(folder):
    before, opened = content(folder), read_bundle(folder, indexed=False)
    assert opened.references.cells is None
    replace_index(opened)
    after = read_bundle(folder)
    assert by_id(after.references) == by_id(opened.references)
    assert after.version == opened.version and sorted(after.pictures) == sorted(toy_pictures())
    assert set(content(folder)) == set(before)


@pytest.mark.parametrize("name", [INDEX_FILE, MAPPED_FILES["coarse"]])
def test_a_damaged_index_is_refused_and_made_again(folder, name):
    (folder / name).write_bytes(b"no array")
    with pytest.raises(BundleError, match="situs references index") as error:
        read_bundle(folder)
    assert "\n" not in str(error.value)
    replace_index(read_bundle(folder, indexed=False))
    assert read_bundle(folder).references.cells is not None


def test_an_index_of_other_references_is_refused(folder, tmp_path):
    other = write_toy(tmp_path / "other", references=toy_references(N + 20))
    for name in (INDEX_FILE, MAPPED_FILES["coarse"]):
        (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(BundleError, match="the index of its references cannot be used"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["embeddings", "sites", "ids", "patients"])
def test_a_mapped_file_that_is_missing_or_of_another_size_is_refused(folder, name):
    file = folder / MAPPED_FILES[name]
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{file.name} was changed"):
        read_bundle(folder)
    file.unlink()
    with pytest.raises(BundleError, match=f"{file.name} is missing"):
        read_bundle(folder)


def test_a_changed_byte_is_found_before_a_new_index_is_made(folder):
    file = folder / MAPPED_FILES["embeddings"]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=f"{file.name} was changed"):
        replace_index(read_bundle(folder, indexed=False))


def test_the_command_makes_the_index_again(folder, capsys):
    (folder / INDEX_FILE).unlink()
    assert main(["references", "index", str(folder)]) == 0
    assert f"{N} references are whole and have a new index" in capsys.readouterr().out
    assert read_bundle(folder).references.cells is not None


def test_a_bundle_of_few_references_has_no_index_to_make(tmp_path, capsys):
    assert main(["references", "index", str(write_toy(tmp_path / "mine"))]) == 2
    assert "an index is made from 50,000 references on" in capsys.readouterr().err


def test_values_that_are_no_numbers_are_no_neighbours(folder):
    opened = read_bundle(folder)
    row = int(np.flatnonzero(opened.references.sites == 0)[0])
    file = folder / MAPPED_FILES["embeddings"]
    stored = np.load(file, mmap_mode="r+")
    target = stored[row].astype(np.float32)
    stored[row] = np.nan
    stored.flush()
    found = nearest(target[None], read_bundle(folder).references, 4)
    assert found.present.all() and row not in found.indices[:, 0]
