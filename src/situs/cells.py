"""An index for many references: those of a site are divided into cells of references near each other.

This is an inverted file (IVF), one for each site, because neighbours are wanted in every site, near or far. A
search compares a target with the centroids of a site's cells, then with the references of the nearest cells
along the site's principal axes. The best of these are then measured exactly (`situs.neighbors.nearest`). A
reference whose cell was not searched is missed: docs/results.md has the recall.

Targets of other sites are far from all cells, so that the nearest cells say little about the nearest
references. But the same few references, at the site's border, are the nearest to most of them (hubs). They
are the first cell of the site, which is always searched.

References are stored cell by cell, so that a search reads few places of the files, which are mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from situs.progress import Progress, silent

__all__ = ["Cells", "divide"]

Float32 = NDArray[np.float32]
Indices = NDArray[np.int64]

_COLUMNS = 64  # of a coarse row: principal axes, and the squared length
_CELL_SIZE = 64  # references of a cell, on average
_PROBES = 24  # cells of a site that are searched, besides its border
_AWAY = 200  # references of each other site that the border is found by
_BORDER_K = 20  # nearest references of each of them that are the border
_ROUNDS = 4  # of Lloyd's algorithm
_SAMPLE = 32  # references a cell that centroids are fitted to
_AXES_SAMPLE = 20_000  # references of a site that its axes are fitted to
_BLOCK = 4096  # references handled at a time
_BLOCK_NUMBERS = 4_000_000  # distances held at a time


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of r references, which are ordered by site and, within a site, by cell.

    A coarse row is a point on the m principal axes of its site, and then its squared length.

    Args:
        means: (sites, d) float32, the origin of each site's axes
        axes: (sites, d, m) float32, orthonormal
        coarse: (r, m + 1) float32, the coarse rows of the references
        centroids: (c, m + 1) float32, the coarse rows of the cells' centroids; not used of a site's first
            cell, its border
        starts: (c + 1,) int64, the first reference of each cell, and r
        site_cells: (sites + 1,) int64, the first cell of each site, and c
        by_patient: (r,) int64, the references in the order of their patients' names

    Raises:
        ValueError: if the arrays do not fit each other
    """

    means: Float32
    axes: Float32
    coarse: Float32
    centroids: Float32
    starts: Indices
    site_cells: Indices
    by_patient: Indices

    def __post_init__(self) -> None:
        sites, d = self.means.shape
        r, c, columns = len(self.coarse), len(self.centroids), self.axes.shape[-1] + 1
        for name, dtype, shape in (
            ("means", np.float32, (sites, d)),
            ("axes", np.float32, (sites, d, columns - 1)),
            ("coarse", np.float32, (r, columns)),
            ("centroids", np.float32, (c, columns)),
            ("starts", np.int64, (c + 1,)),
            ("site_cells", np.int64, (sites + 1,)),
            ("by_patient", np.int64, (r,)),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                found = f"{array.dtype} {array.shape}"
                raise ValueError(f"{name}: expected {np.dtype(dtype)} {shape}, got {found}")
        for name, end in (("starts", r), ("site_cells", c)):
            firsts = getattr(self, name)
            if firsts[0] != 0 or firsts[-1] != end or (np.diff(firsts) < 0).any():
                raise ValueError(f"{name}: expected ascending numbers from 0 to {end}")
        if self.by_patient.min(initial=0) < 0 or self.by_patient.max(initial=0) > max(0, r - 1):
            raise ValueError(f"by_patient: expected numbers of {r} references")

    @property
    def sites(self) -> NDArray[np.intp]:
        """(r,) the number of each reference's site."""
        sizes = np.diff(self.starts[self.site_cells])
        return np.repeat(np.arange(len(sizes)), sizes)

    def of_patient(self, name: str, patients: NDArray[np.str_]) -> Indices:
        """The references of a patient, found without a look at all of them.

        Args:
            name: the patient's name
            patients: (r,) the name of each reference's patient
        """
        if 4 * len(name) > patients.dtype.itemsize:  # longer than any
            return np.zeros(0, dtype=np.int64)
        key = np.array(name, dtype=patients.dtype)
        first, last = (np.searchsorted(patients, key, side, self.by_patient) for side in ("left", "right"))
        return np.sort(self.by_patient[first:last])

    def project(self, targets: Float32) -> Float32:
        """Queries (n, sites, m + 1): the product with a coarse row ranks it as its squared distance does."""
        by_site = [_queries(targets, *origin) for origin in zip(self.means, self.axes, strict=True)]
        return np.stack(by_site, axis=1)

    def shortlists(self, queries: Float32, site: int, n: int, barred: Sequence[Indices]) -> list[Indices]:
        """The n references of a site that seem nearest to each target, or fewer, in ascending order.

        Args:
            queries: (t, m + 1) the targets in this site, see `project`
            site: the site's number
            n: at least 1
            barred: (t,) for each target ascending numbers of references to leave out
        """
        first, last = self.site_cells[site : site + 2]
        if first == last:
            return [np.zeros(0, dtype=np.int64)] * len(queries)
        border = np.arange(*self.starts[first : first + 2])
        border_ranks = queries @ self.coarse[slice(*self.starts[first : first + 2])].T
        cell_ranks = queries @ self.centroids[first + 1 : last].T
        lists = []
        for query, near, own_ranks, own in zip(queries, cell_ranks, border_ranks, barred, strict=True):
            cells = first + 1 + _smallest(near, _PROBES)
            starts, sizes = self.starts[cells], self.starts[cells + 1] - self.starts[cells]
            inner = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
            rows = np.concatenate([border, inner])
            ranks = np.concatenate([own_ranks, np.take(self.coarse, inner, axis=0) @ query])
            if len(own):
                left = ~np.isin(rows, own)
                rows, ranks = rows[left], ranks[left]
            lists.append(rows[_smallest(ranks, n)])
        return lists


def divide(
    embeddings: NDArray[np.floating],
    sites: NDArray[np.integer],
    patients: NDArray[np.str_],
    n_sites: int,
    progress: Progress = silent,
) -> tuple[Indices, Cells]:
    """Divide references into cells.

    Args:
        embeddings: (r, d)
        sites: (r,) the number of each one's site, below `n_sites`
        patients: (r,) whose each one is
        n_sites: how many sites there are
        progress: called with the stage ``index``

    Returns:
        The order (r,) to store the references in, and the cells of the references in that order.
    """
    rng = np.random.default_rng(0)
    r, d = embeddings.shape
    m = min(_COLUMNS - 1, d)
    means, axes = np.zeros((n_sites, d), np.float32), np.zeros((n_sites, d, m), np.float32)
    order, coarse = np.argsort(sites, kind="stable"), np.empty((r, m + 1), dtype=np.float32)
    site_starts = np.searchsorted(sites[order], np.arange(n_sites + 1))
    away = np.concatenate(
        [np.sort(rng.permutation(order[a:b])[:_AWAY]) for a, b in pairwise(site_starts.tolist())]
    )
    targets = embeddings[away].astype(np.float32)
    centroids, sizes = [np.zeros((0, m + 1), np.float32)], [np.zeros(0, np.int64)]
    for site in np.flatnonzero(np.diff(site_starts)):
        own = slice(*site_starts[site : site + 2])
        members, rows = order[own], coarse[own]  # views
        means[site], axes[site] = _principal_axes(embeddings, members, m, rng)
        for a in range(0, len(members), _BLOCK):
            block = embeddings[members[a : a + _BLOCK]].astype(np.float32)
            rows[a : a + _BLOCK, :m] = (block - means[site]) @ axes[site]
        rows[:, m] = np.einsum("rm,rm->r", rows[:, :m], rows[:, :m])
        others = targets[sites[away] != site]
        cell, found = _divide_site(rows, _queries(others, means[site], axes[site]), rng)
        by_cell = np.argsort(cell, kind="stable")
        members[:], rows[:] = members[by_cell], rows[by_cell]
        centroids.append(found)
        sizes.append(np.bincount(cell, minlength=len(found)))
        progress("index", int(own.stop), r)
    n_cells = np.zeros(n_sites, dtype=np.int64)
    n_cells[np.diff(site_starts) > 0] = [len(found) for found in centroids[1:]]
    return order, Cells(
        means,
        axes,
        coarse,
        np.concatenate(centroids),
        np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
        np.concatenate([[0], np.cumsum(n_cells)]),
        np.argsort(patients[order], kind="stable"),
    )


def _divide_site(rows: Float32, away: Float32, rng: np.random.Generator) -> tuple[NDArray[np.intp], Float32]:
    """The cells of a site.

    Args:
        rows: (n, m + 1) its coarse rows
        away: (t, m + 1) queries of targets of other sites, see `_queries`
        rng: chooses samples

    Returns:
        The cell (n,) of each row, 0 for the border, and the centroids (c, m + 1).
    """
    border = _find_border(rows, away)
    cell, inner = np.zeros(len(rows), dtype=np.intp), np.flatnonzero(~border)
    centroids = np.zeros((1, rows.shape[1]), dtype=np.float32)
    if len(inner):
        centroids = np.concatenate([centroids, _fit_centroids(rows[inner], rng)])
        cell[inner] = 1 + _nearest_centroids(rows[inner], centroids[1:])
    return cell, centroids


def _find_border(rows: Float32, away: Float32) -> NDArray[np.bool_]:
    """(n,) which coarse rows are among the nearest to any of the targets of other sites."""
    k = min(_BORDER_K, len(rows))
    best = np.full((len(away), k), np.inf, dtype=np.float32)
    numbers = np.zeros((len(away), k), dtype=np.int64)
    for a in range(0, len(rows) if len(away) else 0, _BLOCK):
        ranks = np.concatenate([best, away @ rows[a : a + _BLOCK].T], axis=1)
        chosen = np.argpartition(ranks, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(ranks, chosen, axis=1)
        old = np.take_along_axis(numbers, np.minimum(chosen, k - 1), axis=1)
        numbers = np.where(chosen < k, old, a + chosen - k)
    border = np.zeros(len(rows), dtype=bool)
    border[numbers[np.isfinite(best)]] = True
    return border


def _queries(targets: Float32, mean: Float32, axes: Float32) -> Float32:
    """The queries (n, m + 1) of targets in one site, see `Cells.project`."""
    queries = np.ones((len(targets), axes.shape[1] + 1), dtype=np.float32)
    queries[:, :-1] = -2 * ((targets - mean) @ axes)
    return queries


def _smallest(values: Float32, n: int) -> NDArray[np.intp]:
    """Where the n smallest values are, or all of fewer, in ascending order."""
    if len(values) <= n:
        return np.arange(len(values))
    return np.sort(np.argpartition(values, n)[:n])


def _principal_axes(
    embeddings: NDArray[np.floating], members: Indices, m: int, rng: np.random.Generator
) -> tuple[Float32, Float32]:
    """The mean (d,) of some embeddings, and the m axes (d, m) along which they vary most."""
    sample = embeddings[np.sort(rng.permutation(members)[:_AXES_SAMPLE])].astype(np.float32)
    mean = sample.mean(axis=0)
    sample -= mean
    _, axes = np.linalg.eigh(sample.T @ sample)
    return mean, axes[:, ::-1][:, :m]


def _fit_centroids(rows: Float32, rng: np.random.Generator) -> Float32:
    """The coarse rows of the centroids of cells, by Lloyd's algorithm on a sample of the coarse rows."""
    n_cells = -(-len(rows) // _CELL_SIZE)
    sample = rows[rng.permutation(len(rows))[: n_cells * _SAMPLE]]
    centroids = sample[:n_cells].copy()
    for _ in range(_ROUNDS):
        nearest = _nearest_centroids(sample, centroids)
        by_cell = np.argsort(nearest, kind="stable")
        cells, firsts = np.unique(nearest[by_cell], return_index=True)  # an empty cell stays where it is
        sums = np.add.reduceat(sample[by_cell], firsts, axis=0)
        centroids[cells] = sums / np.diff([*firsts, len(sample)])[:, None]
        centroids[:, -1] = np.einsum("cm,cm->c", centroids[:, :-1], centroids[:, :-1])
    return centroids


def _nearest_centroids(rows: Float32, centroids: Float32) -> NDArray[np.intp]:
    """(n,) the number of the centroid that is nearest to each coarse row."""
    factors = -2 * centroids.T
    factors[-1] = centroids[:, -1]
    step = max(1, _BLOCK_NUMBERS // len(centroids))
    parts = []
    for a in range(0, len(rows), step):
        block = rows[a : a + step].copy()
        block[:, -1] = 1
        parts.append(np.argmin(block @ factors, axis=1))
    return np.concatenate(parts)
