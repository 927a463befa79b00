"""How often the bundle names the right site and side on real head CTs.

Goals: on the landmark regions, mean over the 15 sites, at least .97 acceptable and no site under .85; all
haemorrhages; .98 of the sides, those of turned scans too. Run:

    python benchmarks/real.py [--data ../shared/data/ct] [--bundle DIR] [--json FILE]

What is scored: 169 landmark regions on 5 scans (all 15 sites), 36 haemorrhages, and the regions of the GE
scan through NIfTI and again through its tilted, uneven DICOM series. All sites in `acceptable` are right. Of
a region in several parts the largest is scored. Beside the shares stand those of a constant answer.

Every region is asked about alone: up to 42 regions of a landmark scan filled at once, many of them close
together, would paint over the anatomy that tells where each is; the mask of a patient's lesions does not.

Then every scan is turned about its slice axis by a random angle of at most `TURN_DEG`, as if the patient lay
so, and everything is asked again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from situs.anatomy import SITE_KEYS
from situs.errors import SitusError
from situs.files import write_file
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.tables import text_table
from situs.volume import Roi, Volume, union_mask

TURN_DEG = 45.0

CONSTANT_SITE = "gangliocapsular_region"
CONSTANT_SIDE = "left"
PROMISED_MEAN, PROMISED_LEAST, PROMISED_SIDE = 0.97, 0.85, 0.98
GE_SCAN = "landmarks/ge_tilt_corrected.nii.gz"


@dataclass(frozen=True)
class Case:
    """One region and the readers' answer; `kind` says what sort of place it is."""

    scan: str
    roi: str
    value: int
    site: str
    acceptable: tuple[str, ...]
    side: str
    kind: str


@dataclass(frozen=True)
class Answer:
    """What the bundle said of a case; `site` is None where it gave none, and `score` its relation score.

    Attributes:
        site_set: the sites it may be, and whether the bundle is sure; empty from one without calibration
        sure: See `site_set`.
    """

    site: str | None
    side: str | None
    score: float
    site_set: tuple[str, ...] = ()
    sure: bool = False

    def is_right(self, case: Case) -> bool:
        return self.site in case.acceptable


NO_ANSWER = Answer(None, None, 0.0)


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    if not (options.data / "landmarks.csv").is_file():
        print(
            f"--data: no landmarks.csv in {options.data}; it is the folder with the real scans",
            file=sys.stderr,
        )
        return 2
    started = time.perf_counter()
    labeler = Labeler.load(options.bundle)
    landmarks = read_cases(options.data / "landmarks.csv")
    bleeds = read_cases(options.data / "haemorrhages.csv")
    landmark_answers = answer_cases(labeler, options.data, landmarks)
    bleed_answers = answer_cases(labeler, options.data, bleeds)

    turned = [answer_cases(labeler, options.data, cases, turn_seed=0) for cases in (landmarks, bleeds)]

    # The GE regions again, on the series that the NIfTI was made from: another grid, the same patient space.
    ge = [case for case in landmarks if case.scan == GE_SCAN]
    through_nifti = [landmark_answers[landmarks.index(case)] for case in ge]
    through_dicom = answer_cases(labeler, options.data, ge, scan="ge")

    result = {
        "landmarks": summarize(landmarks, landmark_answers),
        "haemorrhages": summarize(bleeds, bleed_answers),
        "landmarks_turned": summarize(landmarks, turned[0]),
        "haemorrhages_turned": summarize(bleeds, turned[1]),
        "ge": compare(ge, through_nifti, through_dicom),
        "seconds": time.perf_counter() - started,
    }
    for title, cases, answers in (
        ("landmark regions", landmarks, landmark_answers),
        ("haemorrhages", bleeds, bleed_answers),
        ("landmark regions, turned", landmarks, turned[0]),
        ("haemorrhages, turned", bleeds, turned[1]),
        ("GE regions through the DICOM series", ge, through_dicom),
    ):
        print_misses(title, cases, answers)
    print_result(result)
    if options.json:
        write_file(options.json, (json.dumps(result, indent=1) + "\n").encode())
    return 0


