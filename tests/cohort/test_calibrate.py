"""Folds answer for the patients that they have not seen; what they find is written into the bundle."""

import numpy as np
import pytest
from phantoms.small_bundle import SPEC, small_model
from phantoms.small_cohort import draw_cohort

from situs.anatomy import SITE_KEYS
from situs.bundle import read_bundle
from situs.certainty import calibrate_certainty
from situs.cohort.answers import answer_slices, join_slices
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
    model = small_model()
    known = model.references

    def export(name, patients):
        model.references = type(known)(
            known.embeddings, known.sites, known.ids, np.resize(patients, len(known))
        )
        return model.export(tmp_path / name)

    return export("whole", names), export("one", names[:2]), export("two", names[2:])


def test_every_patient_is_answered_by_the_fold_that_has_not_seen_it(bundles, cohort):
    whole, one, two = bundles
    before = read_bundle(whole)
    calls = []
    found, done = calibrate(whole, cohort, [one, two], progress=lambda *call: calls.append(call))
    after = read_bundle(whole)
    assert before.certainty is None and after.certainty.to_dict() == found.to_dict()
    rest = {key: value for key, value in after.description.items() if key not in ("certainty", "sha256")}
    assert rest == {key: value for key, value in before.description.items() if key != "sha256"}

    slices = open_slices(cohort, before.spec)
    people = np.unique(slices.patient)
    parts = []
    for fold, unseen in ((one, people[2:]), (two, people[:2])):
        chosen = np.flatnonzero(np.isin(slices.patient, unseen))
        said = join_slices(answer_slices(read_bundle(fold), slices, chosen), slices.row[chosen])
        first = chosen[np.unique(slices.row[chosen], return_index=True)[1]]
        parts.append((said.relation, slices.site[first], said.distances, said.inside, slices.patient[first]))
    expected = calibrate_certainty(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert found.to_dict() == expected.to_dict()
    assert found.patients == 4 and found.regions == len(np.unique(slices.row))
    assert calls[-1][0] == "slices"

    assert f"{found.regions} regions of 4 patients" in (whole / "README.md").read_text()

    # The same by hand, one patient after the other.
    scores, truth, distances, inside, patients = (np.concatenate(c) for c in zip(*parts, strict=True))
    held = []
    for name in people:
        rest, own = patients != name, np.flatnonzero(patients == name)
        some = calibrate_certainty(scores[rest], truth[rest], distances[rest], inside[rest], patients[rest])
        held += [SITE_KEYS[truth[n]] in some.judge(scores[n], distances[n], inside[n]).site_set for n in own]
    assert done.overall == pytest.approx(np.mean(held))


def test_another_place_leaves_the_bundle_alone(bundles, cohort, tmp_path):
    whole, one, _ = bundles
    found, _ = calibrate(whole, cohort, [one], tmp_path / "out", level=0.8)
    assert read_bundle(whole).certainty is None
    assert read_bundle(tmp_path / "out").certainty.level == 0.8
    assert found.patients == 2


def test_folds_that_do_not_fit(bundles, cohort, tmp_path):
    whole, one, _ = bundles
    with pytest.raises(ManifestError, match="has references of every patient"):
        calibrate(whole, cohort, [one, whole])
    other = small_model().export(tmp_path / "other", recipe={"name": "another"})
    with pytest.raises(BundleError, match="its recipe is another"):
        calibrate(whole, cohort, [other])
    assert read_bundle(whole).certainty is None
