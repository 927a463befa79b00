"""A list of one's own: which voxels are its sites, the lesions grown in them, the cohort, bad lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms.commands import refused
from phantoms.small_head import THALAMUS, code, draw_small_plan, small_head

from situs.anatomy import SITE_KEYS, SITES, Site, SiteList, read_sites
from situs.cohort.manifest import read_cohort_sites, read_manifest
from situs.errors import InputError, OutputError
from situs.io.nifti import read_nifti_grid
from situs.synth import cohort, heads, pose
from situs.synth.cohort import render_cohort
from situs.synth.heads import Head
from situs.synth.lesions import LesionGrower
from situs.synth.site_list import check_labels, check_list, list_codes, main_rules

HEAD = small_head()
BY_RULE = tuple(replace(SITES.site(key)) for key in ("frontal_region", "parietal_region", "sulcal_spaces"))
NUCLEUS = Site("nucleus", "nucleus", labels="10 49")
HORNS = Site("left_horn", "left horn", labels="4"), Site("right_horn", "right horn", labels="43")
SCALP = Site("scalp", "scalp", labels="507")
OWN = SiteList([*BY_RULE, NUCLEUS, *HORNS, SCALP])


def with_list(listed: SiteList, head: Head = HEAD) -> Head:
    codes = (list_codes(codes, head.labels, listed) for codes in (head.sites, head.extra_axial))
    sites, extra_axial = codes
    return replace(head, sites=sites, extra_axial=extra_axial, listed=listed, ruled=head.sites)


def test_labels_come_before_rules_and_what_is_not_listed_is_no_site():
    listed = SiteList(
        [SITES.site("thalamus"), SITES.site("temporal_region"), replace(NUCLEUS, labels="17 53")]
    )
    ruled = np.array(
        [code("temporal_region"), code("temporal_region"), code("thalamus"), code("cerebellum"), 0]
    )
    labels = np.array([17, 1030, 10, 53, 506])
    assert list_codes(ruled.astype(np.uint8), labels, listed).tolist() == [3, 2, 1, 3, 0]


def test_the_shipped_list_changes_no_site_map():
    codes = np.arange(len(SITE_KEYS) + 1, dtype=np.uint8)
    assert np.array_equal(list_codes(codes, np.zeros(codes.shape, int), SITES), codes)


def test_a_labelled_site_is_grown_as_most_of_it_is_by_the_rules():
    listed = SiteList([SITES.site("cerebellum"), replace(NUCLEUS, labels="10"), SCALP])
    codes = np.array([1, 2, 2, 2, 3, 0], np.uint8)
    ruled = np.array([code("cerebellum"), code("brainstem"), *[code("thalamus")] * 2, 0, 4], np.uint8)
    assert main_rules(codes, ruled, listed) == {
        "cerebellum": "cerebellum",
        "nucleus": "thalamus",
        "scalp": "",
    }


@pytest.mark.parametrize(("key", "labels"), [("nucleus", THALAMUS), ("left_horn", (4,)), ("scalp", (507,))])
def test_a_lesion_lies_in_the_labels_of_its_site(key, labels):
    grower = LesionGrower(with_list(OWN))
    grown = [grower.grow(key, np.random.default_rng([3, n])) for n in range(16)]
    shares = [np.isin(HEAD.labels[p.box][p.mask], labels).mean() for p in grown if p is not None]
    assert len(shares) >= 10 and {p.site for p in grown if p is not None} == {key}
    assert min(shares) >= 0.35 and np.mean(shares) > 0.6


def test_lesions_of_the_rest_lie_by_the_rules_and_not_in_what_was_taken_out():
    """The list has no thalamus: what lies in it is no site, and a lobe's lesion may not be mostly there."""
    head = with_list(SiteList(BY_RULE))
    assert not np.isin(head.sites, [0]).all() and not head.sites[np.isin(HEAD.labels, THALAMUS)].any()
    grower = LesionGrower(head)
    assert grower.sites() == ("frontal_region", "parietal_region", "sulcal_spaces")
    for n in range(6):
        lesion = grower.grow("frontal_region", np.random.default_rng(n))
        under = (head.extra_axial if lesion.in_tissue else head.sites)[lesion.box][lesion.mask]
        assert (under == head.code("frontal_region")).mean() >= 0.45


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (
            [Site("a", "a", labels="17"), Site("b", "b", labels="53 17")],
            "site b: label 17 is given already, to a",
        ),
        ([Site("a", "a", labels="17 17")], "site a: label 17 is given already, to a"),
        ([Site("hippocampus", "hippocampus")], "site hippocampus: has no labels, and there is no rule"),
        ([Site("temporal_regio", "t")], "no labels, .* did you mean 'temporal_region'"),
        ([Site("a", "a", labels="9999")], "site a: head label maps know no label 9999"),
        ([Site("a", "a", labels="17, 53")], "site a: labels: expected whole numbers .* got '17,'"),
        ([Site("a", "a", labels="-17")], "site a: labels: expected whole numbers .* got '-17'"),
    ],
)
def test_a_list_that_cannot_be_rendered_is_refused(sites, words):
    with pytest.raises(InputError, match=words):
        check_list(SiteList(sites))


