"""What writing a Structured Report costs.

Promise: the report of 20 lesions of a series of 400 images is written in under 1 s. Run:

    pip install -e '.[dicom]'
    python benchmarks/dicom.py

The findings are made up: each lesion meets 20 slices, and has 15 relation scores and five shares to write.
The import of highdicom, once in a process, is a row of its own. Times are medians of `--runs` runs.
"""

from __future__ import annotations

import statistics
from typing import Any

import frame
import numpy as np

from situs.anatomy import SITE_KEYS
from situs.finding import Finding
from situs.geometry import Geometry
from situs.tables import text_table
from situs.volume import DicomImage, DicomSource, Volume

IMAGES, LESIONS, SLICES, SHARES = 400, 20, 20, 5
MOST_S = 1.0


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    from pydicom import Dataset

    with frame.Timer() as imports:
        from situs.report.dicom_sr import format_sr
    volume, findings = made_up_scan(), made_up_findings()
    times, n_bytes = [], 0
    for _ in range(options.runs):
        with frame.Timer() as timer:
            n_bytes = len(format_sr(volume, findings, Dataset()))
        times.append(timer)
    wall_s, cpu_s = (statistics.median(getattr(t, name) for t in times) for name in ("wall_s", "cpu_s"))
    print_result(imports, wall_s, cpu_s, n_bytes)
    frame.write_json(options.json, {"wall_s": wall_s, "cpu_s": cpu_s, "bytes": n_bytes})
    return 0


def made_up_scan() -> Volume:
    """A series of `IMAGES` images of 2 x 2 pixels: of the pixels nothing is written."""
    ct = "1.2.840.10008.5.1.4.1.1.2"
    images = tuple(DicomImage(ct, f"2.25.{number}", "2.25.1000") for number in range(1, IMAGES + 1))
    shape = (2, 2, IMAGES)
    geometry = Geometry.from_affine(shape, np.eye(4))
    source = DicomSource("2.25.1001", "2.25.1002", images)
    return Volume(np.zeros(shape, np.int16), geometry, source=source)


def made_up_findings() -> list[Finding]:
    """`LESIONS` findings, each of `SLICES` slices, with `SHARES` shares that are not nearly 0."""
    shares = {key: (0.2 if n < SHARES else 0.0) for n, key in enumerate(SITE_KEYS)}
    return [
        Finding(
            roi_value=number,
            roi_name=f"lesion {number}",
            component=1,
            volume_ml=1.5,
            slices=tuple(range(10 * number, 10 * number + SLICES)),
            largest_slice=10 * number,
            site="thalamus",
            side="left",
            doubts=("More than one site is plausible.",),
            site_set=("thalamus", "brainstem"),
            scores=dict.fromkeys(SITE_KEYS, 0.123456),
            shares=shares,
            nearest=(),
            comparison=(),
            notes=(),
            bundle_name="made up",
            bundle_version="1",
        )
        for number in range(1, LESIONS + 1)
    ]


def print_result(imports: frame.Timer, wall_s: float, cpu_s: float, n_bytes: int) -> None:
    """The table and the promise."""
    rows = [
        ("", "wall s", "CPU s"),
        ("import of highdicom", f"{imports.wall_s:.2f}", f"{imports.cpu_s:.2f}"),
        (f"report of {LESIONS} lesions, {n_bytes / 1000:.0f} kB", f"{wall_s:.2f}", f"{cpu_s:.2f}"),
    ]
    print(text_table(rows, left=(0,)))
    frame.print_promises([frame.Promise("time to write the report", wall_s, MOST_S, "s")])


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("--runs", type=frame.positive, default=5, help="runs of which the median is taken")
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
