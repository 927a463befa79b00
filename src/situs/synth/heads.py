"""Head label maps and the site maps made from them, as validated arrays; reading, and a cache of both.

Arrays run (x, y, z) in RAS voxel order (x to the patient's right, y to the front, z up) with 1 mm voxels;
world is RAS+ mm. Labels are FreeSurfer's aseg and aparc numbers in the brain, CHARM's around it.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITES, SiteList
from situs.errors import InputError, OutputError
from situs.files import digest, make_folder, replacing, stem
from situs.io.nifti import read_nifti_grid
from situs.synth.atrophy import shrink_brain
from situs.synth.site_list import list_codes, main_rules
from situs.synth.site_map import LABELS, MAP_VERSION, map_sites
from situs.volume import bounding_box

__all__ = [
    "BONE",
    "Head",
    "default_cache",
    "find_heads",
    "map_sites",
    "read_head",
    "read_labels",
    "square_depth",
]

_SUFFIXES = (".nii", ".nii.gz")
_MAPS = ("sites", "extra_axial", "lateral_mm", "csf_depth_mm", "sheet", "frame")
_KEPT = ("labels", "affine", *_MAPS, "depth_squared")
# Steps that differ from 1 mm by less than this are not resampled.
_STEP_TOLERANCE_MM = 0.02
BONE = (515, 516)


@dataclass(frozen=True, eq=False)
class Head:
    """One head label map and its site maps.

    Args:
        name: The file's stem, for example ``head_01``; the patient of everything rendered from it.
        labels: (nx, ny, nz) FreeSurfer and CHARM numbers.
        affine: (4, 4) voxel to world, RAS+ mm.
        sites: (nx, ny, nz) codes of the sites, for fluid, sinuses and normal structures: 0 for none of the
            listed sites, else `code`.
        extra_axial: (nx, ny, nz) the same codes for lesions in tissue and crescents: the fluid over the
            convexity is the lobe, or the cerebellum, beneath it.
        lateral_mm: (nx, ny, nz) distance to the mid-sagittal surface, positive to the patient's left, at
            most 120.
        csf_depth_mm: (nx, ny, nz) in the fluid outside the ventricles the distance to the nearest brain
            tissue, in tenths of a mm, at most 255; 0 elsewhere.
        sheet: (nx, ny, nz) the dura that label maps lack: 1 falx, 2 tentorium, else 0.
        frame: (4, 4) rigid, world mm to head frame mm. Its origin is mid-way between the thalami, x points to
            the patient's right, y to the front, z up; it is level as MNI152 is.
        atrophy_mm: The mean thickness of tissue that the brain lost around sulci and ventricles.
        listed: The sites that lesions are named by.
        ruled: (nx, ny, nz) codes of the 15 sites as the rules give them (`situs.synth.site_map`). None if
            these are `sites`.
        depth_squared: (nx, ny, nz) the square of `depth_mm`, if it is known already.

    Raises:
        ValueError: If the arrays do not have the same 3-D shape.
    """

    name: str
    labels: NDArray[np.int16]
    affine: NDArray[np.float64]
    sites: NDArray[np.uint8]
    extra_axial: NDArray[np.uint8]
    lateral_mm: NDArray[np.int8]
    csf_depth_mm: NDArray[np.uint8]
    sheet: NDArray[np.uint8]
    frame: NDArray[np.float64]
    atrophy_mm: float = 0.0
    listed: SiteList = SITES
    ruled: NDArray[np.uint8] | None = None
    depth_squared: NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        for field in ("sites", "extra_axial", "lateral_mm", "csf_depth_mm", "sheet"):
            shape = getattr(self, field).shape
            if self.labels.ndim != 3 or shape != self.labels.shape:
                raise ValueError(f"{field}: expected shape {self.labels.shape}, got {shape}")

    def code(self, key: str) -> int:
        """The value that stands for a listed site in `sites` and `extra_axial`."""
        return self.listed.numbers[key] + 1

    @property
    def rules(self) -> NDArray[np.uint8]:
        """(nx, ny, nz) codes of the 15 sites, whatever is listed: where there is fluid, a sinus or tissue."""
        return self.sites if self.ruled is None else self.ruled

    def inside(self, box: tuple[slice, ...]) -> NDArray[np.bool_]:
        """Where a box of the head is any of the 15 sites or of the listed ones."""
        return np.asarray((self.rules[box] > 0) | (self.sites[box] > 0))

    @cached_property
    def rule_of(self) -> dict[str, str]:
        """For each listed site the key of the one of the 15 that most of it is by the rules; "" for none."""
        return main_rules(self.sites, self.rules, self.listed)

    @cached_property
    def depth_mm(self) -> NDArray[np.float32]:
        """(nx, ny, nz) distance to the nearest bone, inside the skull; 0 elsewhere."""
        known = self.depth_squared
        squared = square_depth(self.labels, self.rules) if known is None else known
        return np.sqrt(squared, dtype=np.float32)


def square_depth(labels: NDArray[np.int16], rules: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(nx, ny, nz) the squared distance in mm to the nearest bone where `rules` are not 0; 0 elsewhere."""
    from scipy import ndimage

    squared = np.zeros(labels.shape, dtype=np.uint16)
    inside = rules > 0
    if inside.any():  # the bone that is nearest to a voxel inside lies just outside their box
        box = bounding_box(inside, 4)
        distance = ndimage.distance_transform_edt(~np.isin(labels[box], BONE))
        squared[box] = np.where(inside[box], np.rint(distance**2), 0)
    return squared


