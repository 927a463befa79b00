"""Pixels that are read where they lie in the file. The oracle is pydicom, which decodes all others."""

import numpy as np
import pytest
from phantoms.io_cases import dicom_slices, write_dicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from situs.errors import ScanError
from situs.io import read_volume
from situs.io.dicom import headers, pixels


def _spoil_unused_bits(ds):
    stored = np.frombuffer(ds.PixelData, "<u2") & 0x0FFF
    ds.PixelData, ds.BitsStored, ds.HighBit = (stored | 0xA000).astype("<u2").tobytes(), 12, 11


def _with_metal(ds):
    stored = np.frombuffer(ds.PixelData, "<u2").copy()
    stored[1000:1010] = 65000
    ds.PixelData = stored.tobytes()


def _padded(ds):
    ds.add_new("PixelPaddingValue", "US", 24)
    ds.add_new("PixelPaddingRangeLimit", "US", 1064)


CASES = {
    "unsigned": lambda ds: None,
    "bits that are not used": _spoil_unused_bits,
    "values beyond 16 bits": _with_metal,
    "a slope of two": lambda ds: setattr(ds, "RescaleSlope", 2),
    "an intercept beyond 16 bits": lambda ds: setattr(ds, "RescaleIntercept", -40000),
    "a fractional slope": lambda ds: setattr(ds, "RescaleSlope", 0.75),
    "a range of padding": _padded,
    "more pixels than the image": lambda ds: setattr(ds, "PixelData", ds.PixelData + bytes(512)),
}


def _read(folder):
    try:
        volume = read_volume(folder)
    except ScanError as error:
        return str(error)
    return volume


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("case", CASES)
def test_they_are_what_pydicom_decodes(tmp_path, monkeypatch, case, syntax):
    slices = dicom_slices(range(-24, 25, 8))
    for ds in slices:
        CASES[case](ds)
        ds.file_meta.TransferSyntaxUID = syntax
    folder = write_dicom(tmp_path / "ct", slices)
    with monkeypatch.context() as patch:
        patch.setattr(pixels.PixelReader, "_decode", None)  # not needed
        plain = _read(folder)
    monkeypatch.setattr(headers, "plain_coding", lambda *_: None)
    decoded = _read(folder)
    if isinstance(decoded, str):
        assert plain == decoded
    else:
        assert np.array_equal(plain.hu, decoded.hu) and plain.hu.dtype == decoded.hu.dtype
        assert plain.assumptions == decoded.assumptions


def test_what_one_image_of_a_series_says_is_not_taken_for_the_next(tmp_path):
    """Each image differs from the others in one value that images of a series usually share."""
    slices = dicom_slices(range(-24, 25, 8), intercept=0)
    expected = np.stack([np.frombuffer(ds.PixelData, "<i2").astype(int) for ds in slices])
    slices[1].RescaleIntercept = expected[1].min() - 7
    slices[2].RescaleSlope = 2
    slices[3].PixelRepresentation, slices[3].RescaleIntercept = 0, -1000
    slices[3].PixelData = (np.frombuffer(slices[3].PixelData, "<i2") + 1000).astype("<u2").tobytes()
    slices[5].BitsStored, slices[5].HighBit = 12, 11
    expected[1] += expected[1].min() - 7
    expected[2] *= 2
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    found = volume.hu.transpose(2, 1, 0).reshape(len(slices), -1)
    assert np.array_equal(found, np.maximum(expected, -1024))
