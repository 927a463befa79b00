"""Write a bundle whole: its networks, references and pictures, its description and its card.

A folder is written beside its final place and then renamed, so a bundle is whole or not there. Where the
writer was killed between two names, the next one who opens the bundle brings it back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from situs import __version__
from situs.anatomy import SITES, SiteList
from situs.bundle import Bundle, read_bundle
from situs.bundle.card import model_card
from situs.bundle.folder import check_replaceable
from situs.bundle.format import (
    BASENET_FILE,
    CARD_FILE,
    JSON_FILE,
    PICTURES_FILE,
    RELATION_FILE,
    description_digest,
    recipe_settings,
)
from situs.bundle.mapped import (
    Content,
    encode,
    file_entry,
    store,
)
from situs.bundle.pictures import ReferencePicture, pack_pictures
from situs.files import replacing_folder
from situs.neighbors import References
from situs.progress import Progress, silent
from situs.views import ViewSpec

__all__ = ["ExportedNetworks", "add_pictures", "write_bundle", "write_whole"]


@dataclass(frozen=True)
class ExportedNetworks:
    """Two trained networks and what they take.

    Attributes:
        files: ONNX files, ``{BASENET_FILE: ..., RELATION_FILE: ...}``.
        contract: ``{file: {"inputs" | "outputs": {tensor: {"type", "shape", "meaning"}}}}``.
        spec: How slices become the views that they were trained on.
        n_neighbors: References of each site that the relation network takes.
    """

    files: Mapping[str, bytes]
    contract: dict[str, Any]
    spec: ViewSpec
    n_neighbors: int


def write_bundle(
    out: str | Path,
    networks: ExportedNetworks,
    references: References,
    *,
    sites: SiteList = SITES,
    recipe: Mapping[str, Any],
    training: dict[str, Any],
    pictures: Mapping[str, ReferencePicture] | None = None,
    name: str = "situs",
    version: str = "1",
    check: Callable[[Bundle], None] | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a bundle, or replace an older one when the new one is whole.

    Args:
        out: The folder: new, empty, or a bundle.
        networks: The networks, their views and their number of neighbours.
        references: The labelled embeddings; stored as float16.
        sites: The sites, in the order of the networks' axes.
        recipe: Settings of the training by name, JSON-able. Its ``spec`` and ``n_neighbors`` are not
            stored, because those of `networks` are.
        training: Facts about the training, JSON-able, see `situs.bundle.card.model_card`.
        pictures: Pictures by the ids of their references. Those of no reference are left out.
        name: What the bundle calls itself.
        version: Tells bundles of one name apart.
        check: Is given the written bundle before it takes its place. It raises an error to stop that.
        progress: Called with the stage ``index`` if there are many references.

    Returns:
        `out`

    Raises:
        OutputError: If `out` holds something that is not a bundle, or cannot be written.
    """
    out = Path(out)
    check_replaceable(out)
    references, form, files = encode(references, progress)
    content: dict[str, Content] = {n: networks.files[n] for n in (BASENET_FILE, RELATION_FILE)} | files
    counts = add_pictures(content, pictures or {}, references)
    description: dict[str, Any] = {
        "format": form,
        "name": name,
        "version": version,
        "created_by": f"situs {__version__}",
        "recipe": recipe_settings(recipe),
        "sites": [asdict(site) for site in sites],
        "n_trained_sites": len(sites),
        "views": networks.spec.to_dict(),
        "n_neighbors": networks.n_neighbors,
        "embedding_width": references.embeddings.shape[1],
        "n_references": len(references),
        "pictures": counts,
        "networks": networks.contract,
        "training": training,
        "evaluation": [],
        "files": {n: file_entry(data) for n, data in content.items()},
    }
    write_whole(out, description, content, check)
    return out


def write_whole(
    out: Path,
    description: dict[str, Any],
    content: dict[str, Content],
    check: Callable[[Bundle], None] | None,
    check_old: Callable[[Path], None] | None = None,
) -> None:
    """Write the files `content`, the description and the card.

    Args:
        out: See `write_bundle`.
        description: All but its hash.
        content: The other files.
        check: See `write_bundle`.
        check_old: See `situs.files.replacing_folder`.
    """
    description = {**description, "sha256": description_digest(description)}
    content = {
        **content,
        JSON_FILE: (json.dumps(description, indent=1, allow_nan=False) + "\n").encode(),
        CARD_FILE: model_card(description).encode(),
    }
    with replacing_folder(out, check_old) as new:
        for file, data in content.items():
            store(data, new / file)
        if check is not None:
            check(read_bundle(new))


def add_pictures(
    content: dict[str, Content], pictures: Mapping[str, ReferencePicture], references: References
) -> dict[str, int]:
    """Add the references' pictures, if they have any, to the files `content`; count them by their origin."""
    own = {str(name): pictures[str(name)] for name in references.ids if str(name) in pictures}
    if own:
        content[PICTURES_FILE] = pack_pictures(own, references.ids)
    rendered = sum(picture.rendered for picture in own.values())
    return {"rendered": rendered, "patients": len(own) - rendered}
