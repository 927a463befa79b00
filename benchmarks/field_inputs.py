"""The inputs from the field: which there are, and what a right reading of each gives.

Every scan shows the head of ``base/scan.nii.gz``, and all masks but two are ``base/mask.nii.gz`` in another
form. So a right reading finds the same HU under each region, at the same place in the patient. These are
computed here from the plain case and, for DICOM, from the tags of every slice; no reader that is compared
takes part. World RAS+ mm.
"""

from __future__ import annotations

import csv
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME_PLACE_MM = 2.0  # a pixel of the plain case
SAME_HU = 0.9  # of a region's voxels
VALUES = range(1, 7)

# Where the slices of the scan that is right lie, if not in the folder that is given.
_FOLDERS = {"F08a": "F08a/st/ncct", "F15": "F15/DICOM", "F31": "F31/st/plain"}
# Which of the slices in a folder are of that scan.
_SLICES: dict[str, Callable[[Any], bool]] = {
    "F07a": lambda header: header.ConvolutionKernel == "H31s",
    "F30": lambda header: float(header.ImageOrientationPatient[4]) == 1,
}
_PLACED_BY = {"F16a": "F09/ct", "F16b": "F09/ct"}  # the same pixels, with the tags that were taken away
_OWN_MASKS = ("F01a", "F26")  # drawn on the array of their scan
_OWN_SCANS = ("F20", "F21")  # thin slices of the plain case, and the plain case with noise
# SEG and RTSTRUCT are of other scans; which of two studies is meant cannot be known.
_NO_TRUTH = ("F08c", "F12c", "F12d")


@dataclass(frozen=True)
class FieldInput:
    """A row of field.csv.

    Attributes:
        name: Its id.
        what: What is special about it.
        scan: The scan.
        roi: The mask.
        options: Further words of the command.
    """

    name: str
    what: str
    scan: Path
    roi: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Region:
    """What a reader finds under one value of a mask.

    Attributes:
        hu: (n,) HU of its voxels, rounded, in any order.
        centre: (3,) mean position of its voxels, RAS+ mm.
    """

    hu: NDArray[np.int64]
    centre: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any], positions: NDArray[np.float64]) -> Region:
        """The region with these values (n,) at these positions (n, 3); n at least 1."""
        known = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-1e6, posinf=1e6, neginf=-1e6)
        return cls(np.rint(known).astype(np.int64), positions.mean(axis=0))


