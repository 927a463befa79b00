"""The mutator: a seed makes one mutant of one kind of input, the same on every machine.

A mutant is a folder with what the command needs. `KINDS` maps each kind to a function that spoils a copy of
the whole inputs and names what it did.
"""

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import pydicom
from phantoms.signed import sign
from pydicom.dataelem import DataElement, RawDataElement

Random = np.random.Generator

NUMBERS: list[Any] = [0, -1, 1, 2, 7, 255, 65535, 2**31 - 1, -(2**31), 2**62, 10**9]
NUMBERS += [0.5, -0.0, 1e-30, 200.0, 1e10, 1e30, 1e300, float("nan"), float("inf"), float("-inf")]
VALUES: list[Any] = [*NUMBERS, None, True, "", "x", "é\n\t", "x" * 5000, [], {}, [[]], [None], {"a": 1}, "0"]


def pick(rng: Random, options: Any) -> Any:
    """One of a sequence, with its own type."""
    return options[int(rng.integers(len(options)))]


# --- bytes ---


def spoil_bytes(data: bytes, rng: Random) -> bytes:
    """Flip, cut, double, swap, fill or insert bytes; half of the time near the start, where headers are."""
    array = np.frombuffer(data, np.uint8).copy()
    reach = min(len(array), 512) if rng.random() < 0.5 else len(array)
    start, stop = sorted(int(v) for v in rng.integers(0, reach + 1, 2))
    match int(rng.integers(7)):
        case 0:
            where = rng.integers(0, reach, int(rng.integers(1, 20)))
            array[where] = rng.integers(0, 256, len(where))
        case 1:
            return data[:stop]
        case 2:
            return data[:stop] + data[start:]
        case 3:
            return data[:start] + data[stop:]
        case 4:
            array[start:stop] = array[start:stop][::-1]
        case 5:
            array[start:stop] = pick(rng, [0, 255, 127, 32])
        case 6:
            return data[:start] + rng.bytes(int(rng.integers(1, 100))) + data[start:]
    return array.tobytes()


def replace_by_other(path: Path, base: Path, rng: Random) -> str:
    """Put something of another kind, or nothing, in the place of a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    name = pick(rng, ["missing", "folder", "pipe", "empty", "link to itself", "scan", "mask", "json", "text"])
    match name:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link to itself":
            path.symlink_to(path.name)
        case "scan":
            shutil.copy(base / "scan.nii.gz", path)
        case "mask":
            shutil.copy(base / "mask.nii.gz", path)
        case "json":
            shutil.copy(base / "bundle" / "bundle.json", path)
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(rng.bytes(int(rng.integers(1, 2000))))
    return f"{path.name}: {name}"


# --- NIfTI ---


def spoil_nifti(path: Path, base: Path, rng: Random) -> str:
    """Change header fields or voxels, the packed or unpacked bytes, or what lies there."""
    data = gzip.decompress(path.read_bytes())
    pack = rng.random() < 0.8
    match pick(rng, ["fields", "fields", "fields", "bytes", "packed", "voxels", "grid", "other"]):
        case "fields":
            data, what = _spoil_header(data, rng)
        case "bytes":
            data, what = spoil_bytes(data, rng), "bytes"
        case "packed":
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            return "packed bytes"
        case "voxels":
            data, what = _spoil_voxels(data, rng)
        case "grid":
            data, what = _spoil_grid(data, rng)
        case "other":
            return replace_by_other(path, base, rng)
    path.write_bytes(gzip.compress(data, 1) if pack else data)
    return what


def _spoil_header(data: bytes, rng: Random) -> tuple[bytes, str]:
    header = np.frombuffer(data[:348], nib.Nifti1Header.template_dtype).copy()
    names = []
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
        names.append(f"{name}[{at}] = {value!r}")
    return header.tobytes() + data[348:], ", ".join(names)


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
    match pick(rng, ["affine", "axes", "more", "cut", "nifti2", "stretch"]):
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
            return nib.Nifti2Image(voxels, affine).to_bytes(), "NIfTI-2"
        case "stretch":
            affine[:3, :3] *= pick(rng, [1e-4, 0.01, 0.1, 10, 100, 1e6])
    return nib.Nifti1Image(voxels, affine).to_bytes(), "grid"


# --- DICOM ---


def spoil_dicom(folder: Path, base: Path, rng: Random) -> str:
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
            return f"bytes of {len(chosen)}"
        case "files":
            return _spoil_files(folder, files, base, rng)
    return replace_by_other(folder if rng.random() < 0.2 else pick(rng, files), base, rng)


def _spoil_tags(files: list[Path], rng: Random) -> str:
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
            _set(ds, tag, vr, value)
        ds.save_as(path, enforce_file_format=False)
    return f"{pydicom.datadict.keyword_for_tag(tag)} {'deleted' if delete else repr(value)}"[:200]


def _set(ds: pydicom.Dataset, tag: int, vr: str, value: Any) -> None:
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


def _spoil_files(folder: Path, files: list[Path], base: Path, rng: Random) -> str:
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
    return f"files: {name}"


# --- bundles ---


def spoil_bundle(folder: Path, base: Path, rng: Random) -> str:
    """Change the description, the arrays or the networks, and sign the result with good hashes."""
    name = pick(rng, ["description", "description", "arrays", "network", "bytes", "other"])
    match name:
        case "description":
            changed: list[str] = []
            sign(folder, lambda description: changed.append(_spoil_tree(description, rng)))
            return f"description: {changed[0]}"
        case "arrays":
            name = _spoil_arrays(folder / "references.npz", rng)
        case "network":
            name = _spoil_network(folder / pick(rng, ["basenet.onnx", "relation.onnx"]), rng)
        case "bytes":
            path = pick(rng, sorted(folder.iterdir()))
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            name = f"{path.name}: bytes"
            if path.suffix == ".json":
                return name
        case "other":
            return replace_by_other(pick(rng, sorted(folder.iterdir())), base, rng)
    sign(folder)
    return name


def _spoil_tree(tree: Any, rng: Random, path: str = "") -> str:
    """Change one value somewhere in nested dictionaries and lists."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = pick(rng, keys)
    if isinstance(tree[key], dict | list) and len(tree[key]) and rng.random() < 0.7:
        return _spoil_tree(tree[key], rng, f"{path}.{key}")
    if rng.random() < 0.15:
        del tree[key]
        return f"{path}.{key} deleted"
    tree[key] = pick(rng, VALUES)
    return f"{path}.{key} = {tree[key]!r}"[:200]


