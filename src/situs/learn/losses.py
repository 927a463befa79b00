"""What training makes small, and how much each class of the site map weighs in it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import Batch, Slices
from situs.learn.nets import LATERAL_UNIT_MM, BaseNetOutput

__all__ = ["painting_loss", "paintings_loss", "relation_loss", "shares_loss", "site_map_weights"]

# Pixels under the region count this much more than others: they are what is asked about, and few.
_REGION_WEIGHT = 10.0
# The classes of the site map weigh as frequency ** -this: "none" has half of all pixels, a cistern 1 in 500.
_CLASS_TEMPER = 0.5
_LATERAL_WEIGHT = 0.5


def paintings_loss(said: BaseNetOutput, batch: Batch, class_weights: Tensor) -> Tensor:
    """The mean `painting_loss` of the global and the local view of a batch with targets; a scalar."""
    losses = []
    for painting, view, sites, lateral in (
        (said.global_painting, batch.global_view, batch.global_sites, batch.global_lateral),
        (said.local_painting, batch.local_view, batch.local_sites, batch.local_lateral),
    ):
        assert painting is not None  # only called for paths that paint, where there are targets
        assert sites is not None and lateral is not None
        mask, of_sites, of_lateral = (
            torch.from_numpy(a).to(painting.device) for a in (view[:, -1], sites, lateral)
        )
        region = F.avg_pool2d(mask.float() / 255, 2)
        losses.append(painting_loss(painting, of_sites, of_lateral, region, class_weights))
    return (losses[0] + losses[1]) / 2


def painting_loss(
    painting: Tensor, sites: Tensor, lateral: Tensor, region: Tensor, class_weights: Tensor
) -> Tensor:
    """How far a painting is from the site map and from the distances to the midline; a scalar.

    Args:
        painting: (n, n_sites + 2, h, w), see `situs.learn.nets.PathOutput`
        sites: (n, h, w) uint8, `SITE_UNKNOWN` is ignored
        lateral: (n, h, w) int8 mm, `LATERAL_UNKNOWN` is ignored
        region: (n, h, w) in [0, 1]
        class_weights: (n_sites + 1,)
    """
    pixel_weights = 1 + (_REGION_WEIGHT - 1) * region
    target = sites.long()
    loss = F.cross_entropy(
        painting[:, :-1], target, class_weights, ignore_index=SITE_UNKNOWN, reduction="none"
    )
    known = (target != SITE_UNKNOWN) * pixel_weights
    total = (known * class_weights[target.clamp(max=len(class_weights) - 1)]).sum()
    site_loss = (loss * pixel_weights).sum() / total.clamp(min=1e-6)
    known = (lateral != LATERAL_UNKNOWN) * pixel_weights
    off = F.smooth_l1_loss(painting[:, -1], lateral.float() / LATERAL_UNIT_MM, reduction="none")
    return site_loss + _LATERAL_WEIGHT * (off * known).sum() / known.sum().clamp(min=1e-6)


def shares_loss(share_logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of said shares (n, n_sites + 1) with the exact ones under each region; a scalar."""
    assert batch.local_sites is not None  # only called where there are targets
    device = share_logits.device
    mask, sites = (torch.from_numpy(a).to(device) for a in (batch.local_view[:, -1], batch.local_sites))
    region = F.avg_pool2d(mask.float() / 255, 2) * (sites != SITE_UNKNOWN)
    classes = share_logits.shape[1]
    exact = torch.zeros_like(share_logits)
    exact.scatter_add_(1, sites.long().clamp(max=classes - 1).flatten(1), region.flatten(1))
    known = exact.sum(dim=1, keepdim=True)
    loss = -(exact / known.clamp(min=1e-6) * share_logits.log_softmax(dim=1)).sum(dim=1)
    return loss.sum() / (known > 0).sum().clamp(min=1)


def site_map_weights(slices: Slices, chosen: NDArray[np.int64], seed: int) -> Tensor:
    """(n_sites + 1,) weights of the classes of the site map; their mean over the pixels is 1.

    Args:
        slices: examples with site maps, and the indices (n,) of those to train on
        chosen: See `slices`.
        seed: of the choice of the thousand that are counted
    """
    some = np.sort(np.random.default_rng(seed).permutation(chosen)[:1000])
    counts = np.zeros(256)
    for maps in (slices.global_sites, slices.local_sites):
        assert maps is not None
        counts += np.bincount(maps[some].ravel(), minlength=256)
    share = counts[: len(SITES) + 1] / counts[: len(SITES) + 1].sum()
    weights = np.maximum(share, 1e-4) ** -_CLASS_TEMPER
    return torch.from_numpy(weights / (weights * share).sum()).float()


def relation_loss(logits: Tensor, site: Tensor) -> Tensor:
    """How far relation logits (n, m) are from the sites (n,): binary plus softmax cross-entropy; a scalar.

    The first makes each score an answer of its own in [0, 1], as in the paper, the one site weighing as
    much as all others together; the second is about which score is the highest, which is what is read.
    """
    truth = F.one_hot(site, logits.shape[1]).to(logits.dtype)
    others = torch.full((logits.shape[1],), float(logits.shape[1] - 1), device=logits.device)
    scores = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=others) / 2
    return scores + F.cross_entropy(logits, site)
