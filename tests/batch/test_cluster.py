"""Batches on the workers of a real Dask scheduler, all of them processes on this computer."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from kill.commands import content
from phantoms import small_case
from phantoms.dying_worker import label_or_die
from phantoms.small_bundle import small_bundle

import situs
from situs.batch import label_batch
from situs.batch.parts import read_part
from situs.errors import InputError, OutputError

ROWS = 24
TESTS = Path(__file__).parents[1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Dask:
    """A scheduler and its workers, each of one thread."""

    def __init__(self, folder):
        self.folder, self.processes = folder, {}
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.start("scheduler", "--host", "127.0.0.1", "--port", self.address.rpartition(":")[2])

    def start(self, name, *args):
        kind = name.rstrip("0123456789")
        path = f"{Path(situs.__file__).parents[1]}{os.pathsep}{TESTS}"
        # A scan that has killed one worker counts as its killer, not only after three more.
        more = {"PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *args, "--no-dashboard"]
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | more, start_new_session=True
            )

    def start_worker(self, name, nanny=False):
        kind = "--nanny" if nanny else "--no-nanny"
        self.start(name, self.address, "--nthreads", "1", kind, "--local-directory", str(self.folder))

    def wait_for(self, n_workers):
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(n_workers, timeout=60)

    def kill(self, name):
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.fixture
def dask(tmp_path):
    pytest.importorskip("distributed")
    found = Dask(tmp_path)
    yield found
    for name in [*found.processes]:
        found.kill(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scans that differ, one of them absent and one called b.nii, with their manifest."""
    folder = tmp_path_factory.mktemp("cluster")
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), folder / "m.nii")
    names = [f"{n}.nii" for n in range(ROWS - 1)]
    for n, name in enumerate([*names[1:], "b.nii"]):
        nib.save(nib.Nifti1Image(small_case.head_hu() + np.int16(n), small_case.AFFINE), folder / name)
    (folder / "m.csv").write_text("scan,roi\n" + "".join(f"{name},m.nii\n" for name in [*names, "b.nii"]))
    return folder


def run(folder, out, **options):
    return label_batch(folder / "m.csv", out, str(small_bundle()), json=True, page=False, **options)


@pytest.fixture(scope="module")
def whole(folder):
    """The files of a batch on one process, and its summary."""
    summary = run(folder, folder / "whole")
    return content(folder / "whole"), summary


@pytest.mark.slow
def test_a_batch_is_the_same_on_workers_of_which_one_is_killed(folder, whole, tmp_path, dask):
    for name in ("worker1", "worker2"):
        dask.start_worker(name)
    dask.wait_for(2)
    reports = []

    def progress(stage, done, total, text=""):
        reports.append(done)
        if done == ROWS // 4:
            dask.kill("worker1")

    assert run(folder, tmp_path / "out", scheduler=dask.address, progress=progress) == whole[1]
    assert content(tmp_path / "out") == whole[0]
    assert reports == [*range(ROWS + 1)] and "worker1" not in dask.processes


@pytest.mark.slow
def test_a_scan_that_kills_its_workers_is_a_row(folder, whole, tmp_path, dask, monkeypatch):
    dask.start_worker("worker1", nanny=True)
    dask.wait_for(1)
    monkeypatch.setattr("situs.batch.run.label_in_process", label_or_die)
    out = tmp_path / "out"
    assert run(folder, out, scheduler=dask.address).failed == 2
    assert "was killed" in read_part(out, ROWS).error
    parts = {name: data for name, data in content(out).items() if name.startswith("parts/")}
    assert parts.pop(f"parts/000000/{ROWS:09d}.json") and parts.items() <= whole[0].items()


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_and_the_same_command_goes_on(folder, whole, tmp_path, dask):
    dask.start_worker("worker1")
    dask.wait_for(1)

    def progress(stage, done, total, text=""):
        if done == ROWS // 4:
            dask.kill("scheduler")

    out = tmp_path / "out"
    with pytest.raises(InputError, match="was lost: the same command goes on"):
        run(folder, out, scheduler=dask.address, progress=progress)
    assert run(folder, out) == whole[1]
    assert content(out) == whole[0]


@pytest.mark.slow
def test_a_worker_that_cannot_write_ends_the_run_and_the_same_command_goes_on(folder, whole, tmp_path, dask):
    dask.start_worker("worker1")
    dask.wait_for(1)
    out = tmp_path / "out"
    parts, away = out / "parts", tmp_path / "away"

    def progress(stage, done, total, text=""):
        if done == ROWS // 4 and not away.exists():
            parts.rename(away)
            parts.write_text("in the way")

    with pytest.raises(OutputError, match="cannot be written") as error:
        run(folder, out, scheduler=dask.address, progress=progress)
    assert "\n" not in str(error.value)
    parts.unlink()
    away.rename(parts)
    assert run(folder, out, scheduler=dask.address) == whole[1]
    assert content(out) == whole[0]


@pytest.mark.slow
def test_what_stops_a_batch_on_workers_before_it_begins(folder, tmp_path, dask):
    with pytest.raises(InputError, match="does not answer"):
        run(folder, tmp_path / "out", scheduler=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match="does not answer"):
        run(folder, tmp_path / "out", scheduler="nonsense")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until it listens
        with pytest.raises(InputError) as error:
            run(folder, tmp_path / "out", scheduler=dask.address)
        if "does not answer" not in str(error.value):
            break
    assert "has no workers" in str(error.value)
    assert "\n" not in str(error.value)