def _spoil_arrays(path: Path, rng: Random) -> str:
    with np.load(path) as stored:
        arrays = dict(stored)
    name = pick(rng, sorted(arrays))
    array = arrays[name]
    match pick(rng, ["delete", "type", "value", "shape", "longer"]):
        case "delete":
            del arrays[name]
        case "type":
            kind = pick(rng, ["i1", "u8", "f2", "f8", "c8", "S3", "U3", "M8[s]"])
            arrays[name] = np.resize(np.array(["1"]).astype(kind if kind[0] in "SU" else "U3"), array.shape)
            if kind[0] not in "SU":
                arrays[name] = np.ones(array.shape, kind[:2] if kind[0] != "M" else kind)
        case "value":
            flat = array.reshape(-1)
            at = rng.integers(0, flat.size, 5)
            with np.errstate(all="ignore"):
                if array.dtype.kind in "SU":
                    flat[at] = np.array([pick(rng, [b"", b"\xff\xfe", b"a/b", b"=1+1"])] * 5).astype(
                        array.dtype
                    )
                else:
                    flat[at] = np.float64(pick(rng, NUMBERS)).astype(array.dtype)
        case "shape":
            arrays[name] = pick(
                rng, [array[None], array[:0], array.reshape(-1), array[..., None], array[:-1]]
            )
        case "longer":
            arrays = {key: np.concatenate([value, value]) for key, value in arrays.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    path.write_bytes(stream.getvalue())
    return f"references.npz: {name}"


def _spoil_network(path: Path, rng: Random) -> str:
    model = onnx.load(path)
    graph = model.graph
    what = pick(rng, ["weights", "node", "op", "opset", "shape", "input", "order", "attribute"])
    node = pick(rng, graph.node)
    match what:
        case "weights":
            chosen = pick(rng, graph.initializer)
            array = onnx.numpy_helper.to_array(chosen).copy()
            with np.errstate(all="ignore"):
                array.reshape(-1)[...] = np.float64(pick(rng, NUMBERS)).astype(array.dtype)
            chosen.CopyFrom(onnx.numpy_helper.from_array(array, chosen.name))
        case "node":
            graph.node.remove(node)
        case "op":
            node.op_type = pick(rng, ["Relu", "Exp", "Log", "Neg", "Sqrt", "Identity", "Shape", "Nothing"])
        case "opset":
            model.opset_import[0].version = pick(rng, [0, 1, 7, 99, 2**40])
        case "shape":
            dims = pick(rng, graph.input).type.tensor_type.shape.dim
            if len(dims):
                pick(rng, dims).dim_value = pick(rng, [0, 1, 5, 2**40])
        case "input":
            pick(rng, graph.input).name = "other"
        case "order":
            node.input.reverse()
        case "attribute":
            attributes = [a for n in graph.node for a in n.attribute if a.ints or a.i]
            if attributes:
                attribute = pick(rng, attributes)
                number = pick(rng, [0, -1, 3, 10**6, 2**40, 2**62])
                if attribute.ints:
                    attribute.ints[0] = number
                else:
                    attribute.i = number
    path.write_bytes(model.SerializeToString())
    return f"{path.name}: {what} {node.op_type}"


# --- manifests ---


def spoil_manifest(cohort: Path, base: Path, rng: Random) -> str:
    """Change cells, columns, lines or bytes of a manifest."""
    path = cohort / "manifest.csv"
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    name = pick(rng, ["cell", "cell", "column", "line", "bytes", "code", "other"])
    match name:
        case "cell":
            row = pick(rng, rows)
            at = int(rng.integers(len(row)))
            row[at] = pick(
                rng,
                [*map(str, VALUES), "9" * 5000, "a\0b", '"', '""x', "../..", "/dev/zero", ".", "roi0.nii.gz"],
            )
            name = f"cell {row[at]!r}"[:100]
        case "column":
            at = int(rng.integers(len(rows[0])))
            for row in rows:
                del row[at]
        case "line":
            rows = pick(rng, [rows[:1], rows + rows, rows[1:], [], [*rows[:1], [], *rows[1:]], rows[:2]])
    data = "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")
    match name:
        case "bytes":
            data = spoil_bytes(data, rng)
        case "code":
            data = data.decode().encode(pick(rng, ["utf-16", "utf-8-sig", "utf-32"]))
    path.write_bytes(data)
    return replace_by_other(pick(rng, sorted(cohort.iterdir())), base, rng) if name == "other" else name


