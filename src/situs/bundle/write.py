"""Write a bundle, or change one: its references, its calibration, the evaluation in its card.

A folder is written beside its final place and then renamed, so a bundle is whole or not there. Where the
writer was killed between two names, the next one who opens the bundle brings it back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from situs import __version__
from situs.anatomy import SITES, SiteList
from situs.bundle import Bundle, read_bundle, read_description
from situs.bundle.card import model_card
from situs.bundle.folder import check_replaceable, output_folder
from situs.bundle.format import (
    BASENET_FILE,
    CARD_FILE,
    FORMAT_MAPPED,
    JSON_FILE,
    MAPPED_FILES,
    PICTURES_FILE,
    RELATION_FILE,
    description_digest,
    recipe_settings,
)
from situs.bundle.mapped import (
    INDEXED_FROM,
    Content,
    check_references,
    encode,
    encode_indexed,
    file_entry,
    hash_of,
    index_references,
    store,
)
from situs.bundle.pictures import ReferencePicture, pack_pictures
from situs.certainty import Calibration
from situs.errors import BundleError
from situs.files import replacing_folder
from situs.neighbors import References
from situs.progress import Progress, silent
from situs.views import ViewSpec

__all__ = [
    "ExportedNetworks",
    "ScoreCorrection",
    "replace_calibration",
    "replace_evaluation",
    "replace_index",
    "replace_references",
    "write_bundle",
]

# Between the version of the training and what tells its changed references apart.
_CHANGED = "+references."


class ScoreCorrection(NamedTuple):
    """What is added to the logits of a site's relation scores: ``offset + weights @ embedding``.

    Attributes:
        offset: A number.
        weights: (width,).
    """

    offset: float
    weights: NDArray[np.floating]


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
    counts = _add_pictures(content, pictures or {}, references)
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
    _write_whole(out, description, content, check)
    return out


def replace_references(
    bundle: Bundle,
    references: References,
    *,
    added: int,
    removed: int,
    sites: SiteList | None = None,
    score_corrections: Mapping[str, ScoreCorrection] | None = None,
    pictures: Mapping[str, ReferencePicture] | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a bundle again with other references. Its networks and the facts about its training stay.

    The description and the card count all references that were added and removed since the training. The
    version becomes ``<version>+references.<hash>``, so that an answer tells which references it rests on.

    Args:
        bundle: The bundle to change.
        references: All references of the new one, embeddings (r, bundle.embedding_width), r at least 1;
            stored as float16.
        added: How many of them are new.
        removed: How many of the bundle's are gone.
        sites: The sites of the references; None for the bundle's.
        score_corrections: Of sites that the bundle was not trained on, by key, see
            `situs.cohort.score_corrections`.
        pictures: Pictures of new references, by id. The bundle's own stay with the references that stay.
        out: See `output_folder`.
        progress: Called with the stage ``index`` if there are many references.

    Returns:
        The folder.

    Raises:
        ValueError: If there are no references, or their embeddings have another width.
        BundleError: If the bundle may not be changed, or was changed by another process since it was read;
            nothing is written.
        OutputError: If the folder holds something that is not a bundle, or cannot be written.
    """
    shape = references.embeddings.shape
    if not len(references) or shape[1] != bundle.embedding_width:
        raise ValueError(f"references: expected embeddings (r, {bundle.embedding_width}), got {shape}")
    references, form, content = encode(references, progress)
    entries = {n: file_entry(data) for n, data in content.items()}
    counts = _add_pictures(content, {**bundle.pictures, **(pictures or {})}, references)
    old = bundle.description
    before = old.get("references", {"added": 0, "removed": 0})
    changes = {
        "format": form,
        "version": f"{bundle.version.partition(_CHANGED)[0]}{_CHANGED}{hash_of(entries)}",
        "n_references": len(references),
        "references": {"added": before["added"] + added, "removed": before["removed"] + removed},
        "pictures": counts,
        "sites": [asdict(site) for site in (sites or bundle.sites)],
        "n_trained_sites": bundle.n_trained_sites,
        "score_offsets": {key: of.offset for key, of in (score_corrections or {}).items()},
        "score_weights": {
            key: [float(f"{weight:.6g}") for weight in of.weights]
            for key, of in (score_corrections or {}).items()
        },
        "files": {
            **{n: old["files"][n] for n in (BASENET_FILE, RELATION_FILE)},
            **entries,
            **{n: file_entry(data) for n, data in content.items() if n not in entries},
        },
    }
    return _write_changed(bundle, changes, content, out)


