"""NRRD and MetaImage: written by pynrrd or by hand, compared with the same arrays as NIfTI."""

import gzip
import zlib

import nrrd
import numpy as np
import pytest
from phantoms.io_cases import assert_is_head, assert_one_line, head_scan, save

from situs.errors import RoiError, ScanError
from situs.io import read_rois, read_volume

SHAPE = (48, 56, 20)
TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}


@pytest.fixture(scope="module")
def head():
    hu, affine = head_scan(SHAPE)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    return hu, affine, turn @ affine


def boxes():
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:20, 12:18, 4:9] = 1
    mask[25:30, 30:45, 8:12] = 2
    return mask


def space(affine, name="left-posterior-superior", kinds=("domain",) * 3):
    """The fields that place an array (affine RAS)."""
    local = np.array(TO_RAS[name])[:, None] * affine[:3]
    return {
        "space": name,
        "space directions": [[*local[:, axis]] for axis in range(3)],
        "space origin": local[:, 3],
        "kinds": list(kinds),
    }


def write(path, data, fields, **options):
    nrrd.write(str(path), data, fields, **options)
    return path


def whole(roi):
    full = np.zeros(roi.geometry.shape, bool)
    full[roi.box] = roi.mask
    return full


@pytest.mark.parametrize("name", TO_RAS)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_scan_as_nrrd_is_the_head(head, tmp_path, name, encoding):
    hu, affine, _ = head
    scan = read_volume(write(tmp_path / "s.nrrd", hu, {**space(affine, name), "encoding": encoding}))
    assert scan.hu.dtype == np.int16 and scan.doubts == ()
    assert_is_head(scan)


def test_axes_in_another_order_big_endian_and_a_detached_header(head, tmp_path):
    hu, affine, _ = head
    fields = space(affine[:, [2, 0, 1, 3]])
    path = write(
        tmp_path / "s.nhdr", hu.transpose(2, 0, 1), {**fields, "encoding": "raw"}, detached_header=True
    )
    text = path.read_text().replace("endian: little", "endian: big")
    path.write_text(text)
    raw = next(p for p in tmp_path.iterdir() if p.suffix == ".raw")
    raw.write_bytes(np.frombuffer(raw.read_bytes(), "<i2").astype(">i2").tobytes())
    assert_is_head(read_volume(path))
    raw.rename(tmp_path / "other.raw")
    with pytest.raises(ScanError, match="the file with its voxels is missing"):
        read_volume(path)


@pytest.mark.parametrize("name", TO_RAS)
def test_a_mask_as_nrrd_is_the_mask_on_the_scan(head, tmp_path, name):
    hu, _, turned = head
    scan = read_volume(save(tmp_path / "scan.nii", hu, turned))
    rois = read_rois(write(tmp_path / "m.nrrd", boxes(), space(turned, name)), scan)
    for value, roi in enumerate(rois, start=1):
        assert (roi.value, roi.name, roi.notes, roi.doubts) == (value, "", (), ())
        np.testing.assert_array_equal(whole(roi), boxes() == value)


def test_segments_of_slicer_keep_their_names_and_layers(head, tmp_path):
    """Two layers, whose segments overlap; the file is cropped, as 3D Slicer does."""
    hu, affine, _ = head
    scan = read_volume(save(tmp_path / "scan.nii", hu, affine))
    layers = np.stack([boxes(), np.zeros(SHAPE, np.uint8)])
    layers[1, 15:28, 15:32, 8:9] = 1
    crop = (slice(None), slice(5, 40), slice(5, 50), slice(2, 15))
    moved = affine.copy()
    moved[:3, 3] = (affine @ [5, 5, 2, 1])[:3]
    fields = space(moved, kinds=("list", "domain", "domain", "domain"))
    fields["space directions"] = [[np.nan] * 3, *fields["space directions"]]
    for number, (layer, value, name) in enumerate([(0, 1, "clot"), (0, 2, "oedema"), (1, 1, "shunt tip")]):
        fields |= {f"Segment{number}_Name": name, f"Segment{number}_LabelValue": str(value)}
        fields[f"Segment{number}_Layer"] = str(layer)
    rois = read_rois(write(tmp_path / "s.seg.nrrd", layers[crop], fields), scan)
    assert [(r.value, r.name) for r in rois] == [(1, "clot"), (2, "oedema"), (3, "shunt tip")]
    for roi, expected in zip(rois, (layers[0] == 1, layers[0] == 2, layers[1] == 1), strict=True):
        np.testing.assert_array_equal(whole(roi), expected)
        assert roi.doubts == ()


def test_one_layer_keeps_the_label_values(head, tmp_path):
    hu, affine, _ = head
    scan = read_volume(save(tmp_path / "scan.nii", hu, affine))
    fields = space(affine) | {"Segment0_Name": "oedema", "Segment0_LabelValue": "2"}
    first, second = read_rois(write(tmp_path / "s.seg.nrrd", boxes(), fields), scan)
    assert [(r.value, r.name) for r in (first, second)] == [(1, ""), (2, "oedema")]


def test_of_old_files_each_channel_is_a_segment(head, tmp_path):
    """3D Slicer up to 4.10 wrote neither labels nor layers."""
    hu, affine, _ = head
    scan = read_volume(save(tmp_path / "scan.nii", hu, affine))
    layers = np.stack([boxes() == 1, boxes() > 0]).astype(np.uint8)
    fields = space(affine, kinds=("list", "domain", "domain", "domain"))
    fields["space directions"] = [[np.nan] * 3, *fields["space directions"]]
    fields |= {"Segment0_Name": "clot", "Segment1_Name": "both"}
    clot, both = read_rois(write(tmp_path / "s.seg.nrrd", layers, fields), scan)
    assert [(r.value, r.name) for r in (clot, both)] == [(1, "clot"), (2, "both")]
    np.testing.assert_array_equal(whole(both), boxes() > 0)


