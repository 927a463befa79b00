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

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cases import NO_ANSWER, Answer, Case, answer_cases, read_cases, summarize
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS
from situs.errors import SitusError
from situs.files import write_file
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.side import side_of_distances
from situs.synth.heads import Head, read_head
from situs.tables import text_table
from situs.volume import Roi, Volume, split_lesions

Array = NDArray[np.float64]

# The head whose skull holds the median volume of the 16.
HEAD = "head_18.nii.gz"
SEED = 1
STEP_MM = 2.0
WINDOW_HU = (-20.0, 100.0)
HEAD_HU = 0.0  # in the window, air and fat lie below, all other tissue above
MARGIN_MM = 10.0  # of air around the head that the metric sees
ANGLES_DEG = range(-150, 181, 30)  # a versor holds no more than half a turn
HEIGHTS_MM = (-20.0, 0.0, 20.0)
AROUND_MM = 60.0  # of air around the template
UPPER_MM = 120.0  # of the head, from the top: from there its middle is taken
BINS = 32

# Textbook values of unenhanced head CT; everything else is air. Label 507 is muscle, fat and scalp in one.
CORTEX_HU = 36
TISSUE_HU = {
    (2, 41): 27,
    (25, 57): 19,
    (4, 5, 14, 15, 24, 43, 44, 72): 6,
    (7, 46): 28,
    (8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 26, 58, 17, 18, 53, 54): 35,
    (16, 28, 60, 85, 512, 136, 137, 163, 164): 30,
    (30, 62, 502, 508, 509, 530): 40,
    (506,): 12,
    (507, 511): 15,
    (514,): 55,
    (515, 516): 800,
}


@dataclass(frozen=True)
class Level:
    """Of a fit from coarse to fine: by how much the grid is thinned, and the share of voxels looked at."""

    shrink: int
    blur_mm: float
    share: float = 1.0


BLURRED, SHARP = (Level(4, 4.0), Level(2, 2.0)), Level(1, 0.0, share=0.2)


@dataclass(frozen=True, eq=False)
class Template:
    """A head to register to: its picture at `STEP_MM`, and what its voxels are.

    Attributes:
        image: SimpleITK images, world RAS+ mm of the head frame, at `STEP_MM` and 4 times that
        coarse: See `image`.
        mask: (nz, ny, nx) bool on its grid, the head
        to_voxel: (4, 4) from that world to voxels of the head
        nearest_site: the head's site map with no 0 left: there the nearest site
    """

    head: Head
    image: Any
    coarse: Any
    mask: NDArray[np.bool_]
    to_voxel: NDArray[np.floating]
    nearest_site: NDArray[np.uint8]


@dataclass(frozen=True)
class Turn:
    """One side's answers for one scan: CPU seconds, and the most memory (MB) that the process held so far."""

    answers: list[Answer]
    cpu_s: float
    peak_mb: float


def main(args: list[str] | None = None) -> int:
    options = _parse(args)
    head = options.heads / options.head
    if problem := _missing(options.data, head):
        print(problem, file=sys.stderr)
        return 2
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
    if options.json:
        write_file(options.json, (json.dumps(result, indent=1) + "\n").encode())
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
        said = [
            f"{side} {sum(a.is_right(c) for c, a in zip(asked, done[scan][side].answers, strict=True))} right"
            f" in {done[scan][side].cpu_s:.1f} CPU s"
            for side in sides
        ]
        print(
            f"{part} {n + 1}/{len(by_scan)} {scan}, {len(asked)} regions: {', '.join(said)}", file=sys.stderr
        )
    return done


def label_scan(bundle: Path | None, data: Path, cases: list[Case]) -> Turn:
    """The bundle's turn at one scan."""
    labeler = _load_labeler(bundle)
    started = time.process_time()
    answers = answer_cases(labeler, data, cases)
    return Turn(answers, time.process_time() - started, _peak_mb())


def register_scan(head: Path, data: Path, cases: list[Case]) -> Turn:
    """Registration's turn at one scan."""
    template = _load_template(head)
    started = time.process_time()
    volume = read_volume(data / cases[0].scan)
    rois = {roi.value: roi for roi in read_rois(data / cases[0].roi, volume)}
    transform = register(volume, template)
    answers = [
        look_up(rois[case.value], transform, template) if case.value in rois else NO_ANSWER for case in cases
    ]
    return Turn(answers, time.process_time() - started, _peak_mb())