def replace_index(bundle: Bundle, out: str | Path | None = None, progress: Progress = silent) -> Path:
    """Write a bundle with many references again with a new index. All else stays, but the references' order.

    Args:
        bundle: The bundle to change; it may have been read without its index.
        out: See `output_folder`.
        progress: Called with the stage ``index``.

    Returns:
        The folder.

    Raises:
        BundleError: If the bundle has no index or may not be changed, if its references were changed after
            its export, or the bundle by another process since it was read; nothing is written.
        OutputError: If the folder holds something that is not a bundle, or cannot be written.
    """
    n = len(bundle.references)
    if bundle.description["format"] != FORMAT_MAPPED:
        raise BundleError(
            f"{bundle.path}: has no index, since its {n:,} references are few: an index is made from "
            f"{INDEXED_FROM:,} references on"
        )
    output_folder(bundle, out)
    check_references(bundle.path, bundle.description)
    references = index_references(bundle.references, progress)
    content = encode_indexed(references)
    _add_pictures(content, bundle.pictures, references)
    entries = {n: file_entry(data) for n, data in content.items()}
    return _write_changed(bundle, {"files": {**bundle.description["files"], **entries}}, content, out)


def replace_calibration(bundle: Bundle, calibration: Calibration, out: str | Path | None = None) -> Path:
    """Write a bundle again with another calibration. All else stays.

    Args:
        bundle: The bundle to change.
        calibration: Its new calibration.
        out: See `output_folder`.

    Returns:
        The folder.

    Raises:
        BundleError: If the bundle may not be changed, or was changed by another process since it was read;
            nothing is written.
        OutputError: If the folder holds something that is not a bundle, or cannot be written.
    """
    return _write_changed(bundle, {"certainty": calibration.to_dict()}, {}, out)


def replace_evaluation(bundle: Bundle, entry: Mapping[str, Any], out: str | Path | None = None) -> Path:
    """Write a bundle again with another evaluation in its description and its card. All else stays.

    Args:
        bundle: The bundle to change.
        entry: The evaluation, JSON-able, see `situs.bundle.card.model_card`. An earlier one of the same
            ``title`` is replaced.
        out: See `output_folder`.

    Returns:
        The folder.

    Raises:
        BundleError: If the bundle may not be changed, or was changed by another process since it was read;
            nothing is written.
        OutputError: If the folder holds something that is not a bundle, or cannot be written.
    """
    by_title = {old["title"]: old for old in (*bundle.description["evaluation"], entry)}
    return _write_changed(bundle, {"evaluation": list(by_title.values())}, {}, out)


def _write_changed(
    bundle: Bundle, changes: dict[str, Any], content: dict[str, Content], out: str | Path | None
) -> Path:
    """Write a bundle with changes of its description and some other files; the rest is the old one's."""
    folder = output_folder(bundle, out)
    description = {**bundle.description, **changes}
    try:
        rest: dict[str, Content] = {
            n: bundle.path / n if n in MAPPED_FILES.values() else (bundle.path / n).read_bytes()
            for n in description["files"]
            if n not in content
        }
    except OSError as error:
        raise BundleError(f"{bundle.path}: cannot be read any more ({error.strerror})") from error

    # Two changes at a time: the second would silently undo the first.
    def check(old: Path) -> None:
        if read_description(old)["sha256"] != bundle.description["sha256"]:
            raise BundleError(
                f"{bundle.path}: was changed meanwhile by another process; nothing was written, run it again"
            )

    in_place = folder.resolve() == bundle.path.resolve()
    _write_whole(
        folder, description, {**rest, **content}, lambda _: check(bundle.path), check if in_place else None
    )
    return folder


def _write_whole(
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


def _add_pictures(
    content: dict[str, Content], pictures: Mapping[str, ReferencePicture], references: References
) -> dict[str, int]:
    """Add the references' pictures, if they have any, to the files `content`; count them by their origin."""
    own = {str(name): pictures[str(name)] for name in references.ids if str(name) in pictures}
    if own:
        content[PICTURES_FILE] = pack_pictures(own, references.ids)
    rendered = sum(picture.rendered for picture in own.values())
    return {"rendered": rendered, "patients": len(own) - rendered}
