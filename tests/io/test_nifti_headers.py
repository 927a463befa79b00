"""Headers as other programs write them, damaged ones, and files that are none."""

import gzip
import os
import struct
import zlib

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import assert_one_line, head_scan, save

from situs.errors import RoiError, ScanError
from situs.io import read_rois, read_volume
from situs.io.nifti_fields import HEADER_DTYPES, OTHER_KINDS, VOXEL_DTYPES

# Where the fields of a NIfTI-1 header lie, and their formats.
FIELDS = {
    "dim": (40, "<8h"),
    "datatype": (70, "<h"),
    "pixdim": (76, "<8f"),
    "vox_offset": (108, "<f"),
    "scl_slope": (112, "<f"),
    "scl_inter": (116, "<f"),
    "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "quaternion": (256, "<3f"),
    "srow": (280, "<12f"),
    "magic": (344, "<4s"),
}


@pytest.mark.parametrize(("version", "theirs"), [(1, nibabel.Nifti1Header), (2, nibabel.Nifti2Header)])
@pytest.mark.parametrize("order", "<>")
def test_the_fields_lie_where_nibabel_has_them(version, theirs, order):
    ours, whole = HEADER_DTYPES[version].newbyteorder(order), theirs.template_dtype.newbyteorder(order)
    assert ours.itemsize == whole.itemsize
    assert dict(ours.fields) == {name: whole.fields[name][:2] for name in ours.names}


def test_the_kinds_of_numbers_are_those_of_nibabel():
    codes = nibabel.nifti1.data_type_codes
    kinds = {code: codes.dtype[code] for code in codes.value_set("code")}
    assert {code: kind for code, kind in kinds.items() if kind.kind in "iuf"} == VOXEL_DTYPES
    assert {kinds[code].kind for code in OTHER_KINDS} == {"V", "c"}


@pytest.fixture(scope="module")
def head():
    return head_scan()


@pytest.fixture
def raw(head, tmp_path):
    """The bytes of the head's file, sform and qform alike."""
    image = nibabel.Nifti1Image(*head)
    image.set_qform(head[1], 1)
    image.set_sform(head[1], 1)
    nibabel.save(image, tmp_path / "raw.nii")
    return bytearray((tmp_path / "raw.nii").read_bytes())


def put(raw, field, *values):
    offset, form = FIELDS[field]
    struct.pack_into(form, raw, offset, *values)


def get(raw, field):
    offset, form = FIELDS[field]
    return struct.unpack_from(form, raw, offset)


def written(path, raw):
    path.write_bytes(raw)
    return path


def assert_is(volume, head, *words):
    assert np.array_equal(volume.hu, head[0])
    np.testing.assert_allclose(volume.geometry.affine, head[1], atol=1e-3)
    assert len(volume.assumptions) == len(words)
    for word, note in zip(words, volume.assumptions, strict=True):
        assert word in note


# What is read


def test_a_quaternion_that_is_too_long_by_rounding_is_read(head, raw, tmp_path):
    """By the sform beside it, and by itself where it is alone: half a turn, whose squares sum to 1."""
    affine = np.diag([-4.5, 4.5, -8, 1.0])
    affine[:3, 3] = 1, 2, 3
    image = nibabel.Nifti1Image(head[0], affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "turned.nii")
    raw = bytearray((tmp_path / "turned.nii").read_bytes())
    long = [x * np.sqrt(1.00000064) for x in get(raw, "quaternion")]
    put(raw, "quaternion", *long)
    assert sum(x * x for x in get(raw, "quaternion")) > 1
    volume = read_volume(written(tmp_path / "scan.nii", raw))
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-3)
    assert volume.assumptions == ()
    put(raw, "sform_code", 0)
    volume = read_volume(written(tmp_path / "alone.nii", raw))
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-3)


def test_a_quaternion_is_read_as_nibabel_reads_it(head, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(20):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # turns, and turns with a mirror
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * [2.0, 3.0, 4.0], rng.uniform(-90, 90, 3)
        image = nibabel.Nifti1Image(head[0], affine)
        image.set_qform(affine, 1)
        image.set_sform(None, 0)
        nibabel.save(image, tmp_path / f"{n}.nii")
        oracle = nibabel.load(tmp_path / f"{n}.nii").affine
        volume = read_volume(tmp_path / f"{n}.nii")
        columns = [*volume.stored.order, 3]
        np.testing.assert_allclose(volume.geometry.affine, oracle[:, columns], atol=1e-4)


def test_a_damaged_quaternion_beside_a_good_sform_is_left_alone(head, raw, tmp_path):
    put(raw, "quaternion", 3, 3, 3)
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head)


