"""The cohorts of the experiment: the paper's counts, and no head on both sides."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms.drawn_experiment import HEADS, SIZE, draw_scans, rename_patients
from phantoms.small_cohort import BANDS, draw_cohort
from phantoms.tiny_recipe import SHORT

from situs.anatomy import SITE_INDEX, SITE_KEYS
from situs.cohort.slices import open_slices
from situs.errors import InputError, ManifestError
from situs.paper import cohorts
from situs.paper.cohorts import (
    PAPER_SIZE,
    SMALL_SIZE,
    SliceSubset,
    check_disjoint,
    choose_scans,
    open_subsets,
    split_heads,
)
from situs.progress import silent
from situs.synth.cohort import paper_slices

OF_BANDS = [SITE_INDEX[site] for site in BANDS]
SIDES = split_heads(HEADS, 0.5)


def of_bands(subset):
    """How many slices of every band's site; there are no others."""
    counts = np.bincount(subset.site, minlength=len(SITE_KEYS))
    assert counts[OF_BANDS].sum() == counts.sum()
    return counts[OF_BANDS].tolist()


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    monkeypatch.setattr(cohorts, "render_cohort", draw_scans)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "render_cohort", draw_scans)
        return work, open_subsets(work, SIDES, SHORT, SIZE, 1, silent)


@pytest.mark.slow
def test_counts_are_met_exactly_and_no_head_is_on_both_sides(whole):
    work, subsets = whole
    assert of_bands(subsets["train"]) == [16] * 4 and of_bands(subsets["test"]) == [4] * 4
    assert {name: subset.scans for name, subset in subsets.items()} == {"train": 6, "test": 4, "balanced": 4}
    sides = [set(open_slices(work / name, SHORT.spec).patient) for name in ("train", "test", "balanced")]
    assert sides == [{"head_a", "head_b"}, {"head_c", "head_d"}, {"head_c", "head_d"}]


@pytest.mark.slow
def test_another_cohort_can_be_trained_on(whole, tmp_path):
    """The tests are the same; who is tested on is left out; as many slices as `train` would take."""
    own = draw_cohort(tmp_path / "own", patients=3, scans=2)
    rename_patients(own, {"p0": "head_a", "p1": "head_c", "p2": "someone"})
    subsets = open_subsets(tmp_path / "work", SIDES, replace(SHORT, max_slices=2), SIZE, 1, silent, own)
    assert not (tmp_path / "work" / "train_pool").exists()
    assert set(subsets["train"].patient) == {"head_a", "someone"}
    assert of_bands(subsets["train"]) == [8] * 4  # of a lesion in each of 4 scans two slices
    assert of_bands(subsets["train"].subsample(5)) == [5] * 4
    for name in ("test", "balanced"):
        np.testing.assert_array_equal(subsets[name].id, whole[1][name].id)


def test_a_cohort_of_tested_patients_alone_is_refused(tmp_path):
    own = draw_cohort(tmp_path / "own", patients=3, scans=1)
    rename_patients(own, {"p1": "head_c"})
    with pytest.raises(ManifestError, match="no patient is left to train on"):
        open_subsets(tmp_path / "work", SIDES, SHORT, SIZE, 1, silent, own)


def test_counts_that_cannot_be_met_are_refused(tmp_path):
    size = replace(SIZE, train_scans=1, slices={"thalamus": 5})
    with pytest.raises(InputError, match="no 1 of 16 scans have the needed slices"):
        open_subsets(tmp_path, SIDES, SHORT, size, 1, silent)


def test_heads_are_split_by_name():
    train, test = split_heads(HEADS, 0.25)
    assert [head.name[5] for head in train] == list("abc") and [head.name[5] for head in test] == ["d"]
    with pytest.raises(InputError, match="at least two"):
        split_heads(HEADS[:1], 0.5)


def test_patients_on_both_sides_are_named(tmp_path):
    subsets = []
    for n, patients in enumerate((3, 2)):
        draw_cohort(tmp_path / str(n), patients=patients, scans=1)
        slices = open_slices(tmp_path / str(n), SHORT.spec)
        subsets.append(SliceSubset(slices, np.arange(len(slices))))
    with pytest.raises(ManifestError, match="'p0', 'p1': in the training and in the test"):
        check_disjoint(*subsets)


def test_scans_are_chosen_by_what_is_missing():
    slices = np.zeros((4, len(SITE_KEYS)), int)
    slices[:, SITE_INDEX["thalamus"]] = [9, 1, 0, 0]
    slices[:, SITE_INDEX["brainstem"]] = [0, 0, 50, 8]
    need = np.zeros(len(SITE_KEYS), int)
    need[SITE_INDEX["thalamus"]], need[SITE_INDEX["brainstem"]] = 5, 8
    assert choose_scans(slices, need, 2).tolist() == [0, 2]
    assert choose_scans(slices, need, 3).tolist() == [0, 1, 2]  # nothing is missing any more: the first
    assert choose_scans(slices, need, 1) is None
    need[SITE_INDEX["thalamus"]] = 10
    assert choose_scans(slices, need, 3).tolist() == [0, 1, 2]
    need[SITE_INDEX["thalamus"]] = 11
    assert choose_scans(slices, need, 4) is None


def test_the_sizes():
    assert PAPER_SIZE.train_scans + PAPER_SIZE.test_scans == 216
    assert PAPER_SIZE.slices == paper_slices() and sum(PAPER_SIZE.slices.values()) == 15_425
    assert PAPER_SIZE.epochs == 15 and SMALL_SIZE.epochs > 5  # the paper looks at both after five
    assert set(SMALL_SIZE.slices) == set(SITE_KEYS)
