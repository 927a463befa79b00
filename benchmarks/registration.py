"""What registration to a template head makes of the real head CTs, beside the bundle, at what cost.

No fixed promise. Registration is what one would try without a network: the scan is fitted to a head whose
sites are known, first rigidly or with one scale, then affinely (SimpleITK: Mattes mutual information at 8, 4
and 2 mm). A region is the site that most of it falls on; where all of it misses the sites, the nearest. Run:

    pip install -e '.[bench]'
    python benchmarks/registration.py [--data ../shared/data/ct] [--heads ../shared/data/heads] [--limit N]

The template is a head label map with textbook HU, put level, clipped to the -20..100 HU that most of the
scans are kept in, as the scans are. Heads are turned in plane by any angle, slabs begin anywhere and pixel
sizes are assumed, so the first fit starts from 12 angles at 3 heights and goes on with the best, once rigidly
and once with a scale that begins with the head's width; of both the better counts. Either side answers every
scan in a process of its own with one thread, the two taking turns; reading the files is counted, loading the
bundle or the template is not. Cases and scoring are those of real.py; a crescent along the inner table counts
as sulcal here, since the one map says so.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import frame
from cases import NO_ANSWER, Answer, Case, answer_cases, of, read_cases, summarize
from template import load_template, look_up, register

from situs.anatomy import SITE_KEYS
from situs.errors import MissingExtraError
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.tables import text_table

# The head whose skull holds the median volume of the 16.
HEAD = "head_18.nii.gz"


@dataclass(frozen=True)
class Turn:
    """One side's answers for one scan.

    Attributes:
        answers: Of the cases on the scan, in their order.
        cpu_s: CPU seconds for the scan, its regions asked about one by one.
        together_cpu_s: CPU seconds for the scan, its regions asked about in one call.
        peak_mb: The most memory that the process has held so far.
    """

    answers: list[Answer]
    cpu_s: float
    together_cpu_s: float
    peak_mb: float


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    head = options.heads / options.head
    if find_spec("SimpleITK") is None:
        raise MissingExtraError("SimpleITK", "bench")
    frame.need_file("--data", options.data / "landmarks.csv", "the folder with the real scans")
    frame.need_file("--heads", head, "the folder with the label maps")
    cases = {
        name: _first_scans(read_cases(options.data / f"{name}.csv"), options.limit)
        for name in ("landmarks", "haemorrhages")
    }
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as ours, ProcessPoolExecutor(1, spawn) as theirs:
        sides = {
            "situs": lambda asked: ours.submit(label_scan, options.bundle, options.data, asked),
            "registration": lambda asked: theirs.submit(register_scan, head, options.data, asked),
        }
        turns = {name: take_turns(name, asked, sides) for name, asked in cases.items()}
    result = {
        side: {
            **{name: _summarize_side(cases[name], turns[name], side) for name in cases},
            "peak_mb": max(turn[side].peak_mb for name in cases for turn in turns[name].values()),
        }
        for side in sides
    }
    print(f"template: {head.name}\n")
    print_result(result)
    frame.write_json(options.json, result)
    return 0


def take_turns(
    part: str, cases: list[Case], sides: dict[str, Callable[[list[Case]], Future[Turn]]]
) -> dict[str, dict[str, Turn]]:
    """All sides' turns by scan; each scan begins with the next side."""
    by_scan = _by_scan(cases)
    done: dict[str, dict[str, Turn]] = {}
    for n, (scan, asked) in enumerate(by_scan.items()):
        order = list(sides)[n % len(sides) :] + list(sides)[: n % len(sides)]
        done[scan] = {side: sides[side](asked).result() for side in order}
        counts = {side: summarize(asked, done[scan][side].answers)["acceptable"] for side in sides}
        lines = [f"{side} {of(counts[side])} in {done[scan][side].cpu_s:.1f} CPU s" for side in sides]
        print(f"{part} {n + 1}/{len(by_scan)} {scan}: {', '.join(lines)}", file=sys.stderr)
    return done


def label_scan(bundle: Path | None, data: Path, cases: list[Case]) -> Turn:
    """The bundle's turn at one scan."""
    labeler = _load_labeler(bundle)
    with frame.Timer() as timer:
        answers = answer_cases(labeler, data, cases)
    with frame.Timer() as together:
        answer_cases(labeler, data, cases, together=True)
    return Turn(answers, timer.cpu_s, together.cpu_s, frame.peak_mb())


