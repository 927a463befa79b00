"""Bundles on disk: whole or refused, replaced only by a whole one, described by their card."""

import hashlib
import json

import numpy as np
import pytest

from situs.anatomy import SITE_KEYS, SITES
from situs.bundle import BASENET_FILE, FORMAT, RELATION_FILE, Bundle, _digest, read_bundle, write_bundle
from situs.bundle.card import model_card
from situs.bundle.pictures import OUTLINE, SIZE_PX, ReferencePicture, encode_picture
from situs.errors import BundleError, OutputError
from situs.neighbors import References
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=48, global_mm=200, local_mm=80, channels=("brain", "roi"))
NETWORKS = {BASENET_FILE: b"views to embedding", RELATION_FILE: b"embeddings to scores"}
CONTRACT = {
    BASENET_FILE: {
        "inputs": {"view": {"type": "uint8", "shape": ["n", 2], "meaning": "a | b"}},
        "outputs": {},
    }
}
FILES = ["README.md", "basenet.onnx", "bundle.json", "references.npz", "relation.onnx"]


def references(n=20):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(n, 6)).astype(np.float32)
    ids = np.array([f"Fälle/{i}" for i in range(n)])
    return References(embeddings, np.arange(n) % len(SITES), ids, np.array(["Ω", ""] * (n // 2)))


def write(out, **changes):
    arguments = {
        "networks": NETWORKS,
        "contract": CONTRACT,
        "references": references(),
        "spec": SPEC,
        "n_neighbors": 4,
        "recipe": {"name": "compact", "learning rate": 0.001},
        "training": {
            "data": "Sixteen rendered heads.",
            "attribution": ["From A.", "From B."],
            "slices": 1200,
        },
    } | changes
    return write_bundle(out, **arguments)


def flat_picture(gray):
    """A uniform picture with an outline along its first row."""
    picture = np.full((SIZE_PX, SIZE_PX), gray, np.uint8)
    picture[0] = OUTLINE
    return picture


def some_pictures():
    """Of two of the references, the second a patient's."""
    return {
        "Fälle/3": ReferencePicture(encode_picture(flat_picture(50)), True),
        "Fälle/11": ReferencePicture(encode_picture(flat_picture(200)), False),
    }


def content(folder):
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_what_was_written_is_read(tmp_path):
    bundle = read_bundle(write(tmp_path / "new" / "mine", name="mine", version="2.1"))
    assert (bundle.name, bundle.version, bundle.n_neighbors) == ("mine", "2.1", 4)
    assert bundle.path == tmp_path / "new" / "mine"
    assert bundle.spec == SPEC
    assert bundle.embedding_width == 6
    expected = references()
    np.testing.assert_array_equal(bundle.references.embeddings, expected.embeddings.astype(np.float16))
    np.testing.assert_array_equal(bundle.references.sites, expected.sites)
    assert bundle.references.ids.tolist() == expected.ids.tolist()
    assert bundle.references.patients.tolist() == expected.patients.tolist()
    assert bundle.description["sites"] == list(SITE_KEYS)
    assert bundle.description["training"]["slices"] == 1200
    assert sorted(content(bundle.path)) == FILES


def test_files_are_listed_with_size_and_hash(tmp_path):
    folder = write(tmp_path / "mine")
    listed = json.loads((folder / "bundle.json").read_text())["files"]
    assert sorted(listed) == ["basenet.onnx", "references.npz", "relation.onnx"]
    for name, entry in listed.items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_same_content_gives_the_same_bytes(tmp_path):
    assert content(write(tmp_path / "a")) == content(write(tmp_path / "b"))


def test_a_bundle_gives_the_pictures_it_was_given(tmp_path):
    absent = {"no reference of this name": some_pictures()["Fälle/3"]}
    bundle = read_bundle(write(tmp_path / "mine", pictures=some_pictures() | absent))
    assert sorted(content(bundle.path)) == sorted([*FILES, "pictures.npz"])
    for name, gray in (("Fälle/3", 50), ("Fälle/11", 200)):
        picture = bundle.picture(name)
        np.testing.assert_array_equal(picture == OUTLINE, flat_picture(gray) == OUTLINE)
        np.testing.assert_allclose(picture[5:], gray, atol=2)
    assert bundle.picture("Fälle/4") is None
    assert bundle.pictures == some_pictures()
    data = (bundle.path / "pictures.npz").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert bundle.description["files"]["pictures.npz"] == entry
    assert bundle.description["pictures"] == {"rendered": 1, "patients": 1}
    again = read_bundle(write(bundle.path))  # and it is replaced by one without
    assert sorted(content(again.path)) == FILES and again.pictures == {}


def test_the_card_says_whose_pictures_there_are(tmp_path):
    both = some_pictures()
    said = {
        "None: this bundle holds no picture of any scan.": {},
        "1 of the 20 references, a slice each: all of rendered scans, which show no patient.": {
            "Fälle/3": both["Fälle/3"]
        },
        "1 of rendered scans, which show no patient, and 1 of patients' scans. **Whoever": both,
    }
    for text, pictures in said.items():
        folder = write(tmp_path / "mine", pictures=pictures)
        assert text in (folder / "README.md").read_text(encoding="utf-8")


def test_a_bundle_of_before_there_were_pictures_is_read(tmp_path):
    description = read_bundle(write(tmp_path / "mine")).description
    del description["pictures"]
    description["sha256"] = _digest(description)
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps(description))
    bundle = read_bundle(tmp_path / "mine")
    assert bundle.pictures == {} and bundle.picture("Fälle/3") is None
    assert "Pictures" not in model_card(bundle.description)


def test_pictures_are_read_when_asked_for_and_refused_if_damaged(tmp_path):
    file = write(tmp_path / "mine", pictures=some_pictures()) / "pictures.npz"
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
    file = write(tmp_path / "mine") / name
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
        ({"format": FORMAT + 1}, f"format {FORMAT + 1} is unknown"),
        ({"format": "1"}, "format '1' is unknown"),
        ({"n_neighbors": 5}, r"bundle\.json was changed"),
        ({"views": SPEC.to_dict() | {"local_mm": 90.0}}, r"bundle\.json was changed"),
        ({"training": {}}, r"bundle\.json was changed"),
        ({"files": {}}, r"bundle\.json was changed"),
        ({"sha256": None}, r"bundle\.json was changed"),
    ],
)
def test_changed_description_is_refused(tmp_path, changes, message):
    file = write(tmp_path / "mine") / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BundleError, match=message) as error:
        read_bundle(file.parent)
    assert "\n" not in str(error.value)


