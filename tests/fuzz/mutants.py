"""The mutator: a seed makes one mutant of one kind of input, the same on every machine.

A mutant is a folder with what the command needs. `KINDS` maps each kind to a function that spoils a copy of
the whole inputs.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.spoil import NOTHING, Random, Spoilt
from fuzz.spoil_bundle import spoil_bundle, spoil_manifest
from fuzz.spoil_dicom import spoil_dicom
from fuzz.spoil_nifti import spoil_nifti
from fuzz.spoil_regions import spoil_region_object, spoil_shapes, spoil_text_header

KINDS = {
    "scan": ("scan.nii.gz", spoil_nifti),
    "mask": ("mask.nii.gz", spoil_nifti),
    "DICOM": ("dicom", spoil_dicom),
    "bundle": ("bundle", spoil_bundle),
    "manifest": ("cohort", spoil_manifest),
    "SEG": ("seg.dcm", spoil_region_object),
    "RTSTRUCT": ("rtstruct.dcm", spoil_region_object),
    "NRRD": ("mask.nrrd", spoil_text_header),
    "MetaImage": ("mask.mha", spoil_text_header),
    "shapes": ("shapes.json", spoil_shapes),
}


@dataclass(frozen=True)
class Mutant:
    """A mutant that lies in a folder.

    Attributes:
        kind: Of `KINDS`.
        spoilt: What was done to it.
        args: What runs it in that folder.
    """

    kind: str
    spoilt: Spoilt
    args: list[str]


def make_mutant(seed: int, base: Path, folder: Path) -> Mutant:
    """Write a mutant to an empty folder."""
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    name, spoil = KINDS[kind]
    (shutil.copytree if (base / name).is_dir() else shutil.copy)(base / name, folder / name)
    spoilt = _spoil(folder / name, base, rng, spoil, 2 if rng.random() < 0.2 else 1)
    args = plain_args(kind, base, {name: name})
    # A picture costs 0.1 s, and a mask of specks has hundreds of lesions.
    if kind not in ("manifest", "mask", "NRRD", "MetaImage") and rng.random() < 0.1:
        args += ["--csv", "out.csv", "--png", "out"]
    return Mutant(kind, spoilt, args)


def plain_args(kind: str, base: Path, instead: dict[str, str]) -> list[str]:
    """The arguments for a kind of mutant, with other paths instead of some of the whole inputs."""

    def path(name: str) -> str:
        return instead.get(name, str(base / name))

    if kind == "manifest":
        return ["references", "add", path("bundle"), path("cohort"), "--out", "out"]
    scan = "dicom" if kind in ("DICOM", "SEG", "RTSTRUCT") else "scan.nii.gz"
    roi = {"DICOM": "dicom.nii.gz", "scan": "mask.nii.gz", "bundle": "mask.nii.gz"}.get(kind, KINDS[kind][0])
    return ["label", path(scan), "--roi", path(roi), "--bundle", path("bundle"), "--json", "out.json"]


def _spoil(path: Path, base: Path, rng: Random, spoil: Callable[..., Spoilt], times: int) -> Spoilt:
    done = [spoil(path, base, rng)]
    for _ in range(times - 1):
        if any(part.is_fifo() for part in (path, *path.glob("*"))):
            break  # nothing can be read from it
        try:
            done.append(spoil(path, base, rng))
        except Exception:  # what was spoilt cannot always be spoilt again
            done.append(Spoilt("half spoilt again"))
    keeps = [one.keeps for one in done]
    return Spoilt("; ".join(one.what for one in done), min(keeps, key=len, default=NOTHING))
