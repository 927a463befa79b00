"""One picture per lesion: its largest slice with its contour, its site, and the relation scores as bars.

If the bundle has pictures of the references to compare with, they stand beneath.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from situs.bundle.pictures import OUTLINE
from situs.finding import Finding, Reference
from situs.report.findings import DISCLAIMER, millilitres, site_name, slice_ranges
from situs.report.slices import ACCENT, TEXT, draw_slice, font
from situs.volume import Roi, Volume

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = [
    "COMPARISON_BOXES",
    "SLICE_BOX",
    "draw_finding",
    "draw_references",
    "enlarge_reference",
    "iter_lesions",
    "iter_pictures",
    "picture_name",
]

_SIZE = (960, 560)
_COMPARISON_PX = 262  # added to the height if there are pictures of references
SLICE_BOX = (16, 16, 520, 520)  # left, upper, right, lower of the slice within the picture
_PANEL = (548, 944)  # left and right of the text beside the slice
# left, upper, right, lower of the references within the picture
COMPARISON_BOXES = tuple((left, 594, left + 176, 770) for left in range(16, 784, 188))

_MOST_BARS = 15

_BACKGROUND = (18, 20, 24)
_FAINT = (150, 157, 168)
_TRACK = (38, 42, 49)
_BAR = (92, 106, 128)


def picture_name(finding: Finding) -> str:
    """The file name of a lesion's picture.

    The largest lesion of mask value 3 has the name ``roi03_lesion1.png``, in every run.
    """
    return f"{finding.lesion_name}.png"


def iter_pictures(
    volume: Volume,
    lesions: Sequence[Roi],
    findings: Sequence[Finding],
    reference_picture: Callable[[str], NDArray[np.uint8] | None] | None = None,
) -> Iterator[tuple[str, bytes]]:
    """The file name and the PNG bytes of the picture of every finding that is not outside the scan.

    Args:
        volume: The scan.
        lesions: The lesions of the scan (`situs.volume.split_lesions`), in any order.
        findings: The findings of some of these lesions.
        reference_picture: See `draw_finding`.

    Raises:
        KeyError: If the lesion of a finding is not in ``lesions``.
        BundleError: If the pictures of the references cannot be used.
    """
    for finding, lesion, others in iter_lesions(lesions, findings):
        content = io.BytesIO()
        draw_finding(volume, finding, lesion, others, reference_picture).save(content, format="PNG")
        yield picture_name(finding), content.getvalue()


def iter_lesions(
    lesions: Sequence[Roi], findings: Sequence[Finding]
) -> Iterator[tuple[Finding, Roi, list[Roi]]]:
    """Every finding that is not outside the scan, its lesion, and the other lesions of its largest slice.

    Args:
        lesions: The lesions of the scan, in any order.
        findings: The findings of some of these lesions.

    Raises:
        KeyError: If the lesion of a finding is not in ``lesions``.
    """
    by_name = {(lesion.value, lesion.component): lesion for lesion in lesions}
    on_slice: dict[int, list[Roi]] = {}
    for lesion in lesions:
        for k in lesion.areas_px:
            on_slice.setdefault(k, []).append(lesion)
    for finding in findings:
        if finding.slices:
            lesion = by_name[finding.roi_value, finding.component]
            yield finding, lesion, [other for other in on_slice[lesion.largest_slice] if other is not lesion]


def draw_finding(
    volume: Volume,
    finding: Finding,
    lesion: Roi,
    others: Sequence[Roi] = (),
    reference_picture: Callable[[str], NDArray[np.uint8] | None] | None = None,
) -> Image:
    """The picture of one finding: RGB, 960 x 560 pixels, or 960 x 822 with references beneath.

    Args:
        volume: The scan.
        finding: The finding.
        lesion: Its lesion.
        others: Lesions that get a dimmer contour.
        reference_picture: Returns the picture of the reference with a given id, or None without one
            (`Bundle.picture`). The finding's references to compare with are shown if one of them has a
            picture.

    Raises:
        BundleError: If the pictures of the references cannot be used.
    """
    from PIL import Image, ImageDraw

    strip = None if reference_picture is None else draw_references(finding, reference_picture)
    height = _SIZE[1] + (0 if strip is None else strip.height)
    picture = Image.new("RGB", (_SIZE[0], height), _BACKGROUND)
    picture.paste(draw_slice(volume, lesion, others, SLICE_BOX[2] - SLICE_BOX[0]), SLICE_BOX[:2])
    draw = ImageDraw.Draw(picture)
    _draw_heading(draw, finding)
    if finding.scores:
        _draw_bars(draw, finding)
    _draw_sentences(draw, (*finding.doubts, *finding.notes))
    left, _, _, lower = SLICE_BOX
    slice_number = f"slice {lesion.largest_slice} of 0-{volume.geometry.shape[2] - 1}"
    name = _shortened(volume.name, 13, 380)
    draw.text((left, lower + 20), f"{name}   {slice_number}", _FAINT, font(13), anchor="lm")
    draw.text((_PANEL[1], lower + 20), DISCLAIMER, _FAINT, font(13), anchor="rm")
    if strip is not None:
        picture.paste(strip, (0, _SIZE[1]))
    return picture


def draw_references(
    finding: Finding, reference_picture: Callable[[str], NDArray[np.uint8] | None]
) -> Image | None:
    """The references to compare a finding with, in a row: RGB, 960 x 262 pixels; None if none has a picture.

    Each has its site and distance. A coloured frame marks the finding's site.

    Args:
        finding: The finding.
        reference_picture: See `draw_finding`.

    Raises:
        BundleError: If the pictures of the references cannot be used.
    """
    from PIL import Image, ImageDraw

    shown = [(reference, reference_picture(reference.id)) for reference in finding.comparison]
    if all(small is None for _, small in shown):
        return None
    picture = Image.new("RGB", (_SIZE[0], _COMPARISON_PX), _BACKGROUND)
    _draw_comparison(picture, ImageDraw.Draw(picture), finding, shown)
    return picture


def _draw_heading(draw: ImageDraw, finding: Finding) -> None:
    x, right = _PANEL
    draw.text((x, 34), site_name(finding), TEXT, font(28), anchor="lm")
    draw.text((x, 66), finding.side or "", ACCENT, font(20), anchor="lm")
    roi = f"ROI {finding.roi_value} {finding.roi_name}".strip()
    size = f"{millilitres(finding)} ml   slices {slice_ranges(finding.slices)}"
    details = f"{roi}, lesion {finding.component}   {size}"
    draw.text((x, 94), _shortened(details, 14, right - x), _FAINT, font(14), anchor="lm")


def _draw_bars(draw: ImageDraw, finding: Finding) -> None:
    """One bar per site, the highest relation score first; of a long list, as many as there is room for."""
    left, right = _PANEL
    start, end, step, thick = left + 168, right - 44, 22.0, 12
    ranked = sorted(finding.sites, key=lambda site: -finding.scores[site.key])
    of_all = f", the highest of {len(ranked)}" if len(ranked) > _MOST_BARS else ""
    title = f"relation scores (not probabilities){of_all}"
    draw.text((left, 126), title, _FAINT, font(13), anchor="lm")
    for row, site in enumerate(ranked[:_MOST_BARS]):
        y = 150 + row * step
        score = finding.scores[site.key]
        chosen = site.key == finding.site
        box = (start, y - thick / 2, end, y + thick / 2)
        draw.rounded_rectangle(box, 3, _TRACK)
        length = (end - start) * min(max(score, 0.0), 1.0)
        if length >= 1:
            draw.rounded_rectangle((start, box[1], start + length, box[3]), 3, ACCENT if chosen else _BAR)
        text = TEXT if chosen else _FAINT
        draw.text((start - 10, y), _shortened(site.name, 14, start - 10 - left), text, font(14), anchor="rm")
        draw.text((right, y), f"{score:.2f}", text, font(14), anchor="rm")


def _draw_sentences(draw: ImageDraw, sentences: Sequence[str]) -> None:
    """The first two lines of the sentences, under the bars. The text table has them all."""
    left, right = _PANEL
    lines = [line for sentence in sentences for line in _wrapped(sentence, 13, right - left)]
    if len(lines) > 2:
        lines[1] = f"{lines[1]} ..."
    for row, line in enumerate(lines[:2]):
        draw.text((left, 488 + row * 18), line, ACCENT, font(13), anchor="lm")


def _draw_comparison(
    picture: Image,
    draw: ImageDraw,
    finding: Finding,
    shown: Sequence[tuple[Reference, NDArray[np.uint8] | None]],
) -> None:
    from PIL import Image

    boxes = [
        (left, upper - _SIZE[1], right, lower - _SIZE[1]) for left, upper, right, lower in COMPARISON_BOXES
    ]
    left, upper, _, _ = boxes[0]
    title = "nearest references of this site, and of the next in score (distances of embeddings, no unit)"
    draw.text((left, upper - 16), title, _FAINT, font(13), anchor="lm")
    for (reference, small), box in zip(shown, boxes, strict=False):
        same_site = reference.site == finding.site
        if small is None:
            draw.rectangle(box, _TRACK)
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(middle, "no picture", _FAINT, font(13), anchor="mm")
        else:
            size = (box[2] - box[0], box[3] - box[1])
            picture.paste(Image.fromarray(enlarge_reference(small, size)), box[:2])
        draw.rectangle(
            (box[0] - 2, box[1] - 2, box[2] + 1, box[3] + 1), outline=ACCENT if same_site else _BAR, width=2
        )
        site = finding.sites.site(reference.site).name
        draw.text((box[0], box[3] + 16), site, TEXT if same_site else _FAINT, font(14), anchor="lm")
        draw.text((box[0], box[3] + 35), f"distance {reference.distance:.2f}", _FAINT, font(13), anchor="lm")


def enlarge_reference(small: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture (h, w) of a reference, scaled to ``size`` (width, height), its outline in colour."""
    from PIL import Image
    from scipy import ndimage

    line = small == OUTLINE
    if line.any() and not line.all():  # the gray under the line is taken from the nearest pixel beside it
        beside = ndimage.distance_transform_edt(line, return_distances=False, return_indices=True)
        small = small[tuple(beside)]
    gray, cover = (
        np.asarray(Image.fromarray(image.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for image in (small, line)
    )
    cover = np.clip(cover, 0, 1)[:, :, None]
    pixels = np.clip(gray, 0, 255)[:, :, None] * (1 - cover) + np.array(ACCENT) * cover
    return np.rint(pixels).astype(np.uint8)


def _wrapped(text: str, size_px: int, width_px: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size_px).getlength(longer) > width_px - 20:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shortened(text: str, size_px: int, width_px: float) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    if font(size_px).getlength(text) <= width_px:
        return text
    while text and font(size_px).getlength(f"{text} ...") > width_px:
        text = text[:-1]
    return f"{text} ..."
