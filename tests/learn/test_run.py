"""A run's folder: it belongs to one run, whose key changes with all that decides the weights."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from phantoms.tiny_recipe import TINY

from situs.errors import OutputError
from situs.learn.checkpoints import GivenWeights
from situs.learn.devices import CPU
from situs.learn.run import open_run
from situs.progress import silent

SLICES = SimpleNamespace(id=np.array(["a", "b", "c"]), site=np.array([0, 4, 4]))


def run(work, recipe=TINY, seed=0, slices=SLICES, chosen=(0, 1), given=None, machine=CPU):
    """A run that has ended."""
    with open_run(work, recipe, seed, slices, np.array(chosen), given or {}, silent, machine) as opened:
        return opened


def weights(sha256):
    return {"init": GivenWeights("basenet.pt", sha256, {})}


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(TINY, batch=8)},
        {"seed": 1},
        {"chosen": (0, 2)},
        {"slices": SimpleNamespace(id=SLICES.id, site=np.array([0, 5, 4]))},
        {"given": weights("2")},
        {"given": {}},
        {"given": {"weights": weights("1")["init"]}},
    ],
)
def test_all_that_decides_the_weights_is_in_the_key(tmp_path, other):
    one = run(tmp_path / "a", given=weights("1"))
    assert (
        one.key == run(tmp_path / "a", given=weights("1")).key == run(tmp_path / "b", given=weights("1")).key
    )
    with pytest.raises(OutputError, match="holds a run of other settings: delete it or choose another"):
        run(tmp_path / "a", **{"given": weights("1"), **other})
    assert run(tmp_path / "c", **{"given": weights("1"), **other}).key != one.key


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / ".writing-99999999.paint.pt").touch()
    run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "run.json"}
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["name"] == "tiny"


def test_only_the_first_process_writes(tmp_path):
    other = run(tmp_path, machine=replace(CPU, rank=1, world=2))
    assert not list(tmp_path.iterdir()) and other.key == run(tmp_path).key


def test_one_run_at_a_time(tmp_path):
    arguments = TINY, 0, SLICES, np.array([0, 1]), {}, silent, CPU
    with (
        open_run(tmp_path, *arguments),
        pytest.raises(OutputError, match="another run is writing it"),
        open_run(tmp_path, *arguments),
    ):
        pass


def test_stages_differ_in_seed_and_checkpoint(tmp_path):
    settings = [run(tmp_path).loop_settings(stage, 100) for stage in ("paint", "basenet", "fc")]
    assert len({(*s.seed, s.checkpoint) for s in settings}) == 3
    assert {(s.steps, s.batch, s.learning_rate) for s in settings} == {(100 // 16, 16, TINY.learning_rate)}