def register_scan(head: Path, data: Path, cases: list[Case]) -> Turn:
    """Registration's turn at one scan; one fit serves all its regions, however they are asked about."""
    template = load_template(head)
    with frame.Timer() as timer:
        volume = read_volume(data / cases[0].scan)
        rois = {roi.value: roi for roi in read_rois(data / cases[0].roi, volume)}
        transform = register(volume, template)
        answers = [
            look_up(rois[case.value], transform, template) if case.value in rois else NO_ANSWER
            for case in cases
        ]
    return Turn(answers, timer.cpu_s, timer.cpu_s, frame.peak_mb())


@lru_cache(maxsize=1)
def _load_labeler(bundle: Path | None) -> Labeler:
    return Labeler.load(bundle)


def _by_scan(cases: list[Case]) -> dict[str, list[Case]]:
    scans: dict[str, list[Case]] = {}
    for case in cases:
        scans.setdefault(case.scan, []).append(case)
    return scans


def _first_scans(cases: list[Case], limit: int | None) -> list[Case]:
    return [case for asked in list(_by_scan(cases).values())[:limit] for case in asked]


def _summarize_side(cases: list[Case], turns: dict[str, dict[str, Turn]], side: str) -> dict:
    """Of one side: the counts of real.py, the CPU seconds of every scan, and every answer."""
    asked = [case for on_scan in _by_scan(cases).values() for case in on_scan]
    answers = [answer for turn in turns.values() for answer in turn[side].answers]
    return {
        **summarize(asked, answers),
        "cpu_s": [turn[side].cpu_s for turn in turns.values()],
        "together_cpu_s": [turn[side].together_cpu_s for turn in turns.values()],
        "answers": [
            [c.scan, c.value, c.kind, c.site, a.site, a.is_right(c), c.side, a.side]
            for c, a in zip(asked, answers, strict=True)
        ],
    }


def print_result(result: dict[str, dict]) -> None:
    """How often each side is right, and what it costs."""
    marks = {side: part["landmarks"] for side, part in result.items()}
    constant = {"constant": marks["situs"]["constant"]}
    rows = [["landmarks", "n", *marks, *constant]]
    sites = [site for site in SITE_KEYS if site in marks["situs"]["sites"]]
    for site in sites:
        counts = [part["sites"][site] for part in (*marks.values(), *constant.values())]
        rows.append([site, str(counts[0]["n"]), *(f"{c['accuracy']:.3f}" for c in counts)])
    means = [part["mean_over_sites"] for part in (*marks.values(), *constant.values())]
    rows.append(["mean over the sites", "", *(f"{mean:.3f}" for mean in means)])
    for name in ("landmarks", "haemorrhages"):
        parts = [part[name] for part in result.values()]
        for what in ("acceptable", "side"):
            counts = [part[what] for part in (*parts, parts[0]["constant"])]
            rows.append([f"{name}, {what}", str(counts[0]["n"]), *(f"{c['accuracy']:.3f}" for c in counts)])
    print(text_table(rows, rules=(1, 1 + len(sites))) + "\n")

    rows = [["cost", "n", *result, "ratio"]]
    for name, key, what in (
        ("haemorrhages", "cpu_s", "CPU s a scan, one lesion"),
        ("landmarks", "cpu_s", "CPU s a landmark scan, regions one by one"),
        ("landmarks", "together_cpu_s", "CPU s a landmark scan, regions in one call"),
    ):
        seconds = [part[name][key] for part in result.values()]
        ratio = median(theirs / ours for ours, theirs in zip(*seconds, strict=True))
        rows.append([what, str(len(seconds[0])), *(f"{median(s):.2f}" for s in seconds), f"{ratio:.1f}"])
    peaks = [part["peak_mb"] for part in result.values()]
    rows.append(["peak MB", "", *(f"{peak:.0f}" for peak in peaks), f"{peaks[1] / peaks[0]:.1f}"])
    print(text_table(rows, rules=(1,)))
    print("medians of scans; reading the files is in both, starting and loading in neither")


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_data()
    parser.add_heads()
    parser.add_argument("--head", default=HEAD, help=f"the template's label map in it (default: {HEAD})")
    parser.add_bundle()
    parser.add_argument(
        "--limit", type=frame.positive, metavar="N", help="only the first N scans of either list"
    )
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
