"""Mutants of regions in other files than NIfTI: DICOM objects, NRRD, MetaImage, boxes and points."""

import json
from pathlib import Path

import numpy as np
import pydicom

from fuzz.spoil import ALL, NOTHING, VALUES, Random, Spoilt, pick, replace_by_other, spoil_bytes, spoil_tree
from fuzz.spoil_dicom import set_tag

# Tags that say neither where a region lies nor what it is of.
_TOLD = {
    *("StudyDate", "StudyTime", "AccessionNumber", "Manufacturer", "ManufacturerModelName", "SeriesNumber"),
    *("ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"),
    *("ContentLabel", "ContentDescription", "ContentCreatorName", "InstanceNumber", "SOPInstanceUID"),
    *("SeriesInstanceUID", "SoftwareVersions", "DeviceSerialNumber", "StructureSetLabel"),
}


def spoil_region_object(path: Path, base: Path, rng: Random) -> Spoilt:
    """Change a tag of a DICOM object, at any depth, or its bytes, or what lies there."""
    match pick(rng, ["tag", "tag", "tag", "bytes", "other"]):
        case "bytes":
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            return Spoilt("bytes")
        case "other":
            return replace_by_other(path, base, rng)
    ds = pydicom.dcmread(path)
    item, where = ds, ""
    while True:
        tag = pick(rng, [element.tag for element in item])
        name = pydicom.datadict.keyword_for_tag(tag)
        items = item[tag].value if item[tag].VR == "SQ" else []
        if not items or rng.random() < 0.2:
            break
        item, where = pick(rng, items), f"{where}{name}."
    if rng.random() < 0.25:
        del item[tag]
        what = "deleted"
    else:
        value = pick(rng, [*VALUES[:-10], "1\\2", "1\\2\\3", "nan"])
        set_tag(item, tag, pydicom.datadict.dictionary_VR(tag).split(" or ")[0], value)
        what = repr(value)
    ds.save_as(path, enforce_file_format=False)
    return Spoilt(f"{where}{name} {what}"[:200], ALL if not where and name in _TOLD else NOTHING)


def spoil_text_header(path: Path, base: Path, rng: Random) -> Spoilt:
    """Change a line of the header of an NRRD or MetaImage file, or the bytes, or what lies there."""
    data = path.read_bytes()
    match pick(rng, ["line", "line", "line", "bytes", "other"]):
        case "bytes":
            path.write_bytes(spoil_bytes(data, rng))
            return Spoilt("bytes")
        case "other":
            return replace_by_other(path, base, rng)
    lines = data.split(b"\n")
    # The header ends with an empty line, or with the one that says where the voxels are.
    count = next(n for n, line in enumerate(lines, 1) if not line or line.startswith(b"ElementDataFile"))
    at = int(rng.integers(count))
    mark = b": " if data.startswith(b"NRRD") else b" = "
    key = lines[at].split(mark)[0]
    match pick(rng, ["value", "value", "value", "delete", "twice", "number", "unknown"]):
        case "value":
            lines[at] = key + mark + str(pick(rng, VALUES)).encode()
        case "delete":
            del lines[at]
        case "twice":
            lines.insert(at, lines[at])
        case "number":
            words = lines[at].split(b" ")
            words[int(rng.integers(len(words)))] = str(pick(rng, VALUES)).encode()
            lines[at] = b" ".join(words)
        case "unknown":
            lines.insert(1, b"Remark" + mark + b"1 2 3")
    path.write_bytes(b"\n".join(lines))
    return Spoilt(f"header line {at + 1} ({key.decode(errors='replace')})")


def spoil_shapes(path: Path, base: Path, rng: Random) -> Spoilt:
    """Change a value of boxes and points in JSON, or the bytes, or what lies there."""
    match pick(rng, ["value", "value", "value", "bytes", "other"]):
        case "bytes":
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            return Spoilt("bytes")
        case "other":
            return replace_by_other(path, base, rng)
    shapes = json.loads(path.read_text())
    what = spoil_tree(shapes, rng)
    path.write_text(json.dumps(shapes))
    return Spoilt(f"value: {what}")


def write_nrrd(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """An NRRD mask (ni, nj, nk) uint8, its voxels uncompressed."""
    columns = " ".join(f"({','.join(f'{v:g}' for v in affine[:3, axis])})" for axis in range(3))
    header = (
        f"NRRD0004\ntype: uchar\ndimension: 3\nspace: right-anterior-superior\nsizes: {_spaced(mask.shape)}\n"
        f"space directions: {columns}\nkinds: domain domain domain\nencoding: raw\n"
        f"space origin: ({','.join(f'{v:g}' for v in affine[:3, 3])})\n\n"
    )
    path.write_bytes(header.encode() + mask.tobytes(order="F"))


def write_metaimage(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """A MetaImage mask (ni, nj, nk) uint8; its axes are those of the patient (LPS)."""
    lps = np.diag([-1, -1, 1]) @ affine[:3]
    sizes = np.linalg.norm(lps[:, :3], axis=0)
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
        f"TransformMatrix = {_spaced((lps[:, :3] / sizes).T.ravel())}\nOffset = {_spaced(lps[:, 3])}\n"
        f"ElementSpacing = {_spaced(sizes)}\nDimSize = {_spaced(mask.shape)}\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + mask.tobytes(order="F"))


def _spaced(values: object) -> str:
    return " ".join(f"{value:g}" for value in values)
