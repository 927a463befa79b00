"""A cohort drawn by hand: balls in an elliptic head whose sites are bands from front to back."""

import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from situs import dataset
from situs.anatomy import SITE_INDEX
from situs.dataset import (
    LATERAL_UNKNOWN,
    SITE_UNKNOWN,
    Batch,
    augment,
    balanced_indices,
    open_slices,
    read_manifest,
    split_patients,
)
from situs.errors import ManifestError
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=32)
COLUMNS = ("scan", "roi", "value", "site", "patient", "side", "kind", "sites", "lateral")
# Four bands of the head, 50 mm each, front to back, with the middle's y in mm.
BANDS = {"frontal_region": 75, "gangliocapsular_region": 25, "parietal_region": -25, "occipital_region": -75}


def draw_cohort(folder: Path, patients=4, scans=2, painted=True, seed=0) -> Path:
    """Heads of 160 x 200 mm whose bands differ in brightness, a lesion in each, left or right."""
    rng = np.random.default_rng(seed)
    shape, step = (64, 64, 4), (3.5, 3.5, 5.0)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, step, strict=True)]
    x, y, z = (np.arange(n) * s + o for n, s, o in zip(shape, step, affine[:3, 3], strict=True))
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []

    def save(array, name):
        nib.Nifti1Image(array, affine).to_filename(folder / name)
        return name

    for n in range(patients * scans):
        head = np.broadcast_to((x / 80) ** 2 + (y / 100) ** 2 < 1, shape)
        hu = np.where(head, 0.0, -1000.0)
        sites = np.zeros(shape, np.uint8)
        mask = np.zeros(shape, np.uint8)
        sides = rng.permutation([-1, -1, 1, 1]).tolist()  # of x: the right is positive
        for value, (site, middle) in enumerate(BANDS.items(), start=1):
            part = head & (abs(y - middle) <= 25)
            hu[part] += 15 * value + rng.normal(0, 2)
            sites[part] = SITE_INDEX[site] + 1
            cx, cy = sides[value - 1] * rng.uniform(25, 35), middle + rng.uniform(-8, 8)
            ball = (x - cx) ** 2 + (y - cy) ** 2 + z**2 < rng.uniform(8, 14) ** 2
            mask[np.broadcast_to(ball, shape)] = value
        hu += rng.normal(0, 4, shape)
        lateral = np.broadcast_to(np.clip(-x, -126, 126), shape).astype(np.int8)
        files = {
            "scan": save(hu.astype(np.int16), f"scan{n}.nii.gz"),
            "roi": save(mask, f"roi{n}.nii.gz"),
            "sites": save(sites, f"sites{n}.nii.gz") if painted else "",
            "lateral": save(lateral, f"lateral{n}.nii.gz") if painted else "",
        }
        for value, site in enumerate(BANDS, start=1):
            side = "right" if sides[value - 1] > 0 else "left"
            rows.append({**files, "value": value, "site": site, "patient": f"p{n % patients}", "side": side})
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows, columns=COLUMNS) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


# --- manifest ---


def manifest_error(folder) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_manifest_rows(cohort):
    rows = read_manifest(cohort)
    assert len(rows) == 4 * 2 * 4
    assert [r.site for r in rows[:4]] == [SITE_INDEX[s] for s in BANDS]
    assert rows[0].scan == cohort / "scan0.nii.gz" and rows[4].patient == "p1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"site": "frontal_regoin"}, "did you mean 'frontal_region'?"),
        ({"value": "1.5"}, "value: expected a whole number, got '1.5'"),
        ({"scan": "nowhere.nii.gz"}, "no such file"),
        ({"sites": "nowhere.nii.gz"}, "no such file"),
        ({"patient": " "}, "patient is empty"),
    ],
)
def test_manifest_wrong_value(tmp_path, change, expected):
    (tmp_path / "a.nii").touch()
    row = {"scan": "a.nii", "roi": "a.nii", "value": 1, "site": "thalamus", "patient": "p"}
    write_manifest(tmp_path, [row, {**row, **change}])
    text = manifest_error(tmp_path)
    assert expected in text and "line 3" in text


def test_manifest_missing_or_empty(tmp_path):
    assert "manifest.csv" in manifest_error(tmp_path)
    write_manifest(tmp_path, [], ("scan", "roi", "value", "patient"))
    assert "'site'" in manifest_error(tmp_path)
    write_manifest(tmp_path, [])
    assert "no rows" in manifest_error(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"scan\xff,roi\n")
    assert "UTF-8" in manifest_error(tmp_path)


# --- slices ---


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
    np.testing.assert_array_equal(slices.site, [rows[n].site for n in slices.row])
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


def test_choose_slices_by_area():
    areas = {3: 1, 4: 1, 5: 10, 6: 10, 7: 10, 8: 1}
    assert dataset._choose_slices(areas, 3) == [5, 6, 7]
    assert dataset._choose_slices(areas, None) == [3, 4, 5, 6, 7, 8]
    assert dataset._choose_slices({0: 5, 1: 1}, 5) == [0, 1]


