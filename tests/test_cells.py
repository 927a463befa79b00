"""The index for many references: against the exact search, the patient's own left out, misfits refused."""

from dataclasses import fields, replace

import numpy as np
import pytest

from situs import cells
from situs.cells import Cells, divide
from situs.neighbors import References, nearest
from situs.records import take_rows

N_SITES, WIDTH = 4, 20


def clustered(n: int, seed: int = 0) -> References:
    """References of three sites of several places each; the last site has none."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(9).normal(size=(3, 12, WIDTH))
    sites = rng.choice(3, n, p=[0.8, 0.19, 0.01])
    embeddings = places[sites, rng.integers(0, 12, n)] + 0.3 * rng.normal(size=(n, WIDTH))
    names = np.array([f"r{i}" for i in range(n)])
    patients = np.array([f"p{i % 50}" if i % 7 else "" for i in range(n)])
    return References(embeddings.astype(np.float16), sites, names, patients, N_SITES)


def index(references: References) -> References:
    order, found = divide(references.embeddings, references.sites, references.patients, N_SITES)
    assert sorted(order.tolist()) == list(range(len(references)))
    return take_rows(references, order).indexed(found)


def recall(some, exact) -> float:
    return np.mean([np.isin(e, s).mean() for s, e in zip(some, exact, strict=True)])


@pytest.fixture(scope="module")
def indexed() -> References:
    return index(clustered(6000))


def test_nearly_all_neighbours_are_found_and_measured_exactly(indexed, monkeypatch):
    monkeypatch.setattr(cells, "_PROBES", 12)  # of the 75 cells of the largest site
    targets = clustered(60, seed=1).embeddings.astype(np.float32)
    exact, found = nearest(targets, replace(indexed), 5), nearest(targets, indexed, 5)
    np.testing.assert_array_equal(found.present, exact.present)
    assert recall(found.indices[:, :3].reshape(-1, 5), exact.indices[:, :3].reshape(-1, 5)) > 0.9
    difference = indexed.embeddings[found.indices].astype(float) - targets[:, None, None]
    plain = np.sqrt((difference**2).sum(axis=-1))
    np.testing.assert_allclose(found.distances[found.present], plain[found.present], rtol=1e-6)
    assert (indexed.sites[found.indices] == np.arange(N_SITES)[:, None])[found.present].all()


def test_few_references_of_a_site_are_all_found(indexed):
    targets = clustered(20, seed=2).embeddings.astype(np.float32)
    exact, found = nearest(targets, replace(indexed), 5), nearest(targets, indexed, 5)
    np.testing.assert_array_equal(found.indices[:, 2], exact.indices[:, 2])
    assert not found.present[:, 3].any()


def test_more_neighbours_than_a_site_has(indexed):
    found = nearest(indexed.embeddings[:2].astype(np.float32), indexed, 100)
    assert (found.present.sum(axis=2)[:, 2] == (indexed.sites == 2).sum()).all()


def test_never_of_the_same_patient(indexed):
    targets = indexed.embeddings[:40].astype(np.float32)
    patients = indexed.patients[:40].copy()
    patients[3] = "a patient of a longer name than any"
    found = nearest(targets, indexed, 5, patients)
    for name, rows, present in zip(patients, found.indices, found.present, strict=True):
        assert not name or name not in indexed.patients[rows[present]]
    itself = nearest(targets, indexed, 1).indices[np.arange(40), indexed.sites[:40], 0]
    assert (itself == np.arange(40)).all()


def test_the_references_of_a_patient(indexed):
    rows = indexed.cells.of_patient("p7", indexed.patients)
    np.testing.assert_array_equal(rows, np.flatnonzero(indexed.patients == "p7"))
    assert not len(indexed.cells.of_patient("p7 and more", indexed.patients))


def test_the_same_references_are_divided_alike(indexed):
    again = index(clustered(6000))
    assert again.ids.tolist() == indexed.ids.tolist()
    for field in fields(Cells):
        np.testing.assert_array_equal(getattr(again.cells, field.name), getattr(indexed.cells, field.name))


def test_a_changed_copy_has_no_index(indexed):
    assert take_rows(indexed, slice(0, 50)).cells is None
    with pytest.raises(ValueError, match="the index is of other references"):
        take_rows(indexed, slice(0, 50)).indexed(indexed.cells)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("starts", lambda a: a[::-1]),
        ("starts", lambda a: a.astype(np.int32)),
        ("site_cells", lambda a: a + 1),
        ("by_patient", lambda a: a + 1),
        ("centroids", lambda a: a[:, :-1]),
        ("coarse", lambda a: a[:, :-1]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(indexed, name, change):
    with pytest.raises(ValueError, match=name):
        replace(indexed.cells, **{name: change(getattr(indexed.cells, name))})
