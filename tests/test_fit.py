"""The loop: its learning rate, its batches, and that it goes on where it was."""

import numpy as np
import pytest
import torch
from torch import nn

from situs import fit as module
from situs.fit import Plan, fit


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


def test_the_loss_falls(tmp_path):
    short, _ = line_through(plan(tmp_path, steps=1))
    (tmp_path / "straight.safetensors").unlink()
    long, _ = line_through(plan(tmp_path, steps=300))
    x = torch.linspace(-1, 1, 11)[:, None]
    off = [float(((n.eval()(x) - (3 * x - 1)).detach() ** 2).mean()) for n in (short, long)]
    assert off[1] < off[0] / 10


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
