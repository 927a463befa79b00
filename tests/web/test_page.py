"""The page in a real browser, on software rendering: what a reader sees, reads, hears and gets.

The example's sites and sides are known, because its lesions were grown in them. Pixels of the picture are
calculated from the layout: the axial slice fills the left 62 % of the stage, anterior up, the patient's right
on the left, and the example's voxels are stored so.
"""

import base64
import csv
import io
import json
import re
import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from phantoms import REPO
from PIL import Image
from scipy import ndimage

from situs.anatomy import SITE_KEYS
from situs.report.html import read_texts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright (pip install '.[dev]')"),
    pytest.mark.skipif(find_spec("starlette") is None, reason="needs starlette (pip install '.[web]')"),
]

DRIVE = SimpleNamespace(**runpy.run_path(str(REPO / "benchmarks" / "page.py")))
EXAMPLE = REPO / "src" / "situs" / "data" / "example"
AXE = Path(__file__).parent / "axe" / "axe.min.js"
TEXTS = read_texts()
AXIAL_WIDTH = 0.62  # of the stage
ROWS = "#lesion-list .row"


@pytest.fixture(scope="module")
def url():
    with DRIVE.serving() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with DRIVE.chromium() as started:
        yield started


@pytest.fixture
def visit(browser, url):
    """Opens the page. At the end nothing must have gone elsewhere, failed, or been against the policy.

    Chromium writes what the Content-Security-Policy forbids to the console, as errors. The tabs that the page
    opens are heard, too.
    """
    pages, wrong = [], []
    known = (url, "data:", "blob:")

    def open_page(colors="dark", size=(1280, 800)):
        page = DRIVE.new_page(browser, colors, size)
        tabs = page.context
        tabs.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        tabs.on("weberror", lambda error: wrong.append(str(error.error)))
        tabs.on("request", lambda sent: sent.url.startswith(known) or wrong.append(sent.url))
        pages.append(page)
        DRIVE.open_page(page, url)
        return page

    open_page.wrong = wrong
    yield open_page
    for page in pages:
        page.context.close()
    assert wrong == []


def known_sites():
    """Site and side of each lesion of the example, in words."""
    with (EXAMPLE / "lesions.csv").open() as file:
        return [(TEXTS[f"site.{row['site']}"], TEXTS[f"side.{row['side']}"]) for row in csv.DictReader(file)]


def largest_slice(value):
    """The slice with most of a lesion's voxels, and their positions (n, 2) on it."""
    mask = np.asarray(nibabel.load(EXAMPLE / "lesions.nii.gz").dataobj) == value
    k = int(mask.sum(axis=(0, 1)).argmax())
    return k, np.argwhere(mask[:, :, k])


def pixel(page, i, j):
    """Where the voxel (i, j) of the shown slice lies in the window."""
    stage = page.locator("#stage").bounding_box()
    width, height = AXIAL_WIDTH * stage["width"], stage["height"]
    size = min(width, height)
    left, top = stage["x"] + (width - size) / 2, stage["y"] + (height - size) / 2
    return left + (i + 0.5) / 256 * size, top + (j + 0.5) / 256 * size


def go_to_slice(page, k):
    page.locator("#slice").fill(str(k))
    DRIVE.settle(page)


def heading(page):
    """Site and side of the selected lesion, as the page has them."""
    DRIVE.settle(page)
    return page.inner_text("#finding h2").split("\n")[1:]


def drop(page, name, content, zone="#drop-scan"):
    """Drag a file onto the page and drop it there."""
    page.evaluate(
        """([name, content, zone]) => {
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name));
          const send = (kind, target) =>
            target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
          send("dragenter", document.body);
          send("drop", document.querySelector(zone));
        }""",
        [name, base64.b64encode(content).decode(), zone],
    )
    DRIVE.settle(page)


def drop_example(page):
    drop(page, "head.nii.gz", (EXAMPLE / "head.nii.gz").read_bytes())
    page.wait_for_selector("#foot:not([hidden])")
    DRIVE.settle(page)


