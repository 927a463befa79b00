"""Training on the features of frozen paths, kept in files: an example has the same ones in every training.

Only the fully connected layers learn from them, and embed them. So the paths see an example once, whatever is
trained with them, and a second time mirrored if its site is over-sampled. Regions of one slice share the
global view, which the global path sees once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from situs.cohort.sampling import balanced_indices
from situs.cohort.slices import Batch, Slices
from situs.errors import OutputError
from situs.files import make_folder, replacing
from situs.learn.devices import Machine
from situs.learn.loop import LoopSettings, accuracy, run_loop
from situs.learn.nets import BaseNet, ViewPath
from situs.progress import Progress

__all__ = ["Features", "embed_features", "keep_features", "train_on_features"]

# Enough to hold the regions of whole scans, so that those of one slice are together.
_BATCH = 256
# The activations of more views do not fit in a processor's cache.
_PATH_BATCH = 4


@dataclass(frozen=True, eq=False)
class Features:
    """The features of n examples, and of some of them mirrored.

    Attributes:
        values: (n + m, n_features) of the examples, then of the m mirrored ones.
        mirrored: (n,) the row of each example's mirrored features; its own one where they are not kept.
    """

    values: NDArray[np.float16]
    mirrored: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.mirrored)

    def take(self, examples: NDArray[np.int64], mirror: NDArray[np.integer]) -> NDArray[np.float16]:
        """The features (m, n_features) of `examples` (m,), mirrored where `mirror` (m,) is 1."""
        return self.values[np.where(mirror, self.mirrored[examples], examples)]


def keep_features(
    basenet: BaseNet,
    slices: Slices,
    chosen: NDArray[np.int64],
    folder: Path,
    machine: Machine,
    progress: Progress,
    training: bool = False,
) -> Features:
    """The frozen paths' features of examples, from their file; what the file lacks is made first.

    A stopped run goes on. Trainings of the same paths on the same examples share the file.

    Args:
        basenet: Only its paths count.
        slices: The examples of a cohort.
        chosen: (n,) those that are asked for.
        folder: Where the file lies; it is made unless it is there.
        machine: What computes.
        progress: Is called with the stage ``features``.
        training: Whether those of over-sampled sites are kept mirrored too.

    Returns:
        The features, mapped into memory.

    Raises:
        OutputError: If the file cannot be written.
    """
    n = len(chosen)
    again = np.flatnonzero(_oversampled(slices.site[chosen]) & training)
    mirrored = np.arange(n)
    mirrored[again] = n + np.arange(len(again))
    # The rows of the file: which example, and the step through its columns.
    rows = [(chosen, 1), (chosen[again], -1)]
    shape = (n + len(again), basenet.fc1.in_features)
    path = folder / f"features_{_key(basenet, slices, rows)}.f16"
    note = path.with_suffix(".json")
    try:
        if machine.first:
            make_folder(folder)
            done = json.loads(note.read_text(encoding="utf-8"))["done"] if note.exists() else 0
            with path.open("ab") as file:
                file.truncate(done * shape[1] * np.dtype(np.float16).itemsize)
                before = 0
                for examples, step in rows:
                    for start in range(max(done - before, 0), len(examples), _BATCH):
                        batch = slices.batch(examples[start : start + _BATCH])
                        file.write(_features_of(basenet, batch, step, machine).tobytes())
                        file.flush()
                        written = before + start + len(batch.site)
                        with replacing(note) as temporary:
                            temporary.write_text(json.dumps({"done": written}))
                        progress("features", written, shape[0], "seen by the frozen paths")
                    before += len(examples)
        machine.wait()
        return Features(np.memmap(path, np.float16, "r", shape=shape), mirrored)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _oversampled(sites: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether an example's site has fewer examples than the mean of the sites that occur."""
    _, codes, counts = np.unique(sites, return_inverse=True, return_counts=True)
    return np.asarray((counts < counts.mean())[codes])


