"""From a cohort to slices: which ones, what lies under them, and a cache that can be stopped."""

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
import pytest
from phantoms.small_cohort import BANDS, draw_cohort, write_manifest

from situs.anatomy import SITE_INDEX
from situs.cohort import examples as extract
from situs.cohort.examples import LATERAL_UNKNOWN
from situs.cohort.manifest import read_manifest
from situs.cohort.slices import Slices, open_slices
from situs.errors import ManifestError
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=32)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


def test_slices(cohort):
    slices = open_slices(cohort, SPEC)
    rows = read_manifest(cohort)
    # every slice of every region, and nothing else
    expected = {
        f"scan{n}/roi{n}/{value}/{k}"
        for n in range(8)
        for mask in [np.asarray(nib.load(cohort / f"roi{n}.nii.gz").dataobj)]
        for value in range(1, 5)
        for k in np.flatnonzero((mask == value).any(axis=(0, 1)))
    }
    assert set(slices.id.tolist()) == expected and len(slices) == len(expected)
    assert slices.global_view.shape == (len(slices), 3, 32, 32) and slices.global_view.dtype == np.uint8
    assert slices.local_sites.shape == (len(slices), 16, 16)
    np.testing.assert_array_equal(slices.site, [SITE_INDEX[rows[n].site] for n in slices.row])
    np.testing.assert_array_equal(slices.patient, [rows[n].patient for n in slices.row])


def test_targets_lie_under_the_views(cohort):
    slices = open_slices(cohort, SPEC)
    batch = slices.batch(np.arange(len(slices)))
    roi = batch.local_view[:, 2].reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
    roi = roi == roi.max(axis=(1, 2), keepdims=True)
    for n in range(len(slices)):  # the balls' middles lie well inside their bands
        assert set(batch.local_sites[n][roi[n]]) == {batch.site[n] + 1}
    # columns 0 are the patient's right, where the distance is negative
    rows = read_manifest(cohort)
    right = np.array([rows[n].side == "right" for n in slices.row])
    for side, sign in ((right, -1), (~right, 1)):
        assert (np.sign(batch.local_lateral[side][roi[side]]) == sign).all()
        columns = np.nonzero(batch.global_view[side][:, 2] > 127)[2]
        assert columns.size and ((columns < 16) == (sign < 0)).all()
    # beyond the scan: none, and no distance
    edge = batch.global_lateral[0, :, 0]  # 240 mm field, 224 mm scan
    assert (edge == LATERAL_UNKNOWN).all() and (batch.global_sites[0, :, 0] == 0).all()


