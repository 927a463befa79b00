"""Mutants of a DICOM folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import DataElement, RawDataElement

from fuzz.spoil import ALL, NOTHING, NUMBERS, VALUES, Random, Spoilt, pick, replace_by_other, spoil_bytes

# Tags that decide which bytes are pixels, and which of the pixels are padding.
_LAYOUT = {
    "PixelData",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PixelPaddingValue",
}
_SCALING = {"RescaleSlope", "RescaleIntercept"}
# What adds files, or moves them, and leaves all slices there.
_HARMLESS = {"twice", "twice with other numbers", "mask", "text", "deep", "loop"}


def spoil_dicom(folder: Path, base: Path, rng: Random) -> Spoilt:
    """Change tags of some or all files, their bytes, or which files there are."""
    files = sorted(folder.iterdir())
    chosen = files if rng.random() < 0.5 else [pick(rng, files)]
    match pick(rng, ["tags", "tags", "tags", "bytes", "files", "other"]):
        case "tags":
            return _spoil_tags(chosen, rng)
        case "bytes":
            seed = int(rng.integers(2**31))
            for path in chosen:
                path.write_bytes(spoil_bytes(path.read_bytes(), np.random.default_rng(seed)))
            return Spoilt(f"bytes of {len(chosen)}")
        case "files":
            return _spoil_files(folder, files, base, rng)
    return replace_by_other(folder if rng.random() < 0.2 else pick(rng, files), base, rng)


def _spoil_tags(files: list[Path], rng: Random) -> Spoilt:
    tags = [element.tag for element in pydicom.dcmread(files[0])]
    if rng.random() < 0.3:
        tags += [0x00280008, 0x00280120, 0x00281050, 0x00280106, 0x00200032, 0x00181120, 0x00189311]
    tag, value, delete = (
        pick(rng, tags),
        pick(rng, [*VALUES[:-10], "1\\2", "1\\2\\3", "nan"]),
        rng.random() < 0.25,
    )
    each = rng.random() < 0.3
    for path in files:
        ds = pydicom.dcmread(path)
        if each:
            value = pick(rng, NUMBERS)
        if delete:
            ds.pop(tag, None)
        else:
            vr = pydicom.datadict.dictionary_VR(tag).split(" or ")[0]
            set_tag(ds, tag, vr, value)
        ds.save_as(path, enforce_file_format=False)
    name = pydicom.datadict.keyword_for_tag(tag)
    keeps = NOTHING if name in _LAYOUT else ("side",) if name in _SCALING else ALL
    return Spoilt(f"{name} {'deleted' if delete else repr(value)} in {len(files)}"[:200], keeps)


def set_tag(ds: pydicom.Dataset, tag: int, vr: str, value: Any) -> None:
    """Give a tag a value that no reader asked for, in bytes that its VR can hold."""
    if vr in ("US", "SS", "UL", "SL"):
        low, high = {
            "US": (0, 65535),
            "SS": (-32768, 32767),
            "UL": (0, 2**32 - 1),
            "SL": (-(2**31), 2**31 - 1),
        }[vr]
        number = value if isinstance(value, int) else 3
        value = min(max(number, low), high)
    elif vr in ("FD", "FL"):
        value = float(value) if isinstance(value, int | float) and abs(value) < 1e30 else 0.0
    elif vr in ("OW", "OB"):
        value = bytes(2 * (abs(value) % 4000)) if isinstance(value, int) else b""
    elif vr == "SQ":
        value = []
    else:
        text = ("" if value is None else str(value)).encode()
        text += b" " * (len(text) % 2)
        ds[tag] = RawDataElement(pydicom.tag.Tag(tag), vr, len(text), text, 0, False, True)
        return
    ds[tag] = DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)


def _spoil_files(folder: Path, files: list[Path], base: Path, rng: Random) -> Spoilt:
    name = pick(
        rng, ["fewer", "one", "twice", "mask", "text", "twice with other numbers", "deep", "swap", "loop"]
    )
    first = files[0]
    match name:
        case "fewer":
            for path in files[:: int(rng.integers(2, 4))]:
                path.unlink()
        case "one":
            for path in files[1:]:
                path.unlink()
        case "twice":
            for path in files:
                shutil.copy(path, folder / f"again {path.name}")
        case "twice with other numbers":
            for number, path in enumerate(files):
                ds = pydicom.dcmread(path)
                ds.InstanceNumber = number + 100
                ds.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(number)])
                ds.save_as(folder / f"again{path.name}")
        case "mask":
            shutil.copy(base / "dicom.nii.gz", folder)
        case "text":
            (folder / "readme.txt").write_bytes(rng.bytes(300))
        case "deep":
            for path in files:
                (folder / path.stem).mkdir()
                path.rename(folder / path.stem / "x")
        case "swap":
            last = files[-1].read_bytes()
            cut = int(rng.integers(len(last)))
            files[-1].write_bytes(last[:cut] + first.read_bytes()[cut:])
        case "loop":
            (folder / "loop").symlink_to(folder)
    return Spoilt(f"files: {name}", ALL if name in _HARMLESS else NOTHING)
