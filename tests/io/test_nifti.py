import gzip
import tracemalloc
import warnings

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import (
    CT,
    all_orientations,
    assert_is_head,
    assert_one_line,
    head_affine,
    head_hu,
    head_scan,
    save,
)

from situs.errors import ScanError
from situs.geometry import Geometry
from situs.io import read_volume


@pytest.fixture(scope="module")
def head():
    return head_scan()


@pytest.mark.parametrize("orientation", all_orientations(), ids=lambda o: "".join(map(str, o.ravel())))
def test_every_axis_order_and_flip_gives_the_same_patient(head, tmp_path, orientation):
    image = nibabel.Nifti1Image(*head).as_reoriented(orientation)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert abs(volume.geometry.normal[2]) == pytest.approx(1)
    assert volume.geometry.shape[2] == 20
    assert_is_head(volume)
    transposed = any("axis" in a for a in volume.assumptions)
    assert transposed == (orientation[2, 0] != 2)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_both_versions_packed_or_not(head, tmp_path, suffix, kind):
    path = tmp_path / f"scan{suffix}"
    nibabel.save(kind(*head), path)
    volume = read_volume(str(path))
    assert volume.name == path.name and volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, head[0])
    assert volume.assumptions == ()


def test_the_name_does_not_matter_only_the_content(head, tmp_path):
    (tmp_path / "scan.img").write_bytes(gzip.compress(save(tmp_path / "a.nii", *head).read_bytes()))
    assert np.array_equal(read_volume(tmp_path / "scan.img").hu, head[0])


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", ">f8"])
def test_number_formats(head, tmp_path, dtype):
    data = head[0].astype(dtype)
    header = nibabel.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = nibabel.Nifti1Image(data, head[1], header)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.hu.dtype == np.int16  # the numbers are whole, whatever their format
    assert np.array_equal(volume.hu, head[0])


@pytest.mark.parametrize(("slope", "inter"), [(1, -1024), (0.5, -1000), (2, 10)])
def test_rescaling_of_the_header(head, tmp_path, slope, inter):
    stored = np.round((head[0] - inter) / slope).astype(np.int16)
    image = nibabel.Nifti1Image(stored, head[1])
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, tmp_path / "scan.nii")
    # nibabel resets the slope when it saves, so it is written into the bytes (offsets of the NIfTI-1 header)
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "scan.nii").write_bytes(raw)
    oracle = np.asanyarray(nibabel.load(tmp_path / "scan.nii").dataobj)
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").hu, oracle, atol=1e-3)
    np.testing.assert_allclose(oracle, head[0], atol=abs(slope))


def test_an_oblique_and_sheared_stack_keeps_its_place(tmp_path):
    affine = head_affine()
    turn, tilt = np.radians([25, 18.5])
    c, s = np.cos(turn), np.sin(turn)
    plane = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine[:3, :2] = plane @ np.array([[1, 0], [0, np.cos(tilt)], [0, np.sin(tilt)]]) * 4.5
    affine[:3, 3] = -affine[:3, :3] @ [23.5, 27.5, 9.5]
    from phantoms.io_cases import stack_hu

    save(tmp_path / "scan.nii", stack_hu(Geometry.from_affine((48, 56, 20), affine)), affine)
    volume = read_volume(tmp_path / "scan.nii")
    assert_is_head(volume)
    assert any("sheared by 18.5 degrees" in a for a in volume.assumptions)


def test_a_sagittal_scan_is_cut_axially_and_said(tmp_path):
    save(tmp_path / "scan.nii", *head_scan((20, 56, 48), (8.0, 4.5, 4.5)))
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.geometry.shape == (20, 56, 48)
    assert any("not axial, 8.0 mm apart" in a for a in volume.assumptions)


