"""The pixels of DICOM CT, one image after the other, as HU."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.errors import ScanError
from situs.io.dicom.frames import Frame
from situs.io.dicom.plain import Coding
from situs.io.values import AIR_HU

__all__ = ["PixelReader"]

_PADDING_HU = AIR_HU + 124  # padding up to here reads as air already
_NO_HEAD_HU = 1500  # nothing at the edge of a picture of a head is as dense
_AIR_HU = (-2100, -900)  # what lies there instead: air, or padding
_EDGE_SHARE = 0.1
_INT16 = np.iinfo(np.int16)
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # frame headers of JPEG and JPEG-LS


class PixelReader:
    """Decodes images; keeps the last file open for the frames of a multi-frame one.

    Args:
        name: The folder, zip or file, for the error text.

    Attributes:
        n_unwrapped: How many images had values that had wrapped round.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._source: Any = None
        self._dataset: Any = None
        self.n_unwrapped = 0

    def read(self, frame: Frame) -> NDArray[Any]:
        """(rows, columns) HU, integers if slope and intercept are whole; padding is air.

        Raises:
            ScanError: The image cannot be decoded, or is none of a CT.
        """
        where = f"{self._name}: {frame.source.name}"
        try:
            stored, coding = self._decode(frame, where) if frame.plain is None else _read_plain(frame)
        except (ScanError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as problem:  # damaged pixel data can set off anything; decoders in Rust panic
            raise ScanError(f"{where}: truncated or corrupt pixels: copy or export it again") from problem
        if stored.shape != frame.shape:
            raise ScanError(
                f"{where}: holds {stored.shape} pixels, its header says {frame.shape}: export it again"
            )
        return self._to_hu(stored, frame, coding)

    def _decode(self, frame: Frame, where: str) -> tuple[NDArray[Any], Coding]:
        """(rows, columns) the stored values, by pydicom's decoders."""
        from pydicom import dcmread
        from pydicom.pixels import pixel_array

        if frame.source is not self._source:
            self._dataset = None  # the last file is let go first
            with frame.source.open() as file:
                self._dataset = dcmread(file, force=True)
            self._source = frame.source
        _check_pixels(self._dataset, where)
        _check_codestream(self._dataset, frame, where)
        with _quiet_decoders():
            stored = pixel_array(self._dataset, index=frame.index)
        return stored, Coding.of(self._dataset)

    def _to_hu(self, stored: NDArray[Any], frame: Frame, coding: Coding) -> NDArray[Any]:
        slope, intercept = frame.slope, frame.intercept
        hu = _rescaled(stored, slope, intercept)
        if not coding.signed:
            hu = self._unwrapped(hu, stored, coding.span, frame)
        if coding.padding is not None:
            low, high = coding.padding
            # Some files call a value of tissue padding, so only what hangs together with a corner of the
            # picture is taken for it.
            if max(low * slope, high * slope) + intercept > _PADDING_HU:
                hu[_at_corners((stored >= low) & (stored <= high))] = AIR_HU
        return hu

    def _unwrapped(self, hu: NDArray[Any], stored: NDArray[Any], span: int, frame: Frame) -> NDArray[Any]:
        """Values below what the file can store come out high; at the edge of a picture that shows."""
        edge = np.concatenate([hu[0], hu[-1], hu[1:-1, 0], hu[1:-1, -1]]).astype(np.float64)
        below = edge - span * frame.slope
        wrapped = (edge > _NO_HEAD_HU) & (below >= _AIR_HU[0]) & (below <= _AIR_HU[1])
        if wrapped.mean() < _EDGE_SHARE:
            return hu
        self.n_unwrapped += 1
        hu = hu.astype(np.float32 if hu.dtype.kind == "f" else np.int32, copy=False)
        if frame.intercept > _AIR_HU[1]:  # air cannot be stored, so that all of the upper half is negative
            hu[stored >= span // 2] -= hu.dtype.type(span * frame.slope)
        else:
            high = (hu > _NO_HEAD_HU) & (np.abs(hu - span * frame.slope - below[wrapped].max()) < 1)
            hu[_at_corners(high)] = AIR_HU
        return hu


def _read_plain(frame: Frame) -> tuple[NDArray[Any], Coding]:
    assert frame.plain is not None
    with frame.source.open() as file:
        return frame.plain.read(file, frame.shape), frame.plain.coding


def _rescaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Values by slope and intercept, whole if these are: int16 if they fit, which is quickest."""
    if not (slope.is_integer() and intercept.is_integer() and stored.dtype.itemsize <= 2):
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
    if not (_INT16.min <= min(*ends, intercept) and max(*ends, intercept) <= _INT16.max):
        return stored.astype(np.int32) * int(slope) + int(intercept)
    hu = stored.astype(np.int16)  # what does not fit on the way wraps round, and back
    if slope != 1:
        hu *= np.int16(slope)
    hu += np.int16(intercept)
    return hu


def _check_codestream(dataset: Any, frame: Frame, where: str) -> None:
    """Refuse a compressed image whose own header names another size: decoders take memory for that."""
    from pydicom.encaps import get_frame

    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    size = _codestream_size(get_frame(dataset.PixelData, frame.index, number_of_frames=max(1, count)))
    if size is not None and size != frame.shape:
        raise ScanError(
            f"{where}: holds {size[0]} x {size[1]} pixels, its header says {frame.shape[0]} x "
            f"{frame.shape[1]}: export it again"
        )


def _codestream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 image; None if it is none of these.

    Sources: ITU-T T.81 B.1 and B.2.2, T.87 C.2.2, T.800 A.5.1.
    """
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        return bottom - top, right - left
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZE_MARKERS:
            rows, columns = struct.unpack_from(">2H", data, at + 5)
            return rows, columns
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Decoders in C and Rust write about damage to standard error; what matters of it is raised."""
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _at_corners(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a mask that hang together with a corner of the picture."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    corners = {int(labels[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
    return np.isin(labels, list(corners))


# Errors show no other value: what stands in a header may name the patient.
_OTHER_KINDS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def _check_pixels(dataset: Any, where: str) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import ImplicitVRLittleEndian

    kind = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):  # which of them matters for display alone
        shown = kind if str(kind) in _OTHER_KINDS else "of another kind of color"
        raise ScanError(f"{where}: is {shown}, expected MONOCHROME2 as CT is: export the original CT")
    if dataset.get("ModalityLUTSequence"):
        raise ScanError(
            f"{where}: maps values by a look-up table, expected RescaleSlope: export the original CT"
        )
    if "PixelData" not in dataset:
        raise ScanError(f"{where}: holds no pixels: export it again")
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # DICOM's default
    if syntax is None or not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise ScanError(f"{where}: {syntax.name} cannot be read: export it uncompressed") from None
    if not available:
        raise ScanError(f"{where}: the decoder for {syntax.name} is absent: pip install 'situs[codecs]'")
