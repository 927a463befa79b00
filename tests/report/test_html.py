"""The page: whole, well-formed and by itself; all findings are in it, and nothing in it can act."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from phantoms import small_case
from PIL import Image

from situs.anatomy import SITE_KEYS, SITES, Site, SiteList
from situs.bundle.pictures import SIZE_PX
from situs.errors import InputError
from situs.finding import SIDES
from situs.report import DISCLAIMER, html
from situs.report.html import format_html, read_texts
from situs.sentences import Sentence
from situs.volume import split_lesions

VOID = {"br", "img", "meta"}
# Neither <script> nor what loads another file; addresses are places of the page and pictures within it.
PLAIN = """
    html head meta title style body header main section article footer h1 h2 h3 p strong small bdi br a ul li
    dl dt dd div span figure img figcaption blockquote table caption thead tbody tr th td
"""
ADDRESSES = {"href", "src", "action", "srcset", "poster", "data", "background", "formaction", "cite", "style"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'--></style></title><iframe src=http://x.example>",
    "{{ 7 * 7 }} {version} %s &amp; &#60;b&#62;",
    "a\x00b\x1b[31mc\r\n\u202egnp.exe\ud800\u2028",
)


class Page(HTMLParser):
    """A page that was read; each element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((" ".join(data.split()), tuple(self.open)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        """All that is read on the page."""
        return " ".join(text for text, within in self.texts if "style" not in within)


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Pictures of the scan with few pixels, which are drawn quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "_SLICE_PX", 25)
        patch.setattr(html, "_OVERVIEW_PX", 24)
        yield


@pytest.fixture(scope="module")
def volume():
    return small_case.volume()


@pytest.fixture(scope="module")
def lesions(volume):
    return [lesion for roi in small_case.rois(volume.geometry) for lesion in split_lesions(roi)]


@pytest.fixture(scope="module")
def findings(volume):
    """Three of lesions in the scan, of which one is too small, and one outside."""
    return [*small_case.findings(small_case.rois(volume.geometry)), small_case.outside()]


@pytest.fixture(scope="module")
def text(volume, lesions, findings):
    return format_html(volume, lesions, findings)


def test_the_page_is_well_formed_and_uses_plain_elements(text):
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n") and page.all("html") == [{"lang": "en"}]
    assert {tag for tag, _ in page.elements} <= set(PLAIN.split())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:  # what is referred to is there
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert attributes.get("href", f"#{ids[0]}").removeprefix("#") in ids
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all("scope" in attributes for attributes in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))


def test_nothing_is_fetched_and_nothing_can_act(text):
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ADDRESSES & set(attributes):
            assert attributes[name].startswith(("#", "data:image/png;base64,")), attributes[name]
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_all_that_was_found_is_on_the_page(text, volume, findings):
    words = Page(text).words
    names = read_texts()
    assert all(sentence in words for sentence in volume.assumptions)
    for number, finding in enumerate(findings, start=1):
        start = text.index(f'<h2 id="lesion-{number}">')
        article = Page("<div><article>" + text[start:].partition("</article>")[0] + "</article></div>").words
        for sentence in (*finding.doubts, *finding.notes):
            assert sentence in article
        assert finding.roi_name in article and f"{finding.volume_ml:.1f}" in article
        rows = [
            " ".join(row.split())
            for row in re.findall("<tr.*?</tr>", text[start:].partition("</article>")[0], re.S)
        ]
        for key, score in finding.scores.items():
            (row,) = (
                row for row in rows if f"{names['site.' + key]}<" in row.replace(" <", "<") and "frame" in row
            )
            assert f"<td>{score:.2f}</td> <td>{100 * finding.shares[key]:.0f} %</td>" in row
        for reference in (*finding.nearest, *finding.comparison):
            assert reference.id in article and f"{reference.distance:.2f}" in article
    assert words.count(DISCLAIMER) == 2 and "compact 3" in words


def test_groups_stand_beside_the_site(volume, lesions, findings):
    """Thalamus and brainstem are possible, then the thalamus alone, then two sites that share no group."""
    judged, names = findings[0], read_texts()
    sets = (judged.site_set, ("thalamus",), ("thalamus", "maxillary"))
    lines = [
        re.findall(
            r"<dt>(.*?)</dt><dd>(.*?)</dd>", format_html(volume, lesions, [replace(judged, site_set=s)])
        )
        for s in sets
    ]
    shown = [[dict(pairs)[names[f"grouping.{name}"]] for name in SITES.groupings] for pairs in lines]
    some = "(not all possible sites)"
    assert shown == [
        ["parenchyma (all possible sites)", f"supratentorial {some}", f"deep {some}"],
        ["parenchyma", "supratentorial", "deep"],
        [f"parenchyma {some}", f"supratentorial {some}", f"deep {some}"],
    ]


