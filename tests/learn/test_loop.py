"""The loop: its learning rate, its batches, its steps, and that it goes on where it was."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from situs.errors import InputError
from situs.learn import loop as module
from situs.learn.loop import LoopSettings, accuracy, make_optimizer, optimizer_step, run_loop
from situs.progress import silent


def settings(folder, steps=20, key="k", momentum=None):
    return LoopSettings("straight", steps, 4, 0.05, 0.0, momentum, (0, 1), folder / "straight.pt", key)


def line_through(settings, progress=silent):
    """A line fitted to y = 3 x - 1; the network, and the metrics."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.2))

    def make_batch(step):
        x = np.random.default_rng(step).uniform(-1, 1, (settings.batch, 1)).astype(np.float32)
        return torch.from_numpy(x)

    def loss_of(x):
        return ((network(x) - (3 * x - 1)) ** 2).mean(), {"accuracy": 0.5}

    return network, run_loop(network, make_batch, loss_of, settings, progress)


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_goes_on_where_it_was_stopped(tmp_path, momentum):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, metrics = line_through(settings(tmp_path / "whole", momentum=momentum))
    assert metrics["accuracy"] == pytest.approx(0.5) and metrics["loss"] > 0
    calls = []

    def stop(*call):
        calls.append(call)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line_through(settings(tmp_path / "parts", momentum=momentum), stop)
    parts, _ = line_through(settings(tmp_path / "parts", momentum=momentum), stop)
    assert [call[:3] for call in calls] == [("straight", 4 * n, 80) for n in range(1, 21)]
    again, kept = line_through(settings(tmp_path / "whole", momentum=momentum), stop)  # nothing left to do
    assert len(calls) == 20 and kept == metrics
    assert same_weights(whole, parts) and same_weights(whole, again)


def test_stopped_amid_a_step_it_goes_on_from_the_last_whole_checkpoint(tmp_path, monkeypatch):
    """The stop comes after the weights have changed and before that is counted."""
    (tmp_path / "whole").mkdir()
    whole, _ = line_through(settings(tmp_path / "whole"))
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
        line_through(settings(tmp_path))
    parts, _ = line_through(settings(tmp_path))
    assert len(steps) == 7 + 14  # the seventh is done again
    assert same_weights(whole, parts)


def test_a_loss_that_is_no_number_is_told_and_not_kept(tmp_path):
    def spoil(stage, done, *rest):
        if done == 8:
            network[0].weight.data.fill_(np.nan)

    network = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(InputError, match="straight: the loss is nan"):
        run_loop(
            network,
            lambda step: torch.ones(4, 1),
            lambda x: (network(x).mean(), {}),
            settings(tmp_path),
            spoil,
        )
    assert not list(tmp_path.iterdir())


def test_the_loss_falls(tmp_path):
    """A convex problem: after 100 steps the line is nearer than after one, whatever the processor."""
    errors = []
    for steps in (1, 100):
        (tmp_path / str(steps)).mkdir()
        network, _ = line_through(settings(tmp_path / str(steps), steps))
        x = torch.linspace(-1, 1, 11)[:, None]
        errors.append(float(((network.eval()(x) - (3 * x - 1)).detach() ** 2).mean()))
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_step_by_hand(clip_norm):
    """SGD at 0.1 on 3 a + 4 b: the gradient (3, 4), or a fifth of it where it is shortened to 1."""
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    network.weight.grad = torch.full((1, 2), 99.0)  # of an earlier step
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = network(torch.tensor([3.0, 4.0])).sum() + 2
    assert optimizer_step(network, optimizer, loss, "x", clip_norm=clip_norm) == 2
    length = 1 if clip_norm is None else 5
    torch.testing.assert_close(network.weight.detach(), -0.1 * torch.tensor([[3.0, 4.0]]) / length)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_down_no_number_changes_nothing(value):
    network = nn.Linear(2, 1)
    before = network.weight.clone()
    with pytest.raises(InputError, match="stage x: the loss is"):
        optimizer_step(network, make_optimizer(network, 0.1, 0, 0.9), network.weight.sum() + value, "stage x")
    assert torch.equal(network.weight, before)


def test_weight_decay_is_of_matrices_alone_with_adamw():
    network = nn.Linear(2, 3)
    groups = make_optimizer(network, 0.1, 0.2, None).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in groups] == [(0.2, [2]), (0.0, [1])]
    (group,) = make_optimizer(network, 0.1, 0.2, 0.9).param_groups
    assert (group["weight_decay"], group["momentum"], len(group["params"])) == (0.2, 0.9, 2)
    network.weight.requires_grad_(False)
    assert len(make_optimizer(network, 0.1, 0.2, 0.9).param_groups[0]["params"]) == 1


def test_accuracy_by_hand():
    scores = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, -1.0], [0.5, 0.0]])
    assert accuracy(scores, torch.tensor([0, 1, 1, 0])) == 0.75


def test_a_failing_batch_is_not_swallowed():
    def make_batch(step):
        if step == 2:
            raise OSError("disk")
        return step

    seen = []
    with pytest.raises(OSError, match="disk"):
        for batch in module._prefetch(make_batch, 0, 5):
            seen.append(batch)
    assert seen == [0, 1]


def test_learning_rate_cycle():
    rates = [module._one_cycle(n / 100) for n in range(100)]
    top = int(np.argmax(rates))
    assert top == 20 and rates[top] == pytest.approx(1)
    assert np.all(np.diff(rates[: top + 1]) > 0) and np.all(np.diff(rates[top:]) < 0)
    assert rates[-1] < 0.01
