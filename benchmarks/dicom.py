"""What reading a series with a segmentation costs, and writing a Structured Report.

Promises: a series of 400 images of 512x512 pixels and a segmentation (SEG) of 20 lesions are read, to what is
labelled, in at most twice the time that dcm2niix and reading its NIfTI file take. That needs at most three
times the bytes of the scan. The report of 20 lesions is written in under 1 s. Run:

    pip install -e '.[dicom,bench]'
    python benchmarks/dicom.py [--runs 5]

The series and its segmentation are made up (`dicom_series.py`). Both sides read them in a process of their
own. The processes take turns, so that whatever else the machine does hits both alike. Times are medians, the
ratio is the median of the pairs' ratios. dcm2niix writes no .gz, which is quickest; it reads no segmentation.

The findings of the report are made up: each lesion meets 20 slices, and has 15 relation scores and five
shares to write. The import of highdicom, once in a process, is a row of its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import frame
import numpy as np
from dicom_series import write_series
from label import Cost, measure

from situs.anatomy import SITE_KEYS
from situs.finding import Finding
from situs.geometry import Geometry
from situs.tables import text_table
from situs.volume import DicomImage, DicomSource, Volume

IMAGES, LESIONS, SLICES, SHARES = 400, 20, 20, 5
PIXELS = 512
MOST_S = 1.0
MOST_RATIO, MOST_SCANS = 2.0, 3.0
READ_BOTH = f"""
import sys
from situs import read_rois, read_volume
volume = read_volume(sys.argv[1], roi=sys.argv[2])
assert len(read_rois(sys.argv[2], volume)) == {LESIONS} and volume.hu.shape[2] == {IMAGES}
"""
CONVERT_AND_READ = """
import subprocess, sys, tempfile
import nibabel, numpy
from dcm2niix import bin as program
with tempfile.TemporaryDirectory() as out:
    command = [program, "-b", "n", "-z", "n", "-f", "scan", "-o", out, sys.argv[1]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    numpy.asarray(nibabel.load(out + "/scan.nii").dataobj)
"""


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    with tempfile.TemporaryDirectory() as name:
        scan, roi = Path(name, "scan"), Path(name, "segmentation.dcm")
        # Made in a process of its own: Linux lets a child's peak memory begin at that of its parent.
        maker = multiprocessing.get_context("spawn").Process(
            target=write_series, args=(scan, roi, IMAGES, PIXELS, LESIONS)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        ours = [sys.executable, "-c", READ_BOTH, str(scan), str(roi)]
        theirs = [sys.executable, "-c", CONVERT_AND_READ, str(scan)]
        try:
            measure(theirs), measure(ours)  # once unmeasured, to fill the file cache and write the byte code
            pairs = [(measure(theirs), measure(ours)) for _ in range(options.runs)]
        except subprocess.CalledProcessError as error:
            print(f"python ended with exit code {error.returncode}: {error.stderr}", file=sys.stderr)
            return 1
    reading = print_reading(pairs)
    frame.write_json(options.json, {"reading": reading, "writing": measure_writing(options.runs)})
    return 0


def print_reading(pairs: list[tuple[Cost, Cost]]) -> dict[str, float]:
    """The table and the promises of reading."""
    rows = [["reading, median of processes", "wall s", "CPU s", "peak MB"]]
    for name, side in (("dcm2niix, then nibabel: the scan", 0), ("situs: scan and regions", 1)):
        costs = [pair[side] for pair in pairs]
        cells = (statistics.median(getattr(c, key) for c in costs) for key in ("wall_s", "cpu_s", "peak_mb"))
        rows.append([name, *(f"{cell:.{n}f}" for cell, n in zip(cells, (2, 2, 0), strict=True))])
    wall, cpu = (
        statistics.median(getattr(ours, key) / getattr(theirs, key) for theirs, ours in pairs)
        for key in ("wall_s", "cpu_s")
    )
    scans = max(ours.peak_mb for _, ours in pairs) / (2 * IMAGES * PIXELS**2 / 1e6)
    rows.append(["ratio", f"{wall:.2f}", f"{cpu:.2f}", ""])
    print(f"{IMAGES} images of {PIXELS}x{PIXELS}, {LESIONS} segments, {len(pairs)} pairs of runs\n")
    print(text_table(rows, rules=(1, 3), left=(0,)) + "\n")
    frame.print_promises(
        [
            frame.Promise("time to read", wall, MOST_RATIO, "times dcm2niix and nibabel"),
            frame.Promise("peak memory, largest", scans, MOST_SCANS, "times the scan"),
        ]
    )
    return {"wall_ratio": wall, "cpu_ratio": cpu, "scans": scans}


def measure_writing(runs: int) -> dict[str, float]:
    """Write reports, and print the table and the promise."""
    from pydicom import Dataset

    with frame.Timer() as imports:
        from situs.report.dicom_sr import format_sr
    volume, findings = made_up_scan(), made_up_findings()
    times, n_bytes = [], 0
    for _ in range(runs):
        with frame.Timer() as timer:
            n_bytes = len(format_sr(volume, findings, Dataset()))
        times.append(timer)
    wall_s, cpu_s = (statistics.median(getattr(t, name) for t in times) for name in ("wall_s", "cpu_s"))
    rows = [
        ("writing", "wall s", "CPU s"),
        ("import of highdicom", f"{imports.wall_s:.2f}", f"{imports.cpu_s:.2f}"),
        (f"report of {LESIONS} lesions, {n_bytes / 1000:.0f} kB", f"{wall_s:.2f}", f"{cpu_s:.2f}"),
    ]
    print(f"\n{text_table(rows, rules=(1,), left=(0,))}\n")
    frame.print_promises([frame.Promise("time to write the report", wall_s, MOST_S, "s")])
    return {"wall_s": wall_s, "cpu_s": cpu_s, "bytes": n_bytes}


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


def _parse(args: list[str] | None) -> Any:
    parser = frame.Parser(__doc__)
    parser.add_argument("--runs", type=frame.positive, default=5, help="runs of which the median is taken")
    parser.add_json()
    return parser.parse_args(args)


if __name__ == "__main__":
    frame.run(main)
