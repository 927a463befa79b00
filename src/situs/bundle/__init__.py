"""A trained model as one folder: two networks, the references, and what is needed to use them rightly.

======================  =============================================================================
``bundle.json``         format, name, recipe, sites, views, I/O contract, training facts, hashes
``basenet.onnx``        views of a region on a slice → embedding and BaseNet's own answers
``relation.onnx``       embedding and reference embeddings → relation score of every site
``references.npz``      the labelled embeddings (no pickles)
``pictures.npz``        small pictures of references, where there are any (see `situs.bundle.pictures`)
``README.md``           the model card, made from ``bundle.json``
======================  =============================================================================

A folder is written beside its place and renamed, so a bundle is whole or not there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs import __version__
from situs.anatomy import SITE_KEYS
from situs.bundle.card import model_card
from situs.bundle.pictures import ReferencePicture, decode_picture, pack_pictures, unpack_pictures
from situs.certainty import Certainty
from situs.errors import BundleError, OutputError
from situs.neighbors import References
from situs.views import ViewSpec

__all__ = [
    "BASENET_FILE",
    "FORMAT",
    "RELATION_FILE",
    "Bundle",
    "check_replaceable",
    "is_shipped",
    "read_bundle",
    "replace_certainty",
    "replace_references",
    "write_bundle",
]

FORMAT = 1
BASENET_FILE = "basenet.onnx"
RELATION_FILE = "relation.onnx"
_REFERENCES_FILE = "references.npz"
_PICTURES_FILE = "pictures.npz"
_JSON_FILE = "bundle.json"
_CARD_FILE = "README.md"
_HASHED_FILES = (BASENET_FILE, RELATION_FILE, _REFERENCES_FILE)
# Between the version of the training and what tells its changed references apart.
_CHANGED = "+references."


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was found whole.

    Attributes:
        path: its folder
        name: what the bundle calls itself
        version: See `name`.
        spec: how slices become the views its networks were trained on
        n_neighbors: references that each class offers to a target
        references: the labelled embeddings
        certainty: what its calibration found; None if it was not calibrated
        description: all of ``bundle.json``
    """

    path: Path
    name: str
    version: str
    spec: ViewSpec
    n_neighbors: int
    references: References
    certainty: Certainty | None
    description: dict[str, Any]

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return int(self.references.embeddings.shape[1])

    @cached_property
    def pictures(self) -> dict[str, ReferencePicture]:
        """The stored pictures by the ids of their references, of which some or all may have none.

        Read when first asked for; BundleError if the file is missing or changed.
        """
        if _PICTURES_FILE not in self.description.get("files", {}):
            return {}
        return unpack_pictures(_read_file(self.path, _PICTURES_FILE, self.description), self.references.ids)

    def picture(self, reference_id: str) -> NDArray[np.uint8] | None:
        """A reference as a picture (h, w) uint8, or None if the bundle has none of it.

        0 to 254 is gray, 255 the outline of the region; anterior is up, the patient's left on the right.

        Raises:
            BundleError: if the bundle's file of pictures is missing or changed
        """
        found = self.pictures.get(reference_id)
        return None if found is None else decode_picture(found.webp)


def read_bundle(path: str | Path | None = None) -> Bundle:
    """Read a bundle and check that nothing in it changed since its export; its pictures only when asked for.

    Args:
        path: its folder; None or ``"shipped"`` for the one inside the package

    Raises:
        BundleError: if there is none, its format is unknown, or a file is missing or changed
    """
    folder = _shipped() if path is None or str(path) == "shipped" else Path(path)
    description = _read_description(folder)
    content = {name: _read_file(folder, name, description) for name in _HASHED_FILES}
    try:
        spec = ViewSpec.from_dict(description["views"])
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}: this situs cannot make the bundle's views ({error})") from error
    certainty = description.get("certainty")
    return Bundle(
        folder,
        str(description["name"]),
        str(description["version"]),
        spec,
        int(description["n_neighbors"]),
        _references_from_bytes(content[_REFERENCES_FILE]),
        None if certainty is None else Certainty.from_dict(certainty),
        description,
    )


