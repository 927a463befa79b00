"""BaseNet with frozen paths: what they say about every example is kept, and only the rest learns from it."""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from situs.cohort.sampling import balanced_indices
from situs.cohort.slices import Batch
from situs.errors import OutputError
from situs.files import replacing
from situs.learn.devices import Machine
from situs.learn.loop import fit, share_right
from situs.learn.nets import BaseNet
from situs.learn.run import Run

__all__ = ["train_fc"]

_BATCH = 32


def train_fc(basenet: BaseNet, run: Run) -> dict[str, float]:
    """The stages ``features`` and ``fc``; changes the fully connected layers of `basenet`.

    Minority sites are over-sampled by mirrored examples, the one change that can be kept.
    """
    recipe, sites, machine = run.recipe, run.slices.site[run.chosen], run.machine
    basenet.global_path.requires_grad_(False)
    basenet.local_path.requires_grad_(False)
    features = _features(basenet, run)
    rng = np.random.default_rng(run.stage_seed("fc"))
    order = balanced_indices(sites, recipe.basenet_samples, rng, recipe.balance)
    mirrored = rng.integers(0, 2, len(order))

    def make(step: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        part = machine.share(np.arange(step * recipe.batch, (step + 1) * recipe.batch))
        return features[order[part], mirrored[part]], sites[order[part]]

    def loss_of(batch: tuple[NDArray[np.float16], NDArray[np.int64]]) -> tuple[Tensor, dict[str, float]]:
        site = machine.put(batch[1])
        with machine.autocast():
            logits = basenet.judge(machine.put(batch[0]).float()).site_logits
        loss = F.cross_entropy(logits, site, label_smoothing=recipe.label_smoothing)
        return loss, {"accuracy": share_right(logits, site)}

    plan = run.plan("fc", len(order))
    return fit(basenet, make, loss_of, plan, run.say)


def _features(basenet: BaseNet, run: Run) -> NDArray[np.float16]:
    """What the frozen paths say about the chosen examples, as they are and mirrored: (n, 2, features), a file
    mapped into memory. A stopped run goes on."""
    chosen, machine = run.chosen, run.machine
    shape = (len(chosen), 2, basenet.fc1.in_features)
    path, note = run.work / "features.f16", run.work / "features.json"
    try:
        if machine.first:
            done = json.loads(note.read_text(encoding="utf-8"))["done"] if note.exists() else 0
            with path.open("ab") as file:
                file.truncate(done * 2 * shape[2] * 2)
                for start in range(done, len(chosen), _BATCH):
                    batch = run.slices.batch(chosen[start : start + _BATCH])
                    file.write(_features_of(basenet, batch, machine).tobytes())
                    file.flush()
                    done = start + len(batch.site)
                    with replacing(note) as temporary:
                        temporary.write_text(json.dumps({"done": done}))
                    run.say("features", done, len(chosen), "seen by the frozen paths")
        machine.wait()
        return np.memmap(path, np.float16, "r", shape=shape)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


@torch.inference_mode()
def _features_of(basenet: BaseNet, batch: Batch, machine: Machine) -> NDArray[np.float16]:
    """(n, 2, features) of a batch as it is and mirrored."""
    both = []
    for step in (1, -1):
        views = (np.ascontiguousarray(v[..., ::step]) for v in (batch.global_view, batch.local_view))
        with machine.autocast():
            paths = zip((basenet.global_path, basenet.local_path), views, strict=True)
            said = [path(machine.put(view)).features for path, view in paths]
        both.append(torch.cat(said, dim=1).half().cpu().numpy())
    return np.stack(both, axis=1)
