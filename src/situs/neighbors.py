"""The references nearest to a target in every class, in numpy: exactly, or among many by an index.

Embeddings are points in a plain Euclidean space (no unit). Classes are the numbers of a bundle's sites, or of
any other classes; every axis called "sites" has that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from sys import intern

import numpy as np
from numpy.typing import ArrayLike, NDArray

from situs.anatomy import SITES, SiteList
from situs.cells import Cells
from situs.finding import Reference

__all__ = ["Neighbors", "References", "nearest", "nearest_distances", "nearest_first", "reference_sets"]

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]

# Numbers held at a time in one block of distances or differences: 16 MB as float32.
_BLOCK_NUMBERS = 4_000_000
# References of so many numbers at most are kept as float32 for the next search: 128 MB.
_KEPT_NUMBERS = 32_000_000
# References that are measured exactly for each neighbour that is wanted, where there is an index.
_SHORTLIST = 16


@dataclass(frozen=True, eq=False)
class References:
    """Labelled embeddings that targets are compared with.

    Args:
        embeddings: (r, d) float16 or float32. A mapped file is not read to check that they are finite
        sites: (r,) int, the number of each one's site
        ids: (r,) str, names each reference
        patients: (r,) str, whose it is (for rendered scans: the head); empty where unknown
        n_sites: how many classes there are, with or without references

    Attributes:
        cells: the index to search them by, or None, see `indexed`

    Raises:
        ValueError: if the lengths differ, an embedding is not finite or a site is out of range
    """

    embeddings: Floats
    sites: NDArray[np.integer]
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    n_sites: int = len(SITES)
    cells: Cells | None = field(default=None, init=False)  # a changed copy has none

    def __post_init__(self) -> None:
        e = self.embeddings
        finite = isinstance(e, np.memmap) or np.isfinite(e).all()
        if e.ndim != 2 or e.dtype.kind != "f" or not finite:
            raise ValueError(f"embeddings: expected finite floats of shape (r, d), got {e.dtype} {e.shape}")
        for name in ("sites", "ids", "patients"):
            shape = getattr(self, name).shape
            if shape != (len(e),):
                raise ValueError(f"{name}: expected shape ({len(e)},), one for each embedding, got {shape}")
        s = self.sites
        if s.dtype.kind not in "iu" or (s.size and (s.min() < 0 or s.max() >= self.n_sites)):
            raise ValueError(f"sites: expected whole numbers from 0 to {self.n_sites - 1}")

    def __len__(self) -> int:
        return len(self.embeddings)

    def indexed(self, cells: Cells) -> References:
        """The same references with an index, which `nearest` then searches them by.

        Raises:
            ValueError: if the index is of other references
        """
        if cells.means.shape != (self.n_sites, self.embeddings.shape[1]) or not np.array_equal(
            cells.sites, self.sites
        ):
            raise ValueError("the index is of other references")
        same = replace(self)
        object.__setattr__(same, "cells", cells)
        return same

    def of_site(self, site: int) -> _Members:
        """The references of a site as `nearest` needs them; kept, unless there are too many."""
        if self.embeddings.size > _KEPT_NUMBERS:
            return _Members.of(self, site)
        if site not in self._kept:
            self._kept[site] = _Members.of(self, site)
        return self._kept[site]

    @cached_property
    def _kept(self) -> dict[int, _Members]:
        return {}


@dataclass(frozen=True, eq=False)
class _Members:
    """The r references of one site, centred: squared norms stay small, and so do errors of their products.

    Attributes:
        indices: (r,) into the references
        centre: (d,) float32
        centred: (r, d) float32
        squares: (r,) float32 squared norms
    """

    indices: Indices
    centre: NDArray[np.float32]
    centred: NDArray[np.float32]
    squares: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def of(cls, references: References, site: int) -> _Members:
        indices = np.flatnonzero(references.sites == site)
        embeddings = references.embeddings[indices].astype(np.float32)
        centre = embeddings.mean(axis=0) if len(indices) else np.zeros(embeddings.shape[1], np.float32)
        embeddings -= centre
        return cls(indices, centre, embeddings, np.einsum("rd,rd->r", embeddings, embeddings))


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest references of n targets in every class, nearest first.

    Attributes:
        indices: (n, sites, k) int, into the references; 0 where not `present`
        distances: (n, sites, k) float32, Euclidean; inf where not `present`
        present: (n, sites, k) bool, False where the class has fewer than k references to offer
    """

    indices: Indices
    distances: NDArray[np.float32]
    present: NDArray[np.bool_]