def write_bundle(
    out: str | Path,
    *,
    networks: dict[str, bytes],
    contract: dict[str, Any],
    references: References,
    spec: ViewSpec,
    n_neighbors: int,
    recipe: dict[str, Any],
    training: dict[str, Any],
    pictures: Mapping[str, ReferencePicture] | None = None,
    evaluation: list[dict[str, Any]] | None = None,
    name: str = "situs",
    version: str = "1",
    check: Callable[[Bundle], None] | None = None,
) -> Path:
    """Write a bundle, or replace an older one, only when the new one is whole.

    Args:
        out: the folder; new, empty, or a bundle
        networks: ONNX files, ``{BASENET_FILE: ..., RELATION_FILE: ...}``
        contract: ``{network: {"inputs" | "outputs": {tensor: {"type", "shape", "meaning"}}}}``
        references: the labelled embeddings; stored as float16
        spec: as the networks were trained
        n_neighbors: See `spec`.
        recipe: JSON-able facts for the card, see `situs.bundle.card.model_card`
        training: See `recipe`.
        pictures: of references, by id; those of no reference are left out
        evaluation: tables for the card, see there
        check: is given the written bundle before it takes its place, and raises to stop that

    Returns:
        `out`

    Raises:
        OutputError: if `out` holds something that is not a bundle, or cannot be written
    """
    out = Path(out)
    check_replaceable(out)
    content = {n: networks[n] for n in (BASENET_FILE, RELATION_FILE)}
    content[_REFERENCES_FILE] = _references_to_bytes(references)
    counts = _add_pictures(content, pictures or {}, references)
    description: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "created_by": f"situs {__version__}",
        "recipe": recipe,
        "sites": list(SITE_KEYS),
        "views": spec.to_dict(),
        "n_neighbors": n_neighbors,
        "embedding_width": references.embeddings.shape[1],
        "n_references": len(references),
        "pictures": counts,
        "networks": contract,
        "training": training,
        "evaluation": evaluation or [],
        "files": {n: _entry(data) for n, data in content.items()},
    }
    _write_whole(out, description, content, check)
    return out


def replace_references(
    bundle: Bundle,
    references: References,
    *,
    added: int,
    removed: int,
    pictures: Mapping[str, ReferencePicture] | None = None,
    out: str | Path | None = None,
) -> Path:
    """Write a bundle again with other references; its networks and all it says about its training stay.

    The description and the card count what was added and removed since the training, in all such changes.
    The version becomes ``<version>+references.<hash>``, so that an answer tells which references it rests on.

    Args:
        bundle: the one to change
        references: all that the new one has, embeddings (r, bundle.embedding_width), r at least 1; stored as
            float16
        added: how many of them are new, and how many of the bundle's are gone
        removed: See `added`.
        pictures: of new ones, by id; the bundle's own stay with the references that stay
        out: the folder; new, empty, or a bundle. None for the bundle's own

    Returns:
        the folder

    Raises:
        ValueError: if there are no references, or their embeddings have another width
        BundleError: if the bundle was changed by somebody else since it was read; nothing is written
        OutputError: if the folder holds something that is not a bundle, or cannot be written
    """
    shape = references.embeddings.shape
    if not len(references) or shape[1] != bundle.embedding_width:
        raise ValueError(f"references: expected embeddings (r, {bundle.embedding_width}), got {shape}")
    place = bundle.path if out is None else Path(out)
    check_replaceable(place)
    content = {_REFERENCES_FILE: _references_to_bytes(references)}
    counts = _add_pictures(content, {**bundle.pictures, **(pictures or {})}, references)
    entry = _entry(content[_REFERENCES_FILE])
    old = bundle.description
    before = old.get("references", {"added": 0, "removed": 0})
    description = {
        **old,
        "version": f"{bundle.version.partition(_CHANGED)[0]}{_CHANGED}{entry['sha256'][:8]}",
        "n_references": len(references),
        "references": {"added": before["added"] + added, "removed": before["removed"] + removed},
        "pictures": counts,
        "files": {
            **{n: old["files"][n] for n in (BASENET_FILE, RELATION_FILE)},
            **{n: _entry(data) for n, data in content.items()},
        },
    }
    return _write_changed(bundle, description, content, place)


def replace_certainty(bundle: Bundle, certainty: Certainty, out: str | Path | None = None) -> Path:
    """Write a bundle again with what a calibration found; all else stays.

    Args:
        out: the folder; new, empty, or a bundle. None for the bundle's own

    Returns:
        the folder

    Raises:
        BundleError: if the bundle was changed by somebody else since it was read; nothing is written
        OutputError: if the folder holds something that is not a bundle, or cannot be written
    """
    place = bundle.path if out is None else Path(out)
    check_replaceable(place)
    return _write_changed(bundle, {**bundle.description, "certainty": certainty.to_dict()}, {}, place)


def _write_changed(
    bundle: Bundle, description: dict[str, Any], content: dict[str, bytes], place: Path
) -> Path:
    """Write a bundle with another description and some other files; the rest is the old one's."""
    try:
        rest = {n: (bundle.path / n).read_bytes() for n in description["files"] if n not in content}
    except OSError as error:
        raise BundleError(f"{bundle.path}: cannot be read any more ({error.strerror})") from error

    def check(_: Bundle) -> None:
        # Two changes at a time: the second would silently undo the first.
        if _read_description(bundle.path)["sha256"] != bundle.description["sha256"]:
            raise BundleError(f"{bundle.path}: was changed meanwhile; nothing was written, run it again")

    _write_whole(place, description, {**rest, **content}, check)
    return place


