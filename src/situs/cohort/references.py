"""The references of a bundle, changed without training: labelled cases join the comparison, or leave it.

The networks stay as they are; a new reference is embedded by the bundle's own BaseNet from the same views
that labelling makes. Sites are in the order of `situs.anatomy.SITES`. No torch.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.bundle import Bundle, read_bundle
from situs.bundle.write import output_folder, replace_references
from situs.cohort.pictures import draw_pictures, wants_pictures
from situs.cohort.sampling import check_ids
from situs.cohort.slices import Slices, open_slices
from situs.errors import BundleError, InputError, ManifestError, did_you_mean
from situs.neighbors import References
from situs.runtime import Runtime
from situs.tables import text_table

__all__ = [
    "Change",
    "add_references",
    "embed_slices",
    "format_references_csv",
    "format_references_text",
    "join_references",
    "match_references",
    "remove_references",
]

_BATCH = 256  # slices embedded at a time; their views take some tens of MB


@dataclass(frozen=True)
class Change:
    """What was done to a bundle.

    Attributes:
        path: where the changed one is
        added: how many references
        removed: See `added`.
        total: how many it has now
        emptied: keys of the sites that had references before and have none now
    """

    path: Path
    added: int
    removed: int
    total: int
    emptied: tuple[str, ...] = ()

    def text(self) -> str:
        """For people."""
        done = f"{self.removed} removed" if self.removed else f"{self.added} added"
        lines = [f"{self.path}: {done}, {self.total} references in all"]
        lines += [f"No reference is left for {key}: no lesion gets this site." for key in self.emptied]
        return "\n".join(lines)


def add_references(
    bundle: str | Path | None,
    cohort: str | Path,
    out: str | Path | None = None,
    max_slices: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    pictures: bool = False,
) -> Change:
    """Add the slices of a cohort's regions to the references of a bundle.

    Args:
        bundle: its folder; None or ``"shipped"`` for the one inside the package
        cohort: a folder with a manifest; its views are kept in a cache there
        out: the folder for the changed bundle; None to replace the bundle itself, which the shipped one
            refuses
        max_slices: at most this many of each region, spread evenly over its area; None for as many as the
            bundle's recipe took
        progress: is called with what is counted (``scans`` or ``slices``), how many are done, and in all
        pictures: whether small pictures of patients' scans go into the bundle too; those of rendered ones do

    Raises:
        BundleError: if the bundle cannot be used, or may not be changed
        InputError: if pictures are asked for, and the bundle's views do not show what they are made of
        ManifestError: if the cohort cannot be used, or a reference of the same id is there already
        ScanError, RoiError: if a file of the cohort cannot be read
        OutputError: if the bundle or the cache cannot be written
    """
    found = read_bundle(bundle)
    place = output_folder(found, out)
    if max_slices is None:
        max_slices = found.recipe.get("max_slices")
    slices = open_slices(
        Path(cohort),
        found.spec,
        max_slices,
        progress=None if progress is None else partial(progress, "scans"),
    )
    _check_ids(found.references.ids, slices.id)  # before the work
    drawn = draw_pictures(Path(cohort), slices) if wants_pictures(Path(cohort), slices, pictures) else {}
    new = embed_slices(found, slices, progress)
    joined = join_references(found.references, new)
    replace_references(found, joined, added=len(new), removed=0, pictures=drawn, out=place)
    return Change(place, len(new), 0, len(joined))


def remove_references(
    bundle: str | Path | None,
    patients: Sequence[str] = (),
    ids: Sequence[str] = (),
    site: str | None = None,
    out: str | Path | None = None,
) -> Change:
    """Remove the references that `match_references` finds.

    The networks remain as they are: what they learned from a removed case stays in them.

    Args:
        bundle: as for `add_references`
        out: See `bundle`.
        patients: see `match_references`
        ids: See `patients`.
        site: See `patients`.

    Raises:
        BundleError: if the bundle cannot be used or may not be changed, or if none would be left
        InputError: for a patient, id or site that is not there, or if nothing is asked for or found
        OutputError: if the bundle cannot be written
    """
    found = read_bundle(bundle)
    place = output_folder(found, out)
    if not patients and not ids and site is None:
        raise InputError("remove: name a patient, an id or a site")
    gone = match_references(found.references, patients, ids, site)
    if not gone.any():
        raise InputError(f"{found.path}: no reference is all that was asked for; nothing to remove")
    if gone.all():
        raise BundleError(f"{found.path}: these are all {gone.size} references, and a bundle needs some")
    left = found.references.take(~gone)
    replace_references(found, left, added=0, removed=int(gone.sum()), out=place)
    emptied = np.setdiff1d(found.references.sites, left.sites)
    return Change(place, 0, int(gone.sum()), len(left), tuple(SITE_KEYS[s] for s in emptied))


def match_references(
    references: References, patients: Sequence[str] = (), ids: Sequence[str] = (), site: str | None = None
) -> NDArray[np.bool_]:
    """Which references are of one of the patients, and have one of the ids, and are of the site.

    Args:
        patients: names; none for everybody's
        ids: whole ones, or their beginning up to a slash: ``scan/roi/value`` is all slices of a region. None
            for all
        site: its key; None for all

    Returns:
        (r,) bool

    Raises:
        InputError: for a patient or an id that no reference has, or a key that is no site's
    """
    chosen = np.ones(len(references), dtype=bool)
    if site is not None:
        if site not in SITE_INDEX:
            raise InputError(f"no site {site!r}{did_you_mean(site, SITE_KEYS)}")
        chosen &= references.sites == SITE_INDEX[site]
    for what, names, known, nested in (
        ("patient", patients, references.patients, False),
        ("id", ids, references.ids, True),
    ):
        if not names:
            continue
        named = np.zeros(len(references), dtype=bool)
        for name in names:
            same = known == name
            if nested:
                same = same | np.char.startswith(known, f"{name}/")
            if not same.any():
                options = np.unique(known[known != ""]).tolist()
                raise InputError(f"no reference has the {what} {name!r}{did_you_mean(name, options)}")
            named |= same
        chosen &= named
    return chosen


def embed_slices(
    bundle: Bundle, slices: Slices, progress: Callable[[str, int, int], None] | None = None
) -> References:
    """The slices (n) of a cohort as references, embeddings (n, bundle.embedding_width) float16.

    Args:
        slices: made with the bundle's views
        progress: is called with ``slices``, how many are done, and in all

    Raises:
        BundleError: if the inference engine cannot load the networks
    """
    runtime = Runtime(bundle)
    parts = []
    for a in range(0, len(slices), _BATCH):
        part = slice(a, a + _BATCH)
        views = np.asarray(slices.global_view[part]), np.asarray(slices.local_view[part])
        parts.append(runtime.embed(*views).embedding.astype(np.float16))
        if progress is not None:
            progress("slices", min(a + _BATCH, len(slices)), len(slices))
    return References(np.concatenate(parts), slices.site, slices.id, slices.patient)


def join_references(old: References, new: References) -> References:
    """The references (r + n) of both, `old` (r) first.

    Raises:
        ManifestError: if an id of `new` is among those of `old`, or comes twice in `new`
    """
    _check_ids(old.ids, new.ids)
    return References(
        np.concatenate([old.embeddings, new.embeddings]),
        np.concatenate([old.sites, new.sites]),
        np.concatenate([old.ids, new.ids]),
        np.concatenate([old.patients, new.patients]),
    )


def format_references_text(bundle: Bundle, site: str | None = None) -> str:
    """How many references of each site, and of how many patients; of one site, which.

    Raises:
        InputError: for a key that is no site's
    """
    chosen = bundle.references.take(match_references(bundle.references, site=site))
    title = (
        f"{bundle.name} {bundle.version}: {len(chosen)} references"
        f"{f' of {site}' if site else ''}, {_n_patients(chosen)} patients"
    )
    if site is not None:
        return "\n".join(
            [title, text_table([["id", "patient"], *zip(chosen.ids, chosen.patients, strict=True)])]
        )
    counts = Counter(chosen.sites.tolist())
    rows = [
        [key, str(counts[index]), str(_n_patients(chosen.take(chosen.sites == index)))]
        for index, key in enumerate(SITE_KEYS)
    ]
    lines = [title, text_table([["site", "references", "patients"], *rows])]
    if changes := bundle.description.get("references"):
        lines.append(f"Since the training {changes['added']} were added and {changes['removed']} removed.")
    pictures = bundle.description.get("pictures", {"rendered": 0, "patients": 0})
    if n := sum(pictures.values()):
        lines.append(f"{n} have pictures, {pictures['patients']} of them of patients' scans.")
    return "\n".join(lines)


def format_references_csv(bundle: Bundle, site: str | None = None) -> str:
    """A row for each reference, of one site or of all, in the bundle's order: id, site, patient.

    Raises:
        InputError: for a key that is no site's
    """
    chosen = bundle.references.take(match_references(bundle.references, site=site))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["id", "site", "patient"])
    keys = [SITE_KEYS[index] for index in chosen.sites]
    writer.writerows(zip(chosen.ids.tolist(), keys, chosen.patients.tolist(), strict=True))
    return stream.getvalue()


def _check_ids(old: NDArray[np.str_], new: NDArray[np.str_]) -> None:
    """Refuse ids that could not be told apart; they are made of file names."""
    known = np.intersect1d(old, new).tolist()
    if known:
        raise ManifestError(
            f"{len(known)} of the {len(new)} references are there already, such as {known[0]!r}: remove them "
            "first, or rename the scan or mask file if it is another case"
        )
    check_ids(new)


def _n_patients(references: References) -> int:
    return len(set(references.patients.tolist()) - {""})