def nearest(
    targets: ArrayLike,
    references: References,
    k: int,
    exclude_patient: Sequence[str] | NDArray[np.str_] | None = None,
) -> Neighbors:
    """The k nearest references of every target in every class.

    Args:
        targets: (n, d) embeddings
        references: what to search
        k: how many in each class; with fewer in a class, all of them
        exclude_patient: (n,) the patient of every target, whose own references it must not get; an empty
            name excludes nothing. None where no target's patient is among the references

    Returns:
        the neighbours; of two equally near references the one that comes first in `references` is nearer.
        With an index some neighbours may be missed, see `situs.cells`; distances are exact

    Raises:
        ValueError: for a wrong shape or a k under 1
    """
    t = np.asarray(targets, dtype=np.float32)
    if t.ndim != 2 or t.shape[1] != references.embeddings.shape[1]:
        raise ValueError(f"targets: expected shape (n, {references.embeddings.shape[1]}), got {t.shape}")
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    patients = None if exclude_patient is None else np.asarray(exclude_patient, dtype=np.str_)
    if patients is not None and patients.shape != (len(t),):
        raise ValueError(f"exclude_patient: expected shape ({len(t)},), got {patients.shape}")

    shape = (len(t), references.n_sites, k)
    indices = np.zeros(shape, dtype=np.int64)
    distances = np.full(shape, np.inf, dtype=np.float32)
    if references.cells is None:
        _search_all(t, references, patients, indices, distances)
    else:
        _search_cells(t, references, references.cells, patients, indices, distances)
    present = np.isfinite(distances)
    indices[~present] = 0
    return Neighbors(indices, distances, present)


