"""The loop that trains a network: batches made beside the steps, AdamW or SGD, checkpoints."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from situs.errors import InputError
from situs.learn.checkpoints import resume_training, save_training
from situs.learn.devices import CPU, Machine
from situs.progress import Progress

__all__ = ["LoopSettings", "accuracy", "make_optimizer", "optimizer_step", "run_loop"]

T = TypeVar("T")

_CLIP_NORM = 1.0  # largest norm of the gradients with AdamW
_WARM_UP = 0.2  # of the steps; then the learning rate falls as a cosine
_CHECKPOINT_SECONDS = 60.0
_LOG_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast a network is trained, and where its checkpoint lies.

    Attributes:
        stage: The name of the stage, for the log.
        steps: The number of steps.
        batch: The number of examples in each step.
        learning_rate: With AdamW the highest rate of the cycle, with SGD the constant rate.
        weight_decay: With AdamW of matrices and kernels only, with SGD of all parameters.
        momentum: Of SGD; None for AdamW.
        seed: Tells this stage and run from others. Together with the step it seeds the dropout.
        checkpoint: The file of the checkpoint.
        key: The run's key, see `situs.learn.checkpoints`.
        machine: Where the network is.
    """

    stage: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    momentum: float | None
    seed: Sequence[int]
    checkpoint: Path
    key: str
    machine: Machine = CPU


def run_loop(
    network: nn.Module,
    make_batch: Callable[[int], T],
    loss_of: Callable[[T], tuple[Tensor, dict[str, float]]],
    settings: LoopSettings,
    progress: Progress,
) -> dict[str, float]:
    """Train a network; go on from its checkpoint if there is one.

    Args:
        network: Is changed. It is on the machine of the settings.
        make_batch: Makes the batch of a step, 0 to ``settings.steps - 1``. Another thread calls it, two steps
            ahead.
        loss_of: Gives the loss of a batch and further metrics for the log.
        settings: How long, how fast and where.
        progress: Is called with the stage, the examples done, all examples and the metrics as text.

    Returns:
        The last metrics of the log by name, ``loss`` among them.

    Raises:
        OutputError: If the checkpoint is damaged or of another run, or cannot be written.
        InputError: If the loss is not finite.
    """
    stage, steps, batch, machine = settings.stage, settings.steps, settings.batch, settings.machine
    optimizer = make_optimizer(network, settings.learning_rate, settings.weight_decay, settings.momentum)
    start, metrics = resume_training(settings.checkpoint, settings.key, network, optimizer)
    machine.wait()  # no process writes before all have read
    network.train()
    means = _RunningMeans()
    saved = logged = time.monotonic()
    step, whole = start, True  # whole: no step is half done

    def save() -> None:
        if machine.first:
            save_training(settings.checkpoint, settings.key, network, optimizer, step, metrics)

    batches = _prefetch(make_batch, start, steps)
    try:
        for prepared in batches:
            torch.manual_seed(_step_seed([*settings.seed, step, machine.rank]))  # dropout
            if settings.momentum is None:
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * _one_cycle(step / steps)
            loss, step_metrics = loss_of(prepared)
            whole = False
            clip_norm = _CLIP_NORM if settings.momentum is None else None
            value = optimizer_step(network, optimizer, loss, stage, machine, clip_norm)
            step += 1
            whole = True
            means.add({"loss": value, **step_metrics})
            now = time.monotonic()
            if now - logged > _LOG_SECONDS or step == steps:
                rate = means.count * batch / max(now - logged, 1e-9)
                logged, metrics = now, means.take()
                _log.info("%s %d/%d %s %.0f/s", stage, step * batch, steps * batch, _format(metrics), rate)
            progress(stage, step * batch, steps * batch, _format(metrics))
            if now - saved > _CHECKPOINT_SECONDS:
                saved = now
                save()
        machine.average_buffers(network)
    finally:
        batches.close()
        if step > start and whole:
            save()
    machine.wait()
    return metrics


def optimizer_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    stage: str,
    machine: Machine = CPU,
    clip_norm: float | None = None,
) -> float:
    """One step down the gradient of a loss, averaged over the processes of the machine.

    Args:
        network: Is changed.
        optimizer: Of its parameters.
        loss: A scalar.
        stage: What is trained, for the error's line.
        machine: Where the network is.
        clip_norm: Longer gradients are shortened to this norm; None leaves them as they are.

    Returns:
        The loss as a number.

    Raises:
        InputError: If the loss is not finite; the network is not changed.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InputError(
            f"{stage}: the loss is {value}: weights that were given hold such numbers, or the learning rate "
            "is too high; start again in another work folder"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    machine.average_gradients(network.parameters())
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimizer.step()
    return value


def accuracy(scores: Tensor, sites: Tensor) -> float:
    """The fraction of examples whose site (n,) has the highest of their scores (n, m)."""
    return float((scores.detach().argmax(dim=1) == sites).float().mean())


def make_optimizer(
    network: nn.Module, learning_rate: float, weight_decay: float, momentum: float | None
) -> torch.optim.Optimizer:
    """SGD, or AdamW if the momentum is None; for the arguments see `LoopSettings`."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if momentum is not None:
        return torch.optim.SGD(parameters, learning_rate, momentum, weight_decay=weight_decay, fused=True)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, learning_rate, fused=True)


class _RunningMeans:
    """Means of named numbers."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, float] = {}

    def add(self, values: dict[str, float]) -> None:
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / self.count for name, total in self._sums.items()}
        self.count, self._sums = 0, {}
        return means


def _format(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())


def _one_cycle(t: float) -> float:
    """The learning rate at the time t in [0, 1) as a fraction of the highest.

    It rises along a line and falls along a cosine.
    """
    if t < _WARM_UP:
        return 0.04 + 0.96 * t / _WARM_UP
    return float(0.5 + 0.5 * np.cos(np.pi * (t - _WARM_UP) / (1 - _WARM_UP)))


def _step_seed(seed: Sequence[int]) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _prefetch(make: Callable[[int], T], start: int, steps: int) -> Generator[Any, None, None]:
    """make(start) ... make(steps - 1), made by a thread, two ahead, so that this overlaps the steps."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def work() -> None:
        try:
            for step in range(start, steps):
                item = (True, make(step))
                while not stop.is_set():
                    with suppress(queue.Full):
                        ready.put(item, timeout=0.1)
                        break
                if stop.is_set():
                    return
        except BaseException as error:
            ready.put((False, error))

    thread = threading.Thread(target=work, name="situs-batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, steps):
            succeeded, item = ready.get()
            if not succeeded:
                raise item
            yield item
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()
        thread.join()
