"""The page of `situs serve` in a browser without a GPU: pictures for docs/, how soon it is ready and answers.

Promise: the page can be used in under 3 s, and ten seconds after that at most the example is open and its six
lesions have their sites. Each is the median over the views. Run:

    python benchmarks/page.py [--pictures docs/pictures]

It needs Chromium (Debian: apt-get install chromium) and playwright (pip install '.[dev]').
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Of each picture its name, the colours, and the size of the window in pixels.
VIEWS = (
    ("serve_dark.png", "dark", (1280, 800)),
    ("serve_light.png", "light", (1280, 800)),
    ("serve_narrow.png", "dark", (420, 1500)),
)
REPORT_SIZE = (1060, 2120)
PAGE_READY_S, ANSWER_S = 3.0, 10.0
# A machine that is busy may take long; nothing waits in vain, because a failed page says so at once.
PATIENCE_MS = 600_000
_SOFTWARE_GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_COLORS = 128  # of a picture


@contextmanager
def serving() -> Iterator[str]:
    """The address of a `situs serve` that runs meanwhile."""
    command = [sys.executable, "-m", "situs", "serve", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[2]
        finally:
            server.terminate()
            server.stdout.read()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium with software rendering."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=_SOFTWARE_GL, timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


def new_page(browser: Browser, colors: str = "dark", size: tuple[int, int] = (1440, 900)) -> Page:
    """A page in a window of its own, with nothing of the others."""
    context = browser.new_context(
        color_scheme="light" if colors == "light" else "dark", viewport={"width": size[0], "height": size[1]}
    )
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


def open_page(page: Page, url: str) -> float:
    """Open the page; the seconds until it can be used."""
    start = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return time.perf_counter() - start


def settle(page: Page) -> None:
    """Wait until nothing is under way and all is drawn."""
    page.wait_for_selector("#busy", state="hidden")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def open_example(page: Page) -> None:
    """Open the example scan, and wait for its findings and the pictures of references."""
    page.click("#open-example")
    page.wait_for_selector("#finding .references:not([hidden]) img")
    settle(page)


def open_report(page: Page) -> Page:
    """The HTML report of the findings that a page shows, in a window of its own."""
    with page.expect_download() as download:
        page.click(".downloads button:text-is('HTML report')")
    assert page.context.browser is not None
    report = new_page(page.context.browser, "light", REPORT_SIZE)
    report.set_content(Path(download.value.path()).read_text(encoding="utf-8"))
    return report


def save_picture(page: Page, path: Path) -> None:
    """Write what the window shows as a PNG of few colours."""
    from PIL import Image

    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    # Median cut, the default, spends all on the gray of the slices.
    shown.quantize(_COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def main() -> int:
    from frame import Parser, Promise, print_promises

    parser = Parser(__doc__)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the pictures into this folder")
    options = parser.parse_args()
    ready, answered = [], []
    with serving() as url, chromium() as browser:
        for name, colors, size in VIEWS:
            page = new_page(browser, colors, size)
            ready.append(open_page(page, url))
            began = time.perf_counter()
            open_example(page)
            answered.append(time.perf_counter() - began)
            print(f"{name}: ready in {ready[-1]:.1f} s, the example in {answered[-1]:.1f} s", flush=True)
            if options.pictures:
                save_picture(page, options.pictures / name)
                if name == VIEWS[0][0]:
                    report = open_report(page)
                    save_picture(report, options.pictures / "page.png")
                    report.context.close()
            page.context.close()
    print_promises(
        [
            Promise("page ready", median(ready), PAGE_READY_S, "s"),
            Promise("example open and named", median(answered), ANSWER_S, "s"),
        ]
    )
    return 0


if __name__ == "__main__":
    import frame

    frame.run(main)
