"""Checkpoints: whole, of this run, or refused."""

import errno
import struct

import pytest
import torch
from torch import nn

from situs.anatomy import SITES
from situs.errors import InputError, OutputError
from situs.files import digest
from situs.learn.checkpoints import (
    read_basenet_weights,
    read_checkpoint,
    resume_training,
    save_training,
    write_checkpoint,
)
from situs.learn.compact import compact_basenet


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "c.pt"
    assert read_checkpoint(path, "k") is None
    write_checkpoint(path, "k", {"a": torch.arange(6).reshape(2, 3).T, "step": 3})
    content = read_checkpoint(path, "k")
    assert set(content) == {"a", "step"} and content["step"] == 3
    assert content["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_of_another_run_or_damaged(tmp_path):
    path = tmp_path / "c.pt"
    write_checkpoint(path, "k", {"a": torch.ones(2)})
    with pytest.raises(OutputError, match="of another run"):
        read_checkpoint(path, "other")
    torch.save([1, 2], tmp_path / "list.pt")
    for content in (path.read_bytes()[:-3], b"", b"text", (tmp_path / "list.pt").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(OutputError, match="is damaged: delete it"):
            read_checkpoint(path, "k")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    write_checkpoint(path, "k", {"step": 1})
    real = torch.save

    def save(content, file):
        real(content, file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OutputError, match=r"c\.pt: cannot be written: No space left"):
        write_checkpoint(path, "k", {"step": 2})
    assert read_checkpoint(path, "k") == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_training_goes_on_with_the_optimizer_as_it_was(tmp_path, memory_format, momentum):
    """Two steps in a row give what a step, the file and another step give, whatever the memory format."""

    def start():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 3, 3)).to(memory_format=memory_format)
        if momentum is None:
            return network, torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
        return network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum)

    def step(network, optimizer):
        optimizer.zero_grad()
        (network(torch.ones(1, 2, 4, 4)) ** 2).sum().backward()
        optimizer.step()

    path = tmp_path / "c.pt"
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


def basenet(size_px=32):
    torch.manual_seed(1)
    return compact_basenet(len(SITES), size_px=size_px)


def test_a_checkpoint_gives_its_weights_to_another_run(tmp_path):
    network, path = basenet(), tmp_path / "basenet.pt"
    save_training(path, "another run", network, torch.optim.SGD(network.parameters(), 0.1), 1, {})
    with torch.device("meta"):
        like = compact_basenet(len(SITES), size_px=32)
    given = read_basenet_weights(path, like)
    assert given.path == path and given.sha256 == digest(path)
    other = compact_basenet(len(SITES), size_px=32)
    given.load_into(other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert tensor.data_ptr() != other.state_dict()[name].data_ptr()
    with pytest.raises(InputError, match="not a checkpoint of this recipe's BaseNet"):
        read_basenet_weights(path, basenet(48))


def test_what_is_no_checkpoint_of_this_version_is_refused_in_one_line(tmp_path):
    path = tmp_path / "basenet.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        read_basenet_weights(path, basenet())
    header = b'{"weights.fc1.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    old = struct.pack("<Q", len(header)) + header + bytes(4)  # the format of versions before 0.1.0
    torch.save({"fc1.bias": torch.ones(1)}, tmp_path / "other.pt")
    for content in (old, b"", (tmp_path / "other.pt").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a checkpoint of this version: ") as told:
            read_basenet_weights(path, basenet())
        assert "\n" not in str(told.value)