def violations(page):
    """What axe-core finds, by rule and place."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document)")["violations"]
    return [(item["id"], [node["target"] for node in item["nodes"]]) for item in found]


def test_the_example_is_one_click_away(visit):
    page = visit()
    DRIVE.open_example(page)
    rows = [row.text_content() for row in page.query_selector_all(ROWS)]
    assert len(rows) == 6
    for number, (row, (site, side)) in enumerate(zip(rows, known_sites(), strict=True), start=1):
        assert row.startswith(f"Lesion {number}: ")
        # A site that is not sure may be another one.
        assert f"{site}, {side}, sure" in row or "not sure" in row
    assert heading(page) == list(known_sites()[0])
    assert TEXTS["sure_sentence"] in page.inner_text("#finding")
    assert page.inner_text("#status").startswith("Lesion 1: gangliocapsular region, left.")
    page.click(".references .picture")
    assert page.locator("#larger img").bounding_box()["width"] > 800
    page.click("#larger button")
    page.locator(ROWS).nth(5).click()
    assert heading(page) == list(known_sites()[5])
    assert f"Slice {largest_slice(6)[0]} of 0 to 35" in page.inner_text("#slice-value")


def test_left_and_right_are_the_patients(visit):
    page = visit()
    drop_example(page)
    letters = {}
    for letter in page.query_selector_all("#stage svg g:first-child .letter"):
        letters[letter.text_content()] = letter.bounding_box()
    assert letters["R"]["x"] < letters["P"]["x"] < letters["L"]["x"]
    assert letters["A"]["y"] < letters["R"]["y"] < letters["P"]["y"]
    affine = nibabel.load(EXAMPLE / "head.nii.gz").affine
    for i, j, k in ((90, 100, 15), (150, 170, 20)):
        go_to_slice(page, k)
        page.mouse.click(*pixel(page, i, j))
        DRIVE.settle(page)
        x, y, z, _ = affine @ [i, j, k, 1]
        # A pixel of the window may belong to the next voxel, of 1 mm.
        shown = page.inner_text("#place").split()
        assert shown[0] == ("L" if x < 0 else "R") and abs(float(shown[1]) - abs(x)) < 2
        assert shown[2] == ("P" if y < 0 else "A") and abs(float(shown[3]) - abs(y)) < 2
        assert shown[4] == ("I" if z < 0 else "S") and abs(float(shown[5]) - abs(z)) <= 0.5


@pytest.mark.parametrize("lesion", [1, 3])
def test_a_box_a_click_and_a_stroke_name_a_site(visit, lesion):
    page = visit()
    drop_example(page)
    k, voxels = largest_slice(lesion)
    expected = list(known_sites()[lesion - 1])
    go_to_slice(page, k)
    page.keyboard.press("b")
    page.mouse.move(*pixel(page, *voxels.min(axis=0)))
    page.mouse.down()
    page.mouse.move(*pixel(page, *voxels.max(axis=0)), steps=4)
    page.mouse.up()
    assert heading(page) == expected
    page.keyboard.press("p")
    middle = voxels[np.abs(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()]
    page.mouse.click(*pixel(page, *middle))
    assert heading(page) == expected
    page.keyboard.press("u")
    columns = voxels[voxels[:, 1] == middle[1]]
    page.mouse.move(*pixel(page, *columns[0]))
    page.mouse.down()
    page.mouse.move(*pixel(page, *columns[-1]), steps=4)
    page.mouse.up()
    assert heading(page) == expected
    assert page.locator(ROWS).count() == 3
    page.keyboard.press("z")
    DRIVE.settle(page)
    assert page.locator(ROWS).count() == 2


def test_a_mask_lets_the_scan_show_through(visit):
    """A filled lesion keeps at least three quarters of the contrast beneath it, and each voxel its rank."""
    page = visit()
    DRIVE.open_example(page)
    page.locator(ROWS).nth(2).click()
    page.mouse.click(*pixel(page, 5, 5))  # the crosshair goes where it hides nothing
    mask = np.asarray(nibabel.load(EXAMPLE / "lesions.nii.gz").dataobj) == 3
    inside = ndimage.binary_erosion(mask[:, :, largest_slice(3)[0]], iterations=2)
    centres = [pixel(page, *voxel) for voxel in np.argwhere(inside)]
    columns, rows = np.floor(centres).astype(int).T

    def shown():
        DRIVE.settle(page)
        picture = Image.open(io.BytesIO(page.locator("body").screenshot())).convert("RGB")
        return np.asarray(picture).astype(float)[rows, columns]

    filled = shown()
    page.keyboard.press("o")
    outlined = shown()
    page.select_option("#masks", "hidden")
    hidden = shown()
    assert page.locator("#stage .lesion").count() == 0
    assert (outlined == hidden).all() and np.ptp(hidden[:, 0]) > 30
    for band in range(3):
        slope, offset = np.polyfit(hidden[:, band], filled[:, band], 1)
        assert 0.75 < slope < 0.95
        assert np.abs(slope * hidden[:, band] + offset - filled[:, band]).max() <= 1
    assert (np.abs(filled - hidden).max(axis=1) > 5).all()  # but it is seen


def test_the_finding_is_in_sight_beneath_a_long_list(visit):
    page = visit()
    DRIVE.open_example(page)
    for count in (12, 18):
        drop(page, "lesions.nii.gz", (EXAMPLE / "lesions.nii.gz").read_bytes(), "#drop-regions")
        assert page.locator(ROWS).count() == count
    page.locator(".downloads").scroll_into_view_if_needed()
    page.keyboard.press("N")  # back to the end of the second file
    DRIVE.settle(page)
    for element, around in (
        ("[aria-current]", "#lesion-list"),
        ("#finding h2", "#panel"),
        (".verdict", "#panel"),
    ):
        inner, outer = (page.locator(name).bounding_box() for name in (element, around))
        assert inner["y"] >= outer["y"] - 1
        assert inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1


def test_strokes_on_several_slices_are_one_lesion(visit):
    page = visit()
    drop_example(page)
    k, voxels = largest_slice(3)
    middle = voxels.mean(axis=0)
    page.keyboard.press("u")
    for slice_number in (k, k + 1):
        go_to_slice(page, slice_number)
        page.mouse.move(*pixel(page, *(middle - 4)))
        page.mouse.down()
        page.mouse.move(*pixel(page, *(middle + 4)), steps=4)
        page.mouse.up()
        DRIVE.settle(page)
    assert page.locator(ROWS).count() == 1
    page.click("#next-lesion")
    page.mouse.click(*pixel(page, *(middle + 20)))
    DRIVE.settle(page)
    assert page.locator(ROWS).count() == 2


def test_the_keyboard_alone_names_a_site(visit):
    page = visit()
    page.locator("#try-example").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#finding .references:not([hidden])")
    DRIVE.settle(page)
    page.keyboard.press("n")  # the next lesion: the crosshair goes there
    assert heading(page) == list(known_sites()[1])
    page.keyboard.press("p")
    page.locator("#stage").focus()
    page.keyboard.press("Enter")  # a point there: which site so small a region gets is the bundle's affair
    site, side = heading(page)
    assert side == known_sites()[1][1] and site in {TEXTS[f"site.{key}"] for key in SITE_KEYS}
    place = page.inner_text("#place").split()
    page.keyboard.press("ArrowLeft")  # to the left of the picture: to the patient's right
    DRIVE.settle(page)
    moved = page.inner_text("#place").split()
    assert (place[0], moved[0]) == ("R", "R") and int(moved[1]) > int(place[1])
    slice_number = int(page.inner_text("#slice-value").split()[1])
    page.keyboard.press("PageUp")
    DRIVE.settle(page)
    assert int(page.inner_text("#slice-value").split()[1]) == slice_number + 1
    for key, shown in (("5", "W 2500 L 480"), ("2", "W 240 L 80"), ("1", "W 80 L 40")):
        page.keyboard.press(key)
        assert page.inner_text("#window-value") == shown
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_files_of_regions_are_added_and_findings_saved(visit):
    page = visit()
    drop_example(page)
    drop(page, "lesions.nii.gz", (EXAMPLE / "lesions.nii.gz").read_bytes(), "#drop-regions")
    assert page.locator(ROWS).count() == 6
    with page.expect_download() as download:
        page.click(".downloads button:text-is('JSON')")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["schema"] == "situs.findings/2"
    assert [finding["roi_value"] for finding in saved["findings"]] == [1, 2, 3, 4, 5, 6]
    with page.expect_download() as download:
        page.click(".downloads button:text-is('HTML report')")
    report = Path(download.value.path()).read_text()
    assert TEXTS["title"] in report
    paper = page.context.new_page()
    paper.set_content(report)
    assert violations(paper) == []
    # The summary and each of the six lesions take a page.
    assert len(re.findall(rb"/Type */Page\b", paper.pdf(format="A4"))) == 7
    with page.context.expect_page() as opened:
        page.click(".downloads button:text-is('Print or PDF')")
    opened.value.wait_for_url("blob:**")
    opened.value.wait_for_selector("h1")
    assert opened.value.inner_text("h1") == TEXTS["title"]
    # The policy of the page holds there too, and lets the style sheet of the report through.
    bars = opened.value.locator(".scores .bar")
    widths = [bar.bounding_box()["width"] for bar in bars.all()[:3]]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[2]


def test_a_reload_finds_the_scan_and_its_lesions(visit):
    page = visit()
    DRIVE.open_example(page)
    page.keyboard.press("p")
    k, voxels = largest_slice(3)
    go_to_slice(page, k)
    page.mouse.click(*pixel(page, *voxels.mean(axis=0)))
    before = heading(page)
    page.reload()
    assert heading(page) == before
    assert page.locator(ROWS).count() == 7


def test_two_tabs_have_a_scan_each_also_if_one_is_a_copy_of_the_other(visit):
    page = visit()
    DRIVE.open_example(page)
    with page.context.expect_page() as opened:
        page.evaluate("() => void window.open(location.href)")  # it gets a copy of this tab's session
    copy = opened.value
    copy.wait_for_selector("html[data-ready]")
    clients = [tab.evaluate("() => sessionStorage.getItem('situs.client')") for tab in (page, copy)]
    assert len(set(clients)) == 2 and copy.locator("#empty").is_visible()
    for _ in range(2):  # its second scan takes the place of its first
        drop_example(copy)
    page.keyboard.press("p")
    go_to_slice(page, largest_slice(3)[0])
    page.mouse.click(*pixel(page, *largest_slice(3)[1].mean(axis=0)))
    assert heading(page) == list(known_sites()[2])
    assert copy.locator(ROWS).count() == 0 and page.inner_text("#alert") == ""


def test_a_broken_file_is_told_and_the_page_goes_on(visit):
    page = visit()
    drop(page, "broken.nii.gz", b"\x1f\x8b\x08\x00 not a scan")
    page.wait_for_selector("#alert:not(:empty)")
    assert "broken.nii.gz" in page.inner_text("#alert")
    # Chromium itself notes the status 422.
    assert all("422" in text for text in visit.wrong)
    visit.wrong.clear()
    DRIVE.open_example(page)
    assert page.inner_text("#alert") == ""
    assert heading(page) == list(known_sites()[0])


def test_styles_in_the_document_are_refused_and_heard(visit):
    page = visit()
    page.evaluate("() => document.body.setAttribute('style', 'color: rgb(1, 2, 3)')")
    page.wait_for_function("() => getComputedStyle(document.body).color !== 'rgb(1, 2, 3)'")
    assert len(visit.wrong) == 1 and "Content Security Policy" in visit.wrong.pop()


@pytest.mark.parametrize(
    ("colors", "size"), [("dark", (1440, 900)), ("light", (1440, 900)), ("light", (390, 844))]
)
def test_everybody_can_use_it(visit, colors, size):
    page = visit(colors, size)
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in paper.strip("rgb()").split(",")])
    assert (brightness > 200) == (colors == "light")
    assert violations(page) == []
    DRIVE.open_example(page)
    assert violations(page) == []
    page.locator(ROWS).nth(4).click()
    assert violations(page) == []
    page.click(".references .picture")
    assert violations(page) == []
    page.click("#larger button")
    # Nothing is wider than the window.
    assert page.evaluate("() => document.documentElement.scrollWidth") == size[0]
    page.keyboard.press("?")
    assert violations(page) == []
