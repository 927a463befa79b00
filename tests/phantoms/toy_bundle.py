"""A bundle whose networks are a few bytes of text and whose references are random: quick to make."""

from pathlib import Path

import numpy as np

from situs.anatomy import SITES
from situs.bundle import BASENET_FILE, RELATION_FILE
from situs.bundle.pictures import OUTLINE, SIZE_PX, ReferencePicture, encode_picture
from situs.bundle.write import ExportedNetworks, write_bundle
from situs.neighbors import References
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=48, global_mm=200, local_mm=80, channels=("brain", "roi"))
CONTRACT = {
    BASENET_FILE: {
        "inputs": {"view": {"type": "uint8", "shape": ["n", 2], "meaning": "a | b"}},
        "outputs": {},
    }
}
FILES = ["README.md", "basenet.onnx", "bundle.json", "references.npz", "relation.onnx"]


def toy_references(n: int = 20) -> References:
    """References whose names are not ASCII, every other one of no known patient."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(n, 6)).astype(np.float32)
    ids = np.array([f"Fälle/{i}" for i in range(n)])
    return References(embeddings, np.arange(n) % len(SITES), ids, np.array(["Ω", ""] * (n // 2)))


def write_toy(out: Path, **changes) -> Path:
    """Write the bundle; `changes` are other arguments of `write_bundle`."""
    networks = {BASENET_FILE: b"views to embedding", RELATION_FILE: b"embeddings to scores"}
    arguments = {
        "networks": ExportedNetworks(networks, CONTRACT, SPEC, n_neighbors=4),
        "references": toy_references(),
        "recipe": {"name": "compact", "spec": SPEC.to_dict(), "n_neighbors": 4, "learning rate": 0.001},
        "training": {
            "data": "Sixteen rendered heads.",
            "attribution": ["From A.", "From B."],
            "slices": 1200,
        },
    } | changes
    return write_bundle(out, **arguments)


def flat_picture(gray: int) -> np.ndarray:
    """A uniform picture with an outline along its first row."""
    picture = np.full((SIZE_PX, SIZE_PX), gray, np.uint8)
    picture[0] = OUTLINE
    return picture


def toy_pictures() -> dict[str, ReferencePicture]:
    """Pictures of two of the references, the second a patient's."""
    return {
        "Fälle/3": ReferencePicture(encode_picture(flat_picture(50)), True),
        "Fälle/11": ReferencePicture(encode_picture(flat_picture(200)), False),
    }


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}
