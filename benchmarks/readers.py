"""How a scan and its mask are read: by situs, and by a plain script of other packages.

Each reader returns the regions of values 1 to 6. The plain scripts are what most people write:

- **nibabel**: both files to the closest canonical orientation. If the shapes are the same, the mask is taken
  voxel by voxel; else it is resampled to the scan (nearest neighbour). A region is ``mask == value``. A DICOM
  scan is converted with **dcm2niix** first. Of several results the one with most slices is read, of equals
  the first by name.
- **SimpleITK**: `ReadImage`, or `ImageSeriesReader` for the first series in a folder and its subfolders. The
  mask is resampled to the scan through physical space (nearest neighbour). A region is ``mask == value``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frame
import numpy as np
from field_inputs import Region, regions_on_grid

Regions = dict[int, Region]
Reader = Callable[[Path, Path, tuple[str, ...]], tuple[Regions, dict[str, Any]]]


def read_with_nibabel(scan: Path, roi: Path, _: tuple[str, ...]) -> tuple[Regions, dict[str, Any]]:
    import nibabel
    from nibabel.processing import resample_from_to

    with tempfile.TemporaryDirectory() as folder:
        path = _convert(scan, Path(folder)) if is_dicom(scan) else scan
        image = nibabel.as_closest_canonical(nibabel.load(path))
        mask = nibabel.as_closest_canonical(nibabel.load(roi))
        if mask.shape != image.shape:
            mask = resample_from_to(mask, image, order=0)
        return regions_on_grid(np.asarray(image.dataobj), np.asarray(mask.dataobj), image.affine), {}


def read_with_simpleitk(scan: Path, roi: Path, _: tuple[str, ...]) -> tuple[Regions, dict[str, Any]]:
    import SimpleITK as sitk

    if scan.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(scan), recursive=True))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(scan))
    mask = sitk.Resample(sitk.ReadImage(str(roi)), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # LPS to RAS
    hu, labels = (sitk.GetArrayFromImage(x).transpose(2, 1, 0) for x in (image, mask))
    return regions_on_grid(hu, labels, affine), {}


def read_with_situs(scan: Path, roi: Path, options: tuple[str, ...]) -> tuple[Regions, dict[str, Any]]:
    """`situs label` first, then what its readers give; a refusal ends the process with its exit code."""
    from situs.cli import main
    from situs.io import read_rois, read_volume
    from situs.volume import Roi

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "findings.json")
        if code := main(["label", str(scan), "--roi", str(roi), *options, "--json", str(out), "--quiet"]):
            sys.stderr.flush()
            os._exit(code)
        findings = json.loads(out.read_text(encoding="utf-8"))["findings"]
    volume = read_volume(scan, roi=roi)
    regions = {}
    for found in read_rois(roi, volume):
        if isinstance(found, Roi):
            at = np.argwhere(found.mask) + found.start
            regions[found.value] = Region.of(volume.hu[tuple(at.T)], volume.geometry.to_world(at))
    answers = [[f["roi_value"], f["component"], f["site"], f["side"], f["sure"]] for f in findings]
    return regions, {"answers": answers, "doubted": all(f["doubts"] and not f["sure"] for f in findings)}


READERS: dict[str, Reader] = {
    "situs": read_with_situs,
    "nibabel": read_with_nibabel,
    "SimpleITK": read_with_simpleitk,
}


def is_dicom(scan: Path) -> bool:
    """Whether a scan of the inputs is DICOM."""
    return not scan.name.endswith((".nii", ".nii.gz"))


def _convert(scan: Path, out: Path) -> Path:
    """The NIfTI file that dcm2niix makes of a DICOM scan; its warnings go to standard error."""
    import nibabel
    from dcm2niix import bin as program

    single = [] if scan.is_dir() else ["-s", "y"]
    command = [program, "-b", "n", "-z", "n", "-f", "%s", *single, "-o", str(out), str(scan)]
    done = subprocess.run(command, capture_output=True, text=True)
    files = sorted(out.glob("*.nii"))
    if not files:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("Warning", "Error")):
            print(line, file=sys.stderr)
    return max(files, key=lambda path: nibabel.load(path).shape[2])


def read_in_child(
    tool: str, scan: Path, roi: Path, options: tuple[str, ...], out: Path, memory_mb: float
) -> None:
    """The main function of a process that reads one input: result and messages as files in a folder.

    Args:
        tool: Key of `READERS`.
        scan: The scan.
        roi: The mask.
        options: Further words of the command of `situs label`.
        out: An existing folder for ``result.json`` and ``messages.txt``.
        memory_mb: How much the process may map.
    """
    messages = os.open(out / "messages.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(messages, 1)
    os.dup2(messages, 2)
    most = int(memory_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    regions, more = READERS[tool](scan, roi, options)
    stored = {v: {"hu": r.hu.tolist(), "centre": r.centre.tolist()} for v, r in regions.items()}
    result = {"regions": stored, "peak_mb": frame.peak_mb(), **more}
    (out / "result.json").write_text(json.dumps(result), encoding="utf-8")


def stored_regions(result: dict[str, Any]) -> Regions:
    """The regions of a ``result.json``."""
    return {
        int(value): Region(np.array(region["hu"], np.int64), np.array(region["centre"]))
        for value, region in result["regions"].items()
    }