def read_cases(path: Path) -> list[Case]:
    """The rows of landmarks.csv or haemorrhages.csv (whose mask has the one value 1)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Case(
                scan=row["scan"],
                roi=row["roi"],
                value=int(row.get("value") or 1),
                site=row["site"],
                acceptable=tuple(row["acceptable"].split(";")),
                side=row["side"],
                kind=row.get("kind") or "haemorrhage",
            )
            for row in csv.DictReader(file)
        ]


def answer_cases(
    labeler: Labeler, data: Path, cases: list[Case], scan: str | None = None, turn_seed: int | None = None
) -> list[Answer]:
    """The bundle's answers, in the order of `cases`, every scan read once.

    Args:
        scan: a scan to use in place of the cases' own; it must lie in the same patient space
        turn_seed: turn the scans by random angles; None for as they are
    """
    answers: dict[Case, Answer] = {}
    rng = np.random.default_rng(turn_seed)
    for name, roi_name in dict.fromkeys((case.scan, case.roi) for case in cases):
        volume = read_volume(data / (scan or name))
        found = read_rois(data / roi_name, volume)
        if turn_seed is not None:
            volume, found = turn(volume, found, float(rng.uniform(-TURN_DEG, TURN_DEG)))
        rois = {roi.value: roi for roi in found}
        for case in cases:
            if case.scan == name:
                answers[case] = answer_case(labeler, volume, rois.get(case.value))
    return [answers[case] for case in cases]


def answer_case(labeler: Labeler, volume: Volume, roi: Roi | None) -> Answer:
    """The answer for the largest part of one region; none if the region lies on no slice of the scan."""
    if roi is None:
        return NO_ANSWER
    finding = next(f for f in labeler.label(volume, [roi]) if f.component == 1)
    return Answer(finding.site, finding.side, finding.score or 0.0, finding.site_set, finding.sure)


def turn(volume: Volume, rois: Iterable[Roi], degrees: float) -> tuple[Volume, list[Roi]]:
    """The patient turned about the slice axis: other values on the same grid."""
    hu = np.asarray(volume.hu)
    low = float(hu.min())
    turned = ndimage.rotate(hu.astype(np.float32), degrees, (0, 1), reshape=False, order=1, cval=low)
    found = []
    for roi in rois:
        mask, met = np.zeros(hu.shape, dtype=bool), list(roi.areas_px)
        marked = union_mask([roi], volume.geometry)[:, :, met].astype(np.float32)
        mask[:, :, met] = ndimage.rotate(marked, degrees, (0, 1), reshape=False, order=1) > 0.5
        if mask.any():
            found.append(Roi.from_mask(mask, volume.geometry, roi.value, roi.name))
    return replace(volume, hu=np.rint(turned).astype(np.int16)), found


def summarize(cases: list[Case], answers: list[Answer]) -> dict:
    """Counts and shares of right answers: by site, by kind, all, and for a constant answer."""
    constant = [Answer(CONSTANT_SITE, CONSTANT_SIDE, 1.0)] * len(cases)
    pairs = list(zip(cases, answers, strict=True))
    return {
        "sites": _by((case.site, answer.is_right(case)) for case, answer in pairs),
        "kinds": _by((case.kind, answer.is_right(case)) for case, answer in pairs),
        "mean_over_sites": _mean_over_sites(cases, answers),
        "acceptable": _total(answer.is_right(case) for case, answer in pairs),
        "side": _total(answer.side == case.side for case, answer in pairs),
        "certainty": _certainty(pairs),
        "constant": {
            "sites": _by((c.site, a.is_right(c)) for c, a in zip(cases, constant, strict=True)),
            "mean_over_sites": _mean_over_sites(cases, constant),
            "acceptable": _total(a.is_right(c) for c, a in zip(cases, constant, strict=True)),
            "side": _total(a.side == c.side for c, a in zip(cases, constant, strict=True)),
        },
    }


def _certainty(pairs: list[tuple[Case, Answer]]) -> dict | None:
    """How the sets of sites do; None from a bundle without calibration."""
    sets = [(case, answer) for case, answer in pairs if answer.site_set]
    if not sets:
        return None
    return {
        "covered": _total(bool(set(a.site_set) & set(c.acceptable)) for c, a in sets),
        "mean_size": float(np.mean([len(a.site_set) for _, a in sets])),
        "sure": _total(a.sure for _, a in sets),
        "right_if_sure": _total(a.is_right(c) for c, a in sets if a.sure),
        "right_if_not": _total(a.is_right(c) for c, a in sets if not a.sure),
    }


def compare(cases: list[Case], nifti: list[Answer], dicom: list[Answer]) -> dict:
    """The same regions through two files of one scan."""
    return {
        "nifti": _total(a.is_right(c) for c, a in zip(cases, nifti, strict=True)),
        "dicom": _total(a.is_right(c) for c, a in zip(cases, dicom, strict=True)),
        "same_site": _total(a.site == b.site for a, b in zip(nifti, dicom, strict=True)),
        "same_side": _total(a.side == b.side for a, b in zip(nifti, dicom, strict=True)),
        "unanswered_through_dicom": sum(a.site is None for a in dicom),
    }


def print_misses(title: str, cases: list[Case], answers: list[Answer]) -> None:
    misses = [(c, a) for c, a in zip(cases, answers, strict=True) if not a.is_right(c) or a.side != c.side]
    print(f"{title}: {len(misses)} of {len(cases)} with a wrong site or side")
    if misses:
        rows = [["scan", "value", "kind", "truth", "answer", "score", "side", "answered"]]
        for c, a in misses:
            site = "ok" if a.is_right(c) else a.site or "none"
            side = "ok" if a.side == c.side else a.side or "none"
            name, truth = Path(c.scan).name, ";".join(c.acceptable)
            rows.append([name, str(c.value), c.kind, truth, site, f"{a.score:.2f}", c.side, side])
        print(text_table(rows))
    print()


def print_result(result: dict) -> None:
    marks = result["landmarks"]
    rows = [["site of the landmark", "right", "n", "share", "constant"]]
    for site in SITE_KEYS:
        rows.append([site, *_cells(marks["sites"][site]), f"{marks['constant']['sites'][site]['share']:.3f}"])
    mean, constant = marks["mean_over_sites"], marks["constant"]["mean_over_sites"]
    rows.append(["mean over the sites", "", "", f"{mean:.3f}", f"{constant:.3f}"])
    print(text_table(rows, rules=(1, 1 + len(SITE_KEYS))), end="\n\n")

    rows = [["kind of landmark", "right", "n", "share"]]
    rows += [[kind, *_cells(counts)] for kind, counts in marks["kinds"].items()]
    print(text_table(rows), end="\n\n")

    bleeds, ge = result["haemorrhages"], result["ge"]
    rows = [["all", "right", "n", "share", "constant"]]
    named = (
        ("landmarks", marks),
        ("haemorrhages", bleeds),
        ("landmarks turned", result["landmarks_turned"]),
        ("haemorrhages turned", result["haemorrhages_turned"]),
    )
    for name, part in named:
        for what in ("acceptable", "side"):
            rows.append([f"{name}, {what}", *_cells(part[what]), f"{part['constant'][what]['share']:.3f}"])
    for name, key in (
        ("GE regions, acceptable, NIfTI", "nifti"),
        ("GE regions, acceptable, DICOM", "dicom"),
        ("GE regions, same site in both", "same_site"),
        ("GE regions, same side in both", "same_side"),
    ):
        rows.append([name, *_cells(ge[key]), ""])
    print(text_table(rows, rules=(1, 9)))
    print(f"constant: always {CONSTANT_SITE}, always {CONSTANT_SIDE}")
    if ge["unanswered_through_dicom"]:
        print(f"{ge['unanswered_through_dicom']} GE regions have no answer through the DICOM series")
    for name, part in named:
        if certainty := part["certainty"]:
            print(
                f"{name}: set of sites right {_of(certainty['covered'])}, mean size "
                f"{certainty['mean_size']:.2f}; sure {_of(certainty['sure'])}, of which right "
                f"{_of(certainty['right_if_sure'])}; of the others {_of(certainty['right_if_not'])}"
            )
    least = min(counts["share"] for counts in marks["sites"].values())
    sides = min(part["side"]["share"] for _, part in named)
    print()
    for what, found, promised in (
        ("landmarks, mean over the sites", mean, PROMISED_MEAN),
        ("landmarks, worst site", least, PROMISED_LEAST),
        ("haemorrhages", bleeds["acceptable"]["share"], 1.0),
        ("sides, the worst of the four", sides, PROMISED_SIDE),
    ):
        verdict = "met" if found >= promised else "not met"
        print(f"goal: {what} at least {promised:.2f}: {found:.3f}, {verdict}")
    print(f"{result['seconds']:.0f} s")


def _by(outcomes: Iterable[tuple[str, bool]]) -> dict[str, dict]:
    """Totals per group, groups in order of appearance; a haemorrhage without an agreed site is "disputed"."""
    outcomes = list(outcomes)
    n = Counter(group or "disputed" for group, _ in outcomes)
    right = Counter(group or "disputed" for group, good in outcomes if good)
    return {group: {"right": right[group], "n": n[group], "share": right[group] / n[group]} for group in n}


def _total(outcomes: Iterator[bool]) -> dict:
    good = list(outcomes)
    return {"right": sum(good), "n": len(good), "share": sum(good) / max(1, len(good))}


def _mean_over_sites(cases: list[Case], answers: list[Answer]) -> float:
    by_site = _by((case.site, answer.is_right(case)) for case, answer in zip(cases, answers, strict=True))
    return float(np.mean([counts["share"] for counts in by_site.values()]))


def _of(counts: dict) -> str:
    return f"{counts['right']} of {counts['n']}"


def _cells(counts: dict) -> list[str]:
    return [str(counts["right"]), str(counts["n"]), f"{counts['share']:.3f}"]


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "ct"
    parser.add_argument(
        "--data", type=Path, default=beside, help="folder with landmarks.csv (default: shared/data/ct)"
    )
    parser.add_argument("--bundle", type=Path, help="folder of the bundle (default: the shipped one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there too")
    return parser.parse_args(args)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
