"""Which examples of a cohort are used: split by patient, spread evenly, balanced over the sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.errors import ManifestError, did_you_mean

__all__ = ["balanced_indices", "check_ids", "check_sites", "choose_evenly", "split_patients"]


def split_patients(
    patients: Iterable[str], test: float | Sequence[str], seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The patients to train on and those to test on, sorted; none is on both sides.

    Args:
        patients: of every example or row
        test: the share of the patients to test on (at least one, at most all but one), or their names
        seed: of the random choice, where a share is given

    Raises:
        ManifestError: if a name is none of the patients, or a side would be empty
    """
    names = sorted(set(patients))
    if isinstance(test, float | int):
        if not 0 < test < 1 or len(names) < 2:
            raise ManifestError(
                f"test: expected a share between 0 and 1 of at least two patients, got {test} of {len(names)}"
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
    """Indices (n,) into `sites` in random order, minority sites over-sampled, majority ones under-sampled.

    The paper, section 3.4. Within a site no example comes again before all have come.

    Args:
        sites: (m,) site of every example
        power: 1 for equally many of every site that there is, 0 for the cohort's own frequencies; a site of
            c examples is drawn in proportion to ``c ** (1 - power)``
    """
    present, counts = np.unique(sites, return_counts=True)
    share = counts.astype(np.float64) ** (1 - power)
    quota = np.floor(share / share.sum() * n).astype(int)
    rest = rng.choice(len(present), n - quota.sum(), p=share / share.sum())
    quota += np.bincount(rest, minlength=len(present))
    drawn = []
    for site, wanted in zip(present, quota, strict=True):
        members = np.flatnonzero(sites == site)
        rounds = [rng.permutation(members) for _ in range(-(-int(wanted) // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[:wanted])
    return np.asarray(rng.permutation(np.concatenate(drawn)), dtype=np.int64)


def choose_evenly(
    sites: NDArray[np.integer],
    patients: NDArray[np.str_],
    n: int | NDArray[np.integer],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Indices, ascending, of at most `n` examples of every site, spread evenly over the patients.

    Args:
        sites: (m,) of every example
        patients: See `sites`.
        n: one number for all sites, or (15,) of each
    """
    most = np.broadcast_to(n, len(SITES))
    turn = np.empty(len(sites), dtype=np.int64)  # 0 for the first example of a patient and site, and so on
    order = rng.permutation(len(sites))
    _, group = np.unique(
        np.stack([np.unique(patients, return_inverse=True)[1], sites]), axis=1, return_inverse=True
    )
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    turn[by_group] = np.concatenate([np.arange(size) for size in sizes])
    chosen = []
    for site in np.unique(sites):
        members = order[sites[order] == site]
        chosen.append(members[np.argsort(turn[members], kind="stable")][: most[site]])
    return np.asarray(np.sort(np.concatenate(chosen)), dtype=np.int64)


def check_sites(sites: NDArray[np.integer]) -> None:
    """Refuse to train on examples (n,) of a single site.

    Raises:
        ManifestError: with its name
    """
    present = np.unique(sites).tolist()
    if len(present) < 2:
        raise ManifestError(
            f"every slice to train on is of one site, {SITES[present[0]].name}: at least two are needed"
        )


def check_ids(ids: NDArray[np.str_]) -> None:
    """Refuse examples whose ids (n,) could not be told apart; they are made of file names.

    Raises:
        ManifestError: if an id comes twice
    """
    names, counts = np.unique(ids, return_counts=True)
    twice = names[counts > 1].tolist()
    if twice:
        raise ManifestError(
            f"the reference {twice[0]!r} would come from two rows of the manifest: give each scan and mask "
            "file a name of its own"
        )