# --- mutants ---


def _label(scan: str, mask: str, bundle: str, rng: Random) -> list[str]:
    args = ["label", scan, "--roi", mask, "--bundle", bundle, "--json", "out.json"]
    return args + (["--csv", "out.csv", "--png", "out"] if rng.random() < 0.1 else [])


def _one(folder: Path, base: Path, rng: Random, name: str, spoil: Callable[..., str], times: int) -> str:
    (shutil.copytree if (base / name).is_dir() else shutil.copy)(base / name, folder / name)
    done = []
    for _ in range(times):
        try:
            done.append(spoil(folder / name, base, rng))
        except Exception:  # what was spoilt cannot always be spoilt again
            if not done:
                raise
    return "; ".join(done)


KINDS = {
    "scan": ("scan.nii.gz", spoil_nifti),
    "mask": ("mask.nii.gz", spoil_nifti),
    "DICOM": ("dicom", spoil_dicom),
    "bundle": ("bundle", spoil_bundle),
    "manifest": ("cohort", spoil_manifest),
}


def make_mutant(seed: int, base: Path, folder: Path) -> tuple[str, str, list[str]]:
    """Write a mutant to an empty folder.

    Returns:
        Its kind, what was done to it, and the arguments that run it in that folder.
    """
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    name, spoil = KINDS[kind]
    what = _one(folder, base, rng, name, spoil, 2 if rng.random() < 0.2 else 1)
    inputs = {"scan.nii.gz": str(base / "scan.nii.gz"), "mask.nii.gz": str(base / "mask.nii.gz")}
    inputs |= {"bundle": str(base / "bundle"), name: name}
    if kind == "manifest":
        return kind, what, ["references", "add", inputs["bundle"], name, "--out", "out"]
    scan, mask = inputs["scan.nii.gz"], inputs["mask.nii.gz"]
    if kind == "DICOM":
        scan, mask = name, str(base / "dicom.nii.gz")
    return kind, what, _label(scan, mask, inputs["bundle"], rng)


def check_json(path: Path) -> str:
    """What is wrong with the JSON of the findings; empty if nothing is."""
    from jsonschema import ValidationError
    from phantoms.findings_schema import read_findings

    def refuse(name: str) -> None:
        raise ValueError(f"JSON with {name}")

    try:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        read_findings(path.read_text(encoding="utf-8"))
    except (ValueError, ValidationError) as error:
        return f"JSON: {str(error).splitlines()[0]}"
    return ""
