"""Sites that a bundle was never trained on: known from their references alone, and taken away again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from phantoms.signed import sign
from phantoms.small_bundle import small_bundle
from phantoms.small_cohort import BANDS, draw_cohort
from scipy.special import expit, logit

from situs.anatomy import SITES, read_sites
from situs.bundle import read_bundle
from situs.bundle.change import replace_calibration
from situs.certainty import Calibration
from situs.cli import main
from situs.cohort.evaluate import evaluate
from situs.cohort.references import add_references, remove_references
from situs.errors import InputError, ManifestError
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.neighbors import nearest, reference_sets
from situs.report import csv_columns, format_csv, format_text, to_json_object
from situs.report.html import format_html
from situs.runtime import Runtime
from situs.volume import split_lesions

NEW = "hippocampus"
CHANGED = "frontal_region"  # that the cohort calls by another name


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = draw_cohort(tmp_path_factory.mktemp("cohort"), patients=2, scans=1, painted=False)
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(CHANGED, NEW))
    return folder


@pytest.fixture(scope="module")
def known(cohort, tmp_path_factory):
    """The folder of a bundle that knows the new site."""
    folder = shutil.copytree(small_bundle(), tmp_path_factory.mktemp("bundle") / "mine")
    add_references(folder, cohort, new_sites=[NEW])
    return folder


@pytest.fixture
def case(cohort):
    volume = read_volume(cohort / "scan0.nii.gz")
    return volume, read_rois(cohort / "roi0.nii.gz", volume)


def test_a_new_site_has_a_score_a_name_and_references_everywhere(known, case):
    bundle = read_bundle(known)
    assert bundle.sites.keys == (*SITES.keys, NEW) and bundle.n_trained_sites == 15
    labeler = Labeler.load(known)
    volume, rois = case
    findings = labeler.label(volume, rois, patient="somebody else")
    first = findings[0]  # the region that is a reference of the new site
    assert first.nearest[0].site == NEW
    assert tuple(first.scores) == tuple(first.shares) == bundle.sites.keys
    assert first.shares[NEW] == 0 and sum(first.shares.values()) == pytest.approx(1)
    assert 0 <= first.scores[NEW] <= 1
    named = replace(first, site=NEW)
    assert "hippocampus" in format_text(volume, [named])
    assert tuple(format_csv(volume, findings).splitlines()[0].split(",")) == csv_columns(bundle.sites)
    assert to_json_object(volume, findings)["findings"][0]["scores"][NEW] == round(first.scores[NEW], 6)
    lesions = [lesion for roi in rois for lesion in split_lesions(roi)]
    assert "hippocampus" in format_html(volume, lesions, [named])


def test_the_scores_of_the_others_do_not_depend_on_it(known):
    """Each site's score is that of the network asked about that site alone, in any of its places."""
    bundle, before = read_bundle(known), read_bundle(small_bundle())
    targets = before.references.embeddings[:7].astype(np.float32)
    found = nearest(targets, bundle.references, bundle.n_neighbors)
    sets = reference_sets(bundle.references, found)
    scores = Runtime(bundle).relate(targets, sets, found.present)
    assert scores.shape == (7, 16)
    alone = Runtime(before)
    np.testing.assert_allclose(scores[:, :15], alone.relate(targets, sets[:, :15], found.present[:, :15]))
    moved, present = np.roll(sets, 3, axis=1)[:, :15], np.roll(found.present, 3, axis=1)[:, :15]
    own = alone.relate(targets, moved, present)[:, 2].astype(np.float64)
    assert set(bundle.description["score_offsets"]) == set(bundle.description["score_weights"]) == {NEW}
    assert bundle.score_offsets[15] != 0 and bundle.score_weights[15].any()
    shifted = expit(logit(own) + bundle.score_offsets[15] + targets @ bundle.score_weights[15])
    np.testing.assert_allclose(scores[:, 15], shifted, rtol=1e-4)


