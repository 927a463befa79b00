"""Which slices of a scan become examples, and how its head stands in the views."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantoms.small_cohort import draw_cohort

from situs.cohort.examples import LATERAL_UNKNOWN
from situs.cohort.manifest import read_manifest, write_manifest
from situs.cohort.slices import open_slices
from situs.errors import ManifestError, RoiError
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=32)
UPRIGHT = ViewSpec(size_px=32, upright=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


def turned(cohort, folder, degrees):
    """The cohort with every patient turned clockwise (in the picture) about the middle of the scan."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # world: from left to front
    folder.mkdir()
    for path in cohort.glob("*.nii.gz"):
        image = nib.load(path)
        nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine).to_filename(folder / path.name)
    (folder / "manifest.csv").write_text((cohort / "manifest.csv").read_text())
    return folder


def lies(slices):
    """By how much the heads are turned in the global views, degrees (n,)."""
    turns = []
    for lateral in slices.global_lateral:
        rows, columns = np.nonzero(lateral != LATERAL_UNKNOWN)
        design = np.stack([columns, rows, np.ones(rows.size)], axis=1)
        to_right, down, _ = np.linalg.lstsq(design, lateral[rows, columns].astype(float), rcond=None)[0]
        turns.append(np.degrees(np.arctan2(down, to_right)))
    return np.array(turns)


@pytest.mark.slow
def test_heads_are_looked_at_upright(cohort, tmp_path):
    assert np.abs(lies(open_slices(cohort, UPRIGHT))).max() < 1
    for degrees in (-30, 160):
        upright = open_slices(turned(cohort, tmp_path / str(degrees), degrees), UPRIGHT)
        assert np.abs(lies(upright)).max() < 1
        apart = np.abs(upright.local_view.astype(float) - open_slices(cohort, UPRIGHT).local_view)
        assert apart.mean() < 3
    assert np.abs(lies(open_slices(tmp_path / "-30", SPEC)) + 30).max() < 1
    little = turned(cohort, tmp_path / "little", 3)  # as it lies, as in use
    np.testing.assert_allclose(lies(open_slices(little, UPRIGHT)), 3, atol=1)


@pytest.mark.slow
def test_to_train_on_some_heads_lie_as_they_do(cohort, tmp_path):
    slices = open_slices(turned(cohort, tmp_path / "turned", 60), UPRIGHT, training=True)
    by_row = {row: lies(slices)[slices.row == row] for row in np.unique(slices.row)}
    assert all(np.ptp(of_row) < 1 for of_row in by_row.values())
    turns = np.array([of_row[0] for of_row in by_row.values()])
    left = np.abs(turns - 60) < 1
    assert 0.05 < left.mean() < 0.5 and np.abs(turns[~left]).max() < 25 and turns[~left].std() > 2


@pytest.mark.slow
def test_without_distances_the_head_s_symmetry_tells_how_it_lies(tmp_path):
    plain = draw_cohort(tmp_path / "plain", painted=False)
    upright = open_slices(plain, UPRIGHT).global_view.astype(float)
    lies_turned = turned(plain, tmp_path / "turned", -30)

    def apart(spec, training=False):
        return np.abs(open_slices(lies_turned, spec, training=training).global_view - upright).mean()

    assert apart(UPRIGHT) < 0.3 * apart(SPEC)
    # To train on, some are as they lie, the others not quite upright.
    assert 1.2 * apart(UPRIGHT) < apart(UPRIGHT, training=True) < 0.8 * apart(SPEC)


def test_maps_on_another_grid_are_refused(tmp_path):
    draw_cohort(tmp_path, patients=1, scans=1)
    image = nib.load(tmp_path / "sites0.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += 0.05 * 3.5  # mm: a twentieth of a voxel
    nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(tmp_path / "sites0.nii.gz")
    with pytest.raises(ManifestError, match=r"sites0.nii.gz: is not on the grid of its scan scan0.nii.gz"):
        open_slices(tmp_path, SPEC)


def rewrite(path, affine, codes=1):
    """Give a NIfTI file another affine, or none with codes of 0."""
    image = nib.load(path)
    changed = nib.Nifti1Image(np.asarray(image.dataobj), affine)
    changed.set_sform(affine, codes)
    changed.set_qform(affine, codes)
    changed.to_filename(path)


def placed(folder, space):
    """The manifest of a cohort with a column that places its masks."""
    rows = [replace(row, mask_space=space) for row in read_manifest(folder)]
    write_manifest(folder, rows)
    return folder


def test_a_mask_that_may_lie_elsewhere_is_refused_unless_its_place_is_chosen(tmp_path):
    plain = open_slices(draw_cohort(tmp_path / "plain", patients=1, scans=1, painted=False), SPEC)
    cohort = draw_cohort(tmp_path / "cohort", patients=1, scans=1, painted=False)
    affine = nib.load(cohort / "roi0.nii.gz").affine @ np.diag([-1, 1, 1, 1])  # x negated, the origin kept
    rewrite(cohort / "roi0.nii.gz", affine)
    with pytest.raises(ManifestError) as caught:
        open_slices(cohort, SPEC)
    text = str(caught.value)
    assert "scan0.nii.gz: it is doubtful where value 1 of roi0.nii.gz lies" in text and "\n" not in text
    assert "mask: axes to LAS" in text and text.endswith("into the manifest's column mask_space")
    chosen = open_slices(placed(cohort, "index"), SPEC)
    np.testing.assert_array_equal(chosen.local_view, plain.local_view)
    with pytest.raises(RoiError, match="none of it meets the scan"):
        open_slices(placed(cohort, "world"), SPEC)


def test_a_scan_without_orientation_is_refused_unless_its_mask_s_place_is_chosen(tmp_path):
    cohort = draw_cohort(tmp_path, patients=1, scans=1, painted=False)
    for name in ("scan0.nii.gz", "roi0.nii.gz"):
        rewrite(cohort / name, nib.load(cohort / name).affine, codes=0)
    with pytest.raises(ManifestError, match="Left and right cannot be trusted"):
        open_slices(cohort, SPEC)
    assert len(open_slices(placed(cohort, "index"), SPEC)) > 4
