"""The whole inputs that the mutants are made from: tiny scans, masks, a bundle and a cohort."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from phantoms import small_case
from phantoms.io_cases import dicom_slices, write_dicom
from phantoms.small_cohort import draw_cohort

from situs.io import read_volume


def make_base(folder: Path) -> Path:
    """Write a scan and its mask, a DICOM folder and its mask, a bundle and a cohort to a folder."""
    os.environ.setdefault("SITUS_TESTS_FOLDER", str(folder))
    from phantoms.small_bundle import small_bundle  # imports torch, which the children need not

    shutil.copytree(small_bundle(), folder / "bundle")
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), folder / "mask.nii.gz")
    write_dicom(folder / "dicom", dicom_slices(range(-45, 46, 15)))
    geometry = read_volume(folder / "dicom").geometry
    mask = np.zeros(geometry.shape, np.uint8)
    mask[10:16, 20:28, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, geometry.affine), folder / "dicom.nii.gz")
    draw_cohort(folder / "cohort", patients=1, scans=1, painted=False)
    return folder
