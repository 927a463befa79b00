"""Checkpoints: what a training goes on from, each in a file of torch's; and weights to start from.

A checkpoint is written whole or not at all. It bears the key of its run; that of another run is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from situs.errors import InputError, OutputError
from situs.files import digest, replacing
from situs.learn.nets import BaseNet

__all__ = [
    "GivenWeights",
    "read_basenet_weights",
    "read_checkpoint",
    "resume_training",
    "save_training",
    "write_checkpoint",
]


@dataclass(frozen=True, eq=False)
class GivenWeights:
    """Weights that a training starts from, read from a file once.

    Attributes:
        path: The file.
        sha256: Its SHA-256, as 64 hexadecimal digits.
        tensors: All or some of the weights of a `BaseNet`, by their names in its state.
        folded: Whether convolutions have taken up the batch normalisations, see `situs.learn.from_bundle`.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    folded: bool = False

    def load_into(self, basenet: BaseNet) -> None:
        """Copy the weights into a BaseNet, which keeps its own where none are given."""
        basenet.load_state_dict(self.tensors, strict=False)


def read_basenet_weights(path: Path, basenet: BaseNet) -> GivenWeights:
    """The weights of the BaseNet in a checkpoint of any run.

    Args:
        path: A file that `save_training` wrote.
        basenet: Such a network; only the names and shapes of its weights count.

    Raises:
        InputError: If the file cannot be read, or is no checkpoint of such a BaseNet.
    """
    sha256 = digest(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)["network"]
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
    except Exception as error:  # of any class, when torch meets other bytes
        raise InputError(
            f"{path}: is not a checkpoint of this version: expected paint.pt or basenet.pt of a run's work "
            "folder; an older run has to be trained again"
        ) from error
    if shapes != {name: tensor.shape for name, tensor in basenet.state_dict().items()}:
        raise InputError(
            f"{path}: is not a checkpoint of this recipe's BaseNet: name one that was trained by this recipe"
        )
    return GivenWeights(path, sha256, tensors)


def save_training(
    path: Path,
    key: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    metrics: Mapping[str, float],
) -> None:
    """Write a checkpoint of a network in training.

    Args:
        path: The file.
        key: Of the run.
        network: The network.
        optimizer: Its optimizer.
        step: The step to go on with.
        metrics: The last metrics of the log by name.

    Raises:
        OutputError: If the file cannot be written.
    """
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    write_checkpoint(path, key, {**state, "step": step, "metrics": dict(metrics)})


def resume_training(
    path: Path, key: str, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, float]]:
    """Load what `save_training` wrote, if the file is there.

    Returns:
        The step to go on with and the last metrics; 0 and {} without the file.

    Raises:
        OutputError: If the file is damaged, or of another run.
    """
    content = read_checkpoint(path, key)
    if content is None:
        return 0, {}
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    return content["step"], content["metrics"]


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """What `write_checkpoint` wrote; None if there is no such file. Tensors are on the CPU.

    Raises:
        OutputError: If the file is damaged, or of another run.
    """
    if not path.exists():
        return None
    try:
        written: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        own = written.pop("key") == key
    except Exception as error:  # of any class, when torch meets other bytes
        raise OutputError(f"{path}: is damaged: delete it to train this stage again") from error
    if not own:
        raise OutputError(f"{path}: is of another run: delete it or choose another work folder")
    return written


def write_checkpoint(path: Path, key: str, content: Mapping[str, Any]) -> None:
    """Write a file that holds the run's key and a content of tensors, numbers, strings, lists and dicts.

    Raises:
        OutputError: If the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({**content, "key": key}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # which torch hides: a write failed
                raise error.__context__ from error
            raise
