"""Folds answer for the patients that they have not seen; the thresholds are written into the bundle."""

import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms.small_bundle import SPEC, small_bundle
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITE_KEYS
from situs.bundle import BASENET_FILE, RELATION_FILE, read_bundle
from situs.bundle.format import description_digest
from situs.bundle.write import ExportedNetworks, write_bundle
from situs.certainty import fit_calibration
from situs.cohort.answers import answer_slices, average_answers
from situs.cohort.calibrate import calibrate
from situs.cohort.slices import open_slices
from situs.errors import BundleError, ManifestError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"), patients=4, scans=2)


@pytest.fixture
def bundles(tmp_path, cohort):
    """A bundle with references of all patients, and two that lack one half each."""
    names = np.unique(open_slices(cohort, SPEC).patient)
    return (
        rewrite(tmp_path / "whole", names),
        rewrite(tmp_path / "one", names[:2]),
        rewrite(tmp_path / "two", names[2:]),
    )


def rewrite(out, patients, **recipe):
    """The small bundle with references of other patients, of a recipe with these settings instead."""
    small = read_bundle(small_bundle())
    files = {name: (small.path / name).read_bytes() for name in (BASENET_FILE, RELATION_FILE)}
    return write_bundle(
        out,
        ExportedNetworks(files, small.description["networks"], small.spec, small.n_neighbors),
        replace(small.references, patients=np.resize(patients, len(small.references))),
        recipe=small.recipe | recipe,
        training={},
    )


def test_every_patient_is_answered_by_the_fold_that_has_not_seen_it(bundles, cohort):
    whole, one, two = bundles
    before = read_bundle(whole)
    calls = []
    calibration, coverage = calibrate(whole, cohort, [one, two], progress=lambda *call: calls.append(call))
    after = read_bundle(whole)
    assert before.calibration is None and after.calibration.to_dict() == calibration.to_dict()
    rest = {key: value for key, value in after.description.items() if key not in ("certainty", "sha256")}
    assert rest == {key: value for key, value in before.description.items() if key != "sha256"}

    slices = open_slices(cohort, before.spec)
    people = np.unique(slices.patient)
    parts = []
    for fold, unseen in ((one, people[2:]), (two, people[:2])):
        chosen = np.flatnonzero(np.isin(slices.patient, unseen))
        answers = average_answers(answer_slices(read_bundle(fold), slices, chosen), slices.row[chosen])
        first = chosen[np.unique(slices.row[chosen], return_index=True)[1]]
        parts.append(
            (answers.relation, slices.site[first], answers.distances, answers.inside, slices.patient[first])
        )
    expected = fit_calibration(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert replace(calibration, alone=None).to_dict() == expected.to_dict()
    assert calibration.patients == 4 and calibration.regions == len(np.unique(slices.row))
    assert calls[-1][0] == "slices"

    assert f"{calibration.regions} regions of 4 patients" in (whole / "README.md").read_text()

    # The same by hand, one patient after the other.
    scores, truth, distances, inside, patients = (np.concatenate(c) for c in zip(*parts, strict=True))
    held = []
    for name in people:
        rest, own = patients != name, np.flatnonzero(patients == name)
        others = fit_calibration(scores[rest], truth[rest], distances[rest], inside[rest], patients[rest])
        held += [
            SITE_KEYS[truth[n]] in others.judge(scores[n], distances[n], inside[n]).site_set for n in own
        ]
    assert coverage.overall == pytest.approx(np.mean(held))


def test_slices_alone_have_a_calibration_of_their_own(bundles, cohort, monkeypatch):
    """Each region counts by its largest slice, and what lies below and above is hidden."""
    whole, one, two = bundles
    calibration, _ = calibrate(whole, cohort, [one, two])
    slices = open_slices(cohort, SPEC)
    areas = slices.local_view[:, SPEC.roi_channel].sum(axis=(1, 2), dtype=float)
    largest = np.array([max(np.flatnonzero(slices.row == row), key=lambda n: areas[n])
                        for row in np.unique(slices.row)])  # fmt: skip
    parts = []
    people = np.unique(slices.patient)
    for fold, unseen in ((one, people[2:]), (two, people[:2])):
        chosen = largest[np.isin(slices.patient[largest], unseen)]
        hidden = replace(
            slices, **{name: getattr(slices, name).copy() for name in ("global_view", "local_view")}
        )
        for where in ("below", "above"):
            hidden.global_view[:, SPEC.channels_of(where)] = 0
            hidden.local_view[:, SPEC.channels_of(where)] = 0
        answers = answer_slices(read_bundle(fold), hidden, chosen)
        parts.append(
            (answers.relation, slices.site[chosen], answers.distances, answers.inside, slices.patient[chosen])
        )
    expected = fit_calibration(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert calibration.alone.to_dict() == expected.to_dict()
    assert read_bundle(whole).calibration.alone.to_dict() == expected.to_dict()
    assert "fewer than five slices" in (whole / "README.md").read_text()


def test_another_place_leaves_the_bundle_alone(bundles, cohort, tmp_path):
    whole, one, _ = bundles
    calibration, _ = calibrate(whole, cohort, [one], tmp_path / "out", level=0.8)
    assert read_bundle(whole).calibration is None
    assert read_bundle(tmp_path / "out").calibration.level == 0.8
    assert calibration.patients == 2


def test_folds_that_do_not_fit(bundles, cohort, tmp_path):
    whole, one, _ = bundles
    with pytest.raises(ManifestError, match="has references of every patient"):
        calibrate(whole, cohort, [one, whole])
    other = rewrite(tmp_path / "other", ["p0"], network="vgg16")
    with pytest.raises(BundleError, match="has another recipe"):
        calibrate(whole, cohort, [other])
    assert read_bundle(whole).calibration is None


def test_a_fold_of_another_length_is_named_in_the_card(bundles, cohort, tmp_path):
    whole, _, _ = bundles
    longer = rewrite(tmp_path / "longer", ["p0"], basenet_samples=99)
    calibrate(whole, cohort, [longer], tmp_path / "out")
    bundle = read_bundle(tmp_path / "out")
    assert bundle.calibration.folds == ("basenet_samples 99 instead of 0",)
    assert "differed from this bundle's: basenet_samples 99 instead of 0" in (
        bundle.path / "README.md"
    ).read_text(encoding="utf-8")


def test_a_fold_whose_recipe_holds_the_views_too_is_of_the_same_recipe(bundles, cohort):
    """The first bundles have the views and the number of neighbours inside their recipe as well."""
    whole, one, _ = bundles
    description = read_bundle(one).description
    description["recipe"] |= {"spec": SPEC.to_dict(), "n_neighbors": description["n_neighbors"]}
    description["sha256"] = description_digest(description)
    (one / "bundle.json").write_text(json.dumps(description))
    calibration, _ = calibrate(whole, cohort, [one])
    assert calibration.patients == 2


def test_the_shipped_bundle_is_refused_before_the_work(cohort):
    for name in ("shipped", read_bundle().path):
        with pytest.raises(BundleError, match="give --out NEW_BUNDLE"):
            calibrate(name, cohort, [])