def read_inputs(folder: Path) -> list[FieldInput]:
    """The plain case, then the rows of field.csv."""
    inputs = [FieldInput("base", "the plain case", folder / "base/scan.nii.gz", folder / "base/mask.nii.gz")]
    with (folder / "field.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            _, _, scan, _, roi, *options = shlex.split(row["command (run in this folder)"])
            inputs.append(FieldInput(row["id"], row["input"], folder / scan, folder / roi, tuple(options)))
    return inputs


def regions_on_grid(hu: NDArray[Any], labels: NDArray[Any], affine: NDArray[np.float64]) -> dict[int, Region]:
    """The regions of labels (ni, nj, nk) on a scan of the same shape; values without a voxel are left out."""
    regions = {}
    for value in VALUES:
        at = np.argwhere(labels == value)
        if at.size:
            regions[value] = Region.of(hu[tuple(at.T)], at @ affine[:3, :3].T + affine[:3, 3])
    return regions


def true_regions(case: FieldInput, folder: Path) -> dict[int, Region] | None:
    """The regions of an input as they are; None where that cannot be known."""
    import nibabel

    if case.name in _NO_TRUTH:
        return None
    plain = nibabel.load(folder / "base/scan.nii.gz")
    labels = np.asarray(nibabel.load(folder / "base/mask.nii.gz").dataobj)
    if not case.scan.name.endswith(".nii.gz"):
        return _true_regions_of_slices(case, folder, labels, plain.affine)
    if case.name in _OWN_SCANS:
        scan = nibabel.load(case.scan)
        found = _look_up(labels, plain.affine, _positions(scan.shape, scan.affine)).reshape(scan.shape)
        return regions_on_grid(np.asarray(scan.dataobj), found, scan.affine)
    if case.name in _OWN_MASKS:
        labels = np.asarray(nibabel.load(case.roi).dataobj)
    return regions_on_grid(np.asarray(plain.dataobj), labels, plain.affine)


def fault_of(found: dict[int, Region], truth: dict[int, Region]) -> str:
    """What is wrong with the regions that a reader found; empty if nothing is."""
    if lost := [value for value in truth if value not in found]:
        return f"{len(lost)} of {len(truth)} regions lost"
    pairs = [(found[value], region) for value, region in truth.items()]
    apart = max(float(np.linalg.norm(mine.centre - its.centre)) for mine, its in pairs)
    place = f"{apart:.0f} mm off" if apart > SAME_PLACE_MM else ""
    if min(_share_of_same(mine.hu, its.hu) for mine, its in pairs) >= SAME_HU:
        return place
    shift = float(np.median([np.median(mine.hu) - np.median(its.hu) for mine, its in pairs]))
    what = f"HU off by {shift:.0f}" if abs(shift) > 100 else "other voxels"
    return ", ".join(filter(None, (what, place)))


def _share_of_same(values: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """How many of two sets of numbers are the same, each taken as often as it stands there, in [0, 1]."""
    common = Counter(values.tolist()) & Counter(others.tolist())
    return common.total() / max(len(values), len(others))


def _true_regions_of_slices(
    case: FieldInput, folder: Path, labels: NDArray[Any], affine: NDArray[np.float64]
) -> dict[int, Region]:
    """The regions of a DICOM scan: every slice where its own tags put it."""
    import nibabel

    headers = _headers(folder / _FOLDERS[case.name] if case.name in _FOLDERS else case.scan)
    headers = [header for header in headers if _SLICES.get(case.name, lambda _: True)(header)]
    placed = _headers(folder / _PLACED_BY[case.name]) if case.name in _PLACED_BY else headers
    images, positions = [], []
    for header, tags in zip(headers, placed, strict=True):
        stored = header.pixel_array.reshape(-1, header.Rows, header.Columns)
        for number, image in enumerate(stored):
            images.append(image * float(header.RescaleSlope) + float(header.RescaleIntercept))
            positions.append(_slice_positions(tags, number))
    at = np.concatenate(positions)
    if case.name in _OWN_MASKS:
        order = np.argsort([slice_positions[0, 2] for slice_positions in positions])
        mask = np.asarray(nibabel.load(case.roi).dataobj).transpose(2, 1, 0)  # slices, rows, columns
        values = mask[np.argsort(order)].ravel()
    else:
        values = _look_up(labels, affine, at)
    hu = np.stack(images).ravel()
    return {v: Region.of(hu[values == v], at[values == v]) for v in VALUES if (values == v).any()}


def _headers(path: Path) -> list[Any]:
    """The DICOM files of a folder or the one file, by InstanceNumber."""
    import pydicom

    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    headers = [pydicom.dcmread(file, force=True) for file in files]
    return sorted(headers, key=lambda header: int(header.InstanceNumber))


def _slice_positions(header: Any, number: int) -> NDArray[np.float64]:
    """(rows * columns, 3) where the pixels of a slice lie; of a stack without positions, slice `number`."""
    along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    step = float(header.SpacingBetweenSlices) * number if number else 0.0
    start = np.asarray(header.ImagePositionPatient, float) + np.cross(along_row, along_column) * step
    rows, columns = np.mgrid[: header.Rows, : header.Columns].reshape(2, -1, 1)
    between_rows, between_columns = map(float, header.PixelSpacing)
    lps = start + rows * between_rows * along_column + columns * between_columns * along_row
    return np.asarray(lps * [-1, -1, 1])


def _positions(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) where the voxels of a grid lie, in the order of the raveled array."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def _look_up(
    labels: NDArray[Any], affine: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[Any]:
    """(n,) the values of labels (ni, nj, nk) at positions (n, 3), those of the nearest voxel; 0 outside."""
    inverse = np.linalg.inv(affine)
    index = np.rint(positions @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < labels.shape)).all(axis=1)
    values = np.zeros(len(positions), dtype=labels.dtype)
    values[inside] = labels[tuple(index[inside].T)]
    return values
