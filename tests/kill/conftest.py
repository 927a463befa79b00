"""Processes for commands, and what the commands read."""

import shutil

import nibabel as nib
import pytest
from phantoms import small_case
from phantoms.small_bundle import small_bundle
from phantoms.small_cohort import draw_cohort

from kill.commands import Commands, open_process


@pytest.fixture(scope="module")
def label_process():
    with open_process("label") as process:
        yield process


@pytest.fixture
def labelling(label_process, tmp_path):
    """Commands that label ``scan.nii.gz`` with ``mask.nii.gz``, or change ``bundle`` with ``cohort``.

    ``batch.csv`` holds the scan twice and a scan that is not there.
    """
    commands = Commands(label_process, tmp_path / "here")
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), commands.folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), commands.folder / "mask.nii.gz")
    rows = [
        "scan,roi,mask_space",
        "scan.nii.gz,mask.nii.gz",
        "absent,absent",
        "scan.nii.gz,mask.nii.gz,index",
    ]
    (commands.folder / "batch.csv").write_text("\n".join(rows))
    shutil.copytree(small_bundle(), commands.folder / "bundle")
    draw_cohort(commands.folder / "cohort", patients=1, scans=1, painted=False)
    yield commands
    commands.end()


@pytest.fixture
def rendering(tmp_path):
    """Commands that render scans of two heads in the folder ``heads``."""
    with open_process("synth") as process:
        commands = Commands(process, tmp_path / "here")
        (commands.folder / "heads").mkdir()
        for name in ("head_a", "head_b"):
            (commands.folder / "heads" / f"{name}.nii.gz").touch()
        yield commands
        commands.end()


@pytest.fixture
def training(tmp_path):
    """Commands that train on ``cohort``."""
    with open_process("train") as process:
        commands = Commands(process, tmp_path / "here")
        draw_cohort(commands.folder / "cohort", patients=2, scans=1)
        yield commands
        commands.end()
