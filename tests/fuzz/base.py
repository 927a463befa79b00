"""The whole inputs that the mutants are made from: tiny scans, masks, a bundle and a cohort."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from phantoms import small_case
from phantoms.dicom_rois import write_rtstruct, write_seg
from phantoms.io_cases import dicom_slices, write_dicom
from phantoms.small_cohort import draw_cohort

from fuzz.spoil_regions import write_metaimage, write_nrrd
from situs.io import read_volume


def make_base(folder: Path) -> Path:
    """Write a scan and a DICOM folder with regions of each kind, a bundle and a cohort to a folder."""
    os.environ.setdefault("SITUS_TESTS_FOLDER", str(folder))
    from phantoms.small_bundle import small_bundle  # imports torch, which the children need not

    shutil.copytree(small_bundle(), folder / "bundle")
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), folder / "mask.nii.gz")
    for name, write in (("mask.nrrd", write_nrrd), ("mask.mha", write_metaimage)):
        write(folder / name, small_case.lesion_mask(), small_case.AFFINE)
    shapes = [{"box": [[-58, -16, 5], [-34, 12, 15]]}, {"point": [40, 0, 10], "radius_mm": 9}]
    shapes_file = {"schema": "situs.shapes/1", "space": "ras", "shapes": shapes}
    (folder / "shapes.json").write_text(json.dumps(shapes_file))
    _write_dicom(folder)
    draw_cohort(folder / "cohort", patients=1, scans=1, painted=False)
    return folder


def _write_dicom(folder: Path) -> None:
    """A series, and one region on it as a NIfTI mask, as a segmentation and as a structure set."""
    slices = dicom_slices(range(-45, 46, 15))
    write_dicom(folder / "dicom", slices)
    geometry = read_volume(folder / "dicom").geometry
    mask = np.zeros(geometry.shape, np.uint8)
    mask[10:16, 20:28, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, geometry.affine), folder / "dicom.nii.gz")
    corners = [(9.5, 19.5), (15.5, 19.5), (15.5, 27.5), (9.5, 27.5)]
    contours = [
        ("CLOSED_PLANAR", geometry.to_world(np.array([(i, j, k) for i, j in corners])) * [-1, -1, 1])
        for k in (2, 3)
    ]
    write_rtstruct(folder / "rtstruct.dcm", slices, {1: ("lesion", contours)})
    write_seg(folder / "seg.dcm", slices, mask.transpose(2, 1, 0)[None])
