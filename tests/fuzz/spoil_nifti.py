"""Mutants of a scan or a mask in NIfTI."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fuzz.spoil import ALL, NOTHING, NUMBERS, Random, Spoilt, pick, replace_by_other, spoil_bytes

# Header fields that decide which bytes are voxels, and how many.
_LAYOUT = {"sizeof_hdr", "dim", "datatype", "bitpix", "vox_offset", "magic"}
_SCALING = {"scl_slope", "scl_inter"}


def spoil_nifti(path: Path, base: Path, rng: Random) -> Spoilt:
    """Change header fields or voxels, the packed or unpacked bytes, or what lies there."""
    data = gzip.decompress(path.read_bytes())
    pack = rng.random() < 0.8
    keeps: tuple[str, ...] = NOTHING
    match pick(rng, ["fields", "fields", "fields", "bytes", "packed", "voxels", "grid", "other"]):
        case "fields":
            data, names, what = _spoil_header(data, rng)
            keeps = _kept_by_header(names, is_mask=path.name.startswith("mask"))
        case "bytes":
            data, what = spoil_bytes(data, rng), "bytes"
        case "packed":
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            return Spoilt("packed bytes", ALL)  # its checksum tells
        case "voxels":
            data, what = _spoil_voxels(data, rng)
        case "grid":
            data, what = _spoil_grid(data, rng)
            keeps = NOTHING if what == "cut" else ALL
        case "other":
            return replace_by_other(path, base, rng)
    path.write_bytes(gzip.compress(data, 1) if pack else data)
    return Spoilt(what, keeps)


def _kept_by_header(names: set[str], is_mask: bool) -> tuple[str, ...]:
    """What must stay after fields changed: scaling is the scan's gray values, or which voxels are marked."""
    if names & _LAYOUT or (is_mask and "scl_inter" in names):
        return NOTHING
    return ("side",) if names & _SCALING and not is_mask else ALL


def _spoil_header(data: bytes, rng: Random) -> tuple[bytes, set[str], str]:
    header = np.frombuffer(data[:348], nib.Nifti1Header.template_dtype).copy()
    names, texts = set(), []
    for _ in range(int(rng.integers(1, 4))):
        name = pick(rng, header.dtype.names)
        field = header[name].reshape(-1)
        at = int(rng.integers(field.size))
        with np.errstate(all="ignore"):
            if field.dtype.kind == "S":
                value: Any = rng.bytes(field.dtype.itemsize)
            elif field.dtype.kind == "f":
                value = np.float64(pick(rng, NUMBERS)).astype(field.dtype)
            else:
                limits = np.iinfo(field.dtype)
                value = pick(rng, [0, 1, 2, 3, 7, 16, 64, limits.min, limits.max, int(field[at]) ^ 1])
            field[at] = value
        header[name] = field.reshape(header[name].shape)
        names.add(name)
        texts.append(f"{name}[{at}] = {value!r}")
    return header.tobytes() + data[348:], names, ", ".join(texts)


def _image(data: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(data)


def _spoil_voxels(data: bytes, rng: Random) -> tuple[bytes, str]:
    image = _image(data)
    voxels = np.asanyarray(image.dataobj)
    dtype = np.dtype(pick(rng, ["i1", "u1", "i2", "u2", "i4", "f4", "f8", "u8", "c8"]))
    with np.errstate(all="ignore"):
        voxels = voxels.astype(dtype)
        part = tuple(slice(*sorted(int(v) for v in rng.integers(0, n + 1, 2))) for n in voxels.shape)
        match pick(rng, ["number", "noise", "specks", "all"]):
            case "number":
                voxels[part] = np.float64(pick(rng, NUMBERS)).astype(dtype)
            case "noise":
                voxels[part] = rng.normal(0, pick(rng, [1, 50, 5000]), voxels[part].shape).astype(dtype)
            case "specks":
                voxels[rng.random(voxels.shape) < 0.03] = 1
            case "all":
                voxels[...] = np.float64(pick(rng, NUMBERS)).astype(dtype)
    return nib.Nifti1Image(voxels, image.affine, dtype=dtype).to_bytes(), f"voxels as {dtype}"


def _spoil_grid(data: bytes, rng: Random) -> tuple[bytes, str]:
    image = _image(data)
    voxels, affine = np.asanyarray(image.dataobj), image.affine.copy()
    what = pick(rng, ["affine", "axes", "more", "cut", "nifti2", "stretch"])
    match what:
        case "affine":
            affine[int(rng.integers(3)), int(rng.integers(4))] = pick(rng, [0, -3, 3, 1e4, 1e-6, 90.5])
        case "axes":
            voxels = voxels.transpose(rng.permutation(3))
        case "more":
            voxels = np.repeat(voxels[..., None], int(rng.integers(1, 5)), axis=3)
        case "cut":
            axis = int(rng.integers(3))
            voxels = np.take(voxels, range(int(rng.integers(1, voxels.shape[axis]))), axis)
        case "nifti2":
            return nib.Nifti2Image(voxels, affine).to_bytes(), what
        case "stretch":
            affine[:3, :3] *= pick(rng, [1e-4, 0.01, 0.1, 10, 100, 1e6])
    try:
        return nib.Nifti1Image(voxels, affine).to_bytes(), what
    except nib.spatialimages.HeaderDataError:  # nibabel cannot write such an affine
        return data, "nothing"
