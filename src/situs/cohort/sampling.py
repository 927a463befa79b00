"""Which examples of a cohort are used: split by patient, spread evenly, balanced over the sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SiteList
from situs.errors import ManifestError, did_you_mean

__all__ = ["balanced_indices", "check_ids", "check_sites", "choose_evenly", "split_patients"]


def split_patients(
    patients: Iterable[str], test: float | Sequence[str], seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The patients to train on and those to test on, each sorted; none is on both sides.

    Args:
        patients: The patient of every example or row.
        test: The names of the patients to test on, or their fraction of all. With a fraction, at least one
            patient is on each side.
        seed: Seed of the random choice, where a fraction is given.

    Raises:
        ManifestError: If a name is none of the patients, or a side would be empty.
    """
    names = sorted(set(patients))
    if isinstance(test, float | int):
        if not 0 < test < 1 or len(names) < 2:
            raise ManifestError(
                "test: expected a fraction between 0 and 1 of at least two patients, "
                f"got {test} of {len(names)}"
            )
        n = min(len(names) - 1, max(1, round(test * len(names))))
        chosen = set(np.random.default_rng(seed).permutation(names)[:n].tolist())
    else:
        chosen = set(test)
        if unknown := sorted(chosen - set(names)):
            raise ManifestError(f"no patient {unknown[0]!r} in the cohort{did_you_mean(unknown[0], names)}")
    train = tuple(name for name in names if name not in chosen)
    if not train:
        raise ManifestError("no patient is left to train on")
    return train, tuple(sorted(chosen))


def balanced_indices(
    sites: NDArray[np.integer], n: int, rng: np.random.Generator, power: float = 1.0
) -> NDArray[np.int64]:
    """Draw examples so that minority sites are over-sampled and majority ones under-sampled.

    As in the paper, section 3.4. Within a site no example comes again before all have come.

    Args:
        sites: (m,) site of every example.
        n: How many examples are drawn.
        rng: The source of randomness.
        power: A site of c examples is drawn in proportion to ``c ** (1 - power)``: 1 for equally many of
            every site that occurs, 0 for the cohort's own frequencies.

    Returns:
        (n,) indices into `sites` in random order.
    """
    present, counts = np.unique(sites, return_counts=True)
    frequencies = counts.astype(np.float64) ** (1 - power)
    frequencies /= frequencies.sum()
    quota = np.floor(frequencies * n).astype(int)
    rest = rng.choice(len(present), n - quota.sum(), p=frequencies)
    quota += np.bincount(rest, minlength=len(present))
    drawn = []
    for site, n_drawn in zip(present, quota, strict=True):
        members = np.flatnonzero(sites == site)
        rounds = [rng.permutation(members) for _ in range(-(-int(n_drawn) // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[:n_drawn])
    return np.asarray(rng.permutation(np.concatenate(drawn)), dtype=np.int64)


def choose_evenly(
    sites: NDArray[np.integer],
    patients: NDArray[np.str_],
    n: int | NDArray[np.integer],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Choose examples of every site, spread evenly over the patients.

    Args:
        sites: (m,) site of every example.
        patients: (m,) patient of every example.
        n: How many examples of a site at most: one number for all sites, or one for each, (sites,).
        rng: The source of randomness.

    Returns:
        Indices of the chosen examples, ascending.
    """
    most = np.broadcast_to(n, max(int(sites.max()) + 1, np.size(n)))
    rank = np.empty(len(sites), dtype=np.int64)  # 0 for the first example of a patient and site, and so on
    order = rng.permutation(len(sites))
    _, group = np.unique(
        np.stack([np.unique(patients, return_inverse=True)[1], sites]), axis=1, return_inverse=True
    )
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    rank[by_group] = np.concatenate([np.arange(size) for size in sizes])
    chosen = []
    for site in np.unique(sites):
        members = order[sites[order] == site]
        chosen.append(members[np.argsort(rank[members], kind="stable")][: most[site]])
    return np.asarray(np.sort(np.concatenate(chosen)), dtype=np.int64)


def check_sites(sites: NDArray[np.integer], known: SiteList) -> None:
    """Refuse to train on examples (n,) of a single site.

    Args:
        sites: (n,) the number of each example's site.
        known: The sites.

    Raises:
        ManifestError: If they are, with the site's name.
    """
    present = np.unique(sites).tolist()
    if len(present) < 2:
        raise ManifestError(
            f"every slice to train on is of one site, {known[present[0]].name}: at least two are needed"
        )


def check_ids(ids: NDArray[np.str_]) -> None:
    """Refuse examples whose ids (n,) could not be told apart; they are made of file names.

    Raises:
        ManifestError: If an id comes twice.
    """
    names, counts = np.unique(ids, return_counts=True)
    twice = names[counts > 1].tolist()
    if twice:
        raise ManifestError(
            f"the reference {twice[0]!r} would come from two rows of the manifest: give each scan and mask "
            "file a name of its own"
        )
