"""A trained model as one folder: two networks, the references, and what is needed to use them.

======================  =============================================================================
``bundle.json``         the description: format, name, recipe, list of sites, views, inputs and outputs of
                        the networks, facts about the training, calibration, evaluation, SHA-256 of each file
``basenet.onnx``        views of a region on a slice → embedding and BaseNet's own answers
``relation.onnx``       embedding and reference embeddings → relation score of every site
``references.npz``      the labelled embeddings (no pickles)
                        Many references are in other files, see `situs.bundle.mapped`
``pictures.npz``        small pictures of references, if there are any (see `situs.bundle.pictures`)
``README.md``           the model card, made from ``bundle.json``
======================  =============================================================================

This module reads bundles; `situs.bundle.write` writes them, `situs.bundle.change` changes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, Site, SiteList
from situs.bundle.format import (
    BASENET_FILE,
    FORMAT,
    INDEX_FILE,
    JSON_FILE,
    PICTURES_FILE,
    REFERENCES_FILE,
    RELATION_FILE,
    REQUIRED_FILES,
    decode_references,
    description_digest,
    recipe_settings,
)
from situs.bundle.mapped import decode_index, map_references
from situs.bundle.pictures import ReferencePicture, decode_picture, unpack_pictures
from situs.bundle.schema import check_description
from situs.certainty import Calibration
from situs.errors import BundleError, InputError
from situs.files import digest, read_whole, sweep
from situs.neighbors import References
from situs.views import ViewSpec

__all__ = [
    "BASENET_FILE",
    "RELATION_FILE",
    "Bundle",
    "is_shipped",
    "read_bundle",
    "read_description",
]


_LARGEST_DESCRIPTION = 2**24  # bytes


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was read and is whole.

    Attributes:
        path: Its folder.
        name: What the bundle calls itself.
        version: Tells bundles of one name apart. A change of the references changes it.
        spec: How slices become the views that the networks were trained on.
        n_neighbors: References of each site that a lesion is compared with.
        references: The labelled embeddings.
        calibration: Decides which sites a lesion may be in; None if the bundle was not calibrated.
        description: The content of ``bundle.json``.
        sites: The sites that it names. Those after the first `n_trained_sites` were added as references
            alone.
    """

    path: Path
    name: str
    version: str
    spec: ViewSpec
    n_neighbors: int
    references: References
    calibration: Calibration | None
    description: dict[str, Any]
    sites: SiteList = SITES

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""
        return int(self.references.embeddings.shape[1])

    @property
    def n_trained_sites(self) -> int:
        """How many of the sites, the first ones, BaseNet was trained on.

        The relation network takes as many at a time. The first bundles know no others.
        """
        return int(self.description.get("n_trained_sites", len(self.sites)))

    @property
    def score_offsets(self) -> NDArray[np.float32]:
        """(sites,) what is added to the logits of the relation scores.

        It is 0 for the trained sites, see `situs.cohort.score_corrections`.
        """
        offsets = self.description.get("score_offsets", {})
        return np.array([offsets.get(key, 0) for key in self.sites.keys], dtype=np.float32)

    @property
    def score_weights(self) -> NDArray[np.float32]:
        """(sites, width) the products of these and an embedding are added too. 0 for the trained sites."""
        weights, none = self.description.get("score_weights", {}), np.zeros(self.embedding_width)
        return np.array([weights.get(key, none) for key in self.sites.keys], dtype=np.float32)

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings of the training by name, without those that `spec` and `n_neighbors` hold."""
        return recipe_settings(self.description["recipe"])

    @cached_property
    def pictures(self) -> dict[str, ReferencePicture]:
        """The stored pictures by the ids of their references; a reference may have none.

        They are read at the first access.

        Raises:
            BundleError: If ``pictures.npz`` is missing, was changed or cannot be used.
        """
        if PICTURES_FILE not in self.description["files"]:
            return {}
        data = _read_file(self.path, PICTURES_FILE, self.description)
        try:
            return unpack_pictures(data, self.references.ids)
        except Exception as error:  # as of the references
            raise BundleError(_unusable(self.path, PICTURES_FILE, error)) from error

    def picture(self, reference_id: str) -> NDArray[np.uint8] | None:
        """The picture (h, w) uint8 of a reference, or None if the bundle has none of it.

        0 to 254 is gray, 255 the outline of the region. Anterior is up, the patient's left is on the right.

        Raises:
            BundleError: If ``pictures.npz`` is missing, was changed or cannot be used.
        """
        stored = self.pictures.get(reference_id)
        try:
            return None if stored is None else decode_picture(stored.webp)
        except Exception as error:  # whatever damaged pixels set off inside the decoder
            raise BundleError(_unusable(self.path, PICTURES_FILE, error)) from error


def read_bundle(path: str | Path | None = None, indexed: bool = True) -> Bundle:
    """Read a bundle and check that nothing in it changed since it was written.

    Pictures are read and checked at the first access only. Many references are mapped, not read.

    Args:
        path: Its folder. None or ``"shipped"`` is the bundle inside the package.
        indexed: Whether the index of many references is read. Without it they are searched one by one.

    Raises:
        BundleError: If there is no bundle, its format is unknown, or a file is missing or was changed.
    """
    folder = _shipped() if path is None or str(path) == "shipped" else Path(path)
    description = read_description(folder)
    for name in (BASENET_FILE, RELATION_FILE):
        _read_file(folder, name, description)
    calibration = description.get("certainty")
    try:
        sites = _read_sites(description["sites"])
        if description.get("n_trained_sites", 1) > len(sites):
            raise ValueError(f"n_trained_sites: there are only {len(sites)} sites")
        spec = ViewSpec.from_dict(description["views"])
        certainty = None if calibration is None else Calibration.from_dict(calibration, sites)
    except (KeyError, ValueError) as error:
        raise BundleError(f"{folder}: {JSON_FILE} cannot be used ({error}); get the bundle again") from error
    references = _read_references(folder, description, len(sites), indexed)
    return Bundle(
        folder,
        description["name"],
        description["version"],
        spec,
        description["n_neighbors"],
        references,
        certainty,
        description,
        sites,
    )


def read_description(folder: Path) -> dict[str, Any]:
    """The content of ``bundle.json``, checked against its own SHA-256.

    Raises:
        BundleError: If the folder holds no bundle, or one of another format, or the file was changed.
    """
    try:
        try:
            text = read_whole(folder / JSON_FILE, _LARGEST_DESCRIPTION)
        except FileNotFoundError:
            sweep(folder.resolve().parent)  # a killed writer may have left it under another name
            text = read_whole(folder / JSON_FILE, _LARGEST_DESCRIPTION)
    except FileNotFoundError as error:
        what = f"not a bundle, it has no {JSON_FILE}" if folder.exists() else "no such bundle"
        raise BundleError(f"{folder}: {what}") from error
    except OSError as error:
        raise BundleError(f"{folder}: not a bundle, its {JSON_FILE}: {error.strerror}") from error
    try:
        description = json.loads(text)
        version = description["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"{folder}: not a bundle, its {JSON_FILE} names no format") from error
    if not isinstance(version, int) or version not in REQUIRED_FILES:
        raise BundleError(
            f"{folder}: bundle format {version!r} is unknown; this situs reads format "
            f"{' and '.join(map(str, REQUIRED_FILES))}"
        )
    if description.get("sha256") != description_digest(description):
        raise BundleError(f"{folder}: {JSON_FILE} was changed after its export; get the bundle again")
    try:
        check_description(description)
    except ValueError as error:
        raise BundleError(f"{folder}: {JSON_FILE} cannot be used ({error}); get the bundle again") from error
    if missing := [name for name in REQUIRED_FILES[version] if name not in description["files"]]:
        raise BundleError(f"{folder}: {JSON_FILE} does not name {missing[0]}; get the bundle again")
    return dict(description)


def is_shipped(folder: str | Path) -> bool:
    """Whether a folder is the bundle inside the package."""
    return Path(folder).resolve() == _shipped_folder().resolve()


def _read_references(folder: Path, description: dict[str, Any], n_sites: int, indexed: bool) -> References:
    """The references of a bundle, however they are stored."""
    name = REFERENCES_FILE
    try:
        if description["format"] == FORMAT:
            references = decode_references(_read_file(folder, name, description), n_sites)
            shape = description["n_references"], description["embedding_width"]
            if references.embeddings.shape != shape:
                raise ValueError(f"embeddings of shape {references.embeddings.shape}, expected {shape}")
            return references
        name = "references"
        references = map_references(folder, description, n_sites)
    except BundleError:
        raise
    except Exception as error:  # damaged arrays can set off anything inside numpy
        raise BundleError(_unusable(folder, name, error)) from error
    if not indexed:
        return references
    try:
        data = _read_file(folder, INDEX_FILE, description)
        return references.indexed(decode_index(folder, description, data))
    except Exception as error:
        raise BundleError(
            f"{folder}: the index of its references cannot be used; "
            f"make it again with 'situs references index {folder}'"
        ) from error


def _read_sites(sites: list[Any]) -> SiteList:
    """The list of sites in a description.

    The first bundles have the keys of the shipped list alone. Those after them have one word, ``group``, for
    each site. It is not read: their sites have no groups, unless they are the shipped ones.

    Raises:
        ValueError: If it is no valid list.
    """
    if sites == list(SITES.keys):
        return SITES
    if any(isinstance(site, str) for site in sites):
        raise InputError("sites: have keys and no names, and are not the shipped ones")
    own = SiteList(Site(**{name: site[name] for name in site if name != "group"}) for site in sites)
    shipped = tuple(replace(site, groups={}) for site in SITES)
    return SITES if own == shipped else own


def _shipped_folder() -> Path:
    return Path(str(resources.files("situs").joinpath("data/bundle")))


def _shipped() -> Path:
    folder = _shipped_folder()
    if not (folder / JSON_FILE).is_file():
        raise BundleError("this copy of situs ships no bundle: name one, or make one with 'situs train'")
    return folder


def _read_file(folder: Path, name: str, description: dict[str, Any]) -> bytes:
    """The content of a file of the bundle, as it was exported."""
    try:
        data = read_whole(folder / name, description["files"][name]["bytes"])
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: {name} is missing from the bundle; get the bundle again") from error
    except OSError as error:
        raise BundleError(
            f"{folder}: {name} cannot be read ({error.strerror}); get the bundle again"
        ) from error
    if digest(data) != description["files"][name]["sha256"]:
        raise BundleError(f"{folder}: {name} was changed after its export; get the bundle again")
    return data


def _unusable(folder: Path, name: str, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{folder}: {name} cannot be used ({reason}); get the bundle again"
