"""Where training runs: on a CPU, on a GPU, or in several processes that share every batch (``torchrun``).

With several processes, gradients are averaged after every step, so that all processes hold the same weights.
The first process writes the files.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from situs.errors import InputError

__all__ = ["CPU", "DeviceName", "Machine", "open_machine"]

DeviceName = Literal["auto", "cpu", "cuda"]

_LONGEST_STAGE = timedelta(hours=24)  # the others wait while the first process embeds


@dataclass(frozen=True)
class Machine:
    """Where one process of a training runs.

    Attributes:
        device: Of networks and batches.
        half: Whether matrix products and convolutions are computed in bfloat16.
        rank: The number of this process, from 0.
        world: The number of processes.
    """

    device: torch.device
    half: bool = False
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def to_device(self, array: NDArray[Any]) -> Tensor:
        """An array as a tensor on the device."""
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """The context in which networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def shard(self, batch: NDArray[Any]) -> NDArray[Any]:
        """This process's part of a batch (n, ...); empty for some processes if n is less than `world`."""
        return batch[self.rank :: self.world]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            torch.distributed.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.world > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            torch.distributed.all_reduce(flat)
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient) / self.world)

    def average_buffers(self, network: nn.Module) -> None:
        """Replace the running means of normalizations by their mean over the processes."""
        if self.world > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    torch.distributed.all_reduce(buffer)
                    buffer /= self.world


CPU = Machine(torch.device("cpu"))


def open_machine(name: DeviceName = "auto") -> Machine:
    """The machine that training runs on.

    Under ``torchrun`` this process joins the others and takes the GPU of its local number.

    Args:
        name: ``auto`` takes a GPU if there is one.

    Raises:
        InputError: If a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: this torch finds no CUDA device; use 'cpu', or install torch for CUDA")
    rank, world, local = (int(os.environ.get(key, n)) for key, n in _TORCHRUN.items())
    if name == "cpu" or not torch.cuda.is_available():
        device, half = torch.device("cpu"), _has_fast_bfloat16()
    else:
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        half = torch.cuda.is_bf16_supported(including_emulation=False)
    if world > 1 and not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=_LONGEST_STAGE)
        # The group's threads must not outlive the interpreter: they abort the process.
        atexit.register(torch.distributed.destroy_process_group)
    return Machine(device, half, rank, world)


_TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}


def _has_fast_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; a step of BaseNet then takes half the time."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
