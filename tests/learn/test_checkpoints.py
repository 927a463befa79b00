"""Checkpoints: whole, of this run, or refused."""

import pytest
import torch
from torch import nn

from situs.errors import OutputError
from situs.learn.checkpoints import (
    read_checkpoint,
    resume_training,
    save_training,
    write_checkpoint,
)


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "c.safetensors"
    assert read_checkpoint(path, "k") == ({}, None)
    write_checkpoint(path, {"a": torch.arange(6).reshape(2, 3).T}, {"key": "k", "step": "3"})
    tensors, notes = read_checkpoint(path, "k")
    assert notes == {"key": "k", "step": "3"}
    assert tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_of_another_run_or_damaged(tmp_path):
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"a": torch.ones(2)}, {"key": "k"})
    with pytest.raises(OutputError, match="of another run"):
        read_checkpoint(path, "other")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(OutputError, match="is damaged: delete it"):
        read_checkpoint(path, "k")


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_training_goes_on_with_the_optimizer_as_it_was(tmp_path, order):
    """Two steps in a row give what a step, the file and another step give, whatever the memory's order."""

    def start():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 3, 3)).to(memory_format=order)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1)

    def step(network, optimizer):
        optimizer.zero_grad()
        (network(torch.ones(1, 2, 4, 4)) ** 2).sum().backward()
        optimizer.step()

    path = tmp_path / "c.safetensors"
    network, optimizer = start()
    assert resume_training(path, "k", network, optimizer) == (0, {})
    step(network, optimizer)
    save_training(path, "k", network, optimizer, 1, {"loss": 0.5})
    step(network, optimizer)
    other, its_optimizer = start()
    assert resume_training(path, "k", other, its_optimizer) == (1, {"loss": 0.5})
    step(other, its_optimizer)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