def test_a_bundle_for_other_sites_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("situs.bundle.SITE_KEYS", ("head", "foot"))
    folder = write(tmp_path / "mine")
    monkeypatch.undo()
    with pytest.raises(BundleError, match="for other sites"):
        read_bundle(folder)


def test_views_that_this_situs_cannot_make_are_refused(tmp_path, monkeypatch):
    views = SPEC.to_dict() | {"channels": ["brain", "bone"]}
    monkeypatch.setattr(ViewSpec, "to_dict", lambda _: views)
    folder = write(tmp_path / "mine")
    with pytest.raises(BundleError, match="cannot make the bundle's views"):
        read_bundle(folder)


def test_laid_out_anew_the_description_is_still_the_same(tmp_path):
    """A tool that formats JSON is no reason to refuse."""
    file = write(tmp_path / "mine") / "bundle.json"
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


def test_an_older_bundle_is_replaced(tmp_path):
    write(tmp_path / "mine", version="1")
    write(tmp_path / "mine", version="2")
    assert read_bundle(tmp_path / "mine").version == "2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_used(tmp_path):
    assert read_bundle(write(tmp_path)).path == tmp_path


def test_a_failed_check_leaves_the_older_bundle(tmp_path):
    before = content(write(tmp_path / "mine", version="1"))
    seen = []

    def check(bundle: Bundle) -> None:
        seen.append(bundle.version)
        raise BundleError("the networks differ")

    with pytest.raises(BundleError, match="the networks differ"):
        write(tmp_path / "mine", version="2", check=check)
    assert seen == ["2"]
    assert content(tmp_path / "mine") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_failed_rename_brings_the_older_bundle_back(tmp_path, monkeypatch):
    out = tmp_path / "mine"
    before = content(write(out, version="1"))
    rename = type(out).replace

    def fail_for_new(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(out), "replace", fail_for_new)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        write(out, version="2")
    assert content(out) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("names", [["thesis.txt"], ["thesis.txt", "bundle.json"], ["README.md"]])
def test_folders_of_other_things_are_not_overwritten(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(OutputError, match="not overwritten"):
        write(tmp_path)
    assert content(tmp_path) == before


def test_a_file_is_not_overwritten(tmp_path):
    file = tmp_path / "scan.nii"
    file.write_bytes(b"x")
    with pytest.raises(OutputError, match="not overwritten"):
        write(file)
    with pytest.raises(OutputError, match="cannot be written"):
        write(file / "bundle")
    assert file.read_bytes() == b"x"


def test_card_is_made_from_the_description(tmp_path):
    scores = {"precision": 0.125, "recall": 0.25, "f1": 0.5}
    table = {"title": "Four unseen heads", "sites": {"thalamus": scores}, "weighted": scores, "macro": scores}
    bundle = read_bundle(write(tmp_path / "mine", evaluation=[table]))
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert card == model_card(bundle.description)
    for text in (
        "## Intended use",
        "**Not a medical device.**",
        "Sixteen rendered heads.",
        "From A.\n\nFrom B.",
        "| recipe: learning rate | 0.001 |",
        "| slices | 1200 |",
        "| basenet.onnx | input | `view` | uint8 n x 2 | a \\| b |",
        "Four unseen heads",
        "| thalamus | 0.12 | 0.25 | 0.50 |",
        "| macro mean | 0.12 | 0.25 | 0.50 |",
        bundle.description["files"]["basenet.onnx"]["sha256"],
    ):
        assert text.lower() in card.lower()


def test_the_shipped_bundle_is_whole():
    try:
        bundle = read_bundle()
    except BundleError as error:
        assert "ships no bundle" in str(error)  # any other reason is a damaged bundle
        pytest.skip("no bundle is shipped yet")
    assert read_bundle("shipped").path == bundle.path
    assert (bundle.path / "README.md").read_text(encoding="utf-8") == model_card(bundle.description)
    assert sum(entry.stat().st_size for entry in bundle.path.iterdir()) <= 20_000_000
    assert set(bundle.references.sites.tolist()) == set(range(len(SITES)))