def test_a_trailing_axis_of_length_one_is_left_out_and_said(head, tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii", head[0][..., None], head[1]))
    assert volume.hu.shape == head[0].shape
    assert any("length 1" in a for a in volume.assumptions)


def test_without_orientation_codes_the_sides_are_called_doubtful(head, tmp_path):
    image = nibabel.Nifti1Image(*head)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    (doubt,) = volume.doubts
    assert "Left and right cannot be trusted" in doubt
    assert any("no orientation" in a for a in volume.assumptions)
    assert read_volume(save(tmp_path / "other.nii", *head)).doubts == ()


def test_sform_wins_over_a_qform_that_disagrees_and_it_is_said(head, tmp_path):
    other = head[1].copy()
    other[0, 3] += 12
    image = nibabel.Nifti1Image(*head)
    image.set_qform(other, 1)
    image.set_sform(head[1], 1)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_allclose(volume.geometry.affine, head[1], atol=1e-4)
    assert any("differ by up to 12 mm" in a for a in volume.assumptions)


def test_only_a_qform_is_enough(head, tmp_path):
    image = nibabel.Nifti1Image(*head)
    image.set_qform(head[1], 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").geometry.affine, head[1], atol=1e-4)


# What the numbers mean


def brain_of(volume, affine=None):
    """HU of the voxels that are brain by the formula, and what the formula says."""
    g = volume.geometry
    ijk = np.argwhere(np.ones(g.shape, bool))
    true = head_hu(g.to_world(ijk)).reshape(g.shape)
    inside = (true > 15) & (true < 80)
    return volume.hu[inside], true[inside]


@pytest.mark.parametrize("window", [(0, 80), (-20, 100), (-160, 240), (0, 255), (0, 300)])
def test_clipped_hu_are_taken_as_they_are_and_said(head, tmp_path, window):
    data = np.clip(head[0], *window)
    volume = read_volume(save(tmp_path / "scan.nii.gz", data, head[1]))
    assert np.array_equal(volume.hu, data)
    assert any(f"limited to {window[0]}..{window[1]} HU" in a for a in volume.assumptions)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_an_8_bit_brain_window_comes_back_to_hu_and_is_said(head, tmp_path, dtype):
    data = np.round(np.clip(head[0], 0, 80) * (255 / 80)).astype(dtype)
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    found, true = brain_of(volume)
    np.testing.assert_allclose(found, true, atol=0.2)
    assert any("8-bit" in a and "width 80" in a for a in volume.assumptions)


def test_an_8_bit_wide_window_puts_air_and_brain_where_they_belong(head, tmp_path):
    data = np.round((np.clip(head[0], -1000, 1500) + 1000) * (255 / 2500)).astype(np.uint8)
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    found, true = brain_of(volume)
    assert abs(np.median(found) - np.median(true)) < 10  # one gray is 10 HU
    assert any("8-bit" in a and "wide window" in a for a in volume.assumptions)


@pytest.mark.parametrize("offset", [1000, 1024])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_hu_stored_with_an_offset_are_corrected_and_said(head, tmp_path, offset, dtype):
    volume = read_volume(save(tmp_path / "scan.nii", (head[0] + offset).astype(dtype), head[1]))
    assert np.array_equal(volume.hu, head[0])
    assert any(f"HU + {offset}" in a for a in volume.assumptions)


def test_padding_becomes_air_and_is_said(head, tmp_path):
    data = head[0].copy()
    data[:3] = -3024
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    assert volume.hu.min() == -1024 and np.array_equal(volume.hu[3:], head[0][3:])
    assert any("-3024" in a for a in volume.assumptions)


# What is refused


def damaged(kind, head, path):
    data, affine = head
    if kind == "4-D":
        save(path, np.stack([data] * 3, axis=3), affine)
    elif kind == "RGB":
        dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        save(path, np.zeros(data.shape, dtype), affine)
    elif kind == "complex":
        save(path, data.astype(np.complex64), affine)
    elif kind in ("nan", "inf"):
        bad = data.astype(np.float32)
        bad[3 if kind == "inf" else slice(None)] = float(kind)
        save(path, bad, affine)
    elif kind == "0..1":
        save(path, ((data + 1000) / 2000).astype(np.float32), affine)
    elif kind == "constant":
        save(path, np.full_like(data, 40), affine)
    elif kind in ("mask", "binary mask"):
        save(path, (data > 0).astype(np.uint8) * (3 if kind == "mask" else 1), affine)
    elif kind == "no tissue":
        save(path, (np.abs(data) + 3000).astype(np.int16), affine)
    elif kind == "huge":
        save(path, data.astype(np.float32) * 1000, affine)
    elif kind == "singular":
        image = nibabel.Nifti1Image(data, affine)
        nibabel.save(image, path)
        raw = bytearray(path.read_bytes())
        raw[280:328] = np.zeros(12, "<f4").tobytes()  # srow_x, srow_y, srow_z
        path.write_bytes(raw)
    elif kind == "metres":
        save(path, data, np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine)
    elif kind == "far away":
        affine = affine.copy()
        affine[1, 3] = 1e12
        save(path, data, affine)
    elif kind == "quaternion":
        image = nibabel.Nifti1Image(data, affine)
        image.set_qform(affine, 1)
        image.set_sform(None, 0)
        nibabel.save(image, path)
        raw = bytearray(path.read_bytes())
        raw[256:268] = np.array([3, 3, 3], "<f4").tobytes()
        path.write_bytes(raw)
    elif kind == "header":
        raw = bytearray(save(path, data, affine).read_bytes())
        raw[70:72] = b"\x77\x77"  # datatype
        path.write_bytes(raw)
    elif kind == "cut":
        path.write_bytes(save(path, data, affine).read_bytes()[:-100])
    elif kind == "cut header":
        path.write_bytes(save(path, data, affine).read_bytes()[:200])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no image at all\n" * 100)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("4-D", "48x56x20x3"),
        ("RGB", "RGB"),
        ("complex", "complex"),
        ("nan", "all voxels are NaN"),
        ("inf", "infinite"),
        ("0..1", "normalised"),
        ("constant", "same value, 40"),
        ("mask", "0 to 3, too few to be HU or a window of them (is this the mask? It belongs after --roi)"),
        ("binary mask", "is this the mask?"),
        ("no tissue", "cannot be HU"),
        ("huge", "more than HU can"),
        ("singular", "sform cannot be used"),
        ("metres", "voxels of"),
        ("far away", "kilometres"),
        ("header", "header"),
        ("quaternion", "qform cannot be used"),
        ("cut", "100 of its bytes are missing"),
        ("cut header", "unknown kind, expected NIfTI (.nii, .nii.gz), NRRD, MetaImage or DICOM"),
        ("empty", "empty"),
        ("text", "unknown kind, expected NIfTI (.nii, .nii.gz), NRRD, MetaImage or DICOM"),
    ],
)
def test_what_is_no_head_ct_is_refused_in_one_line(head, tmp_path, kind, words):
    damaged(kind, head, tmp_path / "scan.nii")
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "scan.nii")
    assert_one_line(error, "scan.nii", words)