def default_cache() -> Path:
    """Where site maps are kept between runs: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``situs/heads``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "situs" / "heads"


def find_heads(folder: str | Path) -> list[Path]:
    """The head label maps (.nii, .nii.gz) in a folder, sorted by name.

    Raises:
        InputError: If there is no such folder, or no label map in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with head label maps (.nii.gz)")
    paths = sorted(p for p in folder.iterdir() if p.name.endswith(_SUFFIXES) and not p.name.startswith("."))
    if not paths:
        raise InputError(f"{folder}: no head label maps (.nii or .nii.gz) in it; name the folder with them")
    return paths


def read_head(
    path: str | Path,
    cache: str | Path | None = None,
    atrophy_mm: float = 0.0,
    listed: SiteList = SITES,
) -> Head:
    """Read a head label map of any axis order, orientation and voxel size, and its site maps.

    Args:
        path: NIfTI file of FreeSurfer and CHARM numbers.
        cache: Folder that keeps labels and site maps between runs, about 3 MB a head; computing them takes
            20 s of one core. The default is `default_cache`. A folder that cannot be written only costs time.
        atrophy_mm: The mean thickness of tissue that is lost around sulci and ventricles, see
            `situs.synth.atrophy.shrink_brain`.
        listed: The sites that lesions are named by, see `situs.synth.site_list.check_list`.

    Raises:
        InputError: If the file cannot be read or is not a head label map in this convention.
    """
    path = Path(path)
    stored = _cache_file(path, Path(cache if cache is not None else default_cache()), atrophy_mm)
    kept = _read_kept(stored)
    if kept is None:
        labels, affine = read_labels(path)
        labels = shrink_brain(labels, atrophy_mm, zlib.crc32(stem(path).encode()))
        try:
            maps = map_sites(labels, affine)
        except ValueError as error:
            raise InputError(f"{path}: not a head label map that can be used: {error}") from None
        kept = {"labels": labels, "affine": affine, **{field: getattr(maps, field) for field in _MAPS}}
        kept["depth_squared"] = square_depth(labels, maps.sites)
        _write_kept(stored, kept)
    if listed == SITES:
        return Head(stem(path), **kept, atrophy_mm=atrophy_mm)
    ruled = kept["sites"]
    codes = {field: list_codes(kept[field], kept["labels"], listed) for field in ("sites", "extra_axial")}
    return Head(stem(path), **{**kept, **codes}, atrophy_mm=atrophy_mm, listed=listed, ruled=ruled)


def read_labels(path: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Labels (nx, ny, nz) in RAS voxel order at 1 mm, and their affine (4, 4).

    Raises:
        InputError: If the file cannot be read or is not a head label map in this convention.
    """
    grid = read_nifti_grid(path, InputError)
    values = grid.values
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError(f"{path}: expected whole-number labels, got other values: is this an image?")
    unknown = sorted(set(np.unique(values).astype(int).tolist()) - LABELS)
    if unknown:
        raise InputError(
            f"{path}: expected a head label map of FreeSurfer and CHARM, got {len(unknown)} unknown labels, "
            f"{', '.join(map(str, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}"
        )
    return _to_ras_1mm(values.astype(np.int16), grid.affine)


def _to_ras_1mm(
    labels: NDArray[np.int16], affine: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Axes flipped and permuted to RAS; voxels of other sizes resampled to 1 mm, nearest neighbour."""
    import nibabel as nib
    from scipy import ndimage

    turn = nib.orientations.io_orientation(affine)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, labels.shape)
    labels = nib.orientations.apply_orientation(labels, turn)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(steps - 1).max() > _STEP_TOLERANCE_MM:
        shape = np.maximum(np.rint(np.array(labels.shape) * steps), 1).astype(int)
        shift = 0.5 / steps - 0.5  # the outer faces of both grids meet
        labels = ndimage.affine_transform(labels, 1 / steps, shift, tuple(shape), order=0, mode="nearest")
        to_file = np.diag([*(1 / steps), 1.0])
        to_file[:3, 3] = shift
        affine = affine @ to_file
    return np.ascontiguousarray(labels, dtype=np.int16), affine


def _cache_file(path: Path, folder: Path, atrophy_mm: float) -> Path | None:
    """Where what is made from a file is kept: by its content and its name, which seeds the atrophy."""
    if not path.is_file():
        return None
    return folder / f"{digest(f'{MAP_VERSION} {stem(path)} {atrophy_mm} {digest(path)}'.encode())[:32]}.npz"


def _read_kept(path: Path | None) -> dict[str, Any] | None:
    """The arrays kept by an earlier run; None if there are none, or they are damaged."""
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {field: stored[field] for field in _KEPT}
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile):
        return None


def _write_kept(path: Path | None, kept: dict[str, Any]) -> None:
    """Keep arrays for the next run: written under a temporary name, then renamed."""
    if path is None:
        return
    try:
        make_folder(path.parent)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **kept)
    except (OSError, OutputError):
        return  # a cache that cannot be written only costs time
