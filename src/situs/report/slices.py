"""Slices with outlined lesions: the largest slice of one lesion, and slices that together show all.

A slice is shown as radiologists hang it: anterior up, the patient's left on the picture's right. It has
square pixels and the brain window, whatever the order of the file's voxels. The suffix ``_px`` means pixels
of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.resample import Place, resample_slice
from situs.views import BRAIN_WINDOW_HU, head_centre_mm, to_gray
from situs.volume import Roi, Volume

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["ACCENT", "TEXT", "draw_slice", "font", "iter_overview"]

_FIELD_MM = 240.0  # the field of the networks' global view; wider if the lesion would be cut off
_MARGIN_MM = 10.0  # around a lesion for which the field is made wider
_SCALE_BAR_MM = 20.0
_CONTOUR_PX = 1.5
_NUMBER_PX = 20

TEXT = (236, 238, 241)
ACCENT = (255, 176, 32)
_OTHER = (70, 148, 170)


def draw_slice(volume: Volume, lesion: Roi, others: Sequence[Roi], size: int) -> Image:
    """The largest slice of a lesion, outlined, with L, R and a scale bar: RGB.

    Args:
        volume: The scan.
        lesion: The lesion.
        others: Lesions that get a dimmer contour.
        size: Rows and columns of the picture.
    """
    from PIL import Image

    k = lesion.largest_slice
    pixels, place = _slice_pixels(volume, k, lesion.slice_mask(k), _joined(volume, k, others), size)
    picture = Image.fromarray(pixels)
    _draw_marks(picture, place.pixel_mm)
    return picture


def iter_overview(
    volume: Volume, lesions: Mapping[int, Roi], size: int, most: int
) -> Iterator[tuple[int, list[int], Image]]:
    """Slices that together show all lesions, each outlined and with its number beside it, from below upwards.

    The first slice chosen is the one that most lesions meet, the next the one that most of the others meet.

    Args:
        volume: The scan.
        lesions: The lesions by their numbers.
        size: Rows and columns of a picture.
        most: No more slices than this; the lesions that they leave out are not shown.

    Yields:
        The slice, the numbers of the lesions on it, and the picture: RGB.
    """
    on_slice: dict[int, list[int]] = {}
    for number, lesion in lesions.items():
        for k in lesion.areas_px:
            on_slice.setdefault(k, []).append(number)
    heights = volume.geometry.heights_mm
    for k in sorted(_covering_slices(lesions, on_slice, most), key=lambda k: float(heights[k])):
        yield k, on_slice[k], _draw_numbered(volume, k, {n: lesions[n] for n in on_slice[k]}, size)


def _covering_slices(
    lesions: Mapping[int, Roi], on_slice: Mapping[int, Sequence[int]], most: int
) -> list[int]:
    """The slices of `iter_overview`. Among slices with as many lesions, that with the largest areas wins."""
    left, chosen = set(lesions), list[int]()
    while left and len(chosen) < most:

        def gain(k: int, left: set[int] = left) -> tuple[int, int, int]:
            new = left.intersection(on_slice[k])
            return len(new), sum(lesions[n].areas_px[k] for n in new), -k

        chosen.append(max(on_slice, key=gain))
        left = left.difference(on_slice[chosen[-1]])
    return chosen


def _draw_numbered(volume: Volume, k: int, lesions: Mapping[int, Roi], size: int) -> Image:
    from PIL import Image, ImageDraw

    mask = _joined(volume, k, lesions.values())
    pixels, place = _slice_pixels(volume, k, mask, np.zeros_like(mask), size)
    picture = Image.fromarray(pixels)
    _draw_marks(picture, place.pixel_mm)
    draw, axes = ImageDraw.Draw(picture), np.stack(volume.geometry.display_axes, axis=1)
    for number, lesion in lesions.items():
        i, j = lesion.pixels(k)
        world = volume.geometry.to_world(np.stack([i, j, np.full_like(i, k)], axis=1)) - place.centre_mm
        across, down = (world @ axes / place.pixel_mm + (size - 1) / 2).T
        beside = float(np.clip(across.max() + 8, 8, size - 20)), float(np.clip(down.min(), 10, size - 10))
        draw.text(
            beside, str(number), TEXT, font(_NUMBER_PX), anchor="lm", stroke_width=3, stroke_fill="black"
        )
    return picture


def _joined(volume: Volume, k: int, lesions: Iterable[Roi]) -> NDArray[np.bool_]:
    """Where lesions lie on a slice: (ni, nj)."""
    mask = np.zeros(volume.hu.shape[:2], dtype=bool)
    for lesion in lesions:
        if k in lesion.areas_px:
            mask[lesion.pixels(k)] = True
    return mask


def _slice_pixels(
    volume: Volume, k: int, mask: NDArray[np.bool_], rest: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.uint8], Place]:
    """A slice in the brain window, with contours.

    Args:
        volume: The scan.
        k: The slice.
        mask: (ni, nj), not empty; its contour is bright, and all of it is shown.
        rest: (ni, nj); its contour is dimmer.
        size: Rows and columns of the result.

    Returns:
        The pixels (size, size, 3), and where they lie.
    """
    hu = np.asarray(volume.hu[:, :, k], dtype=np.float32)
    geometry = volume.geometry
    centre = head_centre_mm(hu, geometry, k)
    field_mm = max(_FIELD_MM, _needed_field_mm(geometry, mask, k, centre))
    place = Place(centre, field_mm / size)
    shown = resample_slice(hu, geometry, k, place, (size, size), outside=BRAIN_WINDOW_HU[0])
    pixels = np.repeat(255 * to_gray(shown, "brain")[:, :, None], 3, axis=2)
    for outlined, colour, strength in ((rest, _OTHER, 0.75), (mask, ACCENT, 1.0)):
        if outlined.any():
            cover = strength * _contour(outlined, geometry, k, place, size)[:, :, None]
            pixels = pixels * (1 - cover) + np.array(colour) * cover
    return np.rint(pixels).astype(np.uint8), place


def _contour(
    mask: NDArray[np.bool_],
    geometry: Geometry,
    k: int,
    place: Place,
    size: int,
) -> NDArray[np.float32]:
    """The part of every pixel (size, size) that a thin line just outside the mask (ni, nj) covers, 0 to 1."""
    from scipy import ndimage

    finer = 2  # the line is drawn at twice the size, so that it comes out smooth
    shape = (size * finer, size * finer)
    fine = replace(place, pixel_mm=place.pixel_mm / finer)
    inside = resample_slice(mask.astype(np.float32), geometry, k, fine, shape) >= 0.5
    ball = ndimage.generate_binary_structure(2, 1)
    line = ndimage.binary_dilation(inside, ball, iterations=round(_CONTOUR_PX * finer)) & ~inside
    return np.asarray(line.reshape(size, finer, size, finer).mean(axis=(1, 3), dtype=np.float32))


def _needed_field_mm(
    geometry: Geometry, mask: NDArray[np.bool_], k: int, centre: NDArray[np.float64]
) -> float:
    """Width of the field of view around `centre` (3,) that shows all of the mask (ni, nj), with a margin."""
    i, j = np.nonzero(mask)
    world = geometry.to_world(np.stack([i, j, np.full_like(i, k)], axis=1)) - centre
    in_plane = np.abs(world @ np.stack(geometry.display_axes, axis=1))
    return float(2 * (in_plane.max() + _MARGIN_MM))


def _draw_marks(picture: Image, pixel_mm: float) -> None:
    from PIL import ImageDraw

    draw, (right, lower) = ImageDraw.Draw(picture), picture.size
    for x, letter, anchor in ((12, "R", "lm"), (right - 12, "L", "rm")):
        draw.text((x, 20), letter, TEXT, font(22), anchor=anchor, stroke_width=2, stroke_fill="black")
    length = _SCALE_BAR_MM / pixel_mm
    draw.line([(12, lower - 14), (12 + length, lower - 14)], TEXT, 2)
    draw.text((20 + length, lower - 14), f"{_SCALE_BAR_MM:.0f} mm", TEXT, font(13), anchor="lm")


def font(size_px: int) -> FreeTypeFont | ImageFont:
    """The font of the pictures, which comes with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size_px)
