"""What the files of a bundle are called, and how they are encoded. `situs.bundle` says what is in them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from situs.files import digest
from situs.neighbors import References

__all__ = [
    "BASENET_FILE",
    "CARD_FILE",
    "FORMAT",
    "FORMAT_MAPPED",
    "INDEX_FILE",
    "JSON_FILE",
    "MAPPED_FILES",
    "PICTURES_FILE",
    "REFERENCES_FILE",
    "RELATION_FILE",
    "REQUIRED_FILES",
    "check_stored",
    "decode_references",
    "description_digest",
    "encode_references",
    "recipe_settings",
]

FORMAT = 1
FORMAT_MAPPED = 2  # of a bundle with many references, see `situs.bundle.mapped`
BASENET_FILE = "basenet.onnx"
RELATION_FILE = "relation.onnx"
REFERENCES_FILE = "references.npz"
PICTURES_FILE = "pictures.npz"
JSON_FILE = "bundle.json"
CARD_FILE = "README.md"
INDEX_FILE = "index.npz"
MAPPED_FILES = {  # by the arrays' names in `References` and `Cells`
    "embeddings": "references.embeddings.npy",
    "sites": "references.sites.npy",
    "ids": "references.ids.npy",
    "patients": "references.patients.npy",
    "coarse": "index.coarse.npy",
}
# Besides the description and the card, by the format.
REQUIRED_FILES = {
    FORMAT: (BASENET_FILE, RELATION_FILE, REFERENCES_FILE),
    FORMAT_MAPPED: (BASENET_FILE, RELATION_FILE, INDEX_FILE, *MAPPED_FILES.values()),
}

# These settings stand at the top of a description. The first bundles have them inside the recipe as well.
_STORED_ELSEWHERE = ("spec", "n_neighbors")
# Settings that recipes no longer have, with the value that training by the present recipes amounts to.
_FORMER_SETTINGS = {"averaged": 0.0, "balance": 1.0}


def recipe_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training as bundles store them now, so that those of an older bundle compare.

    The views and the number of neighbours are left out, because a description has them at its top. So is a
    former setting with the value that is now the only one.

    >>> recipe_settings({"name": "compact", "spec": {"size_px": 112}, "n_neighbors": 5, "balance": 1.0})
    {'name': 'compact'}
    """
    return {
        name: value
        for name, value in recipe.items()
        if name not in _STORED_ELSEWHERE
        and not (name in _FORMER_SETTINGS and value == _FORMER_SETTINGS[name])
    }


def description_digest(description: Mapping[str, Any]) -> str:
    """The SHA-256 of a description without its own entry ``sha256``; the layout of the JSON plays no part."""
    rest = {key: value for key, value in description.items() if key != "sha256"}
    return digest(json.dumps(rest, sort_keys=True).encode())


def check_stored(data: bytes) -> None:
    """Refuse an npz file whose parts unpack to more than the file holds: `numpy.savez` does not compress.

    Raises:
        ValueError: If they do.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise ValueError("its arrays are larger than the file")


def encode_references(references: References) -> bytes:
    """The content of ``references.npz``: embeddings as float16, no pickles."""
    stream = io.BytesIO()
    np.savez(
        stream,
        embeddings=references.embeddings.astype(np.float16),
        sites=references.sites.astype(np.uint8),
        ids=np.char.encode(references.ids.astype(np.str_), "utf-8"),
        patients=np.char.encode(references.patients.astype(np.str_), "utf-8"),
    )
    return stream.getvalue()


def decode_references(data: bytes, n_sites: int) -> References:
    """The references that `encode_references` wrote.

    Args:
        data: The content of the file.
        n_sites: How many sites the bundle has.

    Raises:
        ValueError: If the arrays do not belong together, or unpack to more than is there; `numpy.load` may
            raise other errors for damaged ones.
    """
    check_stored(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return References(
            arrays["embeddings"],
            arrays["sites"],
            np.char.decode(arrays["ids"], "utf-8"),
            np.char.decode(arrays["patients"], "utf-8"),
            n_sites,
        )