@pytest.mark.parametrize("harm", ["cut", "flipped", "cut early"])
def test_a_damaged_gz_is_refused(head, tmp_path, harm):
    raw = bytearray(save(tmp_path / "good.nii.gz", *head).read_bytes())
    if harm == "flipped":
        raw[len(raw) // 2] ^= 0xFF
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(raw[: {"cut": -10, "cut early": 30}.get(harm)])
    with pytest.raises(ScanError) as error:
        read_volume(path)
    assert_one_line(error, "scan.nii.gz", "truncated or corrupt gzip")


def test_no_such_file(tmp_path):
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "absent.nii")
    assert_one_line(error, "absent.nii", "no such file")


def test_a_series_is_a_matter_of_dicom(head, tmp_path):
    with pytest.raises(ScanError, match="not DICOM"):
        read_volume(save(tmp_path / "scan.nii", *head), series="2")


def test_nibabel_keeps_quiet_about_odd_headers(head, tmp_path, capfd):
    raw = bytearray(save(tmp_path / "scan.nii", *head).read_bytes())
    raw[252:254] = b"\x51\0"  # a qform code that is unknown, on which nibabel comments
    (tmp_path / "scan.nii").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_volume(tmp_path / "scan.nii")
    assert capfd.readouterr() == ("", "")


def test_integers_are_used_where_they_lie(head, tmp_path):
    """The limit of 400 MB for the whole process leaves no room for copies of a scan."""
    read_volume(save(tmp_path / "scan.nii.gz", *head))  # what is imported on the way does not count
    large = np.tile(head[0], (4, 4, 4))
    path = save(tmp_path / "large.nii.gz", large, head[1])
    tracemalloc.start()
    volume = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(volume.hu, large)
    assert peak < 1.6 * large.nbytes + 4e6


@pytest.mark.skipif(not CT.is_dir(), reason="the real scans are not here")
def test_real_scans_read_as_nibabel_reads_them():
    paths = [
        p
        for p in sorted(CT.glob("*/*.nii.gz"))
        if p.parent.name != "lesions" and "_lesion" not in p.name and "_rois" not in p.name
    ]
    assert len(paths) >= 41
    for path in paths[::6]:
        image = nibabel.load(path)
        volume = read_volume(path)
        assert np.array_equal(volume.hu, np.maximum(np.asanyarray(image.dataobj), -1024))
        np.testing.assert_allclose(volume.geometry.affine, image.affine, atol=1e-6)
