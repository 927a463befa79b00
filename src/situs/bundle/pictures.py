"""Small pictures of references, so that a reader sees the cases a finding rests on: drawing and encoding.

A picture is the middle of a reference's global view in the brain window. The region is painted gray, as the
networks saw it, and outlined.

In memory a picture is (SIZE_PX, SIZE_PX) uint8. Row 0 is anterior, column 0 is the patient's right. 0 to 254
is gray, 255 is the outline. In a bundle it is a WebP of about 600 bytes. Its lossless alpha channel is the
outline.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from situs.bundle.format import check_stored
from situs.views import ViewSpec

__all__ = [
    "FIELD_MM",
    "OUTLINE",
    "SIZE_PX",
    "ReferencePicture",
    "can_draw",
    "decode_picture",
    "draw_picture",
    "encode_picture",
    "pack_pictures",
    "unpack_pictures",
]

SIZE_PX = 72
FIELD_MM = 200.0  # side of the square that a picture shows: a head's length, less than a global view
_MARGIN_MM = 15.0  # shown around the region, as far as the global view reaches
OUTLINE = 255

_QUALITY = 25  # of the gray; 6,000 pictures take 3.6 MB
_CHANNELS = ("brain", "roi")

Bytes = NDArray[np.uint8]


class ReferencePicture(NamedTuple):
    """The stored picture of a reference.

    Attributes:
        webp: The picture as `encode_picture` wrote it.
        rendered: Whether its scan was rendered. If not, the picture shows a patient.
    """

    webp: bytes
    rendered: bool


def can_draw(spec: ViewSpec) -> bool:
    """Whether views have the channels that a picture is made of: the brain window and the region."""
    return set(_CHANNELS) <= set(spec.channels)


def draw_picture(global_view: Bytes, spec: ViewSpec) -> Bytes:
    """Draw the picture of a reference.

    It shows `FIELD_MM` around the middle of the view. If the region lies farther out, the picture is moved so
    that it shows the region and 15 mm around it.

    Args:
        global_view: (channels, spec.size_px, spec.size_px) uint8. Row 0 is anterior, column 0 the patient's
            right.
        spec: How the view was made.

    Returns:
        (SIZE_PX, SIZE_PX) uint8, see the module.

    Raises:
        ValueError: If the view lacks a channel, see `can_draw`.
    """
    from PIL import Image
    from scipy import ndimage

    if not can_draw(spec):
        raise ValueError(f"channels: expected {' and '.join(_CHANNELS)} among them, got {spec.channels}")
    brain, roi = (global_view[spec.channels.index(name)] for name in _CHANNELS)
    # Equally much is cut off on both sides, so that a mirrored slice gives the mirrored picture.
    field = spec.size_px - 2 * max(0, round((1 - FIELD_MM / spec.global_mm) / 2 * spec.size_px))
    margin = round(_MARGIN_MM / spec.global_mm * spec.size_px)
    crop = tuple(
        _crop(np.flatnonzero(roi.any(axis=1 - axis)), spec.size_px, field, margin) for axis in (0, 1)
    )
    gray, region = (
        np.asarray(Image.fromarray(image[crop]).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))
        for image in (brain, roi)
    )
    inside = region > min(127, int(region.max()) // 2)  # the smallest region has an outline, too
    outline = ndimage.binary_dilation(inside) & ~inside
    return np.where(outline, OUTLINE, np.minimum(gray, OUTLINE - 1)).astype(np.uint8)


def encode_picture(picture: Bytes) -> bytes:
    """A picture as WebP. Its gray is stored approximately, its outline exactly, and nothing else is."""
    from PIL import Image

    alpha = np.where(picture == OUTLINE, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    pixels = np.stack([picture, picture, picture, alpha], axis=2)
    Image.fromarray(pixels).save(content, format="WEBP", quality=_QUALITY, method=6)
    return content.getvalue()


def decode_picture(webp: bytes) -> Bytes:
    """The picture (SIZE_PX, SIZE_PX) uint8 that `encode_picture` stored."""
    from PIL import Image

    with Image.open(io.BytesIO(webp), formats=["WEBP"]) as image:
        if image.size != (SIZE_PX, SIZE_PX):
            raise ValueError(f"a picture of {image.size} pixels, expected {SIZE_PX} x {SIZE_PX}")
        pixels = np.asarray(image.convert("RGBA"))
    return np.where(pixels[:, :, 3] < 128, OUTLINE, np.minimum(pixels[:, :, 1], OUTLINE - 1)).astype(np.uint8)


def pack_pictures(pictures: Mapping[str, ReferencePicture], ids: Sequence[str] | NDArray[np.str_]) -> bytes:
    """The content of ``pictures.npz`` (no pickles).

    Its arrays are ``webp`` (bytes,) uint8, all pictures in the order of the references; ``ends`` (r,) int64,
    the position in it where each picture ends; and ``rendered`` (r,) bool, whether its scan was rendered.

    Args:
        pictures: Pictures by the ids of their references.
        ids: (r,) the ids of the bundle's references. A reference may have no picture.
    """
    none = ReferencePicture(b"", False)
    entries = [pictures.get(str(name), none) for name in ids]
    content = io.BytesIO()
    np.savez(
        content,
        webp=np.frombuffer(b"".join(entry.webp for entry in entries), dtype=np.uint8),
        ends=np.cumsum([len(entry.webp) for entry in entries], dtype=np.int64),
        rendered=np.array([entry.rendered for entry in entries], dtype=bool),
    )
    return content.getvalue()


def unpack_pictures(data: bytes, ids: Sequence[str] | NDArray[np.str_]) -> dict[str, ReferencePicture]:
    """The pictures that `pack_pictures` stored, by the ids of their references.

    Args:
        data: The content of ``pictures.npz``.
        ids: (r,) the ids of the same references. Those without a picture are left out.

    Raises:
        ValueError: If `data` is of another number of references, or unpacks to more than it holds.
    """
    check_stored(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        webp, ends, rendered = arrays["webp"].tobytes(), arrays["ends"].tolist(), arrays["rendered"].tolist()
    return {
        str(name): ReferencePicture(webp[start:end], is_rendered)
        for name, start, end, is_rendered in zip(ids, [0, *ends[:-1]], ends, rendered, strict=True)
        if end > start
    }


def _crop(occupied: NDArray[np.intp], size: int, field: int, margin: int) -> slice:
    """`field` of `size` pixels along an axis, as near to the middle as holds the region and a margin.

    Args:
        occupied: The pixels along the axis that the region meets, ascending.
        size: Pixels of the view.
        field: Pixels of the crop.
        margin: Pixels shown around the region.
    """
    start = (size - field) // 2
    if occupied.size:
        start = min(max(start, int(occupied[-1]) + 1 + margin - field), int(occupied[0]) - margin)
    start = min(max(start, 0), size - field)
    return slice(start, start + field)
