"""Commands that are killed: outputs are whole or not there, the next run ends alike and clears up.

A moment is a change of the disk, before which the process gets SIGKILL; or the byte of a file at which it
dies. Between two changes the disk is the same, so these are all moments there are.
"""

import random
import shutil
import signal

import pytest

from kill.commands import BATCH, CHANGES, LABEL, SYNTH, TRAIN, content, half_written
from situs.bundle import read_bundle

KILLED, TOO_LARGE = -signal.SIGKILL, -signal.SIGXFSZ


def leave_one_of_a_living_process(commands, folder):
    path = folder / f".writing-{commands.process.pid}.of_a_living_process"
    path.touch()
    return path


@pytest.mark.slow
def test_label(labelling):
    out = labelling.folder / "out"
    whole = labelling.run(*LABEL)
    assert whole.code == 0
    expected = content(out)
    alive = leave_one_of_a_living_process(labelling, out)
    sizes = sorted(map(len, expected.values()))
    rng = random.Random(0)
    kills = [{"moment": moment} for moment in rng.sample(range(whole.changes), 3)]
    kills += [{"n_bytes": rng.randrange(sizes[0], sizes[-1]), "die": True}]
    for kill in kills:
        for name in expected:
            (out / name).write_bytes(b"old")
        assert labelling.run(*LABEL, **kill).code == (KILLED if "moment" in kill else TOO_LARGE)
        assert all(data in (b"old", expected[name]) for name, data in content(out).items())
        assert labelling.run(*LABEL).code == 0
        assert content(out) == expected
        assert not half_written(labelling.folder) and alive.exists()


def check_change(labelling, command, n, seed, *options):
    """Kill a command that writes a bundle at `n` moments; `options` say where to."""
    folder, name = labelling.folder, options[-1] if options else "bundle"
    shutil.copytree(folder / "bundle", folder / "fold")
    shutil.copytree(folder / "bundle", folder / "first")
    before = content(folder / "bundle")

    def start_again():
        shutil.rmtree(folder / "cohort" / ".cache", ignore_errors=True)
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "first", folder / name)

    args = [*CHANGES[command], *options]
    start_again()
    whole = labelling.run(*args)
    assert whole.code == 0
    expected = content(folder / name)
    assert expected != before
    alive = leave_one_of_a_living_process(labelling, folder)
    rng = random.Random(seed)
    kills = [{"moment": moment} for moment in rng.sample(range(whole.changes), n)]
    kills += [{"n_bytes": rng.randrange(1000, max(map(len, expected.values()))), "die": True}]
    for kill in kills:
        start_again()
        assert labelling.run(*args, **kill).code in (KILLED, TOO_LARGE)
        read_bundle(folder / name)
        after = content(folder / name)
        assert after in (before, expected)
        again = labelling.run(*args)
        if after == before or options or command == "calibrate":
            assert again.code == 0
        else:
            assert again.code == 2 and "are there already" in again.err
        assert content(folder / name) == expected
        assert not half_written(folder) and alive.exists()


@pytest.mark.slow
def test_references(labelling):
    check_change(labelling, "references add", 1, 0)


@pytest.mark.slow
def test_references_elsewhere(labelling):
    check_change(labelling, "references add", 3, 1, "--out", "other")


@pytest.mark.slow
def test_a_calibration(labelling):
    check_change(labelling, "calibrate", 3, 2)


def kill_until_done(commands, args, least, most, swept):
    """Kill a command again and again, each time after some changes of the disk, until it ends."""
    out = commands.folder / "out"
    swept.mkdir(exist_ok=True)
    alive = leave_one_of_a_living_process(commands, swept)
    rng = random.Random(0)
    kills = 0
    while (outcome := commands.run(*args, moment=rng.randrange(least, most))).code == KILLED:
        kills += 1
        yield content(out)
    assert outcome.code == 0 and kills >= 2
    assert alive.exists() and not half_written(commands.folder)


@pytest.mark.slow
def test_a_batch(labelling):
    whole = labelling.run(*BATCH)
    assert whole.code == 0
    out = labelling.folder / "out"
    expected = content(out)
    shutil.rmtree(out)
    n = whole.changes  # a run that only writes the results makes more than half as many
    for left in kill_until_done(labelling, BATCH, n // 3, n * 3 // 4, out):
        assert left.items() <= expected.items()
    assert content(out) == expected
    for moment in random.Random(0).sample(range(whole.changes), 3):
        shutil.rmtree(out)
        assert labelling.run(*BATCH, moment=moment).code == KILLED
        assert content(out).items() <= expected.items()
        assert labelling.run(*BATCH).code == 0
        assert content(out) == expected and not half_written(labelling.folder)


@pytest.mark.slow
def test_rendered_scans(rendering):
    assert rendering.run(*SYNTH).code == 0
    out = rendering.folder / "out"
    expected = content(out)
    shutil.rmtree(out)
    for left in kill_until_done(rendering, SYNTH, 20, 90, out):
        assert all(data == expected[name] for name, data in left.items())
    assert content(out) == expected


@pytest.mark.slow
def test_a_training(training):
    assert training.run(*TRAIN).code == 0
    folder = training.folder
    expected = content(folder / "out")
    shutil.rmtree(folder / "out")
    shutil.rmtree(folder / "out.work")
    shutil.rmtree(folder / "cohort" / ".cache")
    for left in kill_until_done(training, TRAIN, 18, 27, folder / "out.work"):
        assert left in ({}, expected)
    assert content(folder / "out") == expected