def _search_all(
    t: NDArray[np.float32],
    references: References,
    patients: NDArray[np.str_] | None,
    indices: Indices,
    distances: NDArray[np.float32],
) -> None:
    """Fill in the neighbours of targets, see `nearest`, by a look at every reference."""
    own, k = _own_patient(references, patients), indices.shape[2]
    for site in range(references.n_sites):
        members = references.of_site(site)
        if len(members) == 0:
            continue
        step = max(1, _BLOCK_NUMBERS // len(members))
        for a in range(0, len(t), step):
            rows = slice(a, a + step)
            barred = None if own is None else own[0][rows, None] == own[1][members.indices]
            columns, d = _nearest_rows(t[rows], references, members, min(k, len(members)), barred)
            indices[rows, site, : d.shape[1]] = members.indices[columns]
            distances[rows, site, : d.shape[1]] = d


def _search_cells(
    t: NDArray[np.float32],
    references: References,
    cells: Cells,
    patients: NDArray[np.str_] | None,
    indices: Indices,
    distances: NDArray[np.float32],
) -> None:
    """Fill in the neighbours of targets, see `nearest`, by the index."""
    k = indices.shape[2]
    barred = {
        name: cells.of_patient(name, references.patients)
        for name in ({""} if patients is None else set(patients.tolist()))
        if name
    }
    none = np.zeros(0, dtype=np.int64)
    own = [none if patients is None else barred.get(str(patients[n]), none) for n in range(len(t))]
    queries = cells.project(t)
    lists = [cells.shortlists(queries[:, s], s, _SHORTLIST * k, own) for s in range(references.n_sites)]
    for n, of_sites in enumerate(zip(*lists, strict=True)):
        d = _measure(t[n], references.embeddings[np.concatenate(of_sites)].astype(np.float32))
        ends = np.cumsum([len(rows) for rows in of_sites])[:-1]
        for site, (rows, exact) in enumerate(zip(of_sites, np.split(d, ends), strict=True)):
            order = np.argsort(exact, kind="stable")[:k]
            indices[n, site, : len(order)] = rows[order]
            distances[n, site, : len(order)] = exact[order]


def reference_sets(references: References, neighbors: Neighbors) -> NDArray[np.float32]:
    """The embeddings of the neighbours, (n, sites, k, d) float32; zeros where not present."""
    sets = references.embeddings[neighbors.indices].astype(np.float32)
    sets[~neighbors.present] = 0
    return sets


def nearest_distances(neighbors: Neighbors) -> NDArray[np.float32]:
    """(n,) how far the nearest reference of any class is from each target; inf without any."""
    return np.asarray(neighbors.distances.min(axis=(1, 2)))


def nearest_first(references: References, neighbors: Neighbors, sites: SiteList) -> list[Reference]:
    """The references nearest to any of some targets, nearest first, each named once.

    Args:
        references: What `neighbors` were found in.
        neighbors: Of the targets.
        sites: What the references' classes are.
    """
    indices, distances = neighbors.indices[neighbors.present], neighbors.distances[neighbors.present]
    by_id: dict[str, Reference] = {}
    for place in np.argsort(distances, kind="stable"):
        name = intern(str(references.ids[indices[place]]))  # kept once, however many lesions are near it
        if name not in by_id:
            site = sites.keys[references.sites[indices[place]]]
            by_id[name] = Reference(name, site, float(distances[place]))
    return list(by_id.values())


def _own_patient(references: References, names: NDArray[np.str_] | None) -> tuple[Indices, Indices] | None:
    """The patients of the targets and of the references as numbers to compare; None if none can be equal."""
    if names is None:
        return None
    known, codes = np.unique(references.patients, return_inverse=True)
    number = {str(name): code for code, name in enumerate(known) if name}
    return np.array([number.get(str(name), -1) for name in names], dtype=np.int64), codes.astype(np.int64)


def _nearest_rows(
    targets: NDArray[np.float32],
    references: References,
    members: _Members,
    k: int,
    barred: NDArray[np.bool_] | None,
) -> tuple[Indices, NDArray[np.float64]]:
    """Columns and distances (n, k) of the k nearest members of one site, inf where barred.

    One matrix product ranks all; its rounding error is bounded, so the few within that bound of the
    k-th are measured again by plain differences, which makes order and ties exact.
    """
    t, e2 = targets - members.centre, members.squares
    t2 = np.einsum("nd,nd->n", t, t)
    rough = t2[:, None] + e2 - 2 * (t @ members.centred.T)
    if barred is not None:
        rough[barred] = np.inf
    slack = np.finfo(np.float32).eps * t.shape[1] * (t2 + e2.max())
    limit = np.partition(rough, k - 1, axis=1)[:, k - 1] + 2 * slack
    width = max(k, int((rough <= limit[:, None]).sum(axis=1).max(where=np.isfinite(limit), initial=0)))
    if width < rough.shape[1]:
        columns = np.sort(np.argpartition(rough, width - 1, axis=1)[:, :width], axis=1)
    else:
        columns = np.broadcast_to(np.arange(rough.shape[1]), rough.shape)

    exact = np.empty(columns.shape)
    step = max(1, _BLOCK_NUMBERS // (width * t.shape[1]))
    for a in range(0, len(t), step):
        rows = slice(a, a + step)
        exact[rows] = _measure(
            targets[rows, None], references.embeddings[members.indices[columns[rows]]].astype(np.float64)
        )
    exact[~np.isfinite(np.take_along_axis(rough, columns, axis=1))] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(exact, order, axis=1)


def _measure(target: NDArray[np.float32], near: Floats) -> Floats:
    """Distances (..., w) by plain differences between a target (..., 1, d) and w references (..., w, d)."""
    difference = near - target
    return np.asarray(np.sqrt(np.einsum("...d,...d->...", difference, difference)))
