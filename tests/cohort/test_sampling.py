"""Patients on one side only, sites balanced, patients evenly."""

import numpy as np
import pytest

from situs.cohort.sampling import balanced_indices, choose_evenly, split_patients
from situs.errors import ManifestError


@pytest.mark.parametrize("seed", range(5))
def test_split_never_shares_a_patient(seed):
    patients = [f"p{n % 7}" for n in range(100)]
    train, test = split_patients(patients, 0.2, seed)
    assert not set(train) & set(test) and set(train) | set(test) == set(patients)
    assert len(test) == 1  # 0.2 of 7, rounded


def test_split_by_name():
    assert split_patients(["a", "b", "c", "a"], ["c"]) == (("a", "b"), ("c",))
    assert split_patients(["a", "b"], []) == (("a", "b"), ())
    with pytest.raises(ManifestError, match="no patient 'head_1' in the cohort; did you mean 'head_01'"):
        split_patients(["head_01", "head_02"], ["head_1"])
    with pytest.raises(ManifestError, match="left to train"):
        split_patients(["a"], ["a"])
    with pytest.raises(ManifestError, match="between 0 and 1"):
        split_patients(["a", "b"], 1.5)


def test_balanced_indices():
    sites = np.repeat([0, 3, 7], [1000, 100, 10])
    drawn = balanced_indices(sites, 600, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(sites[drawn], minlength=8)[[0, 3, 7]], [200, 200, 200])
    counts = np.bincount(drawn, minlength=len(sites))
    assert counts[:1000].max() == 1  # under-sampled, none twice
    assert set(counts[1000:1100]) == {2} and set(counts[1100:]) == {20}  # over-sampled, all alike
    natural = balanced_indices(sites, 1110, np.random.default_rng(0), power=0)
    np.testing.assert_allclose(np.bincount(sites[natural])[[0, 3, 7]], [1000, 100, 10], atol=2)


def test_choose_evenly():
    sites = np.repeat([0, 1], [100, 6])
    patients = np.array(["a"] * 90 + ["b"] * 8 + ["c"] * 2 + ["a"] * 5 + ["c"])
    chosen = choose_evenly(sites, patients, 12, np.random.default_rng(0))
    names = patients[chosen[sites[chosen] == 0]]
    assert {p: int((names == p).sum()) for p in "abc"} == {"a": 5, "b": 5, "c": 2}
    assert (sites[chosen] == 1).sum() == 6 and len(set(chosen.tolist())) == len(chosen)
