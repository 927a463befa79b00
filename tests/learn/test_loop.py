"""The loop: its learning rate, its batches, and that it goes on where it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from situs.errors import InputError
from situs.learn import loop as module
from situs.learn.loop import Plan, fit


def plan(folder, steps=20, key="k"):
    return Plan("straight", steps, 4, 0.05, 0.0, None, (0, 1), folder / "straight.safetensors", key)


def line_through(plan, say=lambda *a: None):
    """A line fitted to y = 3 x - 1; the network, and the figures."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.2))

    def make(step):
        x = np.random.default_rng(step).uniform(-1, 1, (plan.batch, 1)).astype(np.float32)
        return torch.from_numpy(x)

    def loss_of(x):
        return ((network(x) - (3 * x - 1)) ** 2).mean(), {"accuracy": 0.5}

    return network, fit(network, make, loss_of, plan, say)


def test_goes_on_where_it_was_stopped(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, figures = line_through(plan(tmp_path / "whole"))
    assert figures["accuracy"] == pytest.approx(0.5)
    calls = []

    def stop(*call):
        calls.append(call)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line_through(plan(tmp_path / "parts"), stop)
    parts, _ = line_through(plan(tmp_path / "parts"), stop)
    assert [call[:3] for call in calls] == [("straight", 4 * n, 80) for n in range(1, 21)]
    again, kept = line_through(plan(tmp_path / "whole"), stop)  # nothing left to do
    assert len(calls) == 20 and kept == figures
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name])
        assert torch.equal(tensor, again.state_dict()[name])


def test_stopped_amid_a_step_it_goes_on_from_the_last_whole_checkpoint(tmp_path, monkeypatch):
    """The stop comes after the weights have changed and before that is counted."""
    (tmp_path / "whole").mkdir()
    whole, _ = line_through(plan(tmp_path / "whole"))
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", -1.0)  # after every step
    real, steps = module.make_optimizer, []

    def make_optimizer(*args):
        optimizer = real(*args)
        step = optimizer.step

        def stop():
            step()
            steps.append(1)
            if len(steps) == 7:
                raise KeyboardInterrupt

        optimizer.step = stop
        return optimizer

    monkeypatch.setattr(module, "make_optimizer", make_optimizer)
    with pytest.raises(KeyboardInterrupt):
        line_through(plan(tmp_path))
    parts, _ = line_through(plan(tmp_path))
    assert len(steps) == 7 + 14  # the seventh is done again
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name])


def test_a_loss_that_is_no_number_is_told_and_not_kept(tmp_path):
    def say(stage, done, *rest):
        if done == 8:
            network[0].weight.data.fill_(np.nan)

    network = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(InputError, match="straight: the loss is nan"):
        fit(network, lambda step: torch.ones(4, 1), lambda x: (network(x).mean(), {}), plan(tmp_path), say)
    assert not list(tmp_path.iterdir())


def test_the_loss_falls(tmp_path):
    short, _ = line_through(plan(tmp_path, steps=1))
    (tmp_path / "straight.safetensors").unlink()
    long, _ = line_through(plan(tmp_path, steps=300))
    x = torch.linspace(-1, 1, 11)[:, None]
    off = [float(((n.eval()(x) - (3 * x - 1)).detach() ** 2).mean()) for n in (short, long)]
    assert off[1] < off[0] / 10


def normalized_line(plan, say=lambda *a: None):
    """A line behind a normalization; the network, and the weight after every step that was told of."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    weights = []

    def make(step):
        rng = np.random.default_rng(step)
        return torch.from_numpy(rng.uniform(0, 2, (plan.batch, 1)).astype(np.float32))

    def loss_of(x):
        return ((network(x) - 3 * x) ** 2).mean(), {}

    def note(*call):
        weights.append(float(network[1].weight.detach()))
        say(*call)

    fit(network, make, loss_of, plan, note)
    return network, weights, [make(step) for step in range(plan.steps)]


def test_the_weights_of_the_last_steps_are_averaged(tmp_path):
    averaging = replace(plan(tmp_path), averaged=0.35)
    network, weights, batches = normalized_line(averaging)
    assert float(network[1].weight.detach()) == pytest.approx(np.mean(weights[-7:]), rel=1e-5)
    assert float(network[1].weight.detach()) != pytest.approx(weights[-1], rel=1e-5)
    means = [float(x.mean()) for x in batches]  # fewer than it settles over: all of them
    assert float(network[0].running_mean) == pytest.approx(np.mean(means), rel=1e-5)
    assert network[0].momentum == 0.1
    again, told, _ = normalized_line(averaging)
    assert not told and all(torch.equal(a, b) for a, b in pairs_of(network, again))


@pytest.mark.parametrize("stop_at", [4, 16, 20])  # before, amid and after what is averaged
def test_averaging_goes_on_where_it_was_stopped(tmp_path, stop_at):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, _, _ = normalized_line(replace(plan(tmp_path / "whole"), averaged=0.35))

    def stop(stage, done, *rest):
        if done == 4 * stop_at:
            raise KeyboardInterrupt

    averaging = replace(plan(tmp_path / "parts"), averaged=0.35)
    with pytest.raises(KeyboardInterrupt):
        normalized_line(averaging, stop)
    parts, told, _ = normalized_line(averaging)
    assert len(told) == 20 - stop_at
    assert all(torch.equal(a, b) for a, b in pairs_of(whole, parts))


def pairs_of(one, other):
    return zip(one.state_dict().values(), other.state_dict().values(), strict=True)


def test_a_failing_batch_is_not_swallowed():
    def make(step):
        if step == 2:
            raise OSError("disk")
        return step

    seen = []
    with pytest.raises(OSError, match="disk"):
        seen.extend(iter_and_keep(module._prefetch(make, 0, 5), seen))
    assert seen == [0, 1]


def iter_and_keep(batches, seen):
    for batch in batches:
        seen.append(batch)
    return []


def test_learning_rate_cycle():
    rates = [module._one_cycle(n / 100) for n in range(100)]
    top = int(np.argmax(rates))
    assert top == 20 and rates[top] == pytest.approx(1)
    assert np.all(np.diff(rates[: top + 1]) > 0) and np.all(np.diff(rates[top:]) < 0)
    assert rates[-1] < 0.01
    averaging = [module._one_cycle(n / 100, 0.35) for n in range(100)]
    assert averaging[20] == pytest.approx(1) and np.all(np.diff(averaging[20:66]) < 0)
    assert averaging[65:] == pytest.approx([module._AVERAGED_RATE] * 35)
