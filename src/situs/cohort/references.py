"""The references of a bundle, changed without training: labelled cases are added, or removed.

The networks stay as they are. A new reference is embedded by the bundle's own BaseNet, from the same views
that labelling makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import Site, SiteList
from situs.bundle import Bundle, read_bundle
from situs.bundle.change import replace_references
from situs.bundle.folder import output_folder
from situs.bundle.pictures import ReferencePicture
from situs.cohort.reference_pictures import draw_pictures, wants_pictures
from situs.cohort.sampling import check_ids
from situs.cohort.score_corrections import fit_score_corrections
from situs.cohort.slices import Slices, open_slices
from situs.errors import BundleError, InputError, ManifestError, did_you_mean
from situs.neighbors import References
from situs.progress import Progress, silent
from situs.records import join_rows, take_rows
from situs.runtime import Runtime

__all__ = [
    "ReferenceChange",
    "add_references",
    "embed_slices",
    "join_references",
    "match_references",
    "remove_references",
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
        new_sites: Keys of the sites that the bundle did not know before.
        gone_sites: Keys of the sites that it does not know any more: those that were added as references
            alone, and have none left.
    """

    path: Path
    added: int
    removed: int
    total: int
    emptied: tuple[str, ...] = ()
    new_sites: tuple[str, ...] = ()
    gone_sites: tuple[str, ...] = ()

    def text(self) -> str:
        """The change for people."""
        done = f"{self.removed} removed" if self.removed else f"{self.added} added"
        lines = [f"{self.path}: {done}, {self.total} references in all"]
        lines += [f"{key} is a new site, known from these references alone." for key in self.new_sites]
        lines += [f"{key} has no reference left, so no lesion gets this site." for key in self.emptied]
        lines += [f"{key} is no site of this bundle any more." for key in self.gone_sites]
        return "\n".join(lines)


def add_references(
    bundle: str | Path | None,
    cohort: str | Path,
    out: str | Path | None = None,
    max_slices: int | None = None,
    progress: Progress = silent,
    pictures: bool = False,
    new_sites: Sequence[str] = (),
) -> ReferenceChange:
    """Add the slices of a cohort's regions to the references of a bundle.

    A site that the bundle does not know joins its list, if it is named. It is known from its references
    alone: the networks are not trained on it, and nothing is painted as it. A correction of its scores makes
    up for how little is known of it (`situs.cohort.score_corrections`).

    Args:
        bundle: The bundle's folder; None or ``"shipped"`` for the one inside the package.
        cohort: A folder with a manifest. Its views are kept in a cache there.
        out: The folder for the changed bundle; None to replace the bundle itself. The shipped one is never
            replaced.
        max_slices: At most this many slices of each region, see `situs.volume.choose_slices`; None for the
            number in the bundle's recipe.
        progress: Called with the stages ``scans``, ``slices``, if there are new sites ``offsets``, and if
            there are many references ``index``.
        pictures: Whether small pictures of patients' scans go into the bundle. Those of rendered scans always
            do.
        new_sites: Keys of sites that are new to the bundle. Their names and codes are those of the cohort's
            ``sites.csv``, if it has one.

    Raises:
        BundleError: If the bundle cannot be used, or may not be changed.
        InputError: If pictures are asked for and the bundle's views do not show the region's outline, or a
            new site is odd, known already, or has no case.
        ManifestError: If the cohort cannot be used, has a site that is unknown and not named as new, or the
            bundle has a reference of the same id.
        ScanError, RoiError: If a file of the cohort cannot be read.
        OutputError: If the bundle or the cache cannot be written.
    """
    original, cohort = read_bundle(bundle), Path(cohort)
    folder = output_folder(original, out)
    if max_slices is None:
        max_slices = original.recipe.get("max_slices")
    known = [key for key in new_sites if key in original.sites.numbers]
    if known:
        raise InputError(f"--new-site {known[0]}: the bundle has this site already; leave the option out")
    others = [*original.sites, *(Site(key, key.replace("_", " ")) for key in new_sites)]
    slices = open_slices(cohort, original.spec, max_slices, progress=progress, others=others)
    sites = _extended(original.sites, slices, new_sites)
    _check_ids(original.references.ids, slices.id)  # before the work
    drawn = draw_pictures(cohort, slices) if wants_pictures(cohort, slices, pictures) else {}
    new = embed_slices(original, slices, sites, progress)
    joined = join_references(replace(original.references, n_sites=len(sites)), new)
    _write_references(original, joined, sites, len(new), 0, folder, progress, drawn)
    return ReferenceChange(folder, len(new), 0, len(joined), new_sites=tuple(new_sites))


