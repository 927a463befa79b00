"""Where training runs; two processes with half a batch each do what one does with the whole."""

import os
import socket

import numpy as np
import pytest
import torch
from torch import nn

from situs.errors import InputError
from situs.learn.devices import CPU, open_machine
from situs.learn.loop import Plan, fit
from situs.learn.relations import train_relations
from situs.neighbors import References

STEPS, BATCH = 12, 8
RELATION_BATCH = 4


def clouds():
    """A target more than whole batches: alone in the last one, half of the processes would have none."""
    sites = np.arange(2 * RELATION_BATCH + 1) % 2
    X = np.eye(3, dtype=np.float32)[sites] + np.random.default_rng(0).normal(0, 0.2, (len(sites), 3))
    names = np.array([f"p{n}" for n in range(len(sites))])
    return References(X.astype(np.float32), sites, names, names)


def train(folder, machine):
    """A line fitted to y = 3 x - 1, every process seeing its share of each batch; the weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4, affine=False, momentum=None), nn.Linear(4, 1))
    network[1].eval()  # its means over half a batch are others
    plan = Plan("line", STEPS, BATCH, 0.05, 0.01, 0.9, (0,), folder / "line.safetensors", "k", machine)

    def make(step):
        x = np.random.default_rng(step).uniform(-1, 1, (BATCH, 1)).astype(np.float32)
        return machine.put(machine.share(x))

    def loss_of(x):
        return ((network[2](network[0](x)) - (3 * x - 1)) ** 2).mean(), {}

    fit(network, make, loss_of, plan, lambda *a: None)
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
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["line.safetensors"]


def test_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    machine = open_machine("cpu")
    assert (machine.device.type, machine.rank, machine.world) == ("cpu", 0, 1)
    assert machine.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_no_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_machine("auto").device.type == "cpu"
    with pytest.raises(InputError, match="finds no CUDA device"):
        open_machine("cuda")