def look_up(roi: Roi, transform: Any, template: Template) -> Answer:
    """Site and side of the largest part of a region, from the template's voxels that it falls on."""
    lesion = split_lesions(roi)[0]
    world = roi.geometry.to_world(np.argwhere(lesion.mask) + lesion.start)
    there = np.array([transform.TransformPoint(point) for point in world.tolist()])
    voxels = np.rint(there @ template.to_voxel[:3, :3].T + template.to_voxel[:3, 3]).astype(int)
    x, y, z = np.clip(voxels, 0, np.array(template.head.labels.shape) - 1).T
    counts = np.bincount(template.head.sites[x, y, z], minlength=1 + len(SITE_KEYS))[1:]
    if not counts.any():
        counts = np.bincount(template.nearest_site[x, y, z], minlength=1 + len(SITE_KEYS))[1:]
    lateral = template.head.lateral_mm[x, y, z].astype(float)
    side = side_of_distances(lateral, np.ones(lateral.size))
    return Answer(SITE_KEYS[counts.argmax()], side, float(counts.max() / len(world)))


def register(volume: Volume, template: Template) -> Any:
    """The affine transform from the scan's world to the template's."""
    import SimpleITK as sitk

    fixed = _resample(_image(volume.hu, volume.geometry.affine))
    mask = _head_mask(sitk.GetArrayViewFromImage(fixed))
    near = sitk.GetImageFromArray(_dilate(mask, MARGIN_MM / STEP_MM).astype(np.uint8))
    near.CopyInformation(fixed)

    coarse = _coarse(fixed)  # once for all starts
    (begin, width), (there, template_width) = _place(fixed, mask), _place(template.image, template.mask)
    fits = []
    for kind in (sitk.Euler3DTransform, sitk.Similarity3DTransform):
        starts = []
        for angle in ANGLES_DEG:
            for height in HEIGHTS_MM:
                start: Any = kind()
                start.SetCenter(begin)
                start.SetTranslation((there - begin + [0, 0, height]).tolist())
                if kind is sitk.Similarity3DTransform:
                    start.SetRotation((0, 0, 1), np.radians(angle))
                    start.SetScale(template_width / width)
                else:
                    start.SetRotation(0, 0, np.radians(angle))
                starts.append(_fit(coarse, near, template.coarse, start, [Level(1, 0.0)], iterations=40))
        best, _ = min(starts, key=lambda fit: fit[1])
        first, _ = _fit(fixed, near, template.image, best, [*BLURRED, SHARP], iterations=100)
        affine = sitk.AffineTransform(3)
        affine.SetCenter(first.GetCenter())
        affine.SetMatrix(first.GetMatrix())
        affine.SetTranslation(first.GetTranslation())
        fits.append(_fit(fixed, near, template.image, affine, [*BLURRED[1:], SHARP], iterations=100))
    return min(fits, key=lambda fit: fit[1])[0]


