"""Two runs at once on one output: both end whole, or one ends with one clear line.

The first run is stopped before a change of the disk. The second one runs to its end, and then the first one.
"""

import random
import shutil
import signal

import pytest
from phantoms.small_cohort import draw_cohort

from kill.commands import BATCH, LABEL, SYNTH, TRAIN, content, half_written, is_one_line
from situs.bundle import read_bundle

pytestmark = pytest.mark.slow


def run_within(commands, moment, first, second):
    """Run `second` while `first` is stopped; how both ended."""
    number = commands.start(*first, moment=moment, sent=signal.SIGSTOP)
    assert commands.wait(number).code is None
    outcome = commands.run(*second)
    return commands.go_on(number), outcome


def test_label(labelling):
    whole = labelling.run(*LABEL)
    out = labelling.folder / "out"
    expected = content(out)
    for moment in random.Random(0).sample(range(whole.changes), 2):
        shutil.rmtree(out)
        assert [o.code for o in run_within(labelling, moment, LABEL, LABEL)] == [0, 0]
        assert content(out) == expected and not half_written(labelling.folder)


def test_batches(labelling):
    whole = labelling.run(*BATCH)
    out = labelling.folder / "out"
    expected = content(out)
    for moment in random.Random(0).sample(range(3, whole.changes), 2):  # the lock is there by then
        shutil.rmtree(out)
        first, second = run_within(labelling, moment, BATCH, BATCH)
        assert second.code == 2 and is_one_line(second.err) and "another run is writing it" in second.err
        assert first.code == 0 and content(out) == expected and not half_written(labelling.folder)


def check_changes(labelling, n, *options):
    """Two cohorts are added at once; `n` of the moments of the first command are tried."""
    folder, name = labelling.folder, options[-1] if options else "bundle"
    shutil.copytree(folder / "bundle", folder / "first")
    draw_cohort(folder / "other", patients=1, scans=1, painted=False)
    for path in (folder / "other").glob("scan*"):
        path.rename(path.with_name(f"other_{path.name}"))
    manifest = folder / "other" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("scan0", "other_scan0"))
    commands = [["references", "add", "bundle", cohort, *options] for cohort in ("cohort", "other")]

    def start_again():
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "first", folder / name)

    results, ids = [], []
    for command in commands:
        start_again()
        assert labelling.run(*command).code == 0
        results.append(content(folder / name))
        ids.append(set(read_bundle(folder / name).references.ids.tolist()))
    start_again()
    changes = labelling.run(*commands[0]).changes  # fewer, now that the cohort has a cache
    for moment in random.Random(0).sample(range(changes), n):
        start_again()
        outcomes = run_within(labelling, moment, *commands)
        refused = [outcome for outcome in outcomes if outcome.code]
        assert len(refused) < 2 and all(o.code == 2 and is_one_line(o.err) for o in refused)
        after = set(read_bundle(folder / name).references.ids.tolist())
        if options:
            assert content(folder / name) in results
        else:  # no change is lost without a word
            assert all(own <= after for own, o in zip(ids, outcomes, strict=True) if not o.code)
        assert not half_written(folder)


@pytest.mark.parametrize("options", [[], ["--out", "new"]], ids=["in place", "elsewhere"])
def test_references(labelling, options):
    check_changes(labelling, 3, *options)


def test_rendered_scans(rendering):
    expected = rendering.run(*SYNTH).code, content(rendering.folder / "out")
    shutil.rmtree(rendering.folder / "out")
    first, second = run_within(rendering, 40, SYNTH, SYNTH)
    assert second.code == 2 and is_one_line(second.err) and "another run is writing it" in second.err
    assert (first.code, content(rendering.folder / "out")) == expected
    assert not half_written(rendering.folder)


def test_trainings(training):
    first, second = run_within(training, 40, TRAIN, TRAIN)
    assert second.code == 2 and is_one_line(second.err) and "another run is writing it" in second.err
    assert first.code == 0 and read_bundle(training.folder / "out").references.ids.size
    assert not half_written(training.folder)