def check_replaceable(out: Path) -> None:
    """Refuse a place that holds anything but an older bundle: replacing it would delete that.

    Raises:
        OutputError: if `out` is a file, or a folder that is neither empty nor a bundle
    """
    if out.is_dir():
        present = {entry.name for entry in out.iterdir()}
        foreign = sorted(present - {*_HASHED_FILES, _PICTURES_FILE, _JSON_FILE, _CARD_FILE})
        if present and (foreign or _JSON_FILE not in present):
            what = f"it holds {foreign[0]}" if foreign else f"it has no {_JSON_FILE}"
            raise OutputError(
                f"{out}: not overwritten, since it is not a bundle ({what}); choose another folder"
            )
    elif out.exists() or out.is_symlink():
        raise OutputError(
            f"{out}: not overwritten, since it is a file and not a bundle; choose another place"
        )


def is_shipped(folder: str | Path) -> bool:
    """Whether that folder is the bundle inside the package."""
    return Path(folder).resolve() == _shipped_folder().resolve()


def _shipped_folder() -> Path:
    return Path(str(resources.files("situs").joinpath("data/bundle")))


def _shipped() -> Path:
    folder = _shipped_folder()
    if not (folder / _JSON_FILE).is_file():
        raise BundleError("this copy of situs ships no bundle: name one, or make one with 'situs train'")
    return folder


def _read_description(folder: Path) -> dict[str, Any]:
    """The checked content of ``bundle.json``."""
    if not folder.exists():
        raise BundleError(f"{folder}: no such bundle")
    try:
        text = (folder / _JSON_FILE).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder}: not a bundle, it has no {_JSON_FILE}") from error
    try:
        description = json.loads(text)
        version = description["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{folder}: not a bundle, its {_JSON_FILE} says no format") from error
    if version != FORMAT:
        raise BundleError(f"{folder}: bundle format {version!r} is unknown; this situs reads format {FORMAT}")
    if description.get("sha256") != _digest(description):
        raise BundleError(f"{folder}: {_JSON_FILE} was changed after its export; get the bundle again")
    if description["sites"] != list(SITE_KEYS):
        raise BundleError(f"{folder}: the bundle is for other sites than those of this situs")
    return dict(description)


def _read_file(folder: Path, name: str, description: dict[str, Any]) -> bytes:
    """The content of a file of the bundle, as it was exported."""
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder}: {name} is missing from the bundle; get the bundle again") from error
    if hashlib.sha256(data).hexdigest() != description["files"][name]["sha256"]:
        raise BundleError(f"{folder}: {name} was changed after its export; get the bundle again")
    return data


def _entry(data: bytes) -> dict[str, Any]:
    """What ``bundle.json`` says about a file."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _digest(description: dict[str, Any]) -> str:
    """SHA-256 of everything in ``bundle.json`` but itself."""
    rest = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _references_to_bytes(references: References) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        embeddings=references.embeddings.astype(np.float16),
        sites=references.sites.astype(np.uint8),
        ids=np.char.encode(references.ids.astype(np.str_), "utf-8"),
        patients=np.char.encode(references.patients.astype(np.str_), "utf-8"),
    )
    return stream.getvalue()


def _add_pictures(
    content: dict[str, bytes], pictures: Mapping[str, ReferencePicture], references: References
) -> dict[str, int]:
    """Add the references' pictures to the files `content`, if they have any; how many are whose."""
    there = {str(name): pictures[str(name)] for name in references.ids if str(name) in pictures}
    if there:
        content[_PICTURES_FILE] = pack_pictures(there, references.ids)
    rendered = sum(picture.rendered for picture in there.values())
    return {"rendered": rendered, "patients": len(there) - rendered}


def _references_from_bytes(data: bytes) -> References:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return References(
            arrays["embeddings"],
            arrays["sites"],
            np.char.decode(arrays["ids"], "utf-8"),
            np.char.decode(arrays["patients"], "utf-8"),
        )


def _write_whole(
    out: Path,
    description: dict[str, Any],
    content: dict[str, bytes],
    check: Callable[[Bundle], None] | None,
) -> None:
    """Write the files `content`, the description and the card; see `write_bundle` for `check`."""
    description = {**description, "sha256": _digest(description)}
    content = {
        **content,
        _JSON_FILE: (json.dumps(description, indent=1, allow_nan=False) + "\n").encode(),
        _CARD_FILE: model_card(description).encode(),
    }
    target = out.resolve()  # a link keeps pointing where it did
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            for file, data in content.items():
                (new / file).write_bytes(data)
            if check is not None:
                check(read_bundle(new))
            _put(new, target, Path(scratch) / "old")
    except OSError as error:
        raise OutputError(f"{out}: the bundle cannot be written ({error.strerror or error})") from error


def _put(new: Path, out: Path, old: Path) -> None:
    """Rename `new` to `out`; what was there goes to `old`, and comes back if that fails."""
    replaced = out.is_dir()
    if replaced:
        out.replace(old)
    try:
        new.replace(out)
    except BaseException:
        if replaced:
            old.replace(out)
        raise
    if replaced:
        shutil.rmtree(old)
