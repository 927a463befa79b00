"""DICOM that is damaged or made to harm: an answer or one line, soon, and in little memory."""

import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from phantoms.io_cases import assert_is_head, assert_one_line, dicom_slices, write_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from situs.errors import ScanError
from situs.io import read_volume
from situs.io.dicom import files as dicom_files

LIMIT_S, LIMIT_MB = 10, 300


def read_cheaply(path):
    """`read_volume`, which may take neither long nor much memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        return read_volume(path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert time.process_time() - start < LIMIT_S and peak < LIMIT_MB * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Rows": 0}, "0 x 48 pixels, expected 1 to 4096"),
        ({"Columns": 0}, "56 x 0 pixels, expected"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels, expected"),
        ({"Rows": 4096, "Columns": 4096}, "DICOM file 1 of 19: truncated or corrupt pixels"),
        ({"NumberOfFrames": 1_000_000}, "truncated or corrupt pixels"),
        ({"NumberOfFrames": 2**31 - 1}, "truncated or corrupt pixels"),
        ({"BitsAllocated": 64, "BitsStored": 64}, "truncated or corrupt pixels"),
        ({"RescaleSlope": "1e10"}, "RescaleSlope 1e+10 and RescaleIntercept -1024, which no CT has"),
        ({"RescaleIntercept": "1e10"}, "which no CT has"),
        ({"RescaleSlope": "0"}, "which no CT has"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing"),
        ({"PixelSpacing": ["1e9", "1e9"]}, "PixelSpacing"),
        ({"PixelSpacing": [-1, -1]}, "PixelSpacing"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
        ({"ImagePositionPatient": ["1e300", 0, 0]}, "ImagePositionPatient"),
        ({"BitsStored": 0}, "corrupt"),
    ],
    ids=str,
)
def test_headers_that_lie(tmp_path, tags, words, packed):
    slices = dicom_slices()
    for ds in slices:
        if packed:
            ds.compress(RLELossless, generate_instance_uid=False)
        for name, value in tags.items():
            setattr(ds, name, value)
    with pytest.raises(ScanError) as error:
        read_cheaply(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, *([] if packed else [words]))


@pytest.mark.parametrize("series", ["other", "same"])
def test_a_file_that_lies_does_not_spoil_the_others(tmp_path, series):
    slices = dicom_slices()
    (liar,) = dicom_slices([0], Rows=65535, Columns=65535)
    if series == "same":
        liar.SeriesInstanceUID = slices[0].SeriesInstanceUID
    assert_is_head(read_cheaply(write_dicom(tmp_path / "ct", [liar, *slices])))


def test_more_groups_than_frames(tmp_path):
    (one,) = dicom_slices([0], NumberOfFrames=2)
    one.SOPClassUID = EnhancedCTImageStorage
    one.PixelData *= 2
    one.PerFrameFunctionalGroupsSequence = [type(one)() for _ in range(5)]
    folder = write_dicom(tmp_path / "ct", [one])
    with pytest.raises(ScanError) as error:
        read_cheaply(folder)
    assert_one_line(error, "damaged")


def test_links_pipes_and_devices_in_a_folder(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    (folder / "loop").symlink_to(folder)
    (folder / "out").symlink_to("/")
    (folder / "self").symlink_to(folder / "self")
    (folder / "nothing").symlink_to(folder / "none")
    (folder / "again.dcm").symlink_to(folder / "a003.dcm")
    os.link(folder / "a004.dcm", folder / "hard.dcm")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.dcm")
    volume = read_cheaply(folder)
    assert volume.hu.shape[2] == 19 and volume.assumptions == ()
    assert_is_head(volume)


def test_files_that_are_links_are_read_and_linked_folders_are_said_not_to_be(tmp_path):
    store = write_dicom(tmp_path / "store", dicom_slices())
    (tmp_path / "ct").mkdir()
    for file in store.iterdir():
        (tmp_path / "ct" / file.name).symlink_to(file)
    assert_is_head(read_cheaply(tmp_path / "ct"))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ct").symlink_to(store)
    with pytest.raises(ScanError) as error:
        read_cheaply(tmp_path / "linked")
    assert_one_line(error, "links to folders, which are not followed")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_paths_that_cannot_be(path):
    with pytest.raises(ScanError) as error:
        read_cheaply(Path(path))
    assert_one_line(error)


def test_a_pipe_as_scan_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(ScanError) as error:
        read_cheaply(tmp_path / "pipe.dcm")
    assert_one_line(error, "pipe")


def test_a_folder_of_very_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_files, "_MOST_FILES", 30)
    (tmp_path / "disk").mkdir()
    for n in range(31):
        (tmp_path / "disk" / f"{n}.txt").write_text("x")
    with pytest.raises(ScanError) as error:
        read_cheaply(tmp_path / "disk")
    assert_one_line(error, "more than 30 files")
    with zipfile.ZipFile(tmp_path / "disk.zip", "w") as archive:
        for n in range(31):
            archive.writestr(f"{n}.txt", "x")
    with pytest.raises(ScanError) as error:
        read_cheaply(tmp_path / "disk.zip")
    assert_one_line(error, "more than 30 files")


@pytest.mark.slow
def test_thousands_of_files_that_are_not_dicom_take_seconds(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    for n in range(3_000):
        (folder / f"{n}.txt").write_bytes(b"")
    assert_is_head(read_cheaply(folder))


def bomb(path, mib):
    """A zip whose one entry is a DICOM file that unpacks to so many MiB of zeros."""
    (one,) = dicom_slices([0])
    write_dicom(path.parent / "one", [one])
    start = (path.parent / "one" / "a000.dcm").read_bytes()
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as e,
    ):
        e.write(start)
        for _ in range(mib):
            e.write(bytes(2**20))
    return path


def test_a_zip_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_files, "_ZIP_BYTES_UNJUDGED", 50 * 2**20)
    with pytest.raises(ScanError) as error:
        read_cheaply(bomb(tmp_path / "ct.zip", 100))
    assert_one_line(error, "unpacks to 0.1 GB")


def test_a_zip_entry_that_says_it_is_shorter_than_it_is(tmp_path):
    """The length in the zip's directory is what holds."""
    path = bomb(tmp_path / "ct.zip", 100)
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02") + 24
    raw[at : at + 4] = (3000).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(ScanError) as error:
        read_cheaply(path)
    assert_one_line(error)


