"""The process that runs mutants, one after the other: ``python -m fuzz.child BASE SCRATCH FIRST LAST STEP``.

It prints one line of JSON for each, and dies of a mutant that takes too long or too much memory.
"""

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

CPU_SECONDS = 10.0
MEMORY_BYTES = 400 * 2**20  # above what a plain run has mapped


def main() -> None:
    base, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    first, last = map(int, sys.argv[3:5])
    report = os.fdopen(os.dup(1), "w")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.pop("SITUS_DEBUG", None)

    from fuzz.mutants import check_json, make_mutant

    plain = [str(base / "scan.nii.gz"), "--roi", str(base / "mask.nii.gz"), "--bundle", str(base / "bundle")]
    for args in (
        ["label", *plain, "--json", "out.json", "--csv", "out.csv", "--png", "out"],
        ["label", str(base / "dicom"), "--roi", str(base / "dicom.nii.gz"), *plain[3:]],
        ["references", "add", str(base / "bundle"), str(base / "cohort"), "--out", "out"],
    ):
        code, _, err = run(args, _empty(scratch))
        if code:
            raise SystemExit(f"the whole inputs are refused: {err}")
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, resource.RLIM_INFINITY))

    for seed in range(first, last):
        print(json.dumps({"begin": seed}), file=report, flush=True)
        folder = _empty(scratch)
        kind, what, args = make_mutant(seed, base, folder)
        print(json.dumps({"kind": kind, "what": what}), file=report, flush=True)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process
        code, out, err = run(args, folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        fault = judge(code, out, err, folder)
        if not fault and (folder / "out.json").exists():
            fault = check_json(folder / "out.json")
        print(
            json.dumps({"seed": seed, "code": code, "err": err[:400], "fault": fault}),
            file=report,
            flush=True,
        )


def judge(code: int, out: str, err: str, folder: Path) -> str:
    """What a run did that no run may do; empty if nothing."""
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in out + err:
        return "traceback"
    if any(path.name.startswith(".") for path in folder.iterdir()):
        return "leftovers"
    if code == 0:
        return "text on standard error" if err else ""
    if err.count("\n") != 1 or not err.startswith("situs: error: "):
        return "not one line on standard error"
    if len(err) > 1000:
        return "a line of over 1,000 characters"
    return "output of a refused run" if out or any(folder.glob("out*")) else ""


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
