"""The files that the stages of `situs reproduce` leave: written whole, read back, never mixed with another
run's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from situs.errors import OutputError
from situs.files import make_folder, replacing, sweep

__all__ = ["Arrays", "keep_settings", "make_stage", "read_stage"]

Arrays = dict[str, NDArray[Any]]


def make_stage(path: Path, make: Callable[[], Arrays]) -> None:
    """Make and write what a stage leaves, unless it is there.

    Raises:
        OutputError: if it cannot be written
    """
    if not path.exists():
        arrays = make()
        make_folder(path.parent)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def read_stage(path: Path, *names: str) -> Arrays:
    """What a stage has left; the arrays of these `names`, at least, must be there.

    Raises:
        OutputError: if the file is damaged, or of a version that had other names
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise OutputError(f"{path}: is damaged: delete it to run this stage again") from error
    if not set(names) <= set(arrays):
        raise OutputError(f"{path}: is of an earlier version: delete it to run this stage again")
    return arrays


def keep_settings(home: Path, settings: dict[str, Any]) -> None:
    """Open a folder for a run: note its settings, and remove what a killed one left half written.

    Raises:
        OutputError: if the folder holds a run of other settings, or cannot be written
    """
    make_folder(home)
    sweep(home)
    note = home / "settings.json"
    text = json.dumps(settings, indent=1)
    try:
        if note.exists() and note.read_text(encoding="utf-8") != text:
            raise OutputError(f"{home}: holds a run of other settings: delete it or choose another --work")
    except (UnicodeDecodeError, PermissionError) as error:
        raise OutputError(f"{note}: is damaged: delete {home} or choose another --work") from error
    with replacing(note) as temporary:
        temporary.write_text(text, encoding="utf-8")
