"""A cohort of two tiny scans and networks that can be worked out by hand."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

import situs.cohort.answers
import situs.cohort.evaluate
from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.certainty import Calibration
from situs.cohort.answers import Answers, average_answers
from situs.cohort.evaluate import _other_joins as other_joins
from situs.cohort.evaluate import evaluate
from situs.errors import ManifestError
from situs.neighbors import References
from situs.runtime import Embedded
from situs.views import ViewSpec

THALAMUS, BRAINSTEM = SITE_INDEX["thalamus"], SITE_INDEX["brainstem"]
CEREBELLUM = SITE_INDEX["cerebellum"]
SPEC = ViewSpec(size_px=32)


class HandMadeRuntime:
    """Embeds a region as how far it lies to the right and below the middle of its global view, in pixels.

    BaseNet calls a large region a thalamus and a small one a cerebellum; the relation with a class is the
    nearness of its nearest reference.
    """

    def __init__(self, bundle):
        pass

    def embed(self, global_views, local_views):
        n, _, size, _ = global_views.shape
        region = global_views[:, -1].astype(float)
        area = region.sum(axis=(1, 2))
        places = np.arange(size) - (size - 1) / 2
        x, y = (region.sum(axis=axis) @ places / area for axis in (1, 2))
        probability = np.zeros((n, 15), np.float32)
        large = local_views[:, -1].sum(axis=(1, 2), dtype=float) > 255 * 50
        probability[np.arange(n), np.where(large, THALAMUS, CEREBELLUM)] = 1
        embedding = np.stack([x, y], axis=1).astype(np.float32)
        return Embedded(embedding, probability, probability, np.full(n, 0.75, np.float32))

    def relate(self, targets, references, present):
        distances = np.linalg.norm(references - targets[:, None, None], axis=-1)
        return np.exp(-np.where(present, distances, np.inf).min(axis=2)).astype(np.float32)


@pytest.fixture
def cohort(tmp_path):
    """Two patients, each with a scan of the same file name: on the patient's left a thalamus of one large and
    two small slices, on the right a brainstem of one large slice."""
    affine = np.diag([-6.0, -6.0, 6.0, 1.0])  # i to the patient's left, j to the back: as the views show it
    affine[:3, 3] = 117, 117, 0
    i, j = np.meshgrid(np.arange(40) - 19.5, np.arange(40) - 19.5, indexing="ij")
    hu = np.where(np.hypot(i, j) < 16, 35, -1000)[:, :, None].repeat(4, axis=2)
    mask = np.zeros(hu.shape, np.uint8)
    mask[27:33, 17:23, 0] = 1
    mask[29:31, 19:21, 1:3] = 1
    mask[7:13, 17:23, 3] = 2
    rows = []
    for patient in ("A", "B"):
        folder = tmp_path / patient
        folder.mkdir()
        nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), affine), folder / "scan.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "roi.nii.gz")
        for value, site in ((1, "thalamus"), (2, "brainstem")):
            rows.append([f"{patient}/scan.nii.gz", f"{patient}/roi.nii.gz", value, site, patient])
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["scan", "roi", "value", "site", "patient"], *rows])
    return tmp_path


@pytest.fixture
def use_references(monkeypatch):
    """A function that makes `evaluate` run the hand-made networks with given references."""

    def use(*references):
        places, sites, patients = zip(*references, strict=True)
        bundle = SimpleNamespace(
            sites=SITES,
            name="by hand",
            version="1",
            spec=SPEC,
            n_neighbors=1,
            calibration=None,
            references=References(
                np.array(places, np.float32),
                np.array(sites),
                np.array([str(n) for n in range(len(sites))]),
                np.array(patients),
            ),
        )
        monkeypatch.setattr(situs.cohort.evaluate, "read_bundle", lambda path: bundle)
        monkeypatch.setattr(situs.cohort.answers, "Runtime", HandMadeRuntime)

    return use


# Regions centred 60 mm from the middle lie 60 mm / (240 mm / 32 px) = 8 pixels from it.
LEFT, RIGHT = (8, 0), (-8, 0)


def test_both_answers_are_scored(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    evaluation = evaluate("any", cohort, n_boot=20)
    # 2 patients x 4 slices, all nearest to a reference of their own site.
    assert evaluation.relation.confusion.sum() == 8
    assert evaluation.relation.macro.f1 == 1
    assert evaluation.known_patients == 0 and evaluation.n_patients == 2
    assert evaluation.unknown_sites == () and "Always missed" not in evaluation.text()
    # BaseNet calls the 4 large slices thalamus (2 rightly) and the 4 small ones cerebellum.
    confusion = np.zeros((15, 15), int)
    confusion[THALAMUS, THALAMUS], confusion[THALAMUS, CEREBELLUM], confusion[BRAINSTEM, THALAMUS] = 2, 4, 2
    np.testing.assert_array_equal(evaluation.basenet.confusion, confusion)
    # By area the large slice of the thalamus outweighs its two small ones: 36 pixels against 2 x 4.
    assert evaluation.basenet_rois.recall[THALAMUS] == 1
    assert evaluation.basenet_rois.confusion.sum() == 4


def test_scans_of_one_file_name_are_two(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    assert evaluate("any", cohort, n_boot=5).relation.n_scans == 2


def test_no_patient_is_its_own_neighbour(cohort, use_references):
    # A's own reference lies on A's thalamus and says so; of the others, only a brainstem is near. So B, who
    # may use it, finds the thalamus, and A must not.
    use_references((LEFT, THALAMUS, "A"), ((6, 0), BRAINSTEM, "C"), ((-30, 0), THALAMUS, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    assert evaluation.relation.confusion[THALAMUS, BRAINSTEM] == 3
    assert evaluation.relation.confusion[THALAMUS, THALAMUS] == 3
    assert evaluation.known_patients == 1
    assert "NOT A TEST" in evaluation.text()


def test_a_site_without_references_is_named(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, CEREBELLUM, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    assert "Always missed, because the bundle has no reference: brainstem." in evaluation.text()
    assert evaluation.to_dict()["unknown_sites"] == ["brainstem"]


def test_a_rendered_cohort_is_named_as_such(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    assert evaluate("any", cohort, n_boot=5).data == ""
    for heads, rendered in ((["A.nii.gz", "B.nii.gz"], True), (["A.nii.gz"], False)):  # B is no head
        (cohort / "cohort.json").write_text(json.dumps({"heads": heads, "seed": 5, "sites": "balanced"}))
        data = evaluate("any", cohort, n_boot=5).data
        assert data.startswith("Rendered scans only, no patient's:") if rendered else data == ""


def test_only_the_named_patients(cohort, use_references):
    use_references((LEFT, THALAMUS, "A"), (RIGHT, BRAINSTEM, "C"))
    evaluation = evaluate("any", cohort, patients=["B"], n_boot=5)
    assert (evaluation.n_patients, evaluation.known_patients, evaluation.relation.n_scans) == (1, 0, 1)
    assert "NOT A TEST" not in evaluation.text()
    with pytest.raises(ManifestError, match="Bob"):
        evaluate("any", cohort, patients=["B", "Bob"])
    with pytest.raises(ManifestError, match="at least one"):
        evaluate("any", cohort, patients=[])


def test_dict_has_the_relation_network_on_top(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    for part, table in ((told, evaluation.relation), (told["basenet"], evaluation.basenet)):
        assert list(part["sites"]) == list(SITE_KEYS)
        for mean, numbers in (("weighted", table.weighted), ("macro", table.macro)):
            assert part[mean]["f1"] == numbers.f1
            assert {"precision", "recall", "f1"} < set(part[mean])
    assert told["rois"]["examples"] == 4
    assert told["patients"] == 2
    assert told["shares"] == {"error": None, "rois": 0}  # the cohort has no site maps


def test_groups_are_those_of_the_predicted_sites(cohort, use_references):
    """All slices are called brainstem, or cerebellum: the group is right where the site is not."""
    use_references((LEFT, BRAINSTEM, "C"), (RIGHT, CEREBELLUM, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert list(told["groups"]) == list(told["rois"]["groups"]) == list(SITES.groupings)
    # 6 slices of thalami are called brainstem, 2 of brainstems cerebellum; 2 ROIs each.
    for tables, thalami, brainstems in ((told["groups"], 6, 2), (told["rois"]["groups"], 2, 2)):
        n = thalami + brainstems
        parenchyma = tables["compartment"]["groups"]["parenchyma"]
        assert (parenchyma["precision"], parenchyma["recall"], parenchyma["support"]) == (1, 1, n)
        assert list(tables["tentorium"]["groups"]) == ["infratentorial", "supratentorial", "none"]
        below, above = (tables["tentorium"]["groups"][key] for key in ("infratentorial", "supratentorial"))
        assert (below["precision"], below["recall"]) == (pytest.approx(brainstems / n), 1)
        assert (above["precision"], above["recall"], above["support"]) == (0, 0, thalami)
        assert tables["ich_location"]["macro"]["f1"] == 0
    assert "infratentorial" in evaluation.text()


def test_shares_against_site_maps(cohort, use_references):
    """Half of the large slice of each thalamus is brainstem. BaseNet paints large regions thalamus, small
    ones cerebellum: of 36 + 8 pixels 36 thalamus and 8 cerebellum, and not 26 thalamus and 18 brainstem. The
    brainstems lie in one site."""
    affine = nibabel.load(cohort / "A" / "scan.nii.gz").affine
    sites = np.zeros((40, 40, 4), np.uint8)
    sites[20:, :, :3] = THALAMUS + 1
    sites[30:, :, 0] = BRAINSTEM + 1
    sites[:20, :, 3] = BRAINSTEM + 1
    nibabel.save(nibabel.Nifti1Image(sites, affine), cohort / "sites.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros_like(sites), affine), cohort / "lateral.nii.gz")
    lines = (cohort / "manifest.csv").read_text().splitlines()
    longer = [f"{lines[0]},sites,lateral", *(f"{row},sites.nii.gz,lateral.nii.gz" for row in lines[1:])]
    (cohort / "manifest.csv").write_text("\n".join(longer))
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    assert evaluation.share_rois == 2
    assert evaluation.share_error == pytest.approx((10 + 18 + 8) / 2 / 44, abs=0.03)
    assert "Shares of 2 ROIs" in evaluation.text()
    assert evaluation.to_dict()["shares"] == {"error": evaluation.share_error, "rois": 2}
    situs.cohort.evaluate.read_bundle("any").spec = replace(SPEC, upright=True)
    evaluation = evaluate("any", cohort, n_boot=5)
    assert evaluation.to_dict()["upright"] and "upright" in evaluation.text()


def test_certainty_on_rois(cohort, use_references, monkeypatch):
    """Thalamus and brainstem are told apart; a threshold that both reach makes every set hold two sites."""
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    bundle = situs.cohort.evaluate.read_bundle("any")
    assert evaluate("any", cohort, n_boot=5).to_dict()["certainty"] is None
    for thresholds, size, sure in ((np.full(15, 0.4), 1, 1.0), (np.full(15, 1e-12), 15, 0.0)):
        bundle.calibration = Calibration(
            0.9, thresholds, 0.4, farthest=30.0, least_inside=0.5, regions=9, patients=2
        )
        evaluation = evaluate("any", cohort, n_boot=5)
        assert (evaluation.coverage.overall, evaluation.coverage.mean_size, evaluation.coverage.sure) == (
            1,
            size,
            sure,
        )
        assert evaluation.coverage.sites == {"brainstem": 1, "thalamus": 1}
        assert evaluation.to_dict()["certainty"]["right_if_sure"] == (1 if sure else None)
        assert f"mean size {size:.2f}" in evaluation.text()
    bundle.calibration = Calibration(
        0.9, np.full(15, 0.4), 0.4, farthest=30.0, least_inside=0.8, regions=9, patients=2
    )
    assert evaluate("any", cohort, n_boot=5).coverage.sure == 0  # three quarters of each lie in a site


def test_slices_are_joined_by_area():
    """One region of a large slice (brainstem) and two small ones (thalamus), and one of a single slice."""
    scores = np.zeros((4, 15), np.float32)
    scores[[0, 3], BRAINSTEM] = 0.9
    scores[[1, 2], THALAMUS] = 0.6
    areas, row = np.array([36.0, 4, 4, 9]), np.array([7, 7, 7, 3])
    answers = Answers(scores, scores, None, areas.astype(np.float32), areas.astype(np.float32), areas)
    joined = average_answers(answers, row)  # in the order of the rows: 3, 7
    assert joined.relation[:, BRAINSTEM] == pytest.approx([0.9, 0.9 * 36 / 44])
    assert joined.relation[:, THALAMUS] == pytest.approx([0, 0.6 * 8 / 44])
    assert joined.shares is None
    assert joined.inside == pytest.approx([9, (36**2 + 2 * 4**2) / 44])
    truth = np.array([BRAINSTEM, THALAMUS])
    others = other_joins(answers, row, truth)
    assert others["the largest slice alone"] == pytest.approx((2 / 3 + 0) / 2)  # brainstem twice
    assert others["all slices alike"] == 1  # .3 and .4 of the second region


def test_progress_counts_scans_then_slices(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    calls = []
    evaluate("any", cohort, n_boot=5, progress=lambda *call: calls.append(call))
    assert [call[:3] for call in calls] == [("scans", 1, 2), ("scans", 2, 2), ("slices", 8, 8)]


def test_text_lists_every_site_and_both_means(cohort, use_references):
    use_references((LEFT, THALAMUS, "C"), (RIGHT, BRAINSTEM, "C"))
    evaluation = evaluate("any", cohort, n_boot=5)
    lines = evaluation.text().splitlines()
    assert not evaluation.to_dict()["upright"] and not any("upright" in line for line in lines)
    assert sum(line.startswith("macro mean") for line in lines) == 2 + len(SITES.groupings)
    thalamus = next(line for line in lines if line.startswith("thalamus"))
    assert thalamus.split()[1:] == ["6", "0.500", "0.333", "0.400", "1.000", "1.000", "1.000", "1.000-1.000"]
