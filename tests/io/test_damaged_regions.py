"""Files of regions with random damage are answered or refused in one line, whatever was hit."""

import random

import numpy as np
import pytest
from phantoms.dicom_rois import write_rtstruct, write_seg
from phantoms.io_cases import dicom_slices, write_dicom

from situs.errors import RoiError
from situs.io import read_rois, read_volume

MUTANTS = 150  # of each file

MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    "Offset = -90 -100 -72\nElementSpacing = 4 4 8\nDimSize = 48 56 20\nElementType = MET_UCHAR\n"
    "ElementDataFile = LOCAL\n"
)
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 48 56 20\n"
    "space directions: (4,0,0) (0,4,0) (0,0,8)\nkinds: domain domain domain\nencoding: raw\n"
    "space origin: (-90,-100,-72)\nSegment0_Name:=clot\nSegment0_LabelValue:=1\nSegment0_Layer:=0\n\n"
)
SHAPES = (
    '{"schema": "situs.shapes/1", "space": "ras", "shapes": [{"box": [[-30, -10, -20], [10, 25, 40]]}, '
    '{"point": [1, 2, 3], "radius_mm": 8}]}'
)
TABLE = "shape,space,x,y,z,x2,y2,z2,radius_mm,name\nbox,ras,-30,-10,-20,10,20,30,,a\npoint,ras,1,2,3,,,,8,b\n"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A scan, and a file of each kind that has regions on it."""
    folder = tmp_path_factory.mktemp("inputs")
    slices = dicom_slices(range(-72, 73, 16))
    scan = read_volume(write_dicom(folder / "ct", slices))
    masks = np.zeros((2, len(slices), 56, 48))
    masks[0, 2:5, 10:20, 5:30] = masks[1, 4:7, 15:40, 8:12] = 1
    for kind in ("BINARY", "FRACTIONAL", "LABELMAP"):
        write_seg(folder / kind, slices, masks if kind == "FRACTIONAL" else masks > 0, kind)
    square = np.array([(-20, -20, -8), (20, -20, -8), (20, 20, -8), (-20, 20, -8.0)])
    contours = [("CLOSED_PLANAR", square), ("CLOSED_PLANAR", square / 2 + [0, 0, -4])]
    write_rtstruct(folder / "RTSTRUCT", slices, {1: ("a", contours), 2: ("b", contours[:1])})
    voxels = np.zeros((48, 56, 20), np.uint8)
    voxels[10:20, 12:18, 4:9] = 1
    for name, text in (("NRRD", NRRD), ("MHA", MHA)):
        (folder / name).write_bytes(text.encode() + voxels.tobytes(order="F"))
    for name, text in (("JSON", SHAPES), ("CSV", TABLE)):
        (folder / name).write_text(text)
    return scan, folder


def damage(raw, rng):
    """Change, insert or take away some bytes, more often near the beginning; or cut the file."""
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(min(len(raw), rng.choice([300, 3000, 10**9])))
        kind = rng.randrange(4)
        if kind == 0:
            raw[at] = rng.randrange(256)
        elif kind == 1:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del raw[at : at + rng.randrange(1, min(40, len(raw)))]
        else:
            raw[at:at] = rng.randbytes(rng.randrange(1, 9))
        raw = raw or bytearray(b"\0")
    return raw[: rng.randrange(1, len(raw) + 1)] if rng.random() < 0.05 else raw


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["BINARY", "FRACTIONAL", "LABELMAP", "RTSTRUCT", "NRRD", "MHA", "JSON", "CSV"]
)
def test_damage_is_refused_in_one_line_or_read(inputs, tmp_path, kind):
    scan, folder = inputs
    assert read_rois(folder / kind, scan)
    whole = (folder / kind).read_bytes()
    refused = 0
    for seed in range(MUTANTS):
        (tmp_path / "roi").write_bytes(damage(bytearray(whole), random.Random(seed)))
        try:
            read_rois(
                tmp_path / "roi", scan, "world" if seed % 3 == 0 and kind not in ("JSON", "CSV") else None
            )
        except RoiError as error:
            refused += 1
            assert "\n" not in str(error) and "SECRET" not in str(error), seed
    assert 0 < refused < MUTANTS
