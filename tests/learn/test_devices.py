"""Where training runs; two processes with half a batch each do what one does with the whole."""

import os
import socket

import numpy as np
import pytest
import torch
from torch import nn

from situs.errors import InputError
from situs.learn.devices import CPU, Machine, open_machine
from situs.learn.loop import LoopSettings, run_loop
from situs.learn.relations import train_relations
from situs.neighbors import References
from situs.progress import silent

STEPS, BATCH = 12, 8
RELATION_BATCH = 4


def clouds():
    """A target more than whole batches: alone in the last one, half of the processes would have none."""
    sites = np.arange(2 * RELATION_BATCH + 1) % 2
    X = np.eye(3, dtype=np.float32)[sites] + np.random.default_rng(0).normal(0, 0.2, (len(sites), 3))
    names = np.array([f"p{n}" for n in range(len(sites))])
    return References(X.astype(np.float32), sites, names, names)


def train(folder, machine):
    """A line fitted to y = 3 x - 1, every process seeing its part of each batch; the network."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4, affine=False, momentum=None), nn.Linear(4, 1))
    network[1].eval()  # its means over half a batch are others
    settings = LoopSettings("line", STEPS, BATCH, 0.05, 0.01, 0.9, (0,), folder / "line.pt", "k", machine)

    def make_batch(step):
        x = np.random.default_rng(step).uniform(-1, 1, (BATCH, 1)).astype(np.float32)
        return machine.to_device(machine.shard(x))

    def loss_of(x):
        return ((network[2](network[0](x)) - (3 * x - 1)) ** 2).mean(), {}

    run_loop(network, make_batch, loss_of, settings, silent)
    return network


def work(rank, port, folder):
    """One of two processes, as torchrun starts them."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    machine = open_machine("cpu")
    assert (machine.rank, machine.world, machine.first) == (rank, 2, rank == 0)
    network = train(folder, machine)
    network[1].running_mean.fill_(float(rank))
    machine.average_buffers(network)
    torch.save(network.state_dict(), folder / f"{rank}.pt")
    relations = train_relations(clouds(), "nearest", 2, 3, machine=machine, batch=RELATION_BATCH)
    torch.save(relations.network.state_dict(), folder / f"relation{rank}.pt")
    machine.wait()  # nobody leaves while another still needs it
    os._exit(0)  # gloo's threads can abort a process that ends in the usual way: seen once in hundreds


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    (tmp_path / "alone").mkdir()
    alone = train(tmp_path / "alone", CPU).state_dict()
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name])
    assert first["1.running_mean"].tolist() == second["1.running_mean"].tolist() == [0.5] * 4
    relation = [torch.load(tmp_path / f"relation{rank}.pt") for rank in range(2)]
    for name, tensor in relation[0].items():
        assert torch.equal(tensor, relation[1][name]) and tensor.isfinite().all()
    # One checkpoint, of the first process.
    assert [p.name for p in tmp_path.glob("line*")] == ["line.pt"]


def test_the_parts_of_a_batch_are_disjoint_and_all_of_it():
    machines = [Machine(torch.device("cpu"), rank=rank, world=3) for rank in range(3)]
    parts = [machine.shard(np.arange(7)).tolist() for machine in machines]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(7))
    assert [len(part) for part in parts] == [3, 2, 2]
    assert machines[2].shard(np.arange(2)).tolist() == []


def test_gradients_and_buffers_become_their_means(monkeypatch):
    """The sum over two processes, of which the other one has twice this one's numbers."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(3))
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    network[0].weight.grad = torch.arange(6.0).reshape(2, 3)
    network[1].bias.grad = torch.tensor([1.0, -2.0])
    network[1].running_mean.copy_(torch.tensor([4.0, 6.0]))
    machine = Machine(torch.device("cpu"), rank=1, world=2)
    machine.average_gradients(network.parameters())
    machine.average_buffers(network)
    assert network[0].weight.grad.tolist() == [[0, 1.5, 3], [4.5, 6, 7.5]]
    assert network[1].bias.grad.tolist() == [1.5, -3] and network[0].bias.grad is None
    assert network[1].running_mean.tolist() == [6, 9] and network[1].num_batches_tracked == 0


def test_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    machine = open_machine("cpu")
    assert (machine.device.type, machine.rank, machine.world) == ("cpu", 0, 1)
    assert machine.shard(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_no_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_machine("auto").device.type == "cpu"
    with pytest.raises(InputError, match="finds no CUDA device"):
        open_machine("cuda")