def test_a_label_that_no_head_has_is_refused_and_heads_are_read_as_far_as_needed():
    def maps():
        yield np.array([17])
        yield np.array([53])
        raise AssertionError("all labels were found before")

    listed = SiteList([SITES[0], Site("a", "a", labels="17 53")])
    check_labels(listed, maps())
    with pytest.raises(InputError, match="site a: no head has the label 53"):
        check_labels(listed, [np.array([17, 4])])


@pytest.fixture
def small(monkeypatch):
    """Small heads on a small grid, wherever their files are."""
    monkeypatch.setattr(cohort, "_grower", lambda path, atrophy_mm, listed: LesionGrower(with_list(listed)))
    monkeypatch.setattr(pose, "draw_plan", draw_small_plan)
    monkeypatch.setattr(heads, "read_labels", lambda path: (HEAD.labels, HEAD.affine))


def test_a_cohort_of_ones_own_list(small, tmp_path):
    """A speck of 27 voxels is too small a site; one is left out by its name."""
    labels = HEAD.labels.copy()
    labels[30:33, 30:33, 30:33] = 85
    head = replace(HEAD, labels=labels)
    listed, notes = SiteList([*OWN, Site("speck", "speck", labels="85")]), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cohort, "_grower", lambda path, atrophy_mm, listed: LesionGrower(with_list(listed, head))
        )
        patch.setattr(heads, "read_labels", lambda path: (labels, HEAD.affine))
        render_cohort([Path("maps/small.nii.gz")], tmp_path, 2, seed=3, sites=listed, note=notes.append)
    assert notes == ["small: speck is too small there, so it gets no lesion"]
    assert read_cohort_sites(tmp_path) == listed
    rows = read_manifest(tmp_path)
    assert {row.site for row in rows} <= set(OWN.keys) and len({row.site for row in rows}) >= 5
    codes = read_nifti_grid(rows[0].sites, InputError).values
    assert set(np.unique(codes)) == {*range(len(OWN) + 1)} | ({8} & set(np.unique(codes).tolist()))
    with pytest.raises(OutputError, match="other settings"):
        render_cohort([Path("maps/small.nii.gz")], tmp_path, 2, seed=3, sites=OWN)


def test_the_shipped_example_is_a_list_that_can_be_rendered():
    listed = read_sites(Path(__file__).parents[2] / "examples" / "finer_sites.csv")
    check_list(listed)
    assert len(listed) >= 25
    for site in listed:
        if site.key in SITE_KEYS:  # so that a bundle of the 15 takes its cases
            assert (site.name, site.paired) == (SITES.site(site.key).name, SITES.site(site.key).paired)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,labels\nbrainstem,\nhippocampus,\n", ["hippocampus", "no labels"]),
        ("name\nbrainstem\n", ["own.csv", "lacks the column 'key'"]),
        ("key,labels\na,506\n", ["site a: no head has the label 506"]),
    ],
)
def test_a_bad_list_is_one_line_and_nothing_is_written(small, tmp_path, capsys, monkeypatch, text, words):
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "small.nii.gz").write_text("")
    (tmp_path / "own.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["synth", "heads", "out", "--scans", "1", "--sites", "own.csv"], *words)
    assert not (tmp_path / "out").exists()