def test_names_of_a_list_of_ones_own_are_text(volume, lesions, findings):
    own = SiteList(Site(key, f"<{key}> {{x}}", groups={"odd_one": "<b>{y}</b>"}) for key in SITE_KEYS)
    texts = {key: text for key, text in read_texts().items() if not key.startswith(("site.", "in."))}
    shown = format_html(volume, lesions, [replace(findings[0], sites=own)], texts=texts)
    assert "&lt;thalamus&gt; {x}" in shown and "<b>" not in shown
    assert "<dt>odd one</dt><dd>&lt;b&gt;{y}&lt;/b&gt; (all possible sites)</dd>" in shown


def test_the_bars_are_as_long_as_the_scores(text, findings):
    widths = [
        int(a["class"].removeprefix("bar w")) for a in Page(text).all("span") if "bar" in a.get("class", "")
    ]
    scores = sorted(findings[0].scores.values(), reverse=True)
    assert widths == 2 * [round(100 * score) for score in scores]  # two of the lesions were judged
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert all(f".w{n}{{width:{n}%}}" in style for n in range(101))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"doubts": ()}, "Lesion of 4.3 ml in the thalamus on the left."),
        (
            {},
            "Lesion of 4.3 ml, most likely in the thalamus on the left; the site is not sure, "
            "also possible: brainstem.",
        ),
        (
            {"site_set": ()},
            "Lesion of 4.3 ml, most likely in the thalamus on the left; the site is not sure.",
        ),
        ({"side": "bilateral", "doubts": ()}, "Lesion of 4.3 ml in the thalamus on both sides."),
        (
            {"site": None, "side": "midline"},
            "Lesion of 4.3 ml at the midline; too small for its site to be named.",
        ),
    ],
)
def test_each_lesion_has_a_sentence_for_a_report(volume, lesions, changes, sentence):
    finding = replace(small_case.finding(lesions[0]), volume_ml=4.3, **changes)
    page = Page(format_html(volume, lesions, [finding]))
    assert [words for words, within in page.texts if "blockquote" in within] == [sentence]


def test_a_lesion_outside_the_scan_has_a_sentence_too(volume, lesions):
    page = Page(format_html(volume, lesions, [replace(small_case.outside(), volume_ml=0.05)]))
    assert "Lesion of 0.05 ml outside the scan; no site is named." in page.words
    assert not page.all("img")


@pytest.mark.parametrize("word", HOSTILE)
def test_names_of_others_are_text_and_nothing_else(text, volume, lesions, findings, word):
    reference = replace(findings[0].nearest[0], id=word)
    hostile = [
        replace(
            finding,
            roi_name=word,
            doubts=(word,),
            notes=(word,),
            bundle_name=word,
            bundle_version=word,
            nearest=(reference,) * len(finding.nearest),
            comparison=(reference,) * len(finding.comparison),
        )
        for finding in findings
    ]
    shown = format_html(replace(volume, name=word, assumptions=(word,)), lesions, hostile)
    tags = [tag for tag, _ in Page(shown).elements if tag not in ("bdi",)]
    assert tags == [tag for tag, _ in Page(text).elements if tag not in ("bdi",)]
    assert all(c.isprintable() or c == "\n" for c in shown)
    expected = " ".join("".join(c if c.isprintable() else " " for c in word).split())
    counts = [
        sum(words == expected for words, within in Page(shown).texts if within[-1] == tag)
        for tag in ("li", "bdi")
    ]
    assert counts[0] == 1 + 2 * len(findings)
    # The scan; each region in the table and in its article; four references of each of two lesions.
    assert counts[1] == 1 + 2 * len(findings) + 2 * 4


def test_the_same_findings_give_the_same_bytes(text, volume, lesions, findings):
    assert format_html(volume, lesions[::-1], findings) == text


def reference(number):
    return np.full((SIZE_PX, SIZE_PX), 40 * number, np.uint8)


