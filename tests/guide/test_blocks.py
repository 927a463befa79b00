"""Every code block of the guide: its language is named, its commands exist, and it runs.

`bash` and `python` blocks run, those of a page one after the other in one folder. `json` and `csv` are read.
A `text` block is not run; its title says why, or what it shows.
"""

import csv
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copy

import nibabel
import numpy as np
import pytest
from phantoms import REPO, SHARED

from situs.cli import main

# Notes are what was done at their date; their commands need hours and data.
NOTES = {"method.md", "results.md", "reproduce.md"}
PAGES = [
    path.relative_to(REPO).as_posix()
    for path in (REPO / "README.md", *sorted((REPO / "docs").rglob("*.md")))
    if path.name not in NOTES and not path.parent.name.startswith("results")
]
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPENING = re.compile(r'(\w+)(?: title="(.+)")?')
HEADS = SHARED / "data" / "heads"


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands after its fence, and what is in it."""

    opening: str
    content: str

    @property
    def language(self) -> str:
        return self.opening.partition(" ")[0]

    @property
    def lines(self) -> list[str]:
        """The commands, those that go on in the next line joined."""
        return [line for line in self.content.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall((REPO / page).read_text(encoding="utf-8"))]


def commands() -> list[list[str]]:
    """The words of each line `situs ...` of the guide, each once."""
    lines = {line for page in PAGES for block in blocks(page) for line in block.lines}
    return [shlex.split(line, comments=True)[1:] for line in sorted(lines) if line.startswith("situs ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        opening = _OPENING.fullmatch(block.opening)
        assert opening and opening[1] in ("bash", "csv", "json", "python", "text"), block
        assert opening[2] or opening[1] != "text", f"{block}: a title says why it is not run"
        if opening[1] == "json":
            json.loads(block.content)
        if opening[1] == "csv":
            assert len({len(row) for row in csv.reader(block.lines)}) == 1


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_of_the_guide_exist(words, capsys):
    depth = 0 if words[0].startswith("-") else 2 if words[0] in ("references", "pacs") else 1
    assert main([*words[:depth], "--help"]) == 0
    options = capsys.readouterr().out.replace(",", " ").split()
    assert set(word for word in words if word.startswith("--")) <= set(options)


def example(folder: Path) -> None:
    """What the guide's commands find: the example under several names, DICOM, a cohort, heads."""
    from phantoms.dicom_case import PATIENT
    from phantoms.dicom_rois import write_seg
    from phantoms.io_cases import dicom_slices, write_dicom
    from phantoms.small_cohort import draw_cohort

    data = REPO / "src" / "situs" / "data" / "example"
    for name in ("scans", "masks"):
        (folder / name).mkdir()
    for scan in ("scan.nii.gz", "scans/01.nii.gz"):
        copy(data / "head.nii.gz", folder / scan)
    for mask in ("lesions.nii.gz", "masks/01.nii.gz"):
        copy(data / "lesions.nii.gz", folder / mask)
    mask = nibabel.load(data / "lesions.nii.gz")
    likely = np.where(np.asarray(mask.dataobj) > 0, np.float32(0.8), np.float32(0.1))
    nibabel.save(nibabel.Nifti1Image(likely, mask.affine), folder / "probabilities.nii.gz")
    (folder / "manifest.csv").write_text("scan,roi\nscan.nii.gz,lesions.nii.gz\n")
    copy(REPO / "examples" / "finer_sites.csv", folder)
    draw_cohort(folder / "cohort")
    slices = dicom_slices(range(-40, 41, 16), **PATIENT)
    write_dicom(folder / "dicom_folder", slices)
    masks = np.zeros((1, len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    masks[0, 1:4, 20:30, 10:18] = 1
    write_seg(folder / "segmentation.dcm", slices, masks)
    if HEADS.exists():
        (folder / "heads").mkdir()
        for path in sorted(HEADS.glob("*.nii.gz"))[:1]:
            (folder / "heads" / path.name).symlink_to(path)


def shorten_training(patch: pytest.MonkeyPatch) -> None:
    """A training of seconds, of a narrow network."""
    from phantoms.tiny_recipe import SHORT, narrow_basenet

    from situs.learn import basenet
    from situs.learn.recipe import RECIPES

    patch.setitem(RECIPES, "compact", replace(SHORT, name="compact"))
    patch.setattr(basenet, "compact_basenet", narrow_basenet)


def shorten_continuation(patch: pytest.MonkeyPatch) -> None:
    """Likewise, where it goes on from the shipped bundle, whose network and views it must have."""
    from situs.learn.recipe import COMPACT, RECIPES

    patch.setitem(RECIPES, "compact", replace(COMPACT, relation_samples=64, n_references=2, n_targets=4))


def run_bash(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a block: those of situs in this process, others in a shell."""
    for line in block.lines:
        if " heads/ " in line and not Path("heads").exists():
            continue  # label maps are not part of the repository
        if line.startswith("situs "):
            with monkeypatch.context() as patch:
                if line.startswith("situs train "):
                    (shorten_continuation if "--init" in line else shorten_training)(patch)
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
        else:
            subprocess.run(["bash", "-ec", line], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/serve.md"])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    todo = [block for block in blocks(page) if block.language in ("bash", "python")]
    if not todo:
        return
    example(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in todo:
        if block.language == "bash":
            run_bash(block, monkeypatch)
        else:
            exec(compile(block.content, page, "exec"), names)


@pytest.mark.slow
def test_the_requests_of_the_guide_are_answered(tmp_path):
    """The lines of docs/serve.md in one shell, beside a server."""
    example(tmp_path)
    token = {"SITUS_TOKEN": "0123456789abcdef", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "situs", "serve", "--port", "0", "--no-browser"]
    python_path = {"PYTHONPATH": str(REPO / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**token, **python_path}) as server:
        try:
            address = server.stdout.readline().split()[2].rstrip("/")
            lines = "\n".join(block.content for block in blocks("docs/serve.md") if block.language == "bash")
            lines = lines.replace("http://127.0.0.1:8080", address)
            shell = ["bash", "-eu", "-o", "pipefail", "-c", lines]
            told = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True, env=token)
        finally:
            server.terminate()
            server.stdout.read()
    assert '"schema": "situs.findings/2"' in told.stdout and "event: findings" in told.stdout
    assert (tmp_path / "lesion1.png").read_bytes()[1:4] == b"PNG"
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
