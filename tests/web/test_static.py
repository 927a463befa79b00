"""What the page is made of: no script or style in the document, all words in a catalogue, all files there."""

import json
import re
from importlib import resources

from situs.report.html import read_texts

STATIC = resources.files("situs.web") / "static"
PAGE = (STATIC / "index.html").read_text(encoding="utf-8")
SCRIPTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in STATIC.iterdir()
    if path.name.endswith(".js") and path.name != "niivue.umd.js"
}


def own_texts():
    """The catalogue of the page: its lines are JSON but for the quotes of the keys."""
    lines = re.findall(r'^  (\w+): (".*"),$', SCRIPTS["texts.js"], re.MULTILINE)
    assert len(lines) > 100
    return {key: json.loads(text) for key, text in lines}


def used_keys():
    """The keys that scripts and document ask for; those that end in an underscore are beginnings."""
    code = "".join(SCRIPTS.values())
    keys = set(re.findall(r'\bt\(\s*"([\w.]+)"', code)) | set(re.findall(r'data-(?:t|label)="(\w+)"', PAGE))
    keys |= set(re.findall(r'\b(?:run|button|busy)\("(\w+)"', code))
    for first, second in re.findall(r'\bt\([^"()]* \? "(\w+)" : "(\w+)"\)', code):
        keys |= {first, second}
    return keys


def test_every_text_that_is_asked_for_is_in_a_catalogue():
    assert used_keys() <= set(own_texts()) | set(read_texts())


def test_every_text_of_the_page_is_used():
    code = PAGE + "".join(text for name, text in SCRIPTS.items() if name != "texts.js")
    code += SCRIPTS["texts.js"].partition("let texts")[2]
    beginnings = re.findall(r"t\(`(\w+)_\$\{", code)
    unused = {
        key
        for key in own_texts()
        if not re.search(rf"[\"'`]{key}[\"'`]", code) and not key.startswith(tuple(beginnings))
    }
    assert unused == set()


def test_no_text_stands_in_both_catalogues():
    # The report's would win, and the page's would never be seen.
    assert set(own_texts()).isdisjoint(read_texts())


def test_the_document_holds_no_script_style_or_foreign_address():
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", PAGE)
    for text in (PAGE, *SCRIPTS.values(), (STATIC / "style.css").read_text(encoding="utf-8")):
        assert set(re.findall(r"https?://[^\"' )]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_every_file_that_the_document_and_the_scripts_name_is_there():
    named = set(re.findall(r'"/static/([^"]+)"', PAGE))
    named |= {name for code in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', code)}
    assert {"app.js", "niivue.umd.js", "texts.js"} <= named
    assert named <= {path.name for path in STATIC.iterdir()}