def test_pictures_of_references_are_on_the_page(volume, lesions, findings):
    page = Page(format_html(volume, lesions, findings[:1], {"head_02/9": reference(3)}.get))
    images = [attributes for attributes in page.all("img") if attributes["width"] == "176"]
    assert [image["alt"] for image in images] == ["Slice of a reference: brainstem. Its region is outlined."]
    content = base64.b64decode(images[0]["src"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (176, 176, 3) and (pixels == 120).all()


def test_a_page_of_many_lesions_says_which_pictures_it_leaves_out(volume, lesions, findings, monkeypatch):
    monkeypatch.setattr(html, "_MOST_PICTURES", 1)
    monkeypatch.setattr(html, "_MOST_SLICES", 1)
    page = Page(format_html(volume, lesions, findings))
    assert [attributes["width"] for attributes in page.all("img")] == ["24", "25"]
    assert "Only the first 1 lesions have pictures here." in page.words
    assert "Not shown here, because they are too many: lesions 2." in page.words  # 1 and 3 share slice 2


class Recording(Mapping):
    """A catalogue of another language, which remembers what was looked up."""

    def __init__(self):
        self.texts, self.used = read_texts(), set()

    def __getitem__(self, key):
        self.used.add(key)
        _ = self.texts[key]
        return "xx" if key == "language" else "\u00e9"

    def __iter__(self):
        return iter(self.texts)

    def __len__(self):
        return len(self.texts)


def test_every_text_is_used_and_no_word_is_outside_the_catalogue(volume, lesions, findings, monkeypatch):
    catalogue = Recording()
    judged = findings[0]
    more = [replace(judged, site=site.key, side=side) for site in SITES for side in SIDES]
    doubts = {key: text for key, text in read_texts().items() if key.startswith("doubt.")}
    values = {key: dict.fromkeys(re.findall(r"{(\w+)}", text), "1") for key, text in doubts.items()}
    doubted = replace(judged, doubts=tuple(Sentence(key, **values[key]) for key in doubts))
    sure = replace(judged, doubts=())
    unlike = replace(judged, site_set=(), shares={})
    uneven = replace(
        volume,
        geometry=replace(volume.geometry, origins=volume.geometry.origins * np.array([[1]] * 5 + [[1.2]])),
    )
    pages = [
        format_html(
            volume,
            lesions,
            [*findings, doubted, sure, unlike, *more],
            {"head_02/9": reference(3)}.get,
            catalogue,
        ),
        format_html(replace(uneven, assumptions=()), [], [], None, catalogue),
    ]
    monkeypatch.setattr(html, "_MOST_PICTURES", 0)
    monkeypatch.setattr(html, "_MOST_SLICES", 1)
    pages.append(format_html(volume, lesions, findings, None, catalogue))
    assert set(catalogue.texts) - catalogue.used == set()
    for shown in pages:
        page = Page(shown.replace("class=", "data-class="))
        assert page.all("html") == [{"lang": "xx"}]
        own = {"li", "bdi", "style"}
        words = [
            w
            for text, within in page.texts
            if not own & set(within)
            for w in re.findall("[A-Za-z]{2,}", text)
        ]
        assert words == ["scan"]  # the name of the scan, in the title
        for _, attributes in page.elements:
            assert set(attributes.get("alt", "")) <= {"\u00e9"}


def test_the_english_names_are_those_of_the_other_outputs():
    texts = read_texts()
    assert texts["notice"].startswith(DISCLAIMER)
    for site in SITES:
        assert texts[f"site.{site.key}"] == site.name + (
            " sinus" if site.groups["compartment"] == "sinus" else ""
        )


MADE_UP = {key: f"zz {text}" for key, text in read_texts().items()} | {"language": "eo"}


def test_another_language_is_a_file(volume, lesions, findings, tmp_path):
    """Each text of the page comes from it; only the sentences of the findings stay English."""
    path = tmp_path / "eo.json"
    path.write_text(json.dumps(MADE_UP), encoding="utf-8")
    page = Page(format_html(volume, lesions, findings, texts=read_texts(str(path))))
    assert page.all("html") == [{"lang": "eo"}]
    for words in (MADE_UP["title"], MADE_UP["notice"], MADE_UP["overview"], MADE_UP["site.thalamus"]):
        assert words in page.words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"title": None}, "lacks title"),
        ({"titel": "x"}, "has the unknown titel"),
        ({"mm": "{number"}, "mm: its braces do not match"),
        ({"mm": "{number.__class__}"}, "mm: expected no values but those"),
        ({"mm": "{0}"}, "mm: expected no values but those"),
        ({"mm": 3}, "expected one object of texts"),
    ],
)
def test_a_catalogue_that_would_fail_within_a_page_is_refused(tmp_path, changes, words):
    path = tmp_path / "eo.json"
    texts = {key: text for key, text in (MADE_UP | changes).items() if text is not None}
    path.write_text(json.dumps(texts), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(words)):
        read_texts(str(path))


def test_doubts_are_said_in_the_language_of_the_page(volume, lesions, findings):
    """With the names that sites have in it, in an order of its own."""
    doubts = (
        Sentence("doubt.several_sites", sites="thalamus or brainstem"),
        Sentence("doubt.few_slices", count="3"),
        Sentence("doubt.outside_head"),
    )
    words = {
        "doubt.several_sites": "{sites}: pluraj.",
        "doubt.few_slices": "Nur {count} tranĉoj.",
        "doubt.outside_head": "Ekster la kapo.",
        "either": "{last} aŭ {others}",
        "site.thalamus": "talamo",
        "site.brainstem": "trunko",
        "site.cerebellum": "cerbeto",
    }
    finding = replace(findings[0], doubts=doubts, site_set=("thalamus", "brainstem", "cerebellum"))
    page = Page(format_html(volume, lesions, [finding], texts=MADE_UP | words))
    shown = [text for text, within in page.texts if within[-1] == "li"]
    assert [text for text in shown if text not in (*volume.assumptions, *finding.notes)] == [
        "cerbeto aŭ talamo, trunko: pluraj.",
        "Nur 3 tranĉoj.",
        "Ekster la kapo.",
    ]


@pytest.mark.parametrize("language", ["xx", "", "../texts/en", ".", "en.json"])
def test_a_language_that_is_not_there_is_refused(language):
    with pytest.raises(InputError, match="is neither one of en"):
        read_texts(language)
