"""What a worker of a batch does: one scan, and the part with what became of it."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from situs import __version__
from situs.batch.manifest import Case
from situs.batch.parts import page_path, write_part
from situs.errors import InputError, OutputError, SitusError
from situs.files import write_file
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.report import to_json_object
from situs.volume import split_regions

__all__ = ["label_case", "label_in_process", "worker_state"]


def label_case(
    case: Case, folder: Path, out: Path, labeler: Labeler, texts: Mapping[str, str] | None = None
) -> None:
    """Label the scan of a case and write its part; a scan that cannot be labelled has a part with the reason.

    Args:
        case: The row of the manifest.
        folder: What its paths are relative to.
        out: The folder of the batch.
        labeler: The labeler.
        texts: The words of the page (`situs.report.html.read_texts`), which is written before the part. None
            for no page.

    Raises:
        OutputError: The part or the page cannot be written.
    """
    if case.error:
        return write_part(out, case, None, case.error)
    scan, roi = folder / case.scan, folder / case.roi
    try:
        by_index = case.mask_space == "index"
        volume = read_volume(scan, case.series or None, None if by_index else roi)
        regions = read_rois(roi, volume, case.mask_space or None)  # type: ignore[arg-type]
        lesions, outside = split_regions(regions)
        findings = labeler.label(volume, [*lesions, *outside])
        if texts is not None:
            from situs.report.html import format_html

            page = format_html(volume, lesions, findings, labeler.bundle.picture, texts)
            write_file(page_path(out, case.number), page.encode("utf-8", "replace"))
        write_part(out, case, to_json_object(volume, findings))
    except OutputError:
        raise
    except SitusError as error:
        text = str(error).replace(str(scan), case.scan).replace(str(roi), case.roi)
        write_part(out, case, None, text)
    except Exception as fault:  # its text may quote a header
        write_part(out, case, None, f"internal fault: {type(fault).__name__}")


def label_in_process(
    case: Case, folder: Path, out: Path, bundle: str | None, texts: Mapping[str, str] | None = None
) -> None:
    """`label_case` in a process of its own, which keeps its labeler and lets the first one handle Ctrl-C."""
    if threading.current_thread() is threading.main_thread():  # a worker of Dask has its own ways
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with warnings.catch_warnings():
        if not os.environ.get("SITUS_DEBUG"):  # warnings of DICOM readers quote header values
            warnings.simplefilter("ignore")
        label_case(case, folder, out, _labeler(bundle), texts)


def worker_state(bundle: str | None, folders: Sequence[Path]) -> tuple[str, str]:
    """What a worker labels with: the versions of situs and of the bundle.

    Raises:
        InputError: It does not see one of the folders, or cannot use the bundle.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder: mount it at the same place on all computers")
    own = _labeler(bundle).bundle
    return f"situs {__version__}", f"bundle {own.name} {own.version}"


@cache
def _labeler(bundle: str | None) -> Labeler:
    return Labeler.load(bundle)
