"""The references of a bundle that has many: arrays in files that are mapped into memory, and their index.

Opening such a bundle reads the index alone. Of the mapped files it checks type, shape and size; their hashes
are checked by `check_mapped`.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.bundle.format import (
    FORMAT,
    FORMAT_MAPPED,
    INDEX_FILE,
    MAPPED_FILES,
    REFERENCES_FILE,
    check_stored,
    encode_references,
)
from situs.cells import Cells, divide
from situs.errors import BundleError
from situs.files import digest
from situs.neighbors import References
from situs.progress import Progress, silent
from situs.records import take_rows

__all__ = [
    "INDEXED_FROM",
    "Content",
    "check_references",
    "decode_index",
    "encode",
    "encode_indexed",
    "file_entry",
    "hash_of",
    "index_references",
    "map_references",
    "store",
]

# References: between where the index is faster for one slice and for 30 at a time, see docs/results.md.
INDEXED_FROM = 50_000
_TYPES: dict[str, type[np.generic]] = {
    "embeddings": np.float16,
    "sites": np.uint8,
    "ids": np.str_,
    "patients": np.str_,
}
_IN_INDEX = ("means", "axes", "centroids", "starts", "site_cells", "by_patient")  # of `Cells`

# What a file of a bundle is written from: its bytes, an array for a .npy file, or a file to copy.
Content = bytes | NDArray[Any] | Path


def index_references(references: References, progress: Progress = silent) -> References:
    """References with a new index, in its order, and as they are stored: as float16.

    Args:
        references: Any order; they may have an index already.
        progress: Called with the stage ``index``.
    """
    order, cells = divide(
        references.embeddings, references.sites, references.patients, references.n_sites, progress
    )
    return take_rows(references, order).indexed(cells)


def encode(references: References, progress: Progress) -> tuple[References, int, dict[str, Content]]:
    """References as they are stored, the format that they make a bundle, and their files."""
    if len(references) < INDEXED_FROM:
        return references, FORMAT, {REFERENCES_FILE: encode_references(references)}
    references = index_references(references, progress)
    return references, FORMAT_MAPPED, encode_indexed(references)


def hash_of(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """What tells references apart: the beginning of their file's SHA-256, or of that of their hashes."""
    hashes = [entry["sha256"] for entry in entries.values()]
    return (hashes[0] if len(hashes) == 1 else digest("".join(hashes).encode()))[:8]


def encode_indexed(references: References) -> dict[str, Content]:
    """The files of references that have an index."""
    cells = references.cells
    assert cells is not None
    files: dict[str, Content] = {
        MAPPED_FILES[name]: getattr(references, name).astype(dtype, copy=False)
        for name, dtype in _TYPES.items()
    }
    stream = io.BytesIO()
    np.savez(stream, **{name: getattr(cells, name) for name in _IN_INDEX})
    return {**files, MAPPED_FILES["coarse"]: cells.coarse, INDEX_FILE: stream.getvalue()}


def map_references(folder: Path, description: Mapping[str, Any], n_sites: int) -> References:
    """The references that `encode_indexed` wrote, without their index.

    Args:
        folder: The bundle's folder.
        description: The content of its ``bundle.json``.
        n_sites: How many sites the bundle has.

    Raises:
        BundleError: If a file is missing or of another size than the description says.
        ValueError: If an array is of another type or shape; numpy may raise other errors for damaged ones.
    """
    n = description["n_references"]
    shapes = {"embeddings": (n, description["embedding_width"])}
    arrays = {
        name: _map(folder, name, description, dtype, shapes.get(name, (n,))) for name, dtype in _TYPES.items()
    }
    return References(**arrays, n_sites=n_sites)


def decode_index(folder: Path, description: Mapping[str, Any], data: bytes) -> Cells:
    """The index that `encode_indexed` wrote.

    Args:
        folder: The bundle's folder.
        description: The content of its ``bundle.json``.
        data: The content of ``index.npz``.

    Raises:
        BundleError, ValueError: As `map_references`.
    """
    check_stored(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in _IN_INDEX}
    shape = description["n_references"], stored["axes"].shape[-1] + 1
    return Cells(**stored, coarse=np.asarray(_map(folder, "coarse", description, np.float32, shape)))


def check_references(folder: Path, description: Mapping[str, Any]) -> None:
    """Read the mapped files of references and compare their hashes with the description's.

    Raises:
        BundleError: If one was changed.
    """
    for name in _TYPES:
        file = MAPPED_FILES[name]
        if digest(folder / file) != description["files"][file]["sha256"]:
            raise BundleError(_changed(folder, file))


def file_entry(content: Content) -> dict[str, Any]:
    """The entry of a file in the description: its SHA-256 and its size."""
    sha256, size = hashlib.sha256(), 0
    for chunk in _chunks(content):
        sha256.update(chunk)
        size += memoryview(chunk).nbytes
    return {"sha256": sha256.hexdigest(), "bytes": size}


def store(content: Content, path: Path) -> None:
    """Write a file of a bundle."""
    if isinstance(content, Path):
        shutil.copyfile(content, path)
        return
    with path.open("wb") as stream:
        for chunk in _chunks(content):
            stream.write(chunk)


def _chunks(content: Content) -> Iterator[Any]:
    if isinstance(content, Path):
        raise TypeError("a file that is copied has its entry already")
    if isinstance(content, bytes):
        yield content
        return
    header = io.BytesIO()
    array = np.ascontiguousarray(content)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    yield header.getvalue()
    yield array.reshape(-1).view(np.uint8).data


def _map(
    folder: Path, name: str, description: Mapping[str, Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> NDArray[Any]:
    """An array of a ``.npy`` file, mapped for reading; of text, any length will do."""
    file = MAPPED_FILES[name]
    try:
        status = (folder / file).stat()
    except OSError as error:
        raise BundleError(f"{folder}: {file} is missing from the bundle; get the bundle again") from error
    if not stat.S_ISREG(status.st_mode) or status.st_size != description["files"][file]["bytes"]:
        raise BundleError(_changed(folder, file))
    array = np.lib.format.open_memmap(folder / file, mode="r")
    if array.shape != shape or not np.issubdtype(array.dtype, dtype) or not array.dtype.isnative:
        raise ValueError(f"{file}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
    return array


def _changed(folder: Path, file: str) -> str:
    return f"{folder}: {file} was changed after its export; get the bundle again"
