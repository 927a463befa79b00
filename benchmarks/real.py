"""How often the bundle names the right site and side on real head CTs.

Promises: on the landmark regions, mean over the 15 sites, at least .97 acceptable and no site under .85; all
haemorrhages; .98 of the sides, those of turned scans too. Run:

    python benchmarks/real.py [--data ../shared/data/ct] [--bundle DIR] [--only PART ...] [--json FILE]

What is scored: 169 landmark regions on 5 scans (all 15 sites), 36 haemorrhages, the regions of the GE scan
through NIfTI and again through its tilted, uneven DICOM series, and 55 real lesions on single slices (bleeds
of all kinds, infarcts). All sites in `acceptable` are right. Of a region in several parts the largest is
scored. Beside the figures stand those of a constant answer.

The lesions are the development set: choices are made with them, so their figures are no test. While one is
asked about, all lesions of its mask are filled.

Every landmark and haemorrhage is asked about alone: up to 42 regions of a landmark scan filled at once, many
of them close together, would paint over the anatomy that tells where each is. Then their scans are turned
about the slice axis by a random angle of at most 45 degrees, as if the patient lay so, and everything is
asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import frame
from cases import (
    CONSTANT_SIDE,
    CONSTANT_SITE,
    Answer,
    Case,
    answer_cases,
    cells,
    count,
    of,
    read_cases,
    summarize,
)

from situs.anatomy import SITE_KEYS
from situs.labeler import Labeler
from situs.tables import text_table

PARTS = ("landmarks", "haemorrhages", "lesions")
MEAN, LEAST, SIDES = 0.97, 0.85, 0.98
GE_SCAN = "landmarks/ge_tilt_corrected.nii.gz"


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    for part in options.only:
        frame.need_file("--data", options.data / f"{part}.csv", "the folder with the real scans")
    labeler = Labeler.load(options.bundle)
    result: dict[str, Any] = {}
    with frame.Timer() as timer:
        for part in options.only:
            cases = read_cases(options.data / f"{part}.csv")
            answers = answer_cases(labeler, options.data, cases, together=part == "lesions")
            result[part] = summarize_part(part, cases, answers)
            if part != "lesions" and not options.as_they_lie:
                turned = answer_cases(labeler, options.data, cases, turn_seed=0)
                result[f"{part} turned"] = summarize_part(f"{part} turned", cases, turned)
            if part == "landmarks" and not options.as_they_lie:
                result["ge"] = ask_ge(labeler, options.data, cases, answers)
    print_result(result)
    print_promises(result)
    print(f"{timer.wall_s:.0f} s")
    frame.write_json(options.json, {**result, "seconds": timer.wall_s})
    return 0


def summarize_part(title: str, cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, Any]:
    """The counts of one list of cases, after its misses are printed."""
    print_misses(title, cases, answers)
    return summarize(cases, answers)


def ask_ge(labeler: Labeler, data: Path, cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, Any]:
    """The regions of the GE scan on the DICOM series that its NIfTI was made from.

    It is another grid in the same patient space.
    """
    pairs = [(case, answer) for case, answer in zip(cases, answers, strict=True) if case.scan == GE_SCAN]
    asked, nifti = [case for case, _ in pairs], [answer for _, answer in pairs]
    dicom = answer_cases(labeler, data, asked, scan="ge")
    print_misses("GE regions through the DICOM series", asked, dicom)
    return {
        "NIfTI, acceptable": count(a.is_right(c) for c, a in pairs),
        "DICOM, acceptable": count(a.is_right(c) for c, a in zip(asked, dicom, strict=True)),
        "same site in both": count(a.site == b.site for a, b in zip(nifti, dicom, strict=True)),
        "same side in both": count(a.side == b.side for a, b in zip(nifti, dicom, strict=True)),
        "answered through DICOM": count(a.site is not None for a in dicom),
    }


def print_misses(title: str, cases: Sequence[Case], answers: Sequence[Answer]) -> None:
    """The cases with a wrong site or side, a row each."""
    misses = [(c, a) for c, a in zip(cases, answers, strict=True) if not a.is_right(c) or a.side != c.side]
    print(f"{title}: {len(misses)} of {len(cases)} with a wrong site or side")
    if misses:
        rows = [["scan", "value", "kind", "truth", "answer", "score", "side", "answered", "sure"]]
        for c, a in misses:
            site = "ok" if a.is_right(c) else a.site or "none"
            side = "ok" if a.side == c.side else a.side or "none"
            name, truth = Path(c.scan).name, ";".join(c.acceptable)
            rows.append(
                [
                    name,
                    str(c.value),
                    c.kind,
                    truth,
                    site,
                    f"{a.score:.2f}",
                    c.side,
                    side,
                    "sure" if a.sure else "",
                ]
            )
        print(text_table(rows))
    print()


def print_result(result: dict[str, Any]) -> None:
    """Tables by site and by kind, then of all."""
    parts = {name: result[name] for name in result if name != "ge"}
    for name in ("landmarks", "lesions"):
        if name in parts:
            print_by_site(name, parts[name])
    rows = [["all", "right", "n", "accuracy", "constant"]]
    for name, part in parts.items():
        for what in ("acceptable", "side"):
            rows.append([f"{name}, {what}", *cells(part[what]), f"{part['constant'][what]['accuracy']:.3f}"])
    rules = (1, len(rows))
    rows += [[f"GE regions, {name}", *cells(counts), ""] for name, counts in result.get("ge", {}).items()]
    print(text_table(rows, rules=rules if len(rows) > rules[1] else (1,)))
    print(f"constant: always {CONSTANT_SITE}, always {CONSTANT_SIDE}")
    for name, part in parts.items():
        if certainty := part["certainty"]:
            print(
                f"{name}: site set right {of(certainty['covered'])}, mean size {certainty['mean_size']:.2f}; "
                f"sure {of(certainty['sure'])}, of which right {of(certainty['right_if_sure'])}; of the "
                f"others {of(certainty['right_if_not'])}"
            )
    print()


def print_by_site(name: str, part: dict[str, Any]) -> None:
    """A table by site and one by kind."""
    sites = [key for key in (*SITE_KEYS, "disputed") if key in part["sites"]]
    rows = [[f"site, {name}", "right", "n", "accuracy", "constant"]]
    for site in sites:
        constant = part["constant"]["sites"][site]["accuracy"]
        rows.append([site, *cells(part["sites"][site]), f"{constant:.3f}"])
    means = (part["mean_over_sites"], part["constant"]["mean_over_sites"])
    rows.append(["mean over the sites", "", "", *(f"{mean:.3f}" for mean in means)])
    print(text_table(rows, rules=(1, 1 + len(sites))), end="\n\n")
    rows = [[f"kind, {name}", "right", "n", "accuracy", "side right", "site set right", "sure"]]
    for kind, counts in part["kinds"].items():
        others = (counts[what] for what in ("side", "site set", "sure"))
        rows.append([kind, *cells(counts["acceptable"]), *(other["right"] for other in others)])
    print(text_table(rows), end="\n\n")


def print_promises(result: dict[str, Any]) -> None:
    """The promises for the parts that were asked."""
    promises = []
    if marks := result.get("landmarks"):
        least = min(counts["accuracy"] for counts in marks["sites"].values())
        promises += [
            frame.Promise("landmarks, mean over the sites", marks["mean_over_sites"], MEAN, at_least=True),
            frame.Promise("landmarks, worst site", least, LEAST, at_least=True),
        ]
    if bleeds := result.get("haemorrhages"):
        accuracy = bleeds["acceptable"]["accuracy"]
        promises.append(frame.Promise("haemorrhages", accuracy, 1.0, at_least=True))
    parts = [part for name, part in result.items() if name.startswith(("landmarks", "haemorrhages"))]
    if parts:
        worst = min(part["side"]["accuracy"] for part in parts)
        promises.append(frame.Promise("sides, the worst part", worst, SIDES, at_least=True))
    if promises:
        frame.print_promises(promises)


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_data()
    parser.add_bundle()
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="what is asked (default: everything)"
    )
    parser.add_argument(
        "--as-they-lie", action="store_true", help="leave out the turned scans and the GE series, for speed"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
