"""What the mutators share: seeded choices, odd values, spoilt bytes, and other things in a file's place."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Random = np.random.Generator

NUMBERS: list[Any] = [0, -1, 1, 2, 7, 255, 65535, 2**31 - 1, -(2**31), 2**62, 10**9]
NUMBERS += [0.5, -0.0, 1e-30, 200.0, 1e10, 1e30, 1e300, float("nan"), float("inf"), float("-inf")]
VALUES: list[Any] = [*NUMBERS, None, True, "", "x", "é\n\t", "x" * 5000, [], {}, [[]], [None], {"a": 1}, "0"]


ALL = ("site", "side")
NOTHING = ()


class Spoilt(NamedTuple):
    """What was done to an input.

    Attributes:
        what: It, for the report.
        keeps: What of each lesion's answer must stay the same, unless a doubt, a note or an assumption says
            why it does not. `ALL` if voxels, regions, networks and references are still there.
    """

    what: str
    keeps: tuple[str, ...] = NOTHING


def pick(rng: Random, options: Any) -> Any:
    """One of a sequence, with its own type."""
    return options[int(rng.integers(len(options)))]


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


def spoil_tree(tree: Any, rng: Random, path: str = "") -> str:
    """Change one value somewhere in nested dictionaries and lists."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = pick(rng, keys)
    if isinstance(tree[key], dict | list) and len(tree[key]) and rng.random() < 0.7:
        return spoil_tree(tree[key], rng, f"{path}.{key}")
    if rng.random() < 0.15:
        del tree[key]
        return f"{path}.{key} deleted"
    tree[key] = pick(rng, VALUES)
    return f"{path}.{key} = {tree[key]!r}"[:200]


def replace_by_other(path: Path, base: Path, rng: Random) -> Spoilt:
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
    return Spoilt(f"{path.name}: {name}")
