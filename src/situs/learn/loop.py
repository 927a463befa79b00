"""The loop that trains a network: AdamW in one cycle or SGD, weights averaged over the last steps, batches
made beside the steps, checkpoints."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from situs.errors import InputError
from situs.learn.checkpoints import resume_training, save_training
from situs.learn.devices import CPU, Machine

__all__ = ["Plan", "Progress", "check_loss", "fit", "make_optimizer", "share_right", "silent"]

Progress = Callable[[str, int, int, str], None]  # stage, done, total, message
T = TypeVar("T")

_CLIP_NORM = 1.0
_WARM_UP = 0.2  # of the steps; then the learning rate falls as a cosine
_AVERAGED_RATE = 0.15  # of the highest learning rate, while weights are averaged
_SETTLING_STEPS = 100  # whose examples give averaged weights their running means
_CHECKPOINT_SECONDS = 60.0
_LOG_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long and how fast a network is trained, and where that is kept.

    Attributes:
        stage: its name, for the log
        steps: how many, and examples in each
        batch: See `steps`.
        learning_rate: the highest of the cycle, or the constant one
        weight_decay: with AdamW on matrices and kernels, not on biases and normalization; with SGD on all
        momentum: of SGD at a constant rate, as in the paper; None for AdamW in one cycle with short gradients
        seed: what tells this stage of this run from others; with the step it seeds the dropout
        checkpoint: the file, and the run's key, see `situs.learn.checkpoints`
        key: See `checkpoint`.
        averaged: the last part of the steps, over which the weights are averaged (stochastic weight
            averaging, Izmailov et al. 2018; after every step, as in SWAD, Cha et al. 2021, which did better
            on images unlike those trained on). The cycle ends before it
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
    averaged: float = 0.0


def fit(
    network: nn.Module,
    make: Callable[[int], T],
    loss_of: Callable[[T], tuple[Tensor, dict[str, float]]],
    plan: Plan,
    say: Progress,
) -> dict[str, float]:
    """Train a network, from its checkpoint on if there is one.

    Args:
        network: is changed; on the plan's machine
        make: gives the batch of a step, 0 to ``plan.steps - 1``; called in another thread, two steps ahead
        loss_of: gives the loss of a batch, and figures for the log, which should be high
        plan: how long, how fast and where to
        say: is called with (stage, examples done, examples in all, figures as text)

    Returns:
        The last figures of the log by name, with the ``loss``

    Raises:
        OutputError: if the checkpoint is damaged or of another run, or cannot be written
        InputError: if the loss is not finite any more
    """
    stage, steps, batch, machine = plan.stage, plan.steps, plan.batch, plan.machine
    optimizer = make_optimizer(network, plan.learning_rate, plan.weight_decay, plan.momentum)
    average = AveragedModel(network) if plan.averaged else None
    start, figures = resume_training(plan.checkpoint, plan.key, network, optimizer, average)
    machine.wait()  # nobody writes before all have read
    network.train()
    mean = _Mean()
    saved = logged = time.monotonic()
    step, whole = start, True  # whole: no step is half done
    batches = _prefetch(make, start, steps)
    try:
        for prepared in batches:
            torch.manual_seed(_step_seed([*plan.seed, step, machine.rank]))  # dropout
            if plan.momentum is None:
                for group in optimizer.param_groups:
                    group["lr"] = plan.learning_rate * _one_cycle(step / steps, plan.averaged)
            loss, right = loss_of(prepared)
            whole = False
            value = check_loss(loss, stage)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            machine.average_gradients(network.parameters())
            if plan.momentum is None:
                nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
            optimizer.step()
            if average is not None and step >= (1 - plan.averaged) * steps:
                average.update_parameters(network)
            step += 1
            whole = True
            mean.add({"loss": value, **right})
            now = time.monotonic()
            if now - logged > _LOG_SECONDS or step == steps:
                rate = mean.count * batch / max(now - logged, 1e-9)
                logged, figures = now, mean.take()
                _log.info("%s %d/%d %s %.0f/s", stage, step * batch, steps * batch, _line(figures), rate)
            say(stage, step * batch, steps * batch, _line(figures))
            if machine.first and now - saved > _CHECKPOINT_SECONDS:
                saved = now
                save_training(plan.checkpoint, plan.key, network, optimizer, step, figures, average)
        machine.average_buffers(network)
    finally:
        batches.close()
        if machine.first and step > start and whole:
            save_training(plan.checkpoint, plan.key, network, optimizer, step, figures, average)
    if average is not None and average.n_averaged > 0:  # the checkpoint of a finished stage has no average
        network.load_state_dict(average.module.state_dict())
        _settle(network, _prefetch(make, max(0, steps - _SETTLING_STEPS), steps), loss_of)
        machine.average_buffers(network)
        if machine.first:
            save_training(plan.checkpoint, plan.key, network, optimizer, step, figures)
    machine.wait()
    return figures


def share_right(scores: Tensor, site: Tensor) -> float:
    """The share of the sites (n,) that have the highest of the scores (n, m)."""
    return float((scores.detach().argmax(dim=1) == site).float().mean())


def check_loss(loss: Tensor, stage: str) -> float:
    """The loss of a step as a number.

    Raises:
        InputError: if it is not finite: weights would stay so
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InputError(
            f"{stage}: the loss is {value}: weights that were given hold such numbers, or the learning rate "
            "is too high; start again in another work folder"
        )
    return value


def silent(stage: str, done: int, total: int, message: str) -> None:
    """A `Progress` that tells nobody."""


def make_optimizer(
    network: nn.Module, learning_rate: float, weight_decay: float, momentum: float | None
) -> torch.optim.Optimizer:
    """SGD with a momentum; AdamW if that is None. The arguments are those of `Plan`."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if momentum is not None:
        return torch.optim.SGD(parameters, learning_rate, momentum, weight_decay=weight_decay)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, learning_rate, fused=True)


class _Mean:
    """Running means of named figures."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, float] = {}

    def add(self, figures: dict[str, float]) -> None:
        self.count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: total / self.count for name, total in self._sums.items()}
        self.count, self._sums = 0, {}
        return means


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())


def _one_cycle(t: float, averaged: float = 0.0) -> float:
    """Share of the highest learning rate at the time t in [0, 1): up in a line, down in a cosine, level over
    the last part whose weights are averaged."""
    if t < _WARM_UP:
        return 0.04 + 0.96 * t / _WARM_UP
    least = _AVERAGED_RATE if averaged else 0.0
    down = min(1.0, (t - _WARM_UP) / (1 - averaged - _WARM_UP))
    return float(least + (1 - least) * (0.5 + 0.5 * np.cos(np.pi * down)))


def _settle(
    network: nn.Module, batches: Iterable[T], loss_of: Callable[[T], tuple[Tensor, dict[str, float]]]
) -> None:
    """Give the normalizations of a network whose weights were changed the running means of some batches; as
    `torch.optim.swa_utils.update_bn`, for batches that only `loss_of` understands."""
    momenta = {layer: layer.momentum for layer in network.modules() if isinstance(layer, _BatchNorm)}
    if not momenta:
        return
    for layer in momenta:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad():
        for batch in batches:
            loss_of(batch)
    for layer, momentum in momenta.items():
        layer.momentum = momentum


def _step_seed(seed: Sequence[int]) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _prefetch(make: Callable[[int], T], start: int, steps: int) -> Generator[Any, None, None]:
    """make(start) ... make(steps - 1), made two ahead in a thread, so that this overlaps the step."""
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
            fine, item = ready.get()
            if not fine:
                raise item
            yield item
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()
        thread.join()
