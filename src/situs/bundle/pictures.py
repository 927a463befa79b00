"""Small pictures of references, so that a reader sees the cases a finding rests on.

A picture is the middle of a reference's global view, in the brain window, with its region outlined: where in
the head a region lies is what its site is about. The region is painted gray, as the networks saw it.

In memory it is `SIZE_PX` x `SIZE_PX` bytes, row 0 anterior, column 0 the patient's right: 0 to 254 is gray,
255 the outline. Stored it is a WebP of some 600 bytes whose alpha channel, which is lossless, is the outline.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
FIELD_MM = 200.0  # a head's length; less than a global view shows
_MARGIN_MM = 15.0  # shown around the region, as far as the global view goes
OUTLINE = 255

_QUALITY = 25  # of the gray; 6,000 pictures take 3.6 MB
_CHANNELS = ("brain", "roi")

Bytes = NDArray[np.uint8]


class ReferencePicture(NamedTuple):
    """The stored picture of a reference.

    Attributes:
        webp: see `encode_picture`
        rendered: whether its scan was rendered; if not, it shows a patient
    """

    webp: bytes
    rendered: bool


def can_draw(spec: ViewSpec) -> bool:
    """Whether such views show what a picture is made of: the brain window and the region."""
    return set(_CHANNELS) <= set(spec.channels)


def draw_picture(global_view: Bytes, spec: ViewSpec) -> Bytes:
    """The picture (SIZE_PX, SIZE_PX) uint8 of a global view (channels, spec.size_px, spec.size_px).

    It shows `FIELD_MM` around the middle of the view, moved so far that what surrounds the region is seen.

    Raises:
        ValueError: if the view has not the channels that `can_draw` asks for
    """
    from PIL import Image
    from scipy import ndimage

    if not can_draw(spec):
        raise ValueError(f"channels: expected {' and '.join(_CHANNELS)} among them, got {spec.channels}")
    brain, roi = (global_view[spec.channels.index(name)] for name in _CHANNELS)
    # As much is left out on both sides, so that a mirrored slice gives the mirrored picture.
    field = spec.size_px - 2 * max(0, round((1 - FIELD_MM / spec.global_mm) / 2 * spec.size_px))
    margin = round(_MARGIN_MM / spec.global_mm * spec.size_px)
    part = tuple(
        _part(np.flatnonzero(roi.any(axis=1 - axis)), spec.size_px, field, margin) for axis in (0, 1)
    )
    gray, region = (
        np.asarray(Image.fromarray(image[part]).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))
        for image in (brain, roi)
    )
    inside = region > min(127, int(region.max()) // 2)  # so that the smallest too has an outline
    outline = ndimage.binary_dilation(inside) & ~inside
    return np.where(outline, OUTLINE, np.minimum(gray, OUTLINE - 1)).astype(np.uint8)


def encode_picture(picture: Bytes) -> bytes:
    """A picture as WebP: its gray approximately, its outline exactly, and nothing else."""
    from PIL import Image

    alpha = np.where(picture == OUTLINE, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    pixels = np.stack([picture, picture, picture, alpha], axis=2)
    Image.fromarray(pixels).save(content, format="WEBP", quality=_QUALITY, method=6)
    return content.getvalue()


def decode_picture(webp: bytes) -> Bytes:
    """The picture (SIZE_PX, SIZE_PX) uint8 that `encode_picture` wrote."""
    from PIL import Image

    with Image.open(io.BytesIO(webp), formats=["WEBP"]) as image:
        pixels = np.asarray(image.convert("RGBA"))
    return np.where(pixels[:, :, 3] < 128, OUTLINE, np.minimum(pixels[:, :, 1], OUTLINE - 1)).astype(np.uint8)


def pack_pictures(pictures: Mapping[str, ReferencePicture], ids: Sequence[str] | NDArray[np.str_]) -> bytes:
    """One file (npz, no pickles) with the pictures of the references `ids` (r,), some of which may have none.

    ``webp`` (bytes) is all of them in the order of the references; ``ends`` (r,) says where each ends, and
    ``rendered`` (r,) whether its scan was rendered.
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
    """What `pack_pictures` wrote, of the same references; those without a picture are left out.

    Raises:
        ValueError: if it is of another number of references
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        webp, ends, rendered = arrays["webp"].tobytes(), arrays["ends"].tolist(), arrays["rendered"].tolist()
    return {
        str(name): ReferencePicture(webp[start:end], made)
        for name, start, end, made in zip(ids, [0, *ends[:-1]], ends, rendered, strict=True)
        if end > start
    }


def _part(shown: NDArray[np.intp], size: int, field: int, margin: int) -> slice:
    """`field` of `size` pixels, in the middle or as near to it as holds all that is `shown` and a margin."""
    start = (size - field) // 2
    if shown.size:
        start = min(max(start, int(shown[-1]) + 1 + margin - field), int(shown[0]) - margin)
    start = min(max(start, 0), size - field)
    return slice(start, start + field)