def _key(basenet: BaseNet, slices: Slices, rows: list[tuple[NDArray[np.int64], int]]) -> str:
    """Tells the features from those of other paths or other examples."""
    key = hashlib.sha256(json.dumps(slices.spec.to_dict()).encode())
    for examples, _ in rows:
        key.update("\n".join([*slices.id[examples].tolist(), *slices.patient[examples].tolist()]).encode())
        key.update(slices.site[examples].tobytes())
    for path in (basenet.global_path, basenet.local_path):
        for tensor in path.state_dict().values():
            key.update(tensor.cpu().contiguous().numpy().tobytes())
    return key.hexdigest()[:16]


def _features_of(basenet: BaseNet, batch: Batch, step: int, machine: Machine) -> NDArray[np.float16]:
    """(n, n_features) the features of a batch, or of the mirrored batch if `step` is -1."""
    whole, shared = np.unique(batch.global_view, axis=0, return_inverse=True)
    return np.concatenate(
        [
            _path_features(basenet.global_path, whole[..., ::step], machine)[shared.reshape(-1)],
            _path_features(basenet.local_path, batch.local_view[..., ::step], machine),
        ],
        axis=1,
    )


@torch.inference_mode()
def _path_features(path: ViewPath, views: NDArray[np.uint8], machine: Machine) -> NDArray[np.float16]:
    """(n, n_features) the features of views (n, channels, size, size)."""
    features = np.empty((len(views), path.n_features), dtype=np.float16)
    for start in range(0, len(views), _PATH_BATCH):
        few = machine.to_device(np.ascontiguousarray(views[start : start + _PATH_BATCH]))
        with machine.autocast():
            features[start : start + len(few)] = path(few).features.half().cpu().numpy()
    return features


def train_on_features(
    basenet: BaseNet,
    features: Features,
    sites: NDArray[np.int64],
    settings: LoopSettings,
    label_smoothing: float,
    progress: Progress,
) -> dict[str, float]:
    """Train BaseNet's fully connected layers on kept features.

    Minority sites are over-sampled by mirrored examples, the one change whose features are kept too; majority
    sites are under-sampled (paper, section 3.4).

    Args:
        basenet: Is changed. Its paths are frozen.
        features: Of n examples.
        sites: (n,) the number of each example's site.
        settings: How long and how fast; its seed also gives the order of the examples.
        label_smoothing: Of the site.
        progress: Is called as the training goes on.

    Returns:
        The last metrics of the log by name.

    Raises:
        InputError: If the loss is not finite.
        OutputError: If the checkpoint is damaged or cannot be written.
    """
    machine, batch = settings.machine, settings.batch
    rng = np.random.default_rng(settings.seed)
    order = balanced_indices(sites, settings.steps * batch, rng)
    mirror = rng.integers(0, 2, len(order))

    def make_batch(step: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        part = machine.shard(np.arange(step * batch, (step + 1) * batch))
        return features.take(order[part], mirror[part]), sites[order[part]]

    def loss_of(made: tuple[NDArray[np.float16], NDArray[np.int64]]) -> tuple[Tensor, dict[str, float]]:
        site = machine.to_device(made[1])
        with machine.autocast():
            logits = basenet.classify(machine.to_device(made[0]).float()).site_logits
        loss = F.cross_entropy(logits, site, label_smoothing=label_smoothing)
        return loss, {"accuracy": accuracy(logits, site)}

    return run_loop(basenet, make_batch, loss_of, settings, progress)


@torch.inference_mode()
def embed_features(
    basenet: BaseNet,
    features: Features,
    mirror: NDArray[np.integer],
    progress: Callable[[int], None],
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """The embeddings (n, width) of examples and BaseNet's own site logits (n, sites), from kept features.

    Args:
        basenet: Its mode is left as it was.
        features: Of n examples.
        mirror: (n,) 1 for an example that is embedded mirrored where such features are kept, else 0.
        progress: Is called with the number of examples done.
    """
    embeddings, logits = [], []
    was_training = basenet.training
    basenet.eval()
    machine = Machine(next(basenet.parameters()).device)
    for start in range(0, len(features), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(features)))
        output = basenet.classify(machine.to_device(features.take(rows, mirror[rows])).float())
        embeddings.append(output.embedding.cpu().numpy().astype(np.float16))
        logits.append(output.site_logits.cpu().numpy())
        progress(int(rows[-1]) + 1)
    basenet.train(was_training)
    return np.concatenate(embeddings), np.concatenate(logits)