def test_without_directions_left_and_right_cannot_be_trusted(head, tmp_path):
    scan = read_volume(write(tmp_path / "s.nrrd", head[0], {"spacings": [4.5, 4.5, 8.0]}))
    assert scan.doubts == ("Left and right cannot be trusted: the scan's header has no orientation.",)
    assert scan.geometry.spacing_mm == (4.5, 4.5)


def mha(affine, data, compressed=False, **fields):
    """A MetaImage file as ITK writes it, by hand: LPS, the direction of each axis in turn."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    sizes = np.linalg.norm(lps[:, :3], axis=0)
    types = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}
    voxels = data.tobytes(order="F")
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed),
        "TransformMatrix": " ".join(f"{v:.10f}" for v in (lps[:, :3] / sizes).T.ravel()),
        "Offset": " ".join(f"{v:.6f}" for v in lps[:, 3]),
        "ElementSpacing": " ".join(f"{v:.6f}" for v in sizes),
        "DimSize": " ".join(map(str, data.shape)),
        "ElementType": types[data.dtype.name],
        **fields,
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in header.items() if value is not None)
    return text.encode() + (zlib.compress(voxels) if compressed else voxels)


@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_scan_and_mask_are_the_nifti_ones(head, tmp_path, compressed):
    hu, affine, turned = head
    (tmp_path / "s.mha").write_bytes(mha(affine, hu, compressed))
    assert_is_head(read_volume(tmp_path / "s.mha"))
    scan = read_volume(save(tmp_path / "scan.nii", hu, turned))
    (tmp_path / "m.mha").write_bytes(mha(turned, boxes(), compressed))
    for value, roi in enumerate(read_rois(tmp_path / "m.mha", scan), start=1):
        assert (roi.notes, roi.doubts) == ((), ())
        np.testing.assert_array_equal(whole(roi), boxes() == value)


def test_a_detached_metaimage_header(head, tmp_path):
    whole_file = mha(head[1], head[0])
    text, voxels = whole_file.split(b"LOCAL\n", 1)
    (tmp_path / "s.mhd").write_bytes(text + b"s.raw\n")
    (tmp_path / "s.raw").write_bytes(voxels)
    assert_is_head(read_volume(tmp_path / "s.mhd"))
    for other in (b"../s.raw\n", b"none.raw\n"):
        (tmp_path / "s.mhd").write_bytes(text + other)
        with pytest.raises(ScanError, match="the file with its voxels is missing"):
            read_volume(tmp_path / "s.mhd")


NRRD = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
META = b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
LOCAL = b"ElementDataFile = LOCAL\n" + bytes(64)
PLACE = b"space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (NRRD, "its header has no end"),
        (NRRD + PLACE + b"\n" + bytes(60), "4 of its bytes are missing"),
        (NRRD.replace(b"raw", b"gzip") + PLACE + b"\n" + bytes(64), "truncated or corrupt gzip"),
        (NRRD.replace(b"raw", b"bzip2") + PLACE + b"\n", "its encoding is neither raw nor gzip"),
        (NRRD.replace(b"4 4 4", b"4 4 4 4") + b"\n", "dimension and sizes differ"),
        (NRRD.replace(b"4 4 4", b"4 4 0") + b"\n", "4x4x0 voxels"),
        (NRRD.replace(b"4 4 4", b"40000 40000 4") + b"\n", "at most 1,073,741,824"),
        (NRRD.replace(b"4 4 4", b"4 4 x") + b"\n", "its header is damaged"),
        (NRRD.replace(b"uchar", b"block") + PLACE + b"\n", "its type is no kind of number"),
        (NRRD + PLACE.replace(b"(0,0,1)", b"(0,1,0)") + b"\n" + bytes(64), "in one plane"),
        (NRRD + PLACE.replace(b"(0,0,1)", b"none") + b"\n" + bytes(64), "not those of three axes"),
        (NRRD + PLACE.replace(b"(0,0,1)", b"(0,nan,1)") + b"\n" + bytes(64), "NaN"),
        (NRRD + PLACE + b"data file: LIST\n\n", "in several files"),
        (NRRD + PLACE + b"byte skip: -1\n\n", "counted from the end"),
        (META, "its header has no end"),
        (META + LOCAL[:-4], "4 of its bytes are missing"),
        (META.replace(b"4 4 4", b"4 4") + LOCAL, "3 axes and 2 sizes"),
        (META.replace(b"4 4 4", b"4 4 1000000000") + LOCAL, "at most 1,073,741,824"),
        (META.replace(b"UCHAR", b"UCHAR_ARRAY") + LOCAL, "no binary numbers"),
        (META + b"ElementSpacing = 1 1\n" + LOCAL, "its header is damaged"),
        (META + b"ElementSpacing = 0 1 1\n" + LOCAL, "its place cannot be used"),
        (META + b"ElementDataFile = a%03d.raw 1 4 1\n", "in several files"),
        (gzip.compress(NRRD, mtime=0), "packed as a whole"),  # the time would be in the name of the test
    ],
)
def test_damaged_files_are_refused_in_one_line(head, tmp_path, content, words):
    scan = read_volume(save(tmp_path / "scan.nii", *head[:2]))
    path = tmp_path / "f.x"
    path.write_bytes(content)
    for read, kind in ((read_volume, ScanError), (lambda p: read_rois(p, scan), RoiError)):
        with pytest.raises(kind) as error:
            read(path)
        assert_one_line(error, "f.x", words)
