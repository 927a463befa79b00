"""Runs a batch: labels the rows that have no part yet, on one process or several, then writes the tables.

A watched batch does so again and again, as scans arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from situs import __version__
from situs.batch.manifest import Case, Manifest, find_pairs, match_pairs
from situs.batch.parts import PER_FOLDER, page_path, part_path, read_part, write_part
from situs.batch.summary import Summary
from situs.batch.tables import write_json_files, write_tables
from situs.batch.watch import Arrivals
from situs.batch.work import label_case, label_in_process
from situs.errors import MissingExtraError
from situs.files import claim_folder, digest, locked, make_folder, sweep, write_file
from situs.labeler import Labeler
from situs.progress import Progress, silent

if TYPE_CHECKING:
    from situs.batch.cluster import Cluster

__all__ = ["label_batch"]

_FORMAT = "situs.batch/1"
_NOTE = "batch.json"
_PAIRS = "manifest.csv"
_PAGE = "summary.html"
_WAKE_S = 0.2  # how soon a pause ends when it is to stop
_KILLED = "the process that labelled it was killed, twice; perhaps the scan needs more memory than there is"


def label_batch(
    source: Path | tuple[str, str],
    out: Path,
    bundle: str | None = None,
    jobs: int = 1,
    parquet: bool = False,
    json: bool = False,
    retry: bool = False,
    progress: Progress = silent,
    stop: Callable[[], bool] = lambda: False,
    language: str | None = None,
    page: bool = False,
    every: float | None = None,
    scheduler: str | None = None,
) -> Summary | None:
    """Label the scans of a manifest into a folder, or go on with what is there.

    Args:
        source: The manifest, CSV or Parquet; or two patterns, see `situs.batch.manifest.find_pairs`. Their
            manifest is written to the folder once.
        out: The folder. It is made unless it is there.
        bundle: Folder of a bundle; None for the shipped one.
        jobs: Processes. The tables do not depend on them.
        parquet: Whether to write ``findings.parquet`` beside ``findings.csv``.
        json: Whether to write a JSON file for each scan.
        retry: Whether to label again what failed in an earlier run.
        progress: Is told the number of ``scans`` that are done, with rate and time left.
        stop: Is asked before each scan whether to start no more.
        language: Of the page that is written for each scan, see `situs.report.html.read_texts`. None for no
            pages. Scans that were labelled without a page are labelled again.
        page: Whether to write ``summary.html``.
        every: Seconds between two looks for scans that have arrived, see `situs.batch.watch`; it goes on
            until it is to stop, and writes the tables whenever all that arrived is labelled. None to label
            what is there. A folder belongs to the one or to the other.
        scheduler: Address of a Dask scheduler, such as ``tcp://host:8786``, whose workers label the scans
            instead of processes here. They must see the scans and `out` at the same places.

    Returns:
        The counts; None if it was stopped before all scans were labelled.

    Raises:
        InputError: The manifest, the patterns, the bundle, the language or the scheduler cannot be used.
        OutputError: `out` belongs to another batch, another run is writing it, or it cannot be written.
        MissingExtraError: A package of the extra ``batch``, ``report`` or ``dask`` is absent.
    """
    _check_packages(jobs, parquet, page, scheduler)
    texts = None if language is None else _read_texts(language)
    labeler = Labeler.load(bundle)
    watched = source if every is not None and isinstance(source, tuple) else None
    # What cannot be used is refused before the folder is made.
    manifest, pairs = None, ""
    if isinstance(source, Path):
        manifest = Manifest(source)
    elif watched is not None:
        match_pairs(*watched)
    else:
        pairs = find_pairs(*source)
    with ExitStack() as stack:
        cluster = None if scheduler is None else stack.enter_context(_cluster(scheduler))
        stack.enter_context(locked(out))
        made_of = digest(source) if isinstance(source, Path) else list(source)
        version = [labeler.bundle.name, labeler.bundle.version]
        settings = {"format": _FORMAT, "situs": __version__, "bundle": version, "manifest": made_of}
        claim_folder(out, _NOTE, settings | {"watched": watched is not None}, {"watched": False})
        if pairs and not (out / _PAIRS).exists():
            write_file(out / _PAIRS, pairs.encode("utf-8", "replace"))
        folder = source.parent if isinstance(source, Path) else out
        if cluster is not None:  # whose workers were started elsewhere
            folder, out = folder.resolve(), out.resolve()
            bundle = None if bundle is None else str(Path(bundle).resolve())
            cluster.check(bundle, [folder, out])
        batch = _Batch(folder, out, bundle, labeler, jobs, cluster, stop, texts, parquet, json, page)
        if watched is not None and every is not None:
            return _watch(batch, Arrivals(watched, out / _PAIRS), every, retry, progress)
        manifest = manifest or Manifest(out / _PAIRS)
        if not _label_all(batch, manifest, retry, progress):
            return None
        return _write_results(batch, len(manifest))


@dataclass(frozen=True)
class _Batch:
    """What the scans of a batch are labelled with, and what is written; see `label_batch`."""

    folder: Path  # what the paths of the manifest are relative to
    out: Path
    bundle: str | None
    labeler: Labeler
    jobs: int
    cluster: Cluster | None
    stop: Callable[[], bool]
    texts: dict[str, str] | None
    parquet: bool
    json: bool
    page: bool

    def has(self, case: Case) -> bool:
        """Whether nothing is left to do for a case."""
        if not part_path(self.out, case.number).exists():
            return False
        if self.texts is None or page_path(self.out, case.number).exists():
            return True
        return bool(read_part(self.out, case.number).error)

    def forget_failure(self, number: int) -> bool:
        """Remove the part of a row if it holds an error; whether it did."""
        path = part_path(self.out, number)
        failed = path.exists() and bool(read_part(self.out, number).error)
        if failed:
            path.unlink()
        return failed


def _check_packages(jobs: int, parquet: bool, page: bool, scheduler: str | None) -> None:
    """Refuse what needs an absent package before the work."""
    try:
        if scheduler is not None:
            import distributed  # noqa: F401
        if jobs > 1:
            import joblib  # noqa: F401
        if parquet:
            import pyarrow.parquet  # noqa: F401
        if page:
            import jinja2  # noqa: F401
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise MissingExtraError(package, "dask" if package == "distributed" else "batch") from error


def _cluster(scheduler: str) -> Cluster:
    from situs.batch.cluster import Cluster  # only with Dask

    return Cluster(scheduler)


def _read_texts(language: str) -> dict[str, str]:
    try:
        from situs.report.html import read_texts
    except ModuleNotFoundError as error:
        raise MissingExtraError.from_import(error) or error from error
    return read_texts(language)


def _watch(
    batch: _Batch, arrivals: Arrivals, every: float, retry: bool, progress: Progress
) -> Summary | None:
    """Label what has arrived and write the results, again and again until it is to stop."""
    summary = Summary(batch.labeler.bundle.sites)
    due = True  # for what an earlier run left
    while True:
        if due:
            if arrivals and not _label_all(batch, Manifest(batch.out / _PAIRS), retry, progress):
                return None
            summary, retry = _write_results(batch, len(arrivals)), False
        progress("scans", len(arrivals), len(arrivals), "waiting for more, until Ctrl-C")
        until = time.monotonic() + every
        while (left := until - time.monotonic()) > 0 and not batch.stop():
            time.sleep(min(left, _WAKE_S))
        if batch.stop():
            return summary
        due = arrivals.look(batch.forget_failure)


def _write_results(batch: _Batch, length: int) -> Summary:
    """Write the tables, and what else was asked for, from the parts of all rows."""
    rows, bundle = range(1, length + 1), batch.labeler.bundle
    parts = (read_part(batch.out, row) for row in rows)
    summary = write_tables(batch.out, parts, bundle.sites, batch.parquet)
    if batch.json:
        write_json_files(batch.out, (read_part(batch.out, row) for row in rows))
    if batch.page:
        from situs.batch.page import format_summary

        text = format_summary(summary, f"{bundle.name} {bundle.version}")
        write_file(batch.out / _PAGE, text.encode("utf-8", "replace"))
    return summary


def _label_all(batch: _Batch, manifest: Manifest, retry: bool, progress: Progress) -> bool:
    """Label all rows without a part, a folder of parts at a time; whether none is left."""
    total, done, new = len(manifest), 0, 0
    began = time.monotonic()
    cases = iter(manifest)
    while block := list(islice(cases, PER_FOLDER)):
        folder = part_path(batch.out, block[0].number).parent
        make_folder(folder)
        if batch.texts is not None:
            make_folder(page_path(batch.out, block[0].number).parent)
        if retry:
            for case in block:
                batch.forget_failure(case.number)
        todo = [case for case in block if not batch.has(case)]
        done += len(block) - len(todo)
        progress("scans", done, total)
        try:
            for _ in _label_block(batch, todo):
                done, new = done + 1, new + 1
                progress("scans", done, total, _pace(new, time.monotonic() - began, total - done))
        finally:
            sweep(folder)  # of processes that joblib ended
        if batch.stop() and done < total:
            return False
    return True


def _label_block(batch: _Batch, todo: list[Case]) -> Iterator[None]:
    """Label cases, and yield after each; it ends early if it is to stop."""
    if batch.cluster is not None:
        yield from _on_cluster(batch, batch.cluster, todo)
        return
    if batch.jobs == 1:  # needs no more packages than labelling does
        for case in todo:
            if batch.stop():
                return
            label_case(case, batch.folder, batch.out, batch.labeler, batch.texts)
            yield
        return
    started: list[Case] = []
    while todo and not batch.stop():
        try:
            yield from _in_processes(batch, todo, started)
            return
        except BrokenProcessPool:
            if batch.stop():
                return
            # One of the scans killed its process, but which one: each goes alone.
            lost = [case for case in started if not batch.has(case)]
            for case in lost:
                try:
                    list(_in_processes(batch, [case], []))
                except BrokenProcessPool:
                    write_part(batch.out, case, None, _KILLED)
                yield
            todo = [case for case in todo if not batch.has(case)]


def _on_cluster(batch: _Batch, cluster: Cluster, todo: list[Case]) -> Iterator[None]:
    """Label cases on the workers of a scheduler, as `_label_block` does."""
    label = partial(
        label_in_process, folder=batch.folder, out=batch.out, bundle=batch.bundle, texts=batch.texts
    )
    killed: list[Case] = []
    for case, was_killed in cluster.label(label, takewhile(lambda _: not batch.stop(), todo)):
        if was_killed:
            killed.append(case)
        else:
            yield
    for case in killed:  # perhaps by another scan on the same worker: each goes alone
        for _, again in cluster.label(label, iter([case])):
            if again:
                write_part(batch.out, case, None, _KILLED)
        yield


def _in_processes(batch: _Batch, todo: list[Case], started: list[Case]) -> Iterator[Any]:
    """Label cases on several processes; those that were given to one join `started`."""
    from joblib import Parallel, delayed

    def tasks() -> Iterator[Any]:
        for case in todo:
            if batch.stop():
                return
            started.append(case)
            yield delayed(label_in_process)(case, batch.folder, batch.out, batch.bundle, batch.texts)

    run = Parallel(n_jobs=batch.jobs, return_as="generator_unordered", batch_size=1)
    results: Iterator[Any] = run(tasks())
    return results


def _pace(new: int, seconds: float, left: int) -> str:
    """The rate of this run, and the time that the rest needs at this rate."""
    rate = new / max(seconds, 1e-6)
    return f"{rate:.2f} a second, {timedelta(seconds=round(left / rate))} left"