def test_a_sform_of_zeros_beside_a_good_qform_is_left_alone_and_said(head, raw, tmp_path):
    put(raw, "srow", *[0.0] * 12)
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head, "the qform was used")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_axis_of_size_0_beyond_the_third_counts_as_1(head, raw, tmp_path, axes):
    shape = head[0].shape
    put(raw, "dim", 3 + axes, *shape, *[0] * axes, *[1] * (4 - axes))
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head, "length 1")


@pytest.mark.parametrize(("unit", "factor", "name"), [(1, 1e-3, "metres"), (3, 1e3, "micrometres")])
def test_units_are_converted_and_said(head, raw, tmp_path, unit, factor, name):
    put(raw, "srow", *[factor * x for x in get(raw, "srow")])
    put(raw, "pixdim", *[factor * x if 0 < n < 4 else x for n, x in enumerate(get(raw, "pixdim"))])
    put(raw, "xyzt_units", unit | 8)  # 8 for seconds
    volume = read_volume(written(tmp_path / "scan.nii", raw))
    assert any(f"unit is {name}; it was converted" in note for note in volume.assumptions)
    np.testing.assert_allclose(volume.geometry.affine, head[1], atol=1e-3)


@pytest.mark.parametrize("unit", [1, 3])
def test_a_unit_that_cannot_be_is_not_believed(head, raw, tmp_path, unit):
    put(raw, "xyzt_units", unit)
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head, "its numbers are millimetres")


@pytest.mark.parametrize("given", [".hdr", ".img"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_either_file_of_a_pair(head, tmp_path, given, packed, kind):
    nibabel.save(kind(*head), tmp_path / "scan.img")
    assert (tmp_path / "scan.hdr").is_file()
    if packed:
        for name in ("scan.hdr", "scan.img"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            (tmp_path / name).unlink()
        given += ".gz"
    assert_is(read_volume(tmp_path / f"scan{given}"), head)


@pytest.mark.parametrize(("kept", "words"), [("hdr", "voxels (.img)"), ("img", "header file (.hdr)")])
def test_half_a_pair_says_what_is_missing(head, tmp_path, kept, words):
    nibabel.save(nibabel.Nifti1Pair(*head), tmp_path / "scan.img")
    (tmp_path / ("scan.img" if kept == "hdr" else "scan.hdr")).unlink()
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / f"scan.{kept}")
    assert_one_line(error, f"scan.{kept}", words)


@pytest.mark.parametrize("after", [b"rubbish", b"\0" * 700, b"\x1f\x8b", b"x" * 200_000])
def test_bytes_after_gzip_are_ignored(head, raw, tmp_path, after):
    assert_is(read_volume(written(tmp_path / "scan.nii.gz", gzip.compress(raw) + after)), head)


def test_gzip_of_several_members_is_one_file(head, raw, tmp_path):
    parts = [gzip.compress(raw[start : start + 9_000]) for start in range(0, len(raw), 9_000)]
    assert_is(read_volume(written(tmp_path / "scan.nii.gz", b"".join(parts))), head)


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_after_the_voxels_are_ignored(head, raw, tmp_path, packed):
    raw += b"\1" * 3_000_000
    raw = gzip.compress(raw) if packed else raw
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head)


def test_header_extensions_are_passed_over(head, raw, tmp_path):
    put(raw, "vox_offset", 352 + 160_000)
    raw[352:352] = b"e" * 160_000
    assert_is(read_volume(written(tmp_path / "scan.nii", raw)), head)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.25), (0.98, 0.98, 0.6)])
