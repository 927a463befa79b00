"""Nearest references: against plain loops and scikit-learn, with ties, few references and own patients."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from situs import neighbors
from situs.anatomy import SITES
from situs.neighbors import References, nearest, reference_sets
from situs.records import take_rows


def make_references(rng, n, width=8, sites=None, dtype=np.float32, grid=False):
    embeddings = rng.integers(0, 3, (n, width)) if grid else rng.normal(size=(n, width))
    sites = rng.integers(0, len(SITES), n) if sites is None else sites
    ids = np.array([f"r{i}" for i in range(n)])
    return References(embeddings.astype(dtype), sites, ids, np.array([f"p{i % 5}" for i in range(n)]))


def by_loops(targets, references, k, patients=None):
    """What `nearest` promises, one pair at a time: {(target, site): [(distance, index), ...]}."""
    answer = {}
    for n, target in enumerate(targets):
        for site in range(len(SITES)):
            found = []
            for index in range(len(references)):
                same = patients is not None and patients[n] and patients[n] == references.patients[index]
                if references.sites[index] == site and not same:
                    difference = references.embeddings[index].astype(float) - target.astype(float)
                    found.append((float(np.sqrt((difference**2).sum())), index))
            answer[n, site] = sorted(found)[:k]
    return answer


def check_equal(result, expected):
    for (n, site), found in expected.items():
        m = len(found)
        assert result.present[n, site].tolist() == [True] * m + [False] * (result.present.shape[2] - m)
        assert result.indices[n, site, :m].tolist() == [index for _, index in found]
        np.testing.assert_allclose(result.distances[n, site, :m], [d for d, _ in found], rtol=1e-6)
        assert np.isinf(result.distances[n, site, m:]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("grid", [False, True], ids=["distinct", "many ties"])
def test_equal_to_plain_loops(dtype, grid):
    rng = np.random.default_rng(0)
    references = make_references(rng, 200, dtype=dtype, grid=grid)
    targets = (rng.integers(0, 3, (12, 8)) if grid else rng.normal(size=(12, 8))).astype(np.float32)
    check_equal(nearest(targets, references, 4), by_loops(targets, references, 4))


def test_never_of_the_same_patient():
    rng = np.random.default_rng(1)
    references = make_references(rng, 150)
    targets = references.embeddings[:20]
    patients = references.patients[:20].copy()
    patients[3], patients[4] = "", "nobody"
    result = nearest(targets, references, 5, exclude_patient=patients)
    check_equal(result, by_loops(targets, references, 5, patients))
    neighbours = references.patients[result.indices]
    own = (neighbours == patients[:, None, None]) & result.present
    assert not own.any()
    assert np.isclose(result.distances[3].min(), 0)  # an unknown patient bars nothing, not even itself


def test_a_class_all_of_the_same_patient_has_nothing_to_offer():
    references = References(
        np.eye(3, dtype=np.float32), np.array([2, 2, 7]), np.array(list("abc")), np.array(["x", "x", "y"])
    )
    result = nearest(np.eye(3)[:1], references, 2, exclude_patient=["x"])
    assert not result.present[0, 2].any()
    assert result.present[0, 7].tolist() == [True, False]
    assert result.present.sum() == 1


def test_equal_to_sklearn_far_from_the_origin():
    """A common offset of 1000 leaves the product of matrices few digits; the answer must not care."""
    rng = np.random.default_rng(2)
    references = make_references(rng, 400, width=32, sites=np.full(400, 6))
    shifted = References(references.embeddings + 1000, references.sites, references.ids, references.patients)
    targets = rng.normal(size=(50, 32)).astype(np.float32) + 1000
    oracle = NearestNeighbors(n_neighbors=7, algorithm="brute", metric="euclidean")
    oracle.fit(shifted.embeddings.astype(np.float64))
    distances, indices = oracle.kneighbors(targets.astype(np.float64))
    result = nearest(targets, shifted, 7)
    np.testing.assert_array_equal(result.indices[:, 6], indices)
    np.testing.assert_allclose(result.distances[:, 6], distances, rtol=1e-5)


def test_blocks_do_not_change_the_answer(monkeypatch):
    rng = np.random.default_rng(3)
    references = make_references(rng, 300)
    targets = rng.normal(size=(40, 8))
    whole = nearest(targets, references, 6)
    monkeypatch.setattr(neighbors, "_BLOCK_NUMBERS", 50)
    blocks = nearest(targets, references, 6)
    np.testing.assert_array_equal(whole.indices, blocks.indices)
    np.testing.assert_array_equal(whole.distances, blocks.distances)


def test_identical_references_come_in_their_order():
    references = References(
        np.ones((90, 4), np.float16), np.full(90, 1), np.arange(90).astype(str), np.full(90, "")
    )
    result = nearest(np.zeros((2, 4)), references, 5)
    np.testing.assert_array_equal(result.indices[:, 1], np.broadcast_to(np.arange(5), (2, 5)))
    np.testing.assert_allclose(result.distances[:, 1], 2)


def test_reference_sets_hold_the_neighbours_and_zeros():
    rng = np.random.default_rng(4)
    references = make_references(rng, 30)
    found = nearest(rng.normal(size=(3, 8)), references, 4)
    sets = reference_sets(references, found)
    assert sets.shape == (3, len(SITES), 4, 8)
    for place in np.ndindex(found.present.shape):
        expected = references.embeddings[found.indices[place]] if found.present[place] else np.zeros(8)
        np.testing.assert_array_equal(sets[place], expected)


def test_no_targets():
    assert nearest(np.zeros((0, 8)), make_references(np.random.default_rng(5), 20), 3).indices.shape == (
        0,
        len(SITES),
        3,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.full((2, 3), np.nan, np.float32)}, "embeddings"),
        ({"sites": np.array([0, len(SITES)])}, "sites"),
        ({"sites": np.array([0.0, 1.0])}, "sites"),
        ({"ids": np.array(["a"])}, "ids"),
    ],
)
def test_wrong_references_are_refused(change, message):
    good = {
        "embeddings": np.zeros((2, 3), np.float32),
        "sites": np.array([0, 1]),
        "ids": np.array(["a", "b"]),
    }
    with pytest.raises(ValueError, match=message):
        References(**(good | {"patients": np.array(["p", "q"])} | change))


def test_wrong_targets_are_refused():
    references = make_references(np.random.default_rng(6), 20)
    with pytest.raises(ValueError, match="targets"):
        nearest(np.zeros((2, 7)), references, 3)
    with pytest.raises(ValueError, match="k:"):
        nearest(np.zeros((2, 8)), references, 0)
    with pytest.raises(ValueError, match="exclude_patient"):
        nearest(np.zeros((2, 8)), references, 3, exclude_patient=["p0"])


def test_some_alone():
    references = make_references(np.random.default_rng(0), 6)
    one = take_rows(references, np.array([4, 1]))
    two = take_rows(references, np.isin(references.ids, ["r1", "r4"]))
    assert one.ids.tolist() == ["r4", "r1"] and two.ids.tolist() == ["r1", "r4"]
    for some in (one, two):
        for n, name in enumerate(some.ids.tolist()):
            old = int(name[1:])
            assert (some.embeddings[n] == references.embeddings[old]).all()
            assert (some.sites[n], some.patients[n]) == (references.sites[old], references.patients[old])
