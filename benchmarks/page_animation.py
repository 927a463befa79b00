"""Ten seconds of the page of `situs serve`: a scan is opened, a lesion is marked, and its site is read.

Run:

    python benchmarks/page_animation.py docs/pictures/serve.gif

It needs what `page.py` needs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import frame
import page as drive
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from playwright.sync_api import Page

WINDOW_PX, SHOWN_PX, COLOURS = (1280, 800), (960, 600), 96
POINT, SLICE = (0.45, 0.5), "17"  # where a lesion is marked, as parts of the axial picture's sides
AXIAL_WIDTH = 0.62  # of the stage, roughly
POINTER = (255, 255, 255)


@dataclass
class Film:
    """Pictures of a page and how long each is seen.

    Attributes:
        page: The page.
        frames: The pictures.
        milliseconds: How long each is seen.
    """

    page: Page
    frames: list[Image.Image] = field(default_factory=list)
    milliseconds: list[int] = field(default_factory=list)

    def take(self, milliseconds: int, pointer: tuple[float, float] | None = None) -> None:
        """A picture of the page as it is now, with a mouse pointer (x, y) in pixels of the window."""
        drive.settle(self.page)
        shown = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if pointer is not None:
            _draw_pointer(shown, pointer)
        self.frames.append(shown.resize(SHOWN_PX, Image.Resampling.LANCZOS))
        self.milliseconds.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write a GIF that repeats; all frames have the colours of the last one, so nothing flickers."""
        palette = self.frames[-1].quantize(COLOURS, Image.Quantize.FASTOCTREE)
        first, *rest = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0, optimize=True)


def _draw_pointer(shown: Image.Image, at: tuple[float, float]) -> None:
    x, y = at
    outline = [(0, 0), (0, 24), (6, 19), (11, 29), (15, 27), (10, 17), (18, 17)]
    ImageDraw.Draw(shown).polygon([(x + dx, y + dy) for dx, dy in outline], fill=POINTER, outline=(0, 0, 0))


def _middle(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _on_axial(page: Page) -> tuple[float, float]:
    """Where the lesion is marked, in pixels of the window."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    size = min(AXIAL_WIDTH * box["width"], box["height"])
    left = box["x"] + (AXIAL_WIDTH * box["width"] - size) / 2
    return left + POINT[0] * size, box["y"] + (box["height"] - size) / 2 + POINT[1] * size


def shoot(film: Film) -> None:
    """Open the example, look at two lesions, mark one more."""
    page = film.page
    film.take(900)
    film.take(700, _middle(page, "#open-example"))
    drive.open_example(page)
    film.take(1500)
    step: Callable[[str], None] = page.keyboard.press
    page.click("#stage", position={"x": 5, "y": 5})
    step("n")
    page.wait_for_timeout(300)
    film.take(1400)
    step("n")
    page.wait_for_timeout(300)
    film.take(1400)
    page.locator("#slice").fill(SLICE)
    step("p")
    at = _on_axial(page)
    page.mouse.move(*at)
    film.take(900, at)
    page.mouse.click(*at)
    page.wait_for_timeout(500)
    film.take(3200, at)


def main() -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with drive.serving() as url, drive.chromium() as browser:
        page = drive.new_page(browser, "dark", WINDOW_PX)
        drive.open_page(page, url)
        film = Film(page)
        shoot(film)
    film.save(options.out)
    print(f"{options.out}: {sum(film.milliseconds) / 1000:.1f} s, {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    frame.run(main)