def test_fill_is_per_mask_file(tmp_path):
    """Lesions in one mask file are filled together; those of another file stay in the picture."""
    draw_cohort(tmp_path, patients=1, scans=1)
    image = nib.load(tmp_path / "scan0.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "roi0.nii.gz").dataobj)
    hu = np.asarray(image.dataobj).copy()
    hu[mask > 0] = 90  # all lesions are bright
    nib.Nifti1Image(hu, image.affine).to_filename(tmp_path / "scan0.nii.gz")
    nib.Nifti1Image(np.where(mask == 4, 4, 0).astype(np.uint8), image.affine).to_filename(
        tmp_path / "one.nii.gz"
    )
    sites = list(BANDS)
    write_manifest(
        tmp_path,
        [
            {"scan": "scan0.nii.gz", "roi": roi, "value": v, "site": sites[v - 1], "patient": "p"}
            for roi, v in (("roi0.nii.gz", 1), ("one.nii.gz", 4))
        ],
    )
    slices = open_slices(tmp_path, SPEC)
    middle = slices.k == 2
    together, alone = (slices.global_view[middle & (slices.row == n)][0, 0] for n in (0, 1))
    assert together.max() < 250  # 40 HU is mid-window, the bands reach 60 HU
    assert (alone == 255).any()
    assert slices.global_sites is None


def test_max_slices(cohort):
    one = open_slices(cohort, SPEC, max_slices=1)
    assert len(one) == 4 * 2 * 4
    assert set(one.k.tolist()) <= {1, 2}  # the slices next to the balls' middle


def test_killed_run_goes_on(cohort, tmp_path, monkeypatch):
    whole = open_slices(cohort, SPEC)
    other = draw_cohort(tmp_path / "same")
    real, seen = extract.extract_scan, []

    def stop_at_the_fourth(rows, *rest):
        seen.append(rows[0][0])
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(rows, *rest)

    monkeypatch.setattr(extract, "extract_scan", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        open_slices(other, SPEC)
    again = open_slices(other, SPEC)
    assert seen == [0, 4, 8, 12, 12, 16, 20, 24, 28]  # the first row of each scan
    np.testing.assert_array_equal(again.id, whole.id)
    for name in ("global_view", "local_view", "global_sites", "local_lateral"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    calls = []
    open_slices(other, SPEC, progress=lambda *a: calls.append(a))
    assert len(seen) == 9 and not calls  # nothing left to do


def test_progress_is_told_scan_by_scan(tmp_path):
    calls = []
    open_slices(draw_cohort(tmp_path / "mine", patients=2), SPEC, progress=lambda *a: calls.append(a))
    assert calls == [("scans", n, 4, "of mine") for n in range(1, 5)]


def test_two_at_once_make_each_scan_once(tmp_path, monkeypatch):
    cohort = draw_cohort(tmp_path)
    real, seen = extract.extract_scan, []

    def count(rows, *rest):
        seen.append(rows[0][0])
        return real(rows, *rest)

    monkeypatch.setattr(extract, "extract_scan", count)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: open_slices(cohort, SPEC), range(2))
    assert seen == [0, 4, 8, 12, 16, 20, 24, 28]  # the first row of each scan
    np.testing.assert_array_equal(one.local_view, two.local_view)


def test_one_job_needs_no_joblib_and_two_give_the_same(tmp_path, monkeypatch):
    """Evaluation runs with what labelling needs; joblib comes with the extra for training."""
    folders = [draw_cohort(tmp_path / name, patients=3, scans=1) for name in ("one", "two")]
    with joblib.parallel_config("threading"):
        two = open_slices(folders[1], SPEC, jobs=2)
    monkeypatch.setitem(sys.modules, "joblib", None)
    one = open_slices(folders[0], SPEC, jobs=1)
    np.testing.assert_array_equal(one.id, two.id)
    np.testing.assert_array_equal(one.local_view, two.local_view)


def test_changed_files_are_read_again(tmp_path):
    folder = draw_cohort(tmp_path, patients=1, scans=1)
    before = np.array(open_slices(folder, SPEC).global_view)
    draw_cohort(folder, patients=1, scans=1, seed=5)
    assert not np.array_equal(before, open_slices(folder, SPEC).global_view)


def test_value_that_is_not_in_the_mask(tmp_path):
    draw_cohort(tmp_path, patients=1, scans=1)
    row = {"scan": "scan0.nii.gz", "roi": "roi0.nii.gz", "value": 9, "site": "thalamus", "patient": "p"}
    write_manifest(tmp_path, [row])
    with pytest.raises(ManifestError, match=r"no value 9 on its scan; its values are \[1, 2, 3, 4\]"):
        open_slices(tmp_path, SPEC)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_examples_that_were_read(tmp_path):
    """The mapped files of a cohort may be larger than a computer's memory."""
    n, shape = 2000, (3, 112, 112)
    (tmp_path / "view").touch()
    os.truncate(tmp_path / "view", n * math.prod(shape))
    views = np.memmap(tmp_path / "view", np.uint8, "r", shape=(n, *shape))
    text = np.full(n, "x")
    slices = Slices(
        global_view=views,
        local_view=views,
        site=np.zeros(n, dtype=np.int64),
        patient=text,
        scan=text,
        row=np.arange(n),
        k=np.arange(n),
        id=text,
        spec=ViewSpec(),
    )
    before = mapped_mb()
    for part in np.split(np.arange(n), 20):
        assert slices.batch(part).global_view.shape == (100, *shape)
    assert mapped_mb() - before < 0.3 * views.nbytes / 1e6


def mapped_mb():
    """The bytes of files that are in this process's memory, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssFile"].split()[0]) / 1e3
