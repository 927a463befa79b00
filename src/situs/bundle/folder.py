"""Where a bundle may be written: what holds anything else is refused before the work."""

from __future__ import annotations

from pathlib import Path

from situs.bundle import Bundle, is_shipped
from situs.bundle.format import CARD_FILE, JSON_FILE, PICTURES_FILE, REQUIRED_FILES
from situs.errors import BundleError, OutputError
from situs.files import check_folder, sweep

__all__ = ["check_replaceable", "output_folder"]


def output_folder(bundle: Bundle, out: str | Path | None) -> Path:
    """The folder that a changed bundle is written to. What cannot be written is refused before the work.

    What killed runs left beside it is removed.

    Args:
        bundle: The bundle to change.
        out: The folder: new, empty, or a bundle. None is the bundle's own.

    Raises:
        BundleError: If the folder is the bundle inside the package.
        OutputError: If the folder holds something that is not a bundle, or cannot be written.
    """
    folder = bundle.path if out is None else Path(out)
    if is_shipped(folder):
        raise BundleError("the bundle inside the package is never changed: give --out NEW_BUNDLE")
    check_replaceable(folder)
    check_folder(folder)
    check_folder(folder.resolve().parent)  # the folder is written beside its place and renamed
    sweep(folder.resolve().parent)
    return folder


def check_replaceable(out: Path) -> None:
    """Refuse a folder that holds anything but an older bundle, because replacing it would delete that.

    Raises:
        OutputError: If `out` is a file, or a folder that is neither empty nor a bundle.
    """
    if out.is_dir():
        present = {entry.name for entry in out.iterdir()}
        own = {name for names in REQUIRED_FILES.values() for name in names}
        foreign = sorted(present - {*own, PICTURES_FILE, JSON_FILE, CARD_FILE})
        if present and (foreign or JSON_FILE not in present):
            what = f"it holds {foreign[0]}" if foreign else f"it has no {JSON_FILE}"
            raise OutputError(
                f"{out}: not overwritten, since it is not a bundle ({what}); choose another folder"
            )
    elif out.exists() or out.is_symlink():
        raise OutputError(
            f"{out}: not overwritten, since it is a file and not a bundle; choose another folder"
        )
