"""Outputs that cannot be written: one line, exit code 2, and nothing half written."""

import shutil
import subprocess

import pytest

from kill.commands import BATCH, CHANGES, LABEL, SYNTH, TRAIN, content, half_written, is_one_line

pytestmark = pytest.mark.slow

OUTPUTS = {
    "json": [*LABEL[:6], "--json", "disk/f.json"],
    "csv": [*LABEL[:6], "--csv", "disk/f.csv"],
    "png": [*LABEL[:6], "--png", "disk/pictures"],
    "references": [*CHANGES["references add"], "--out", "disk/new"],
    "calibration": [*CHANGES["calibrate"], "--out", "disk/new"],
}

BATCH_ON_DISK = [*BATCH[:3], "disk/out", *BATCH[4:]]


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of some bytes of a folder."""
    mounted = []

    def mount(folder, n_bytes):
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk, left):
    """Leave `left` bytes free, in pages of 4096."""
    free = shutil.disk_usage(disk).free
    (disk / "full").write_bytes(bytes(free - left))


def check_refused(outcome, reason):
    assert outcome.code == 2 and is_one_line(outcome.err) and reason in outcome.err


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk(labelling, disk, output):
    shutil.copytree(labelling.folder / "bundle", labelling.folder / "fold")
    folder = disk(labelling.folder / "disk", 2**24)
    fill(folder, 0 if output in ("json", "csv") else 4096)
    check_refused(labelling.run(*OUTPUTS[output]), "No space left on device")
    assert set(content(folder)) == {"full"} and not half_written(folder)
    (folder / "full").unlink()
    assert labelling.run(*OUTPUTS[output]).code == 0


def test_a_batch_on_a_full_disk(labelling, disk):
    folder = disk(labelling.folder / "disk", 2**24)
    assert labelling.run(*BATCH).code == 0
    for left in (0, 4096, 8192):
        fill(folder, left)
        check_refused(labelling.run(*BATCH_ON_DISK), "No space left on device")
        assert not half_written(folder)
        (folder / "full").unlink()
    assert labelling.run(*BATCH_ON_DISK).code == 0
    assert content(folder / "out") == content(labelling.folder / "out")


def check_limits(commands, args, limits, out):
    """Write files that may have too few bytes; what the folder `out` holds is whole."""
    left = []
    for n_bytes in limits:
        check_refused(commands.run(*args, n_bytes=n_bytes), "File too large")
        left += content(out).items()
        assert not half_written(commands.folder)
    assert commands.run(*args).code == 0
    whole = content(out)
    assert all(data == whole[name] for name, data in left)


def test_a_file_too_large_for_the_disk(labelling):
    check_limits(labelling, LABEL, [1000, 3000], labelling.folder / "out")


def test_a_batch_too_large_for_the_disk(labelling):
    check_limits(labelling, BATCH, [1000, 4000], labelling.folder / "out")


@pytest.mark.parametrize("command", CHANGES)
def test_a_bundle_too_large_for_the_disk(labelling, command):
    shutil.copytree(labelling.folder / "bundle", labelling.folder / "fold")
    before = content(labelling.folder / "bundle")
    for n_bytes in (1000, 5000, 20_000):
        check_refused(labelling.run(*CHANGES[command], n_bytes=n_bytes), "File too large")
        assert content(labelling.folder / "bundle") == before and not half_written(labelling.folder)


def test_scans_too_large_for_the_disk(rendering):
    check_limits(rendering, SYNTH, [1000, 10_000], rendering.folder / "out")


def test_a_training_too_large_for_the_disk(training):
    check_limits(training, TRAIN, [1000, 400_000], training.folder / "out")


READ_ONLY = {
    **OUTPUTS,
    "batch": BATCH_ON_DISK,
    "bundle in place": ["references", "add", "disk/bundle", "cohort"],
    "cache of a cohort": ["references", "add", "bundle", "disk/cohort"],
}


@pytest.mark.parametrize("output", READ_ONLY)
def test_a_read_only_folder(labelling, output):
    shutil.copytree(labelling.folder / "bundle", labelling.folder / "fold")
    folder = labelling.folder / "disk"
    for name in ("bundle", "cohort"):
        shutil.copytree(labelling.folder / name, folder / name)
    before = content(labelling.folder)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        check_refused(labelling.run(*READ_ONLY[output], read_only=True), "Permission denied")
        assert content(labelling.folder) == before and not half_written(labelling.folder)
    finally:
        for path in folders:
            path.chmod(0o755)


def test_scans_for_a_read_only_folder(rendering):
    (rendering.folder / "out").mkdir(mode=0o555)
    check_refused(rendering.run(*SYNTH, read_only=True), "Permission denied")


def test_a_training_for_a_read_only_folder(training):
    (training.folder / "disk").mkdir(mode=0o555)
    check_refused(training.run("train", "cohort", "--out", "disk/out", read_only=True), "Permission denied")
