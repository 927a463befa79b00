"""The process that runs mutants, one after the other: ``python -m fuzz.child BASE SCRATCH FIRST LAST``.

It prints lines of JSON for each, and dies of a mutant that takes too long or too much memory.
"""

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from fuzz.judge import outcome
from fuzz.mutants import KINDS, make_mutant, plain_args

CPU_SECONDS = 10.0
PICTURES_CPU_SECONDS = 60.0  # a picture takes 0.1 s, and specks are some hundred lesions
MEMORY_BYTES = 400 * 2**20  # above what a plain run has mapped


def main() -> None:
    base, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    first, last = map(int, sys.argv[3:5])
    lines = os.fdopen(os.dup(1), "w")
    os.environ.pop("SITUS_DEBUG", None)

    def report(**line: Any) -> None:
        print(json.dumps(line), file=lines, flush=True)

    _make_cheap()
    plain = {kind: _plain_findings(tuple(plain_args(kind, base, {})), _empty(scratch)) for kind in KINDS}
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, resource.RLIM_INFINITY))

    for seed in range(first, last):
        report(begin=seed)
        folder = _empty(scratch)
        mutant = make_mutant(seed, base, folder)
        report(kind=mutant.kind, what=mutant.spoilt.what)
        limit = PICTURES_CPU_SECONDS if "--png" in mutant.args else CPU_SECONDS
        signal.setitimer(signal.ITIMER_PROF, limit)  # its signal ends the process
        ran = run(mutant.args, folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        report(outcome=outcome(ran, folder, plain[mutant.kind], mutant.spoilt.keeps), text=ran[2][:400])


def _make_cheap() -> None:
    """Keep what a process makes once from what never changes, and make the search for symmetry coarse."""
    import typer.main

    from situs import midplane, runtime

    typer.main.get_command = cache(typer.main.get_command)
    make_session = runtime._session
    session_of = lru_cache(8)(lambda data, path, threads: make_session(path, threads))
    runtime._session = lambda path, threads: session_of(path.read_bytes(), path, threads)
    midplane._POINTS = 600


@cache
def _plain_findings(args: tuple[str, ...], folder: Path) -> dict[str, Any] | None:
    """The JSON object of the whole input's findings; None for a command that finds nothing."""
    pictures = ["--csv", "out.csv", "--png", "out"] if args[0] == "label" else []
    code, _, err = run([*args, *pictures], folder)
    if code:
        raise SystemExit(f"the whole inputs are refused: {err}")
    if not pictures:
        return None
    report: dict[str, Any] = json.loads((folder / "out.json").read_text())
    if not all(finding["sure"] for finding in report["findings"]):
        raise SystemExit("the whole inputs are in doubt, so that no change of them could be silent")
    return report


def run(args: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code and both streams, those of libraries in C too, of the command line in a folder."""
    from situs.cli import main as situs

    os.chdir(folder)
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            code = situs(args)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in enumerate(kept, start=1):
                os.dup2(before, number)
                os.close(before)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    return code, texts[0], texts[1]


def _empty(folder: Path) -> Path:
    os.chdir("/")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