def test_thin_axial_slices_are_axial(tmp_path, spacing):
    data = np.tile(head_scan()[0], (1, 1, 2))
    affine = np.diag([*spacing, 1.0])
    volume = read_volume(save(tmp_path / "scan.nii", data, affine))
    assert not any("not axial" in note for note in volume.assumptions)


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "<u4", ">i4", "<f8", ">f4", "<i1", "<u1", ">u2"])
def test_every_number_format_is_read_as_nibabel_reads_it(head, tmp_path, dtype):
    data = np.clip(head[0], 0, 100).astype(dtype)
    header = nibabel.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    nibabel.save(nibabel.Nifti1Image(data, head[1], header), tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert np.array_equal(volume.hu, np.asanyarray(nibabel.load(tmp_path / "scan.nii.gz").dataobj))


@pytest.mark.parametrize("scale", [(2, -7), (1, 40_000), (0.5, 3), (1, -1024)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_scaling_in_pieces_is_as_nibabel_scales(head, raw, tmp_path, dtype, scale, monkeypatch):
    """Numbers change their format on the way where a piece needs a larger one."""
    from situs.io import arrays, nifti

    monkeypatch.setattr(arrays, "_PIECE", 1_000)
    stored = np.arange(head[0].size).reshape(head[0].shape, order="F") % 200
    image = nibabel.Nifti1Image(stored.astype(dtype), head[1])
    nibabel.save(image, tmp_path / "m.nii")
    raw = bytearray((tmp_path / "m.nii").read_bytes())
    put(raw, "scl_slope", scale[0])
    put(raw, "scl_inter", scale[1])
    path = written(tmp_path / "m.nii", raw)
    grid = nifti.read_nifti_grid(path, ScanError)
    np.testing.assert_allclose(grid.values, np.asanyarray(nibabel.load(path).dataobj), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_that_are_not_whole_stay_floats(head, tmp_path, dtype, monkeypatch):
    from situs.io import arrays

    monkeypatch.setattr(arrays, "_PIECE", 1_000)
    data = head[0].astype(dtype)
    data[20:30] += 0.25
    volume = read_volume(save(tmp_path / "scan.nii.gz", data, head[1]))
    assert volume.hu.dtype == np.float32 and np.array_equal(volume.hu, data)


# What the values are


@pytest.mark.parametrize("share", [0.2, 0.0001])
def test_nan_is_padding_and_said(head, tmp_path, share):
    data = head[0].astype(np.float32)
    outside = np.zeros(data.shape, bool)
    outside.reshape(-1)[: int(share * data.size)] = True
    data[outside] = np.nan
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    assert (volume.hu[outside] == -1024).all() and np.array_equal(volume.hu[~outside], head[0][~outside])
    (note,) = volume.assumptions
    assert "NaN" in note and ("20 %" if share > 0.1 else "Less than 1 %") in note


@pytest.mark.parametrize("offset", [1000, 1024])
@pytest.mark.parametrize("padding", [None, -2000, -3024, -1024, -32768, -1, "one voxel", "noise", "nan"])
def test_offset_hu_are_found_beneath_padding_and_noise(head, tmp_path, offset, padding):
    data = (head[0] + offset).astype(np.float32 if padding == "nan" else np.int16)
    corner = np.zeros(data.shape, bool)
    corner[:6, :6] = corner[-6:, :6] = corner[:6, -6:] = corner[-6:, -6:] = True
    expected = head[0].astype(float)
    if padding == "one voxel":
        data[0, 0, 0], expected[0, 0, 0] = -1, -1 - offset
    elif padding == "noise":
        noise = np.random.default_rng(0).normal(0, 40, data.shape).round().astype(np.int16)
        data, expected = data + noise, expected + noise
    elif padding is not None:
        data[corner] = np.nan if padding == "nan" else padding
        expected[corner] = -1024 if padding == "nan" else padding - offset
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    assert np.array_equal(volume.hu, np.maximum(expected, -1024))
    assert any(f"HU + {offset}" in note for note in volume.assumptions)


@pytest.mark.parametrize("padding", [None, -2000, -3024, -32768, "noise"])
def test_hu_without_an_offset_are_left_as_they_are(head, tmp_path, padding):
    data = head[0].copy()
    if padding == "noise":
        data += np.random.default_rng(0).normal(0, 40, data.shape).round().astype(np.int16)
    elif padding is not None:
        data[:6, :6] = data[-6:, -6:] = padding
    volume = read_volume(save(tmp_path / "scan.nii", data, head[1]))
    assert np.array_equal(volume.hu, np.maximum(data, -1024))
    assert not any("HU +" in note for note in volume.assumptions)


# What is refused at once


def refused(raw, path, words, error=ScanError, read=read_volume):
    with pytest.raises(error) as caught:
        read(written(path, raw))
    assert_one_line(caught, path.name, words)


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ((3, -1, -1, 20), "-1x-1x20 voxels"),
        ((4, 48, 56, 20, -3), "-3 voxels"),
        ((3, 0, 56, 20), "0x56x20 voxels"),
        ((7, 48, 56, 20, -1, -1, -1, -1), "voxels"),
        ((3, 32767, 32767, 32767), "at most 1,073,741,824"),
        ((3, 600, 600, 2000), "spans"),
        ((3, 500, 500, 370), "bytes are missing"),
        ((0, 48, 56, 20), "dim[0]"),
        ((9, 48, 56, 20), "dim[0]"),
        ((-3, 48, 56, 20), "dim[0]"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_impossible_sizes(raw, tmp_path, dims, words, packed):
    put(raw, "dim", *dims, *[1] * (8 - len(dims)))
    refused(gzip.compress(raw) if packed else raw, tmp_path / "scan.nii", words)


@pytest.mark.parametrize("dims", [(2**40, 2**40, 2**40), (2**62, 4, 4), (-1, -1, -1), (2**63 - 1, 1, 1)])
def test_impossible_sizes_of_nifti_2(head, tmp_path, dims):
    nibabel.save(nibabel.Nifti2Image(*head), tmp_path / "raw.nii")
    raw = bytearray((tmp_path / "raw.nii").read_bytes())
    struct.pack_into("<4q", raw, 16, 3, *dims)
    refused(raw, tmp_path / "scan.nii", "voxels")


@pytest.mark.parametrize("offset", [0, 348, -1, 1e30, float("nan"), float("inf")])
def test_voxels_cannot_begin_in_the_header(raw, tmp_path, offset):
    put(raw, "vox_offset", offset)
    refused(raw, tmp_path / "scan.nii", "vox_offset")


@pytest.mark.parametrize("spacing", [0.0, 1e-9, 200.0, 1e9, float("nan"), float("inf")])
@pytest.mark.parametrize("coded", [True, False])
def test_impossible_spacings(raw, tmp_path, spacing, coded):
    srow = list(get(raw, "srow"))
    srow[0] = spacing
    put(raw, "srow", *srow)
    pixdim = list(get(raw, "pixdim"))
    pixdim[1] = spacing
    put(raw, "pixdim", *pixdim)
    if not coded:
        put(raw, "sform_code", 0)
        put(raw, "qform_code", 0)
    refused(raw, tmp_path / "scan.nii", "cannot be used")


@pytest.mark.parametrize("scale", [(1e30, 0), (float("inf"), 0), (1, float("nan")), (1e-30, 0), (3e38, 3e38)])
def test_impossible_scaling(raw, tmp_path, scale):
    put(raw, "scl_slope", scale[0])
    put(raw, "scl_inter", scale[1])
    if not np.isfinite(scale[0]):  # is no scaling
        assert read_volume(written(tmp_path / "scan.nii", raw)).hu.max() == 1000
    else:
        refused(raw, tmp_path / "scan.nii", "export")


def test_a_short_gzip_file_cannot_hold_what_its_header_says(raw, tmp_path):
    """Known before anything is unpacked, or space for it is taken."""
    put(raw, "dim", 3, 600, 600, 370, 1, 1, 1, 1)
    refused(gzip.compress(raw[:400]), tmp_path / "scan.nii.gz", "bytes are missing")


def test_a_wrong_checksum_is_refused(raw, tmp_path):
    packed = bytearray(gzip.compress(raw))
    packed[-8:-4] = struct.pack("<I", zlib.crc32(raw) ^ 1)
    refused(packed, tmp_path / "scan.nii.gz", "corrupt gzip")


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, head):
    os.mkfifo(tmp_path / "pipe.nii")
    scan = read_volume(save(tmp_path / "scan.nii", *head))
    for path in (tmp_path / "pipe.nii", "/dev/zero"):
        with pytest.raises(ScanError) as error:
            read_volume(path)
        assert_one_line(error, "pipe or a device")
        with pytest.raises(RoiError) as error:
            read_rois(path, scan)
        assert_one_line(error, "pipe or a device")


@pytest.mark.parametrize("name", ["nul\0byte.nii", "x" * 5000, "scan.nii/under"])
def test_impossible_names(tmp_path, head, name):
    scan = read_volume(save(tmp_path / "scan.nii", *head))
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / name)
    assert_one_line(error)
    with pytest.raises(RoiError) as error:
        read_rois(tmp_path / name, scan)
    assert_one_line(error)


OTHERS = {
    "an MGH file": struct.pack(">7i", 1, 8, 8, 8, 1, 0, 1) + bytes(400),
    "an Analyze 7.5 header": struct.pack("<i", 348) + bytes(344),
    "a PNG picture": b"\x89PNG\r\n\x1a\n" + bytes(400),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", list(OTHERS))
def test_files_of_other_kinds_are_called_by_their_kind(tmp_path, head, kind, packed):
    raw = gzip.compress(OTHERS[kind]) if packed else OTHERS[kind]
    refused(raw, tmp_path / "scan.x", f"is {kind}")
    scan = read_volume(save(tmp_path / "scan.nii", *head))
    words = "expected regions as NIfTI"
    refused(raw, tmp_path / "mask.x", words, RoiError, lambda path: read_rois(path, scan))


@pytest.mark.parametrize(
    ("modality", "words"),
    [("SR", "a DICOM report (SR)"), ("US", "a DICOM file")],
)
def test_a_dicom_object_as_mask_is_called_by_its_kind(tmp_path, head, modality, words):
    from phantoms.io_cases import dicom_slices, write_dicom

    scan = read_volume(save(tmp_path / "scan.nii", *head))
    (path,) = write_dicom(tmp_path / "d", dicom_slices([0], Modality=modality)).iterdir()
    with pytest.raises(RoiError) as error:
        read_rois(path, scan)
    assert_one_line(error, path.name, f"is {words}", "expected regions as NIfTI")