def remove_references(
    bundle: str | Path | None,
    patients: Sequence[str] = (),
    ids: Sequence[str] = (),
    site: str | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> ReferenceChange:
    """Remove the references that match patient, id and site together, see `match_references`.

    The networks stay as they are: what they learned from a removed case stays in them.

    Args:
        bundle: The bundle's folder; None or ``"shipped"`` for the one inside the package.
        patients: Names of patients; empty for all.
        ids: Ids, or their beginnings up to a slash; empty for all.
        site: A site's key; None for all.
        out: The folder for the changed bundle; None to replace the bundle itself.
        progress: Called with the stages ``offsets``, if there are new sites, and ``index``, if there are many
            references.

    Raises:
        BundleError: If the bundle cannot be used or may not be changed, or if no reference would be left.
        InputError: For a patient, id or site that no reference has, and if nothing is asked for or matches.
        OutputError: If the bundle cannot be written.
    """
    original = read_bundle(bundle)
    folder = output_folder(original, out)
    if not patients and not ids and site is None:
        raise InputError("nothing to remove: name a patient, an id or a site")
    matching = match_references(original, patients, ids, site)
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
    emptied = np.setdiff1d(original.references.sites, left.sites)
    gone = [n for n in emptied if n >= original.n_trained_sites]
    sites = SiteList(site for n, site in enumerate(original.sites) if n not in gone)
    numbers = np.array([sites.numbers.get(key, -1) for key in original.sites.keys])
    left = replace(left, sites=numbers[left.sites], n_sites=len(sites))
    _write_references(original, left, sites, 0, n_removed, folder, progress)
    return ReferenceChange(
        folder,
        0,
        n_removed,
        len(left),
        emptied=tuple(original.sites.keys[n] for n in emptied if n not in gone),
        gone_sites=tuple(original.sites.keys[n] for n in gone),
    )


def _write_references(
    original: Bundle,
    references: References,
    sites: SiteList,
    added: int,
    removed: int,
    folder: Path,
    progress: Progress,
    pictures: Mapping[str, ReferencePicture] | None = None,
) -> None:
    """Write a bundle with other references, and with corrections of its new sites that fit them."""
    corrections = fit_score_corrections(replace(original, references=references, sites=sites), progress)
    replace_references(
        original,
        references,
        added=added,
        removed=removed,
        sites=sites,
        score_corrections=corrections,
        pictures=pictures,
        out=folder,
        progress=progress,
    )


def match_references(
    bundle: Bundle, patients: Sequence[str] = (), ids: Sequence[str] = (), site: str | None = None
) -> NDArray[np.bool_]:
    """Which references are of one of the patients, and have one of the ids, and are of the site.

    Args:
        bundle: What has the r references to choose from.
        patients: Names of patients; empty for all.
        ids: Ids, or their beginnings up to a slash: ``scan/roi/value`` is all slices of a region. Empty for
            all.
        site: A site's key; None for all.

    Returns:
        (r,) bool.

    Raises:
        InputError: For a patient or an id that no reference has, or a key that is no site's.
    """
    references = bundle.references
    matching = np.ones(len(references), dtype=bool)
    if site is not None:
        matching &= references.sites == bundle.sites.number(site)
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


def embed_slices(bundle: Bundle, slices: Slices, sites: SiteList, progress: Progress = silent) -> References:
    """Make references of a cohort's slices.

    Args:
        bundle: The bundle whose BaseNet embeds the slices.
        slices: The cohort's slices (n), made with the bundle's views.
        sites: The sites that the references are to be of.
        progress: Called with the stage ``slices``.

    Returns:
        n references with embeddings (n, bundle.embedding_width) float16.

    Raises:
        BundleError: If the inference engine cannot load the networks.
    """
    runtime = Runtime(bundle)
    parts = []
    for a in range(0, len(slices), _BATCH):
        batch = slices.batch(np.arange(a, min(a + _BATCH, len(slices))))
        parts.append(runtime.embed(batch.global_view, batch.local_view).embedding.astype(np.float16))
        progress("slices", min(a + _BATCH, len(slices)), len(slices))
    numbers = slices.numbers_in(sites)[slices.site]
    return References(np.concatenate(parts), numbers, slices.id, slices.patient, len(sites))


def join_references(old: References, new: References) -> References:
    """The references (r + n) of both, `old` (r) first.

    Raises:
        ManifestError: If an id of `new` is among those of `old`, or comes twice in `new`.
    """
    _check_ids(old.ids, new.ids)
    return join_rows([old, new])


def _extended(sites: SiteList, slices: Slices, new_sites: Sequence[str]) -> SiteList:
    """A bundle's sites and, after them, new ones of a cohort.

    Raises:
        InputError: If a new site has no case, or its name or parent does not fit the list.
    """
    present = {slices.sites.keys[n] for n in np.unique(slices.site)}
    for key in new_sites:
        if key not in present:
            raise InputError(f"--new-site {key}: no case of the cohort has this site")
    return SiteList([*sites, *(slices.sites.site(key) for key in new_sites)])


def _check_ids(old: NDArray[np.str_], new: NDArray[np.str_]) -> None:
    """Refuse new ids that are there already, or come twice; they are made of file names."""
    both = np.intersect1d(old, new).tolist()
    if both:
        raise ManifestError(
            f"{len(both)} of the {len(new)} references are there already, such as {both[0]!r}: remove them "
            "first, or rename the scan or mask file if it is another case"
        )
    check_ids(new)