def _fit(
    fixed: Any,
    near: Any,
    moving: Any,
    start: Any,
    levels: Sequence[Level],
    iterations: int,
) -> tuple[Any, float]:
    """A transform of the kind of `start`, and its metric (the less, the better)."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(near)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([level.share for level in levels], SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=0.01,
        numberOfIterations=iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([level.shrink for level in levels])
    method.SetSmoothingSigmasPerLevel([level.blur_mm for level in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    transform = type(start)(start)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform, method.GetMetricValue()


@lru_cache(maxsize=1)
def _load_labeler(bundle: Path | None) -> Labeler:
    return Labeler.load(bundle)


@lru_cache(maxsize=1)
def _load_template(path: Path) -> Template:
    import SimpleITK as sitk
    from scipy import ndimage

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    head = read_head(path)
    hu = np.full(2100, -1000, dtype=np.float32)
    hu[1000:] = CORTEX_HU
    for labels, value in TISSUE_HU.items():
        hu[list(labels)] = value
    level = head.frame @ head.affine
    # Air around it, but for the neck: what falls outside a picture does not count, so that a fit could gain
    # by turning a head out of it.
    pad = round(AROUND_MM / STEP_MM)
    image = _resample(_image(hu[head.labels], level))
    image = sitk.ConstantPad(image, [pad, pad, 0], [pad, pad, pad], WINDOW_HU[0])
    index = ndimage.distance_transform_edt(head.sites == 0, return_distances=False, return_indices=True)
    mask = _head_mask(sitk.GetArrayViewFromImage(image))
    return Template(head, image, _coarse(image), mask, np.linalg.inv(level), head.sites[tuple(index)])


def _image(hu: NDArray[np.generic], affine: Array) -> Any:
    """A SimpleITK image, clipped to the window, whose world is RAS+ (ITK's own is LPS+: it does not mind)."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.clip(hu, *WINDOW_HU).astype(np.float32).transpose(2, 1, 0))
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetDirection((affine[:3, :3] / steps).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _resample(image: Any) -> Any:
    """On a grid of `STEP_MM` along the same axes; finer voxels are averaged first."""
    import SimpleITK as sitk

    shrink = [max(1, round(STEP_MM / step)) for step in image.GetSpacing()]
    image = sitk.BinShrink(image, shrink)
    size = [
        max(1, round(n * step / STEP_MM)) for n, step in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        [STEP_MM] * 3,
        image.GetDirection(),
        WINDOW_HU[0],
    )


def _coarse(image: Any) -> Any:
    import SimpleITK as sitk

    return sitk.BinShrink(image, [4, 4, 4])


def _head_mask(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest thing that is not air, filled slice by slice, without what is as thin as a head holder."""
    from scipy import ndimage

    parts, count = ndimage.label(ndimage.binary_opening(hu > HEAD_HU, iterations=2))
    if not count:
        return np.ones(hu.shape, dtype=bool)
    head = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in head])


def _dilate(mask: NDArray[np.bool_], voxels: float) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask) <= voxels)


def _place(image: Any, mask: NDArray[np.bool_]) -> tuple[Array, float]:
    """The middle (3,), world, of the upper part of the head, which all scans have, neck or not; and how wide
    the head is: the side (mm) of a square as large as it is on its largest slice."""
    matrix = np.array(image.GetDirection()).reshape(3, 3) * STEP_MM
    world = np.argwhere(mask)[:, ::-1] @ matrix.T + image.GetOrigin()
    top = world[:, 2].max()
    x, y = world[world[:, 2] > top - UPPER_MM][:, :2].mean(axis=0)
    return np.array([x, y, top - UPPER_MM / 2]), STEP_MM * float(np.sqrt(mask.sum(axis=(1, 2)).max()))


def _missing(data: Path, head: Path) -> str:
    """What the run lacks, in one line; empty if nothing."""
    if find_spec("SimpleITK") is None:
        return "SimpleITK is not installed: pip install -e '.[bench]'"
    if not (data / "landmarks.csv").is_file():
        return f"--data: no landmarks.csv in {data}; it is the folder with the real scans"
    if not head.is_file():
        return f"--heads: no {head.name} in {head.parent}; it is the folder with the label maps"
    return ""


def _by_scan(cases: list[Case]) -> dict[str, list[Case]]:
    scans: dict[str, list[Case]] = {}
    for case in cases:
        scans.setdefault(case.scan, []).append(case)
    return scans


def _first_scans(cases: list[Case], limit: int | None) -> list[Case]:
    return [case for asked in list(_by_scan(cases).values())[:limit] for case in asked]


def _summarize_side(cases: list[Case], turns: dict[str, dict[str, Turn]], side: str) -> dict:
    """Of one side: the counts of real.py, the CPU seconds of every scan, and every answer."""
    asked = [case for some in _by_scan(cases).values() for case in some]
    answers = [answer for turn in turns.values() for answer in turn[side].answers]
    return {
        **summarize(asked, answers),
        "cpu_s": [turn[side].cpu_s for turn in turns.values()],
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
    for name, what in (("haemorrhages", "CPU s a scan, one lesion"), ("landmarks", "CPU s a landmark scan")):
        seconds = [part[name]["cpu_s"] for part in result.values()]
        ratio = median(theirs / ours for ours, theirs in zip(*seconds, strict=True))
        rows.append([what, str(len(seconds[0])), *(f"{median(s):.2f}" for s in seconds), f"{ratio:.1f}"])
    peaks = [part["peak_mb"] for part in result.values()]
    rows.append(["peak MB", "", *(f"{peak:.0f}" for peak in peaks), f"{peaks[1] / peaks[0]:.1f}"])
    print(text_table(rows, rules=(1,)))
    print("medians of scans; reading the files is in both, starting and loading in neither")


def _peak_mb() -> float:
    """The most memory that this process held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument(
        "--data", type=Path, default=shared / "ct", help="folder with landmarks.csv (default: shared/data/ct)"
    )
    parser.add_argument(
        "--heads",
        type=Path,
        default=shared / "heads",
        help="folder of label maps (default: shared/data/heads)",
    )
    parser.add_argument("--head", default=HEAD, help=f"the template's label map in it (default: {HEAD})")
    parser.add_argument("--bundle", type=Path, help="folder of the bundle (default: the shipped one)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N scans of either list")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts and answers there too")
    options = parser.parse_args(args)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit: expected at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SitusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
