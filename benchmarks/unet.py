"""Plain U-Nets that paint the sites on the views of a slice: the networks of `dense.py` and their training.

One U-Net learns the global view and one the local view, each from the channels that BaseNet sees, the region
filled gray and marked. Both paint 16 classes (none and the 15 sites) at the size of the targets. Balancing,
augmentation, weights of classes and pixels, optimizer and cycle are as in the recipe `compact`.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.cohort.examples import SITE_UNKNOWN
from situs.cohort.sampling import balanced_indices
from situs.cohort.slices import Batch, Slices
from situs.errors import ManifestError
from situs.learn.augment import augment
from situs.learn.devices import CPU, Machine
from situs.learn.loop import LoopSettings, run_loop
from situs.learn.losses import site_map_weights
from situs.learn.nets import region_under
from situs.learn.recipe import COMPACT
from situs.progress import Progress

WIDTH = 24  # so a step takes as long as one of BaseNet's
# As in `situs.learn.losses`: what is asked about counts more.
REGION_WEIGHT = 10.0
VIEWS = ("global", "local")

Numbers = NDArray[np.float32]
Views = NDArray[np.uint8]


class UNet(nn.Module):
    """A plain U-Net (Ronneberger et al. 2015): four levels of two convolutions, skips concatenated.

    Its first convolution takes every second pixel: it paints at half the size of its view, as the targets.

    Args:
        n_channels: Of a view.
        width: Channels at the finest level, doubled at every coarser one.
    """

    def __init__(self, n_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList([_block(n_channels, width, stride=2)])
        self.down += [_block(a, b) for a, b in pairwise(widths)]
        finer = list(zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.narrow = nn.ModuleList([nn.Conv2d(coarse, fine, 1) for fine, coarse in finer])
        self.up = nn.ModuleList([_block(2 * fine, fine) for fine, _ in finer])
        self.paint = nn.Conv2d(width, len(SITES) + 1, 1)

    def forward(self, view: Tensor) -> Tensor:
        """Logits (n, 16, s / 2, s / 2) of a view (n, channels, s, s) in bytes; s a multiple of 16."""
        x = view.float() / 127.5 - 1
        levels: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        for narrow, up, level in zip(self.narrow, self.up, levels[-2::-1], strict=True):
            x = up(torch.cat([F.interpolate(narrow(x), scale_factor=2.0, mode="nearest"), level], dim=1))
        return self.paint(x).float()


def _block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, step in ((n_in, stride), (n_out, 1)):
        layers += [nn.Conv2d(n, n_out, 3, step, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers)


def new_networks(n_channels: int, width: int, seed: int, machine: Machine) -> nn.ModuleDict:
    """An untrained U-Net for every view."""
    torch.manual_seed(seed)
    networks = nn.ModuleDict({view: UNet(n_channels, width) for view in VIEWS})
    return networks.to(machine.device, memory_format=torch.channels_last)


def painting_loss(logits: Tensor, sites: Tensor, region: Tensor, class_weights: Tensor) -> Tensor:
    """The weighted cross-entropy of what is painted, as in `situs.learn` without the midline.

    Args:
        logits: (n, 16, h, w).
        sites: (n, h, w) the site maps; `SITE_UNKNOWN` is ignored.
        region: (n, h, w) how much of each pixel is region; it weighs more.
        class_weights: (16,).
    """
    pixel_weights = 1 + (REGION_WEIGHT - 1) * region
    loss = F.cross_entropy(logits, sites, class_weights, ignore_index=SITE_UNKNOWN, reduction="none")
    weights = (sites != SITE_UNKNOWN) * class_weights[sites.clamp(max=len(SITES))] * pixel_weights
    return (loss * pixel_weights).sum() / weights.sum().clamp(min=1e-6)


def train(
    networks: nn.ModuleDict,
    slices: Slices,
    chosen: NDArray[np.int64],
    samples: int,
    seed: int,
    work: Path,
    progress: Progress,
    machine: Machine = CPU,
) -> dict[str, float]:
    """Train the U-Nets on the examples `chosen` (n,), or go on; the last figures of the log.

    Raises:
        ManifestError: If the cohort has no site maps.
    """
    if slices.global_sites is None:
        raise ManifestError("the cohort has no site maps: a dense baseline learns nothing else")
    order = chosen[balanced_indices(slices.site[chosen], samples, np.random.default_rng([seed, 0]))]
    weights = site_map_weights(slices, chosen, seed).to(machine.device)

    def make(step: int) -> Batch:
        part = order[step * COMPACT.batch : (step + 1) * COMPACT.batch]
        return augment(slices.batch(np.sort(part)), slices.spec, np.random.default_rng([seed, 0, step]))

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        losses, scores = [], []
        for name in VIEWS:
            view, sites = machine.to_device(getattr(batch, f"{name}_view")), getattr(batch, f"{name}_sites")
            with machine.autocast():
                logits = networks[name](view)
            region = region_under(view)[:, 0]
            losses.append(painting_loss(logits, machine.to_device(sites).long(), region, weights))
            scores.append(read_region(logits.detach(), region))
        right = (sum(scores).argmax(dim=1) == machine.to_device(batch.site)).float().mean()
        return sum(losses) / len(losses), {"accuracy": float(right)}

    work.mkdir(parents=True, exist_ok=True)
    settings = LoopSettings(
        "dense",
        samples // COMPACT.batch,
        COMPACT.batch,
        COMPACT.learning_rate,
        COMPACT.weight_decay,
        None,
        [seed, 0],
        work / "dense.pt",
        _run_key(networks, slices, chosen, samples, seed),
        machine,
    )
    return run_loop(networks, make, loss_of, settings, progress)


def _run_key(
    networks: nn.ModuleDict, slices: Slices, chosen: NDArray[np.int64], samples: int, seed: int
) -> str:
    """A name that changes with all that decides the weights."""
    shapes = [list(tensor.shape) for tensor in networks.state_dict().values()]
    settings = [slices.spec.to_dict(), shapes, samples, seed]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update("\n".join(slices.id[chosen].tolist()).encode() + slices.site[chosen].tobytes())
    return digest.hexdigest()[:16]


def read_region(logits: Tensor, region: Tensor) -> Tensor:
    """(n, 15) the probability of every site, averaged over the region (n, h, w) of logits (n, 16, h, w)."""
    under = (logits.softmax(dim=1)[:, 1:] * region[:, None]).sum(dim=(2, 3))
    return under / region.sum(dim=(1, 2)).clamp(min=1e-6)[:, None]


@torch.inference_mode()
def read_views(
    networks: nn.ModuleDict, views: tuple[Views, Views], which: tuple[str, ...] = VIEWS, batch: int = 32
) -> dict[str, Numbers]:
    """What the U-Nets paint under the region, averaged: (n, 15) by the name of the view.

    Args:
        networks: A U-Net for each view.
        views: The global and the local views, (n, channels, s, s) each.
        which: The views that are read.
        batch: How many slices are read at once.
    """
    networks.eval()
    machine = Machine(next(networks.parameters()).device)
    read: dict[str, list[Numbers]] = {name: [] for name in which}
    for start in range(0, len(views[0]), batch):
        for name, whole in zip(VIEWS, views, strict=True):
            if name in which:
                view = machine.to_device(np.ascontiguousarray(whole[start : start + batch]))
                read[name].append(read_region(networks[name](view), region_under(view)[:, 0]).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in read.items()}
