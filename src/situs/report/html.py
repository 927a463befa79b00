"""The findings of a scan as one HTML page for people, which needs nothing but itself.

The page has no script and asks no network. Its pictures are data URIs, and its Content-Security-Policy allows
only them and its own style sheet. All its words are in a catalogue, ``data/texts/<language>.json``, those of
doubts too. Notes and assumptions are sentences of the findings and stay as they are. The same findings give
the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from situs import __version__
from situs.anatomy import SiteList
from situs.errors import InputError
from situs.files import read_whole
from situs.finding import Finding, Reference
from situs.report.findings import millilitres, slice_ranges, to_json_object
from situs.report.page import package_text, render_page
from situs.report.picture import enlarge_reference, iter_lesions
from situs.report.slices import draw_slice, iter_overview
from situs.sentences import CATALOGUES, Sentence, list_either
from situs.volume import Roi, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["format_html", "own_texts", "read_texts", "report_style"]

_SLICE_PX = 504
_OVERVIEW_PX = 320
_REFERENCE_PX = 176
# A page of thousands of specks would be too large to open.
_MOST_PICTURES = 100
_MOST_SLICES = 24
_MOST_TEXT_BYTES = 2**20

ReferencePicture = Callable[[str], NDArray[np.uint8] | None]


@dataclass(frozen=True)
class _Catalogue:
    """The words of the page; calling it with a key fills in the values of that text.

    A text without values is taken as it is: names of a list of one's own may hold braces.
    """

    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        text = self.texts[key]
        return text.format_map(values) if values else text


@dataclass(frozen=True)
class _Lesion:
    """What the page shows of one finding.

    Attributes:
        number: Counts from 1, as in the table of `situs.report.format_text`.
        finding: The finding.
        picture: Its slice as a data URI. None without one.
        references: ``finding.comparison``, each with its picture as a data URI, None without one.
        t: The words of the page.
    """

    number: int
    finding: Finding
    picture: str | None
    references: Sequence[tuple[Reference, str | None]]
    t: _Catalogue

    @property
    def sites(self) -> list[str]:
        """The keys of all sites, the highest score first."""
        return sorted(self.finding.scores, key=lambda key: -self.finding.scores[key])

    @cached_property
    def side(self) -> str:
        return self.t(f"side.{self.finding.side}") if self.finding.side else self.t("none")

    @cached_property
    def site(self) -> str:
        """The site's name, or why there is none."""
        if self.finding.site is not None:
            return self.t(f"site.{self.finding.site}")
        return self.t("too_small" if self.finding.slices else "outside")

    @property
    def heading(self) -> str:
        if self.finding.site is None:
            return self.t("heading_without_site", number=self.number, reason=self.site)
        return self.t("heading", number=self.number, site=self.site, side=self.side)

    @property
    def volume(self) -> str:
        return self.t("ml", number=millilitres(self.finding))

    @property
    def slices(self) -> str:
        return slice_ranges(self.finding.slices) or self.t("none")

    @property
    def site_set(self) -> str:
        return ", ".join(self.t(f"site.{key}") for key in self.finding.site_set) or self.t("none")

    @property
    def groups(self) -> list[tuple[str, str]]:
        """The name of each grouping and the group in it; of several possible sites, whether all share it."""
        shown = []
        for name, group in self.finding.groups.items():
            text = self.t(f"group.{group}") if group else self.t("none")
            if len(self.finding.site_set) > 1:
                shared = group is not None and self.finding.shared_groups[name] == group
                text = self.t("group_shared" if shared else "group_not_shared", group=text)
            shown.append((self.t(f"grouping.{name}"), text))
        return shown

    @property
    def certainty(self) -> str:
        """Whether the site is sure, as a sentence."""
        if self.finding.site is None:
            return self.t("no_site_sentence")
        return self.t("sure_sentence" if self.finding.sure else "not_sure_sentence")

    @property
    def doubts(self) -> list[str]:
        """Why the site is not sure, one sentence each."""
        sites = list_either([self.t(f"site.{key}") for key in self.finding.site_set] or [""], self.t.texts)
        return [
            doubt.said_in(self.t.texts, sites) if isinstance(doubt, Sentence) else doubt
            for doubt in self.finding.doubts
        ]

    @property
    def sentence(self) -> str:
        """The finding in one sentence, for a radiology report."""
        finding, t = self.finding, self.t
        volume = millilitres(finding)
        if finding.side is None:
            return t("sentence_outside", volume=volume)
        side = t(f"at.{finding.side}")
        if finding.site is None:
            return t("sentence_too_small", volume=volume, side=side)
        others = ", ".join(t(f"site.{key}") for key in finding.site_set if key != finding.site)
        key = "sure" if finding.sure else "possible" if others else "not_sure"
        return t(f"sentence_{key}", volume=volume, place=t(f"in.{finding.site}"), side=side, others=others)


def read_texts(language: str = "en") -> dict[str, str]:
    """The words of the page in a language, by their keys.

    Args:
        language: That of a catalogue in the package, or the path of another one.

    Raises:
        InputError: There is no such catalogue, or it lacks texts or has others than the English one.
    """
    known = {path.name.removesuffix(".json"): path for path in CATALOGUES.iterdir()}
    if language in known:
        return dict(json.loads(known[language].read_text(encoding="utf-8")))
    try:
        texts = json.loads(read_whole(Path(language), _MOST_TEXT_BYTES))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--language {language}: is neither one of {', '.join(sorted(known))} nor a JSON file of texts"
        ) from error
    _check_texts(texts, read_texts(), language)
    return dict(texts)


