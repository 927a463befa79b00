"""Mutants of a bundle, and of a cohort's manifest."""

import io
from pathlib import Path

import numpy as np
import onnx
from phantoms.signed import sign

from fuzz.spoil import NUMBERS, VALUES, Random, Spoilt, pick, replace_by_other, spoil_bytes, spoil_tree


def spoil_bundle(folder: Path, base: Path, rng: Random) -> Spoilt:
    """Change the description, the arrays or the networks, and sign the result with good hashes."""
    name = pick(rng, ["description", "description", "arrays", "network", "bytes", "other"])
    match name:
        case "description":
            changed: list[str] = []
            sign(folder, lambda description: changed.append(spoil_tree(description, rng)))
            return Spoilt(f"description: {changed[0]}")
        case "arrays":
            name = _spoil_arrays(folder / "references.npz", rng)
        case "network":
            name = _spoil_network(folder / pick(rng, ["basenet.onnx", "relation.onnx"]), rng)
        case "bytes":
            path = pick(rng, sorted(folder.iterdir()))
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
            name = f"{path.name}: bytes"
            if path.suffix == ".json":
                return Spoilt(name)
        case "other":
            return replace_by_other(pick(rng, sorted(folder.iterdir())), base, rng)
    sign(folder)
    return Spoilt(name)


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


def spoil_manifest(cohort: Path, base: Path, rng: Random) -> Spoilt:
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
    if name == "other":
        return replace_by_other(pick(rng, sorted(cohort.iterdir())), base, rng)
    return Spoilt(name)
