"""Uncompressed pixels of a file with one image, found where its header ends.

So a file is parsed once, for its header, and its pixels are read as they lie there. All other pixels are
pydicom's to decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coding", "PlainPixels", "pixels_offset", "plain_coding"]

_PIXEL_DATA = bytes.fromhex("e07f1000")  # the tag, little endian
_WORDS = (b"OW\x00\x00", b"OB\x00\x00")
_UNDEFINED = 2**32 - 1
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # implicit and explicit little endian
_GRAY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Coding:
    """How a file stores its values.

    Attributes:
        signed: Whether they may be negative.
        bits: How many bits each has.
        padding: The lowest and the highest that mean "no picture here", or None.
    """

    signed: bool
    bits: int
    padding: tuple[int, int] | None

    @classmethod
    def of(cls, dataset: Any) -> Coding:
        """The coding that a data set's header tells."""
        signed, allocated = bool(dataset.get("PixelRepresentation")), int(dataset.BitsAllocated)

        def as_stored(value: int) -> int:
            """A value written with the other sign than the pixels have."""
            if signed and value >= 1 << (allocated - 1):
                return value - (1 << allocated)
            return value + (1 << allocated) if not signed and value < 0 else value

        ends = [dataset.get(tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        ends = [as_stored(value) for value in ends if isinstance(value, int)]
        padding = (min(ends), max(ends)) if ends else None
        return cls(signed, int(dataset.get("BitsStored") or allocated), padding)

    @property
    def span(self) -> int:
        """How many values there are."""
        return 1 << self.bits


@dataclass(frozen=True)
class PlainPixels:
    """Pixels of 16 bits in a file.

    Attributes:
        offset: Where the first one begins.
        coding: How they are stored.
    """

    offset: int
    coding: Coding

    def read(self, file: Any, shape: tuple[int, int]) -> NDArray[Any]:
        """(rows, columns) the stored values. Bits that are not used are no part of them.

        Raises:
            ValueError: The file is too short.
        """
        file.seek(self.offset)
        content = file.read(2 * shape[0] * shape[1])
        stored = np.frombuffer(content, "<i2" if self.coding.signed else "<u2").reshape(shape)
        unused = 16 - self.coding.bits
        return (stored << unused) >> unused if unused else stored


def plain_coding(header: Any, count: int) -> Coding | None:
    """How the pixels of a file are stored; None unless they are uncompressed gray values of one image.

    Raises:
        Exception: Of any kind, if the header is damaged.
    """
    gray = header.get("PhotometricInterpretation") in _GRAY and (header.get("SamplesPerPixel") or 1) == 1
    if not gray or count != 1 or header.get("ModalityLUTSequence") or header.get("BitsAllocated") != 16:
        return None
    if header.file_meta.get("TransferSyntaxUID") not in _SYNTAXES:
        return None
    whole = header.get("PixelRepresentation") in (0, 1) and 1 <= (header.get("BitsStored") or 0) <= 16
    return Coding.of(header) if whole else None


def pixels_offset(header: Any, file: Any, n_bytes: int, file_bytes: int) -> int:
    """Where the pixels begin, in a file that was read up to them.

    Args:
        header: What was read.
        file: The file.
        n_bytes: How long the pixels are.
        file_bytes: How long the file is.

    Returns:
        The number of the first byte; 0 if there are no pixels of that length, uncompressed.
    """
    implicit, little = header.original_encoding
    begin = file.tell()
    start = file.read(8 if implicit else 12)
    length = int.from_bytes(start[-4:], "little")
    plain = start[:4] == _PIXEL_DATA and (implicit or start[4:8] in _WORDS)
    whole = n_bytes <= length < _UNDEFINED and begin + len(start) + n_bytes <= file_bytes
    return begin + len(start) if little and plain and whole else 0
