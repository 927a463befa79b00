"""The figure of docs/concepts/how.md: what becomes of a lesion of the example scan, step by step.

python benchmarks/how_figure.py docs/pictures/how.png
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import cast

import frame
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Draw

from situs import Labeler, Roi, read_rois, read_volume
from situs.bundle import Bundle, read_bundle
from situs.neighbors import nearest
from situs.report.picture import enlarge_reference
from situs.report.slices import ACCENT, TEXT, draw_slice, font
from situs.runtime import Runtime
from situs.views import extract_views
from situs.volume import split_regions, union_mask

SIZE_PX = (1500, 430)
TOP, SLICE_PX, VIEW_PX, REFERENCE_PX = 62, 320, 154, 62
BACKGROUND, MUTED, COLOURS = (18, 21, 26), (150, 156, 165), 160
# Left edges of the five parts, and the captions above them.
PARTS = (
    (20, "1  scan and mask"),
    (380, "2  views, upright"),
    (576, "3  embedding"),
    (772, "4  nearest references"),
    (1172, "5  relation scores"),
)
VALUE, N_SITES = 2, 4  # the region of the example; sites that are shown


def main() -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    bundle = read_bundle()
    example = Path(str(files("situs"))) / "data/example"
    volume = read_volume(example / "head.nii.gz")
    lesions, _ = split_regions(read_rois(example / "lesions.nii.gz", volume))
    lesion = next(one for one in lesions if one.value == VALUE)
    (finding,) = Labeler.load().label(volume, [lesion])
    (views,) = extract_views(
        volume, lesion.largest_slice, [lesion], union_mask([lesion], volume.geometry), bundle.spec
    )
    embedding = Runtime(bundle).embed(views.global_view[None], views.local_view[None]).embedding[0]
    ranked = sorted(finding.scores, key=lambda key: -finding.scores[key])[:N_SITES]

    picture = Image.new("RGB", SIZE_PX, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for left, caption in PARTS:
        draw.text((left, 22), caption, TEXT, font(21))
    for left, _ in PARTS[1:]:
        draw.polygon([(left - 22, 212), (left - 22, 232), (left - 10, 222)], fill=ACCENT)
    others = [one for one in lesions if one is not lesion]
    picture.paste(draw_slice(volume, lesion, cast(list[Roi], others), SLICE_PX), (PARTS[0][0], TOP))
    brain = bundle.spec.channels.index("brain")
    for n, view in enumerate((views.global_view, views.local_view)):
        tile = Image.fromarray(view[brain]).resize((VIEW_PX, VIEW_PX))
        picture.paste(tile, (PARTS[1][0], TOP + n * (VIEW_PX + 12)))
    picture.paste(_barcode(embedding), (PARTS[2][0], TOP))
    draw.text((PARTS[2][0], TOP + 170), f"{len(embedding)} numbers", MUTED, font(17))
    _draw_references(picture, draw, bundle, embedding, ranked)
    _draw_scores(draw, bundle, finding.scores, ranked, set(finding.site_set))
    picture.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(options.out, optimize=True)
    return 0


def _barcode(embedding: NDArray[np.float32]) -> Image.Image:
    """The embedding as a square of gray values."""
    side = int(np.ceil(np.sqrt(len(embedding))))
    padded = np.zeros(side * side)
    padded[: len(embedding)] = np.abs(embedding) / np.abs(embedding).max()
    gray = np.rint(255 * np.sqrt(padded)).astype(np.uint8).reshape(side, side)
    return Image.fromarray(gray).resize((VIEW_PX, VIEW_PX), Image.Resampling.NEAREST)


def _draw_references(
    picture: Image.Image, draw: Draw, bundle: Bundle, embedding: NDArray[np.float32], keys: list[str]
) -> None:
    """A row of the nearest references of each site."""
    found = nearest(embedding[None], bundle.references, bundle.n_neighbors)
    for row, key in enumerate(keys):
        top = TOP + row * (REFERENCE_PX + 24)
        draw.text((PARTS[3][0], top), bundle.sites.names[key], TEXT, font(15))
        for n, index in enumerate(found.indices[0, bundle.sites.numbers[key]]):
            stored = bundle.picture(str(bundle.references.ids[index]))
            if stored is not None:
                shown = Image.fromarray(enlarge_reference(stored, (REFERENCE_PX, REFERENCE_PX)))
                picture.paste(shown, (PARTS[3][0] + n * (REFERENCE_PX + 6), top + 19))


def _draw_scores(
    draw: Draw, bundle: Bundle, scores: dict[str, float], keys: list[str], possible: set[str]
) -> None:
    """A bar for each site; those of the site set are bright."""
    left, width = PARTS[4][0], 220
    for row, key in enumerate(keys):
        top = TOP + row * (REFERENCE_PX + 24) + 30
        colour = ACCENT if key in possible else MUTED
        draw.rectangle([left, top, left + max(2.0, width * scores[key]), top + 18], fill=colour)
        draw.text((left + width + 12, top + 9), f"{scores[key]:.2f}", TEXT, font(17), anchor="lm")
    text = f"6  {len(possible)} sites fit: not sure" if len(possible) > 1 else "6  one site fits: sure"
    draw.text((left, TOP + len(keys) * (REFERENCE_PX + 24) - 12), text, TEXT, font(19))


if __name__ == "__main__":
    frame.run(main)