def test_a_site_that_is_not_named_as_new_is_refused(cohort, tmp_path, capsys):
    with pytest.raises(ManifestError, match="no site 'hippocampus'"):
        add_references(small_bundle(), cohort, tmp_path / "out")
    for new, message in (
        (["hippocampas", NEW], "hippocampas: no case"),
        ([NEW, "thalamus"], "has this site already"),
        (["Hippo campus", NEW], "small letters"),
    ):
        with pytest.raises((InputError, ManifestError), match=message):
            add_references(small_bundle(), cohort, tmp_path / "out", new_sites=new)
    assert not (tmp_path / "out").exists()
    args = ["references", "add", str(small_bundle()), str(cohort), "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert main([*args, "--new-site", NEW]) == 0
    assert "hippocampus is a new site" in capsys.readouterr().out


def test_removing_its_references_takes_it_away_again(known, tmp_path):
    original = read_bundle(small_bundle())
    change = remove_references(known, site=NEW, out=tmp_path / "without")
    assert change.gone_sites == (NEW,) and change.emptied == ()
    left = read_bundle(tmp_path / "without")
    assert left.sites == SITES and not left.score_offsets.any() and not left.score_weights.any()
    np.testing.assert_array_equal(left.references.sites[:60], original.references.sites)
    assert set(left.references.sites[60:].tolist()) == {SITES.number(key) for key in BANDS if key != CHANGED}


def test_a_site_that_was_not_calibrated_has_the_pooled_threshold_and_says_so(cohort, case, tmp_path):
    calibration = Calibration(0.9, np.full(15, 0.9), 0.0, 1e3, 0.0, 90, 3)
    folder = replace_calibration(read_bundle(small_bundle()), calibration, tmp_path / "calibrated")
    add_references(folder, cohort, new_sites=[NEW])
    labeler = Labeler.load(folder)
    assert labeler.bundle.calibration.uncalibrated == {NEW}
    assert labeler.bundle.calibration.thresholds.tolist() == [0.9] * 15 + [0.0]
    for finding in labeler.label(*case):
        assert NEW in finding.site_set  # every score reaches 0
        assert any("not calibrated for hippocampus" in note for note in finding.notes)
        assert not any("not calibrated" in doubt for doubt in finding.doubts)


def test_a_cohort_s_own_list_is_used_and_may_not_contradict(cohort, tmp_path):
    own = shutil.copytree(cohort, tmp_path / "own", ignore=shutil.ignore_patterns(".cache"))
    others = [key for key in BANDS if key != CHANGED]
    rows = [f"{NEW},Hippocampal formation,1", *(f"{key},{SITES.site(key).name},1" for key in others)]
    (own / "sites.csv").write_text("\n".join(["key,name,paired", *rows]))
    add_references(small_bundle(), own, tmp_path / "mine", new_sites=[NEW])
    site = read_bundle(tmp_path / "mine").sites.site(NEW)
    assert (site.name, site.paired) == ("Hippocampal formation", True)
    rows[1:] = [f"{key},Knee {key},1" for key in others]
    (own / "sites.csv").write_text("\n".join(["key,name,paired", *rows]))
    with pytest.raises(ManifestError, match="in the bundle: give one of them another key"):
        add_references(small_bundle(), own, tmp_path / "other", new_sites=[NEW])


def test_it_is_evaluated_like_any_other(known, cohort):
    evaluation = evaluate(known, cohort, n_boot=5)
    table = evaluation.to_dict()["sites"]
    assert tuple(table) == (*SITES.keys, NEW)
    assert table[NEW]["support"] == table["parietal_region"]["support"] > 0
    assert "hippocampus" in evaluation.text()


def test_one_of_the_first_bundles_takes_a_new_site(cohort, case, tmp_path):
    """It has the keys of its sites alone, and does not say how many it was trained on."""
    old = shutil.copytree(small_bundle(), tmp_path / "old")

    def as_before(description):
        description["sites"] = list(SITES.keys)
        del description["n_trained_sites"]

    sign(old, as_before)
    add_references(old, cohort, new_sites=[NEW])
    assert read_bundle(old).n_trained_sites == 15
    assert all(NEW in finding.scores for finding in Labeler.load(old).label(*case))


def test_a_site_with_one_slice_is_a_site(cohort, tmp_path):
    one = shutil.copytree(cohort, tmp_path / "one", ignore=shutil.ignore_patterns(".cache"))
    lines = (one / "manifest.csv").read_text().splitlines()
    (one / "manifest.csv").write_text("\n".join(line for line in lines if NEW not in line or "scan0" in line))
    change = add_references(small_bundle(), one, tmp_path / "mine", max_slices=1, new_sites=[NEW])
    bundle = read_bundle(tmp_path / "mine")
    assert np.count_nonzero(bundle.references.sites == bundle.sites.number(NEW)) == 1
    assert change.total == len(bundle.references)
    volume = read_volume(one / "scan0.nii.gz")
    findings = Labeler.load(tmp_path / "mine").label(volume, read_rois(one / "roi0.nii.gz", volume))
    assert bundle.n_neighbors > 1 and findings[0].scores[NEW] > 0


def test_the_sites_of_a_bundle_are_listed(known, tmp_path, capsys):
    assert main(["sites", str(known), "--csv", str(tmp_path / "sites.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "16 sites" in lines[0] and len(lines) == 3 + 16
    assert lines[-1].startswith(NEW) and lines[-1].endswith("references")
    assert lines[3].startswith("along_falx_tentorium") and lines[3].endswith("training")
    assert read_sites(tmp_path / "sites.csv") == read_bundle(known).sites
