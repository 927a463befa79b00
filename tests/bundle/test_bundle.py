"""Reading bundles: whole or refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms.signed import sign
from phantoms.toy_bundle import FILES, SPEC, content, flat_picture, toy_pictures, toy_references, write_toy

from situs.anatomy import SITE_KEYS, SITES, Site, SiteList
from situs.bundle import read_bundle
from situs.bundle.card import model_card
from situs.bundle.format import FORMAT_MAPPED, description_digest
from situs.bundle.pictures import OUTLINE
from situs.errors import BundleError
from situs.views import ViewSpec


def test_what_was_written_is_read(tmp_path):
    bundle = read_bundle(write_toy(tmp_path / "new" / "mine", name="mine", version="2.1"))
    assert (bundle.name, bundle.version, bundle.n_neighbors) == ("mine", "2.1", 4)
    assert bundle.path == tmp_path / "new" / "mine"
    assert bundle.spec == SPEC
    assert bundle.embedding_width == 6
    expected = toy_references()
    np.testing.assert_array_equal(bundle.references.embeddings, expected.embeddings.astype(np.float16))
    np.testing.assert_array_equal(bundle.references.sites, expected.sites)
    assert bundle.references.ids.tolist() == expected.ids.tolist()
    assert bundle.references.patients.tolist() == expected.patients.tolist()
    assert bundle.sites == SITES and bundle.n_trained_sites == 15
    assert bundle.description["training"]["slices"] == 1200
    assert sorted(content(bundle.path)) == FILES


def test_a_bundle_gives_the_pictures_it_was_given(tmp_path):
    absent = {"no reference of this name": toy_pictures()["Fälle/3"]}
    bundle = read_bundle(write_toy(tmp_path / "mine", pictures=toy_pictures() | absent))
    assert sorted(content(bundle.path)) == sorted([*FILES, "pictures.npz"])
    for name, gray in (("Fälle/3", 50), ("Fälle/11", 200)):
        picture = bundle.picture(name)
        np.testing.assert_array_equal(picture == OUTLINE, flat_picture(gray) == OUTLINE)
        np.testing.assert_allclose(picture[5:], gray, atol=2)
    assert bundle.picture("Fälle/4") is None
    assert bundle.pictures == toy_pictures()
    data = (bundle.path / "pictures.npz").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert bundle.description["files"]["pictures.npz"] == entry
    assert bundle.description["pictures"] == {"rendered": 1, "patients": 1}
    again = read_bundle(write_toy(bundle.path))  # and it is replaced by one without
    assert sorted(content(again.path)) == FILES and again.pictures == {}


def test_a_bundle_of_before_there_were_pictures_is_read(tmp_path):
    description = read_bundle(write_toy(tmp_path / "mine")).description
    del description["pictures"]
    description["sha256"] = description_digest(description)
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps(description))
    bundle = read_bundle(tmp_path / "mine")
    assert bundle.pictures == {} and bundle.picture("Fälle/3") is None
    assert "Pictures" not in model_card(bundle.description)


def test_pictures_are_read_when_asked_for_and_refused_if_damaged(tmp_path):
    file = write_toy(tmp_path / "mine", pictures=toy_pictures()) / "pictures.npz"
    data = file.read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        bundle = read_bundle(file.parent)  # labelling alone needs no pictures
        with pytest.raises(BundleError, match=r"pictures\.npz was changed after its export") as error:
            bundle.picture("Fälle/3")
        assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(BundleError, match=r"pictures\.npz is missing"):
        _ = read_bundle(file.parent).pictures


@pytest.mark.parametrize("name", ["basenet.onnx", "relation.onnx", "references.npz"])
def test_missing_changed_and_truncated_files_are_refused(tmp_path, name):
    file = write_toy(tmp_path / "mine") / name
    data = file.read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        with pytest.raises(BundleError, match=f"{name} was changed after its export"):
            read_bundle(file.parent)
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(file.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": FORMAT_MAPPED + 1}, f"format {FORMAT_MAPPED + 1} is unknown"),
        ({"format": [1]}, r"format \[1\] is unknown"),
        ({"format": "1"}, "format '1' is unknown"),
        ({"n_neighbors": 5}, r"bundle\.json was changed"),
        ({"views": SPEC.to_dict() | {"local_mm": 90.0}}, r"bundle\.json was changed"),
        ({"training": {}}, r"bundle\.json was changed"),
        ({"files": {}}, r"bundle\.json was changed"),
        ({"sha256": None}, r"bundle\.json was changed"),
    ],
)
def test_changed_description_is_refused(tmp_path, changes, message):
    file = write_toy(tmp_path / "mine") / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BundleError, match=message) as error:
        read_bundle(file.parent)
    assert "\n" not in str(error.value)


def test_the_first_bundles_have_the_keys_of_the_shipped_sites(tmp_path):
    folder = write_toy(tmp_path / "mine")
    sign(folder, lambda description: description.update(sites=list(SITE_KEYS)))
    assert read_bundle(folder).sites == SITES
    sign(folder, lambda description: description.update(sites=["head", "foot"]))
    with pytest.raises(BundleError, match="sites: have keys and no names"):
        read_bundle(folder)


def test_bundles_from_before_the_groupings(tmp_path):
    """They have one word for each site, which is not read; the shipped sites have the shipped groups."""

    def one_word(description):
        for site in description["sites"]:
            site.update(group="csf")
            del site["groups"]

    folder = write_toy(tmp_path / "shipped list")
    sign(folder, one_word)
    assert read_bundle(folder).sites == SITES
    own = SiteList(Site(f"place_{n}", f"Place {n}", groups={"half": "upper"}) for n in range(15))
    folder = write_toy(tmp_path / "own list", sites=own)
    assert read_bundle(folder).sites == own and own.groupings == ("half",)
    sign(folder, one_word)
    assert read_bundle(folder).sites == tuple(replace(site, groups={}) for site in own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": {"Half": "upper"}}, "grouping 'Half': expected small letters"),
        ({"key": "brainstem"}, "site brainstem: the key comes twice"),
        ({"name": "Brainstem"}, "have the same name"),
        ({"key": "../etc"}, "expected a key of small letters"),
        ({"parent": "knee"}, "no parent 'knee'"),
        ({"code": "1", "code_scheme": ""}, "a code needs a code_scheme"),
    ],
)
def test_a_list_of_sites_that_is_none_is_refused(tmp_path, change, message):
    folder = write_toy(tmp_path / "mine")
    sign(folder, lambda description: description["sites"][3].update(change))
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


def test_a_bundle_keeps_its_own_sites(tmp_path):
    own = SiteList(Site(f"place_{n}", f"Place {n}", paired=n > 3) for n in range(15))
    bundle = read_bundle(write_toy(tmp_path / "mine", sites=own))
    assert bundle.sites == own and bundle.n_trained_sites == 15
    assert "`place_3`, `place_4`" in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_views_that_this_situs_cannot_make_are_refused(tmp_path, monkeypatch):
    views = SPEC.to_dict() | {"channels": ["brain", "bone"]}
    monkeypatch.setattr(ViewSpec, "to_dict", lambda _: views)
    folder = write_toy(tmp_path / "mine")
    with pytest.raises(BundleError, match=r"bundle.json cannot be used .*views.channels\[1\]"):
        read_bundle(folder)


def test_laid_out_anew_the_description_is_still_the_same(tmp_path):
    """A tool that formats JSON is no reason to refuse."""
    file = write_toy(tmp_path / "mine") / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4, ensure_ascii=False), encoding="utf-8")
    assert read_bundle(file.parent).n_neighbors == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '"format"', "\udcff"])
def test_json_of_something_else_is_no_bundle(tmp_path, text):
    (tmp_path / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match="not a bundle"):
        read_bundle(tmp_path)


def test_places_without_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"not a bundle, it has no bundle\.json"):
        read_bundle(tmp_path)
    file = tmp_path / "scan.nii"
    file.write_bytes(b"x")
    with pytest.raises(BundleError, match="not a bundle"):
        read_bundle(file)


def test_the_shipped_bundle_is_whole():
    bundle = read_bundle()
    assert read_bundle("shipped").path == bundle.path
    assert (bundle.path / "README.md").read_text(encoding="utf-8") == model_card(bundle.description)
    assert sum(entry.stat().st_size for entry in bundle.path.iterdir()) <= 20_000_000
    assert set(bundle.references.sites.tolist()) == set(range(len(SITES)))


def test_views_and_neighbours_are_stored_once_and_a_bundle_with_them_in_its_recipe_is_read(tmp_path):
    """The first bundles, the shipped one among them, have both in the recipe too."""
    new = read_bundle(write_toy(tmp_path / "mine"))
    assert new.recipe == new.description["recipe"] == {"name": "compact", "learning rate": 0.001}
    description = dict(new.description)
    description["recipe"] = {**new.recipe, "spec": SPEC.to_dict(), "n_neighbors": 4, "balance": 1.0}
    description["sha256"] = description_digest(description)
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps(description))
    old = read_bundle(tmp_path / "mine")
    assert (old.recipe, old.spec, old.n_neighbors) == (new.recipe, new.spec, new.n_neighbors)
    assert model_card(old.description) == (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
