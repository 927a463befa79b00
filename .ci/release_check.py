"""Is a release ready: build it, look into it, install it into clean environments, and use it there.

    .venv/bin/python .ci/release_check.py

Nothing is published. It needs the network for packages, and the extra `dev`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from situs.tables import text_table

REPO = Path(__file__).resolve().parents[1]
BUNDLE = "situs/data/bundle/"
MOST_BYTES = 12 * 2**20
NEEDED = (
    "LICENSE",
    "NOTICE",
    "niivue.LICENSE.txt",
    "py.typed",
    "findings.schema.json",
    "head.nii.gz",
    "en.json",
)
# The extras of whoever uses situs; the others are of whoever works on it.
_PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [name for name in _PROJECT["optional-dependencies"] if name not in ("bench", "docs", "dev")]
# Licences that may be installed beside an Apache-2.0 package without a thought.
FREE = re.compile(r"apache|\bmit\b|bsd|isc|python|psf|mpl|mozilla|hpnd|zlib|0bsd|cc0", re.IGNORECASE)
# Others that were looked at, and where that is told.
TOLD = {"pylibjpeg-libjpeg": "NOTICE"}


def main() -> int:
    """Run every check; the first that fails ends the run with its output."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run("build", sys.executable, "-m", "build", "--outdir", str(out), str(REPO))
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        run("twine check", sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        check_files(wheel, sdist)
        for archive in (wheel, sdist):
            use(archive, out / archive.name.replace(".", "_"))
    print(text_table(size_rows()))
    check_licences()
    print("The release is ready.")
    return 0


def run(what: str, *command: str, cwd: Path | None = None) -> str:
    """Run a program; what it prints. A failure shows all of it."""
    print(f"{what} ...", flush=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=clean)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_files(wheel: Path, sdist: Path) -> None:
    """No large file but the bundle's, and all that a user needs."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    with tarfile.open(sdist) as tar:
        source = {entry.name: entry.size for entry in tar}
    for name, size in {**sizes, **source}.items():
        if size > MOST_BYTES and BUNDLE not in name:
            sys.exit(f"{name}: has {size} bytes, at most {MOST_BYTES} are allowed: leave it out")
    for word in NEEDED:
        if not any(name.endswith(word) for name in sizes):
            sys.exit(f"{wheel.name}: lacks {word}")
    if any(name.startswith("tests/") for name in sizes):
        sys.exit(f"{wheel.name}: holds tests")
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MB, {len(sizes)} files")
    print(f"{sdist.name}: {sdist.stat().st_size / 2**20:.1f} MB, {len(source)} files")


def use(archive: Path, environment: Path) -> None:
    """Install an archive into a new environment, and label the example there, from an empty folder."""
    run(f"environment for {archive.name}", sys.executable, "-m", "venv", str(environment))
    python = str(environment / "bin" / "python")
    constraints = str(REPO / "constraints.txt")
    run("install", python, "-m", "pip", "install", "--quiet", "-c", constraints, str(archive))
    situs = str(environment / "bin" / "situs")
    print(run("situs --version", situs, "--version", "--verbose").splitlines()[0])
    code = "from importlib.resources import files; print(files('situs') / 'data/example')"
    example = run("example", python, "-c", code, cwd=environment).strip()
    label = (situs, "label", f"{example}/head.nii.gz", "--roi", f"{example}/lesions.nii.gz", "--json", "-")
    findings = json.loads(run("label the example", *label, cwd=environment))["findings"]
    if len(findings) != 6 or not all(finding["site"] for finding in findings):
        sys.exit(f"{archive.name}: the example has six lesions with sites, got {findings}")
    total = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file())
    print(f"{archive.name}: installed with all it needs, {total / 2**20:.0f} MB")


def closure(extra: str = "") -> set[str]:
    """The distributions that situs with an extra installs, of those that are installed here."""
    found: set[str] = set()
    todo = [("situs", {extra})]
    while todo:
        name, extras = todo.pop()
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # of another system
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for line in lines:
            needed = Requirement(line)
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras | {""})
            if wanted and re.sub(r"[-_.]+", "-", needed.name).lower() not in found:
                todo.append((needed.name, set(needed.extras)))
    return found


def megabytes(name: str) -> float:
    """What a distribution's files take."""
    files = distribution(name).files or []
    sizes = (Path(str(file.locate())).stat().st_size for file in files if Path(str(file.locate())).is_file())
    return sum(sizes) / 2**20


def size_rows() -> list[list[str]]:
    """A table: what the core and each extra beyond it take, measured here."""
    core = closure()
    rows = [["", "packages", "MB"]]
    # Of an editable install the files are those of the source.
    own = sum(
        path.stat().st_size
        for path in (REPO / "src" / "situs").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    )
    rows.append(["situs itself", "1", f"{own / 2**20:.0f}"])
    rows.append(["what it needs", str(len(core) - 1), f"{sum(megabytes(n) for n in core - {'situs'}):.0f}"])
    for extra in EXTRAS:
        more = closure(extra) - core
        rows.append([f"extra {extra}", str(len(more)), f"{sum(megabytes(name) for name in more):.0f}"])
    return rows


def check_licences() -> None:
    """Print the licences of all that the core and the extras install; one that is not known ends the run."""
    rows, odd = [["package", "licence"]], []
    for name in sorted(set().union(*(closure(extra) for extra in ("", *EXTRAS))) - {"situs"}):
        licence = licence_of(name)
        rows.append([name, licence])
        known = FREE.search(licence) and not re.search(r"gpl|general public", licence, re.IGNORECASE)
        if not known and not (name in TOLD and name in (REPO / TOLD[name]).read_text(encoding="utf-8")):
            odd.append(f"{name} ({licence})")
    print(text_table(rows))
    if odd:
        sys.exit(f"licences to look at: {', '.join(odd)}")


def licence_of(name: str) -> str:
    """The licence as a distribution states it, in one short line."""
    meta = distribution(name).metadata
    classifiers = [line.split(" :: ")[-1] for line in meta.get_all("Classifier", []) if "License ::" in line]
    stated = meta.get("License-Expression") or ", ".join(classifiers) or meta.get("License") or "not stated"
    return stated.strip().splitlines()[0][:60]


if __name__ == "__main__":
    sys.exit(main())
