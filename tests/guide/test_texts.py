"""The README and the repository's other texts: length, links, and figures that are those of the results."""

import re
from dataclasses import fields
from itertools import chain

import msgspec
import pytest
from phantoms import REPO

from situs.bundle import schema
from situs.bundle.format import CARD_FILE, JSON_FILE, PICTURES_FILE, REQUIRED_FILES
from situs.cohort.manifest import Row

TEXTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"]
README = (REPO / "README.md").read_text(encoding="utf-8")
RESULTS = (REPO / "docs" / "results.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    path = REPO / name
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_the_readme_is_short_and_says_what_it_must():
    assert len(README.splitlines()) <= 120
    for words in (
        "make demo",
        "make test",
        "Research software, not a medical device",
        "not an independent test",
    ):
        assert words in README


def row(table_has: str, begins: str) -> list[str]:
    """The cells of a row of results.md, without bold type."""
    for table in re.findall(r"(?:^\|.*\n)+", RESULTS, re.MULTILINE):
        if table_has in table:
            for line in table.replace("**", "").splitlines():
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                if cells[0].startswith(begins):
                    return cells
    raise AssertionError(f"no row {begins!r} beside {table_has!r} in docs/results.md")


def figures(begins: str) -> list[str]:
    """The numbers in a row of the README's table."""
    (line,) = (line for line in README.splitlines() if line.startswith(f"| {begins}"))
    return re.findall(r"(?<![\w.])\.?\d+", line)


def test_the_figures_of_the_readme_are_those_of_the_results():
    real = "landmarks, mean over the 15 sites"
    mean = row(real, real)[2].split(" ")[0]
    total = row(real, "landmarks / turned")[1].split(" of ")[1]
    assert figures("real head CTs, not in") == [total, "5", f"{float(mean):.2f}".lstrip("0"), "15"]

    sure = row("site set holds an acceptable site", "landmarks")
    assert figures("the same, where the bundle is sure") == [sure[3], sure[4]]

    bleeds = row(real, "haemorrhages / turned")[1]
    assert figures("real head CTs | ")[::-1] == [bleeds.split(" ")[0], bleeds.split(" of ")[1]]

    lesions = row("lesions, acceptable, of 55", "lesions, acceptable")
    assert figures("real slices, each alone") == ["55", lesions[-1]]

    macro = row("RN + nearest neighbours: precision", "macro mean")
    assert figures("rendered scans of unseen heads")[-1] == f"{float(macro[4]):.2f}".lstrip("0")


def first_cells(name: str, heading: str = "") -> list[str]:
    """The names in the first column of a page's tables beneath a heading, as they stand between backticks."""
    text = (REPO / "docs" / name).read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.+?) \|", text[text.index(heading) :], re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def test_the_page_of_the_manifest_has_its_columns():
    assert first_cells("manifest.md") == [field.name for field in fields(Row)]


def test_the_page_of_the_bundle_has_its_files_and_fields():
    described = {field.name for field in msgspec.structs.fields(schema._Description)} | {"format", "sha256"}
    assert set(first_cells("bundle.md", "## `bundle.json`")) == described
    files = {*chain(*REQUIRED_FILES.values()), JSON_FILE, CARD_FILE, PICTURES_FILE}
    assert set(first_cells("bundle.md")) - described == files
