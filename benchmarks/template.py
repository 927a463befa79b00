"""A head whose sites are known, and the registration of a scan to it with SimpleITK.

The template is a head label map with textbook HU, put level, clipped to the -20..100 HU that most of the real
scans are kept in, as the scans are. A fit goes from coarse to fine (Mattes mutual information at 8, 4 and 2
mm), first rigidly or with one scale, then affinely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cases import Answer
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.side import side_of_distances
from situs.synth.heads import Head, read_head
from situs.volume import Roi, Volume, largest_part, split_lesions

Array = NDArray[np.float64]

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
    """One level of a fit from coarse to fine.

    Attributes:
        shrink: By how much the grid is thinned.
        blur_mm: The standard deviation of the Gaussian that smooths it.
        fraction: How many of the voxels are looked at.
    """

    shrink: int
    blur_mm: float
    fraction: float = 1.0


BLURRED, SHARP = (Level(4, 4.0), Level(2, 2.0)), Level(1, 0.0, fraction=0.2)


@dataclass(frozen=True, eq=False)
class Template:
    """A head to register to.

    Attributes:
        head: The head, with its site map.
        image: SimpleITK image at `STEP_MM`; its world is the head frame, RAS+ mm.
        coarse: The same at 4 times `STEP_MM`.
        mask: (nz, ny, nx) bool on the grid of `image`, the head.
        to_voxel: (4, 4) from that world to voxels of the head.
        nearest_site: (nx, ny, nz) the site map of the head, with the nearest site where it has none.
    """

    head: Head
    image: Any
    coarse: Any
    mask: NDArray[np.bool_]
    to_voxel: NDArray[np.floating]
    nearest_site: NDArray[np.uint8]


def look_up(roi: Roi, transform: Any, template: Template) -> Answer:
    """Site and side of the largest part of a region, from the template's voxels that it falls on."""
    lesion = split_lesions(roi)[0]
    world = roi.geometry.to_world(np.argwhere(lesion.mask) + lesion.start)
    moved = np.array([transform.TransformPoint(point) for point in world.tolist()])
    voxels = np.rint(moved @ template.to_voxel[:3, :3].T + template.to_voxel[:3, 3]).astype(int)
    x, y, z = np.clip(voxels, 0, np.array(template.head.labels.shape) - 1).T
    counts = np.bincount(template.head.sites[x, y, z], minlength=1 + len(SITE_KEYS))[1:]
    if not counts.any():
        counts = np.bincount(template.nearest_site[x, y, z], minlength=1 + len(SITE_KEYS))[1:]
    lateral = template.head.lateral_mm[x, y, z].astype(float)
    site = SITES[int(counts.argmax())]
    side = side_of_distances(lateral, np.ones(lateral.size), site.crosses_midline)
    return Answer(site.key, side, float(counts.max() / len(world)))


def register(volume: Volume, template: Template) -> Any:
    """The affine transform from the scan's world to the template's."""
    import SimpleITK as sitk

    fixed = _resample(_image(volume.hu, volume.geometry.affine))
    mask = _head_mask(sitk.GetArrayViewFromImage(fixed))
    near = sitk.GetImageFromArray(_dilate(mask, MARGIN_MM / STEP_MM).astype(np.uint8))
    near.CopyInformation(fixed)

    coarse = _coarse(fixed)  # once for all starts
    (begin, width), (end, template_width) = _place(fixed, mask), _place(template.image, template.mask)
    fits = []
    for kind in (sitk.Euler3DTransform, sitk.Similarity3DTransform):
        starts = []
        for angle in ANGLES_DEG:
            for height in HEIGHTS_MM:
                start: Any = kind()
                start.SetCenter(begin)
                start.SetTranslation((end - begin + [0, 0, height]).tolist())
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
    method.SetMetricSamplingPercentagePerLevel([level.fraction for level in levels], SEED)
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
def load_template(path: Path) -> Template:
    """The template that a head label map makes."""
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

    head = largest_part(ndimage.binary_opening(hu > HEAD_HU, iterations=2))
    if not head.any():
        return np.ones(hu.shape, dtype=bool)
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
