"""Training on the features of frozen paths, kept in files: an example has the same ones in every training.

Only the fully connected layers learn from them, and embed them. So the paths see every example twice in all,
as it is and mirrored, whatever is trained with them. Regions of one slice share the global view, which the
global path sees once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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

__all__ = ["embed_features", "keep_features", "train_on_features"]

# Enough to hold the regions of whole scans, so that those of one slice are together.
_BATCH = 256
# The activations of more views do not fit in a processor's cache.
_PATH_BATCH = 4

Features = NDArray[np.float16]


def keep_features(
    basenet: BaseNet,
    slices: Slices,
    chosen: NDArray[np.int64],
    folder: Path,
    machine: Machine,
    progress: Progress,
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

    Returns:
        (n, 2, n_features), as they are and mirrored, mapped into memory.

    Raises:
        OutputError: If the file cannot be written.
    """
    shape = (len(chosen), 2, basenet.fc1.in_features)
    path = folder / f"features_{_key(basenet, slices, chosen)}.f16"
    note = path.with_suffix(".json")
    try:
        if machine.first:
            make_folder(folder)
            done = json.loads(note.read_text(encoding="utf-8"))["done"] if note.exists() else 0
            with path.open("ab") as file:
                file.truncate(done * shape[1] * shape[2] * np.dtype(np.float16).itemsize)
                for start in range(done, len(chosen), _BATCH):
                    batch = slices.batch(chosen[start : start + _BATCH])
                    file.write(_features_of(basenet, batch, machine).tobytes())
                    file.flush()
                    done = start + len(batch.site)
                    with replacing(note) as temporary:
                        temporary.write_text(json.dumps({"done": done}))
                    progress("features", done, len(chosen), "seen by the frozen paths")
        machine.wait()
        return np.memmap(path, np.float16, "r", shape=shape)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _key(basenet: BaseNet, slices: Slices, chosen: NDArray[np.int64]) -> str:
    """Tells the features from those of other paths or other examples."""
    key = hashlib.sha256("\n".join(slices.id[chosen].tolist()).encode())
    key.update("\n".join(slices.patient[chosen].tolist()).encode() + slices.site[chosen].tobytes())
    key.update(json.dumps(slices.spec.to_dict()).encode())
    for path in (basenet.global_path, basenet.local_path):
        for tensor in path.state_dict().values():
            key.update(tensor.cpu().contiguous().numpy().tobytes())
    return key.hexdigest()[:16]


def _features_of(basenet: BaseNet, batch: Batch, machine: Machine) -> Features:
    """(n, 2, n_features) the features of a batch as it is and mirrored."""
    whole, shared = np.unique(batch.global_view, axis=0, return_inverse=True)
    return np.concatenate(
        [
            _path_features(basenet.global_path, whole, machine)[shared.reshape(-1)],
            _path_features(basenet.local_path, batch.local_view, machine),
        ],
        axis=2,
    )


@torch.inference_mode()
def _path_features(path: ViewPath, views: NDArray[np.uint8], machine: Machine) -> Features:
    """(n, 2, n_features) the features of views (n, channels, size, size) as they are and mirrored."""
    features = np.empty((len(views), 2, path.n_features), dtype=np.float16)
    for start in range(0, len(views), _PATH_BATCH):
        few = views[start : start + _PATH_BATCH]
        for column, step in enumerate((1, -1)):
            view = machine.to_device(np.ascontiguousarray(few[..., ::step]))
            with machine.autocast():
                features[start : start + len(few), column] = path(view).features.half().cpu().numpy()
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

    Minority sites are over-sampled by mirrored examples, the one change whose features are kept too.

    Args:
        basenet: Is changed. Its paths are frozen.
        features: (n, 2, n_features) from `keep_features`.
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
    mirrored = rng.integers(0, 2, len(order))

    def make_batch(step: int) -> tuple[Features, NDArray[np.int64]]:
        part = machine.shard(np.arange(step * batch, (step + 1) * batch))
        return features[order[part], mirrored[part]], sites[order[part]]

    def loss_of(made: tuple[Features, NDArray[np.int64]]) -> tuple[Tensor, dict[str, float]]:
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
    mirrored: NDArray[np.integer],
    progress: Callable[[int], None],
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """The embeddings (n, width) of examples and BaseNet's own site logits (n, sites), from kept features.

    Args:
        basenet: Its mode is left as it was.
        features: (n, 2, n_features) from `keep_features`.
        mirrored: (n,) 1 for an example that is embedded mirrored, else 0.
        progress: Is called with the number of examples done.
    """
    embeddings, logits = [], []
    was_training = basenet.training
    basenet.eval()
    machine = Machine(next(basenet.parameters()).device)
    for start in range(0, len(features), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(features)))
        output = basenet.classify(machine.to_device(features[rows, mirrored[rows]]).float())
        embeddings.append(output.embedding.cpu().numpy().astype(np.float16))
        logits.append(output.site_logits.cpu().numpy())
        progress(int(rows[-1]) + 1)
    basenet.train(was_training)
    return np.concatenate(embeddings), np.concatenate(logits)