def _check_texts(texts: Any, english: Mapping[str, str], language: str) -> None:
    """Refuse a catalogue that would fail in the middle of a page."""
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f"--language {language}: expected one object of texts, as texts/en.json is")
    for keys, what in ((english.keys() - texts, "lacks"), (texts.keys() - english, "has the unknown")):
        if keys:
            raise InputError(
                f"--language {language}: {what} {', '.join(sorted(keys)[:5])}: see texts/en.json"
            )
    for key, text in texts.items():
        try:
            fields = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise InputError(f"--language {language}: {key}: its braces do not match") from error
        if not fields <= {name for _, name, _, _ in Formatter().parse(english[key]) if name is not None}:
            raise InputError(f"--language {language}: {key}: expected no values but those of texts/en.json")


def format_html(
    volume: Volume,
    lesions: Sequence[Roi],
    findings: Sequence[Finding],
    reference_picture: ReferencePicture | None = None,
    texts: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Args:
        volume: The scan.
        lesions: The lesions of the scan (`situs.volume.split_lesions`), in any order.
        findings: The findings of some of these lesions, and of regions outside the scan.
        reference_picture: Returns the picture of the reference with a given id, or None without one
            (`Bundle.picture`).
        texts: The words of the page (`read_texts`). By default English.

    Raises:
        KeyError: If the lesion of a finding is not in ``lesions``, or a text is missing.
        BundleError: If the pictures of the references cannot be used.
    """
    own = own_texts(findings[0].sites) if findings else {}
    t = _Catalogue({**own, **(read_texts() if texts is None else texts)})
    numbers = {f.lesion_name: number for number, f in enumerate(findings, start=1) if f.slices}
    inside = {
        numbers[finding.lesion_name]: (roi, others)
        for finding, roi, others in iter_lesions(lesions, findings)
    }
    shown = [
        _lesion(volume, number, finding, inside.get(number), reference_picture, t)
        for number, finding in enumerate(findings, start=1)
    ]
    tiles = list(
        iter_overview(volume, {n: roi for n, (roi, _) in inside.items()}, _OVERVIEW_PX, _MOST_SLICES)
    )
    left_out = sorted(set(inside).difference(*(on_slice for _, on_slice, _ in tiles)))
    return render_page(
        package_text("templates/report.html.j2"),
        report_style(),
        t=t,
        scan=to_json_object(volume, [])["scan"],
        assumptions=volume.assumptions,
        bundles=list(dict.fromkeys(f"{f.bundle_name} {f.bundle_version}" for f in findings)),
        version=__version__,
        lesions=shown,
        most_pictures=_MOST_PICTURES,
        overview=[(k, _listed(on_slice), _data_uri(tile)) for k, on_slice, tile in tiles],
        left_out=_listed(left_out),
        overview_px=_OVERVIEW_PX,
        slice_px=_SLICE_PX,
        reference_px=_REFERENCE_PX,
        last_slice=volume.geometry.shape[2] - 1,
    )


def own_texts(sites: SiteList) -> dict[str, str]:
    """The names of sites, groupings and groups as their list has them, by the keys of a catalogue.

    A catalogue has the names of the shipped list, which go before these.
    """
    groups = {group for site in sites for group in site.groups.values() if group}
    return {
        **_keyed("site", sites.names),
        **_keyed("in", {key: f"in: {name}" for key, name in sites.names.items()}),
        **_keyed("grouping", {name: name.replace("_", " ") for name in sites.groupings}),
        **_keyed("group", {name: name.replace("_", " ") for name in sorted(groups)}),
    }


def _keyed(start: str, texts: Mapping[str, str]) -> dict[str, str]:
    return {f"{start}.{key}": text for key, text in texts.items()}


def _lesion(
    volume: Volume,
    number: int,
    finding: Finding,
    drawn: tuple[Roi, list[Roi]] | None,
    reference_picture: ReferencePicture | None,
    t: _Catalogue,
) -> _Lesion:
    """One finding for the page; drawn: its lesion and the others of its slice, None outside the scan."""
    if drawn is None or number > _MOST_PICTURES:
        return _Lesion(number, finding, None, [(reference, None) for reference in finding.comparison], t)
    references = [
        (reference, _reference_uri(reference.id, reference_picture)) for reference in finding.comparison
    ]
    return _Lesion(number, finding, _data_uri(draw_slice(volume, *drawn, _SLICE_PX)), references, t)


def _reference_uri(reference_id: str, reference_picture: ReferencePicture | None) -> str | None:
    from PIL import Image

    small = None if reference_picture is None else reference_picture(reference_id)
    if small is None:
        return None
    return _data_uri(Image.fromarray(enlarge_reference(small, (_REFERENCE_PX, _REFERENCE_PX))))


def _data_uri(picture: Image) -> str:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _listed(numbers: Sequence[int]) -> str:
    return slice_ranges(sorted(numbers))


def report_style() -> str:
    """The style sheet of the page, the same for all findings.

    The lengths of the bars are classes, because the policy of the page allows no style attributes.
    """
    widths = "".join(f".w{n}{{width:{n}%}}\n" for n in range(101))
    return package_text("templates/report.css") + widths