def test_killed_run_goes_on(cohort, tmp_path, monkeypatch):
    whole = open_slices(cohort, SPEC)
    other = draw_cohort(tmp_path / "same")
    real, seen = dataset._extract_scan, []

    def extract(rows, *rest):
        seen.append(rows[0][0])
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(rows, *rest)

    monkeypatch.setattr(dataset, "_extract_scan", extract)
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


def test_changed_files_are_read_again(tmp_path):
    folder = draw_cohort(tmp_path, patients=1, scans=1)
    before = np.array(open_slices(folder, SPEC).global_view)
    draw_cohort(folder, patients=1, scans=1, seed=5)
    assert not np.array_equal(before, open_slices(folder, SPEC).global_view)


def test_value_that_is_not_in_the_mask(tmp_path):
    draw_cohort(tmp_path, patients=1, scans=1)
    row = {"scan": "scan0.nii.gz", "roi": "roi0.nii.gz", "value": 9, "site": "thalamus", "patient": "p"}
    write_manifest(tmp_path, [row])
    with pytest.raises(ManifestError, match=r"no value 9; its values are \[1, 2, 3, 4\]"):
        open_slices(tmp_path, SPEC)


# --- split and sampling ---


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


# --- augmentation ---


@pytest.fixture
def batch(cohort):
    slices = open_slices(cohort, SPEC)
    return slices.batch(np.arange(12))


def arrays(batch: Batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


def test_mirror_twice_is_identity(batch):
    everyone = np.ones(12, dtype=bool)
    once = dataset._mirror(batch, everyone)
    for name, value in arrays(dataset._mirror(once, everyone)).items():
        np.testing.assert_array_equal(value, getattr(batch, name))
    np.testing.assert_array_equal(once.global_view, batch.global_view[..., ::-1])
    np.testing.assert_array_equal(once.local_sites, batch.local_sites[..., ::-1])
    known = batch.global_lateral != LATERAL_UNKNOWN
    assert known.any() and not known.all()
    mirrored = np.where(known, -batch.global_lateral, LATERAL_UNKNOWN)[..., ::-1]
    np.testing.assert_array_equal(once.global_lateral, mirrored)
    nobody = dataset._mirror(batch, ~everyone)
    np.testing.assert_array_equal(nobody.local_view, batch.local_view)


def test_shift_moves_view_and_targets_together(batch):
    moved = dataset._shift_local(batch, np.tile([2, -1], (12, 1)))
    np.testing.assert_array_equal(moved.local_view[:, :, 4:, :-2], batch.local_view[:, :, :-4, 2:])
    assert not moved.local_view[:, :, :4].any() and not moved.local_view[..., -2:].any()
    np.testing.assert_array_equal(moved.local_sites[:, 2:, :-1], batch.local_sites[:, :-2, 1:])
    assert (moved.local_sites[:, :2] == SITE_UNKNOWN).all()
    assert (moved.local_lateral[:, :, -1:] == LATERAL_UNKNOWN).all()
    assert moved.global_view is batch.global_view


def test_augment_changes_gray_but_not_the_region(batch):
    before = {name: value.copy() for name, value in arrays(batch).items()}
    changed = augment(batch, SPEC, np.random.default_rng(3))
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(batch, name), value)  # the input is left alone
        assert getattr(changed, name).shape == value.shape and getattr(changed, name).dtype == value.dtype
    flips = [np.array_equal(a[2], b[2]) for a, b in zip(changed.global_view, batch.global_view, strict=True)]
    mirrors = [
        np.array_equal(a[2], b[2, :, ::-1])
        for a, b in zip(changed.global_view, batch.global_view, strict=True)
    ]
    assert all(a or b for a, b in zip(flips, mirrors, strict=True)) and any(flips) and any(mirrors)
    assert not np.array_equal(changed.global_view[:, :2], batch.global_view[:, :2])
    np.testing.assert_array_equal(changed.site, batch.site)
    again = augment(batch, SPEC, np.random.default_rng(3))
    np.testing.assert_array_equal(again.local_view, changed.local_view)


def test_augment_without_targets(batch):
    bare = replace(batch, global_sites=None, local_sites=None, global_lateral=None, local_lateral=None)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(
        augment(bare, SPEC, rng).local_view, augment(batch, SPEC, np.random.default_rng(3)).local_view
    )


def test_blur_keeps_uniform_and_spreads_a_point():
    assert (dataset._blur(np.full((1, 5, 5), 200, np.uint8)) == 200).all()
    point = np.zeros((1, 5, 5), np.uint8)
    point[0, 2, 2] = 160
    kernel = np.outer([1, 2, 1], [1, 2, 1]) * 10
    np.testing.assert_array_equal(dataset._blur(point)[0, 1:4, 1:4], kernel)
