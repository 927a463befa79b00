"""Change a bundle: its references and their index, its calibration, the evaluation in its card.

The changed bundle is written whole, beside the old one or in its place (`situs.bundle.write`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SiteList
from situs.bundle import Bundle, read_description
from situs.bundle.folder import output_folder
from situs.bundle.format import BASENET_FILE, FORMAT_MAPPED, MAPPED_FILES, RELATION_FILE
from situs.bundle.mapped import (
    INDEXED_FROM,
    Content,
    check_references,
    encode,
    encode_indexed,
    file_entry,
    hash_of,
    index_references,
)
from situs.bundle.pictures import ReferencePicture
from situs.bundle.write import add_pictures, write_whole
from situs.certainty import Calibration
from situs.errors import BundleError
from situs.neighbors import References
from situs.progress import Progress, silent

__all__ = [
    "ScoreCorrection",
    "replace_calibration",
    "replace_evaluation",
    "replace_index",
    "replace_references",
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
        out: See `situs.bundle.folder.output_folder`.
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
    counts = add_pictures(content, {**bundle.pictures, **(pictures or {})}, references)
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
        out: See `situs.bundle.folder.output_folder`.
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
    add_pictures(content, bundle.pictures, references)
    entries = {n: file_entry(data) for n, data in content.items()}
    return _write_changed(bundle, {"files": {**bundle.description["files"], **entries}}, content, out)


def replace_calibration(bundle: Bundle, calibration: Calibration, out: str | Path | None = None) -> Path:
    """Write a bundle again with another calibration. All else stays.

    Args:
        bundle: The bundle to change.
        calibration: Its new calibration.
        out: See `situs.bundle.folder.output_folder`.

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
        out: See `situs.bundle.folder.output_folder`.

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
    write_whole(
        folder, description, {**rest, **content}, lambda _: check(bundle.path), check if in_place else None
    )
    return folder
