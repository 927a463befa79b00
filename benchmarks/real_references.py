"""What references of real scans bring: the landmarks of all scans but one are added, and that one is asked.

Each of the five landmark scans is asked in turn, with a bundle that has the landmarks of the four others as
references, and with the bundle as it is. Every region is asked about alone, and was added alone. Promise:
adding 100 cases takes under 30 s of CPU time. Run:

    python benchmarks/real_references.py [--data ../shared/data/ct] [--bundle DIR] [--json FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import frame
import nibabel
import numpy as np
from cases import Answer, Case, answer_cases, of, read_cases, summarize

from situs.cohort.manifest import Row, write_manifest
from situs.cohort.references import add_references
from situs.labeler import Labeler
from situs.tables import text_table

MOST_S = 30.0


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_data()
    parser.add_json()
    options = parser.parse_args(args)
    frame.need_file("--data", options.data / "landmarks.csv", "the folder with the real scans")
    cases = read_cases(options.data / "landmarks.csv")
    plain = Labeler.load(options.bundle)
    without: dict[Case, Answer] = {}
    with_them: dict[Case, Answer] = {}
    seconds: list[float] = []
    for scan in dict.fromkeys(case.scan for case in cases):
        asked = [case for case in cases if case.scan == scan]
        added = [case for case in cases if case.scan != scan and case.site]
        with tempfile.TemporaryDirectory() as folder:
            cohort, bundle = Path(folder, "cohort"), Path(folder, "bundle")
            write_cohort(options.data, added, cohort)
            with frame.Timer() as timer:
                add_references(options.bundle, cohort, bundle)
            seconds.append(timer.cpu_s * 100 / len(added))
            labeler = Labeler.load(bundle)
            with_them |= zip(asked, answer_cases(labeler, options.data, asked), strict=True)
        without |= zip(asked, answer_cases(plain, options.data, asked), strict=True)
    result = {
        name: summarize(cases, [answers[case] for case in cases])
        for name, answers in (("as it is", without), ("with the other scans", with_them))
    }
    print(format_result(result))
    gained = [c for c in cases if with_them[c].is_right(c) and not without[c].is_right(c)]
    lost = [c for c in cases if without[c].is_right(c) and not with_them[c].is_right(c)]
    for name, changed in (("gained", gained), ("lost", lost)):
        print(
            f"{name}: {len(changed)}",
            *(f"{Path(c.scan).name} {c.value} {c.site}" for c in changed),
            sep="\n  ",
        )
    frame.print_promises([frame.Promise("adding 100 cases, median", median(seconds), MOST_S, "CPU s")])
    frame.write_json(options.json, {**result, "seconds_for_100": seconds})
    return 0


def write_cohort(data: Path, cases: Sequence[Case], cohort: Path) -> None:
    """A cohort of the cases, each with a mask of its own."""
    cohort.mkdir()
    rows = []
    for n, case in enumerate(cases):
        image = nibabel.load(data / case.roi)
        mask = np.asanyarray(image.dataobj) == case.value
        path = cohort / f"{n}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), path)
        scan = (data / case.scan).resolve()
        rows.append(Row(scan, path, 1, case.site, Path(case.scan).name, side=case.side, kind=case.kind))
    write_manifest(cohort, rows)


def format_result(result: dict[str, Any]) -> str:
    """Accuracies by bundle."""
    table = [["bundle", "acceptable", "mean over the sites", "side"]]
    for name, part in result.items():
        table.append([name, of(part["acceptable"]), f"{part['mean_over_sites']:.3f}", of(part["side"])])
    return text_table(table)


if __name__ == "__main__":
    frame.run(main)