@pytest.mark.slow
def test_deflated_dicom_is_read_but_not_blown_up(tmp_path):
    slices = dicom_slices()
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert_is_head(read_cheaply(write_dicom(tmp_path / "ct", slices)))
    slices[0].PixelData = bytes(2**27)
    write_dicom(tmp_path / "bomb", slices[:1])
    with pytest.raises(ScanError) as error:
        read_cheaply(tmp_path / "bomb")
    assert_one_line(error, "damaged")


@pytest.mark.slow
def test_hundreds_of_directions_and_acquisitions(tmp_path):
    slices = dicom_slices(range(0, 150), shape=(8, 8), spacing=(30, 30))
    angles = np.radians(np.linspace(0, 40, 150))
    for n, (ds, a) in enumerate(zip(slices, angles, strict=True)):
        ds.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(a):.8f}", f"{np.sin(a):.8f}"]
        ds.AcquisitionNumber = n
    with pytest.raises(ScanError) as error:
        read_cheaply(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_headers_with_changed_bytes_never_end_in_a_fault(tmp_path, seed):
    rng = np.random.default_rng(seed)
    folder = write_dicom(tmp_path / "ct", dicom_slices(range(0, 40, 8)))
    for path in folder.iterdir():
        raw = bytearray(path.read_bytes())
        for at in rng.integers(0, len(raw) - 5400, 6):
            raw[at] = rng.integers(0, 256)
        path.write_bytes(raw)
    try:
        read_cheaply(folder)
    except ScanError as problem:
        assert "\n" not in str(problem)


@pytest.mark.parametrize("harm", range(3))
def test_damage_at_which_a_decoder_panics_is_one_line_and_nothing_else(tmp_path, capfd, harm):
    """Run-length code for more pixels than there are, and segments that lie outside the data."""
    slices = dicom_slices([0, 8, 16], shape=(28, 24))
    for ds in slices:
        ds.compress(RLELossless, generate_instance_uid=False)
        raw = bytearray(ds.PixelData)
        start = raw.index(b"\xfe\xff\x00\xe0", 8) + 8 + 64  # after the second item's tag and the RLE header
        if harm == 0:
            raw[start:] = b"\x81\x00" * ((len(raw) - start) // 2) + bytes((len(raw) - start) % 2)
        elif harm == 1:
            raw[start - 60 : start - 56] = b"\xff\xff\xff\x7f"
        else:
            raw[start:] = b"\x7f" * (len(raw) - start)
        ds.PixelData = bytes(raw)
    with pytest.raises(ScanError) as error:
        read_cheaply(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, "truncated or corrupt pixels")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("syntax", "code"),
    [
        (
            JPEG2000Lossless,
            b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8I", 60000, 60000, 0, 0, 60000, 60000, 0, 0),
        ),
        (JPEGLSLossless, b"\xff\xd8\xff\xf7\0\x0b\x10" + struct.pack(">2H", 65535, 65535) + b"\1\1\x11\0"),
        (
            JPEGLossless,
            b"\xff\xd8\xff\xfe\0\4ab\xff\xc3\0\x0b\x10" + struct.pack(">2H", 65535, 65535) + b"\1\1\x11\0",
        ),
    ],
    ids=["JPEG 2000", "JPEG-LS", "JPEG"],
)
def test_a_compressed_image_whose_own_header_names_another_size(tmp_path, syntax, code):
    slices = dicom_slices([0, 8, 16])
    for ds in slices:
        ds.PixelData = encapsulate([code + bytes(2000)])
        ds.file_meta.TransferSyntaxUID = syntax
        ds["PixelData"].VR = "OB"
    with pytest.raises(ScanError) as error:
        read_cheaply(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, "its header says 56 x 48")
