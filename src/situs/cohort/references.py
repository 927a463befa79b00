"""The references of a bundle, changed without training: labelled cases are added, or removed.

The networks stay as they are. A new reference is embedded by the bundle's own BaseNet, from the same views
that labelling makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.bundle import Bundle, read_bundle
from situs.bundle.pictures import ReferencePicture, can_draw, draw_picture, encode_picture
from situs.bundle.write import output_folder, replace_references
from situs.cohort.manifest import describe_cohort
from situs.cohort.sampling import check_ids
from situs.cohort.slices import Slices, open_slices
from situs.errors import BundleError, InputError, ManifestError, did_you_mean
from situs.neighbors import References
from situs.progress import Progress, silent
from situs.records import join_rows, take_rows
from situs.runtime import Runtime
from situs.tables import csv_text, text_table

__all__ = [
    "ReferenceChange",
    "add_references",
    "draw_pictures",
    "embed_slices",
    "format_references_csv",
    "format_references_text",
    "join_references",
    "match_references",
    "remove_references",
    "wants_pictures",
]

_BATCH = 256  # slices embedded at a time; their views take some tens of MB


@dataclass(frozen=True)
class ReferenceChange:
    """A change of a bundle's references.

    Attributes:
        path: Folder of the changed bundle.
        added: How many references were added.
        removed: How many references were removed.
        total: How many references the bundle has now.
        emptied: Keys of the sites that had references before and have none now.
    """

    path: Path
    added: int
    removed: int
    total: int
    emptied: tuple[str, ...] = ()

    def text(self) -> str:
        """The change for people."""
        done = f"{self.removed} removed" if self.removed else f"{self.added} added"
        lines = [f"{self.path}: {done}, {self.total} references in all"]
        lines += [f"{key} has no reference left, so no lesion gets this site." for key in self.emptied]
        return "\n".join(lines)


def add_references(
    bundle: str | Path | None,
    cohort: str | Path,
    out: str | Path | None = None,
    max_slices: int | None = None,
    progress: Progress = silent,
    pictures: bool = False,
) -> ReferenceChange:
    """Add the slices of a cohort's regions to the references of a bundle.

    Args:
        bundle: The bundle's folder; None or ``"shipped"`` for the one inside the package.
        cohort: A folder with a manifest. Its views are kept in a cache there.
        out: The folder for the changed bundle; None to replace the bundle itself. The shipped one is never
            replaced.
        max_slices: At most this many slices of each region, see `situs.volume.choose_slices`; None for the
            number in the bundle's recipe.
        progress: Called with the stages ``scans`` and ``slices``.
        pictures: Whether small pictures of patients' scans go into the bundle. Those of rendered scans always
            do.

    Raises:
        BundleError: If the bundle cannot be used, or may not be changed.
        InputError: If pictures are asked for and the bundle's views do not show the region's outline.
        ManifestError: If the cohort cannot be used, or the bundle has a reference of the same id.
        ScanError, RoiError: If a file of the cohort cannot be read.
        OutputError: If the bundle or the cache cannot be written.
    """
    original, cohort = read_bundle(bundle), Path(cohort)
    folder = output_folder(original, out)
    if max_slices is None:
        max_slices = original.recipe.get("max_slices")
    slices = open_slices(cohort, original.spec, max_slices, progress=progress)
    _check_ids(original.references.ids, slices.id)  # before the work
    drawn = draw_pictures(cohort, slices) if wants_pictures(cohort, slices, pictures) else {}
    new = embed_slices(original, slices, progress)
    joined = join_references(original.references, new)
    replace_references(original, joined, added=len(new), removed=0, pictures=drawn, out=folder)
    return ReferenceChange(folder, len(new), 0, len(joined))


def remove_references(
    bundle: str | Path | None,
    patients: Sequence[str] = (),
    ids: Sequence[str] = (),
    site: str | None = None,
    out: str | Path | None = None,
) -> ReferenceChange:
    """Remove the references that match patient, id and site together, see `match_references`.

    The networks stay as they are: what they learned from a removed case stays in them.

    Args:
        bundle: The bundle's folder; None or ``"shipped"`` for the one inside the package.
        patients: Names of patients; empty for all.
        ids: Ids, or their beginnings up to a slash; empty for all.
        site: A site's key; None for all.
        out: The folder for the changed bundle; None to replace the bundle itself.

    Raises:
        BundleError: If the bundle cannot be used or may not be changed, or if no reference would be left.
        InputError: For a patient, id or site that no reference has, and if nothing is asked for or matches.
        OutputError: If the bundle cannot be written.
    """
    original = read_bundle(bundle)
    folder = output_folder(original, out)
    if not patients and not ids and site is None:
        raise InputError("nothing to remove: name a patient, an id or a site")
    matching = match_references(original.references, patients, ids, site)
    if not matching.any():
        raise InputError(
            f"{original.path}: no reference matches the given patient, id and site together; "
            "nothing was removed"
        )
    if matching.all():
        raise BundleError(
            f"{original.path}: all {matching.size} references match, and a bundle needs at least one; "
            "nothing was removed"
        )
    left = take_rows(original.references, ~matching)
    n_removed = int(matching.sum())
    replace_references(original, left, added=0, removed=n_removed, out=folder)
    emptied = np.setdiff1d(original.references.sites, left.sites)
    return ReferenceChange(folder, 0, n_removed, len(left), tuple(SITE_KEYS[s] for s in emptied))


def match_references(
    references: References, patients: Sequence[str] = (), ids: Sequence[str] = (), site: str | None = None
) -> NDArray[np.bool_]:
    """Which references are of one of the patients, and have one of the ids, and are of the site.

    Args:
        references: The references (r) to choose from.
        patients: Names of patients; empty for all.
        ids: Ids, or their beginnings up to a slash: ``scan/roi/value`` is all slices of a region. Empty for
            all.
        site: A site's key; None for all.

    Returns:
        (r,) bool.

    Raises:
        InputError: For a patient or an id that no reference has, or a key that is no site's.
    """
    matching = np.ones(len(references), dtype=bool)
    if site is not None:
        if site not in SITE_INDEX:
            raise InputError(f"no site {site!r}{did_you_mean(site, SITE_KEYS)}")
        matching &= references.sites == SITE_INDEX[site]
    for kind, names, values, with_beginnings in (
        ("patient", patients, references.patients, False),
        ("id", ids, references.ids, True),
    ):
        if not names:
            continue
        of_any = np.zeros(len(references), dtype=bool)
        for name in names:
            of_name = values == name
            if with_beginnings:
                of_name = of_name | np.char.startswith(values, f"{name}/")
            if not of_name.any():
                options = np.unique(values[values != ""]).tolist()
                raise InputError(f"no reference has the {kind} {name!r}{did_you_mean(name, options)}")
            of_any |= of_name
        matching &= of_any
    return matching


def embed_slices(bundle: Bundle, slices: Slices, progress: Progress = silent) -> References:
    """Make references of a cohort's slices.

    Args:
        bundle: The bundle whose BaseNet embeds the slices.
        slices: The cohort's slices (n), made with the bundle's views.
        progress: Called with the stage ``slices``.

    Returns:
        n references with embeddings (n, bundle.embedding_width) float16.

    Raises:
        BundleError: If the inference engine cannot load the networks.
    """
    runtime = Runtime(bundle)
    parts = []
    for a in range(0, len(slices), _BATCH):
        part = slice(a, a + _BATCH)
        views = np.asarray(slices.global_view[part]), np.asarray(slices.local_view[part])
        parts.append(runtime.embed(*views).embedding.astype(np.float16))
        progress("slices", min(a + _BATCH, len(slices)), len(slices))
    return References(np.concatenate(parts), slices.site, slices.id, slices.patient)


def join_references(old: References, new: References) -> References:
    """The references (r + n) of both, `old` (r) first.

    Raises:
        ManifestError: If an id of `new` is among those of `old`, or comes twice in `new`.
    """
    _check_ids(old.ids, new.ids)
    return join_rows([old, new])


def wants_pictures(cohort: Path, slices: Slices, of_patients: bool) -> bool:
    """Whether the examples of a cohort get pictures as references (see `situs.bundle.pictures`).

    Those of rendered scans, which show no patient, get pictures if their views allow it. Those of patients'
    scans get them only if asked for.

    Args:
        cohort: The folder.
        slices: Its examples.
        of_patients: Whether pictures of patients' scans were asked for.

    Raises:
        InputError: If they were, and the views do not show what a picture is made of.
        ManifestError: If an id comes twice, so that a picture could be of the wrong example.
    """
    drawable = can_draw(slices.spec)
    if of_patients and not drawable:
        raise InputError("pictures: the views of this recipe do not show the outline; leave --pictures out")
    if not drawable or not (of_patients or describe_cohort(cohort, slices.patient.tolist())):
        return False
    check_ids(slices.id)
    return True


def draw_pictures(
    cohort: Path, slices: Slices, examples: NDArray[np.integer] | None = None
) -> dict[str, ReferencePicture]:
    """The pictures of examples of a cohort; ask `wants_pictures` first.

    Args:
        cohort: The folder.
        slices: Its examples.
        examples: (n,) indices of those to draw; None for all.

    Returns:
        Picture by the example's id.
    """
    rendered = bool(describe_cohort(cohort, slices.patient.tolist()))
    return {
        str(slices.id[n]): ReferencePicture(
            encode_picture(draw_picture(slices.global_view[n], slices.spec)), rendered
        )
        for n in (range(len(slices)) if examples is None else examples)
    }


def format_references_text(bundle: Bundle, site: str | None = None) -> str:
    """The number of references and of patients of each site; of one site, a list of its references.

    Raises:
        InputError: For a key that is no site's.
    """
    listed = take_rows(bundle.references, match_references(bundle.references, site=site))
    title = (
        f"{bundle.name} {bundle.version}: {len(listed)} references"
        f"{f' of {site}' if site else ''}, {_count_patients(listed)} patients"
    )
    if site is not None:
        rows = [["id", "patient"], *zip(listed.ids, listed.patients, strict=True)]
        return f"{title}\n{text_table(rows)}"
    counts = Counter(listed.sites.tolist())
    rows = [
        [key, counts[index], _count_patients(take_rows(listed, listed.sites == index))]
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
    """CSV with a row for each reference, of one site or of all, in the bundle's order: id, site, patient.

    Raises:
        InputError: For a key that is no site's.
    """
    listed = take_rows(bundle.references, match_references(bundle.references, site=site))
    keys = [SITE_KEYS[index] for index in listed.sites]
    return csv_text(["id", "site", "patient"], zip(listed.ids, keys, listed.patients, strict=True))


def _check_ids(old: NDArray[np.str_], new: NDArray[np.str_]) -> None:
    """Refuse new ids that are there already, or come twice; they are made of file names."""
    both = np.intersect1d(old, new).tolist()
    if both:
        raise ManifestError(
            f"{len(both)} of the {len(new)} references are there already, such as {both[0]!r}: remove them "
            "first, or rename the scan or mask file if it is another case"
        )
    check_ids(new)


def _count_patients(references: References) -> int:
    """The number of named patients."""
    return len(set(references.patients.tolist()) - {""})
