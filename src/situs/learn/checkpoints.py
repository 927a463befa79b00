"""Checkpoints: weights, the optimizer's state and a few notes in one safetensors file, whole or not there.

A checkpoint bears the key of its run; that of another run is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from situs.errors import InputError, OutputError
from situs.files import replacing
from situs.learn.nets import BaseNet

__all__ = [
    "load_weights",
    "read_checkpoint",
    "resume_training",
    "save_training",
    "write_checkpoint",
]


def save_training(
    path: Path,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    figures: dict[str, float],
    average: nn.Module | None = None,
) -> None:
    """Write a network in training, with the step to go on with, the last figures of the log and, where its
    weights are averaged, what they are averaged in (`torch.optim.swa_utils.AveragedModel`)."""
    tensors = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{slot}.{name}"] = value
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    write_checkpoint(path, tensors, {"key": key, "step": str(step), "figures": json.dumps(figures)})


def resume_training(
    path: Path,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> tuple[int, dict[str, float]]:
    """Load what `save_training` wrote; the step to go on with, and the last figures, or 0 and {} without it.

    Raises:
        OutputError: if the file is damaged, or of another run
    """
    tensors, notes = read_checkpoint(path, key)
    if notes is None:
        return 0, {}
    network.load_state_dict(_under("weights.", tensors))
    averaged = _under("average.", tensors)
    if average is not None and averaged:
        average.load_state_dict(averaged)
    parameters = dict(network.named_parameters())
    for entry, value in _under("optimizer.", tensors).items():
        slot, _, name = entry.partition(".")
        like = torch.empty_like(parameters[name], memory_format=torch.preserve_format)
        optimizer.state[parameters[name]][slot] = like.copy_(value) if value.ndim else value.to(like.device)
    return int(notes["step"]), json.loads(notes["figures"])


def load_weights(path: Path, basenet: BaseNet) -> None:
    """Load the weights that `save_training` wrote, of whatever run; `basenet` may be on the device ``meta``.

    Raises:
        InputError: if it cannot be read, or is no checkpoint of such a BaseNet
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        basenet.load_state_dict(_under("weights.", tensors), assign=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: is not a checkpoint of this recipe's BaseNet") from error


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Tensors and notes; the notes are None if there is no such file.

    Raises:
        OutputError: if the file is damaged, or of another run
    """
    if not path.exists():
        return {}, None
    try:
        with safe_open(path, "pt") as file:
            notes = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: is damaged: delete it to train this stage again") from error
    if notes["key"] != key:
        raise OutputError(f"{path}: is of another run: delete it or choose another work folder")
    return tensors, notes


def write_checkpoint(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Write tensors and notes, of which ``key`` is the run's."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(whole, temporary, notes)
    except SafetensorError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
