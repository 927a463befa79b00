"""The losses of BaseNet and of the Relation Network, and the weights of the classes of the site map."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN
from situs.cohort.slices import Slices
from situs.learn.nets import LATERAL_UNIT_MM

__all__ = ["painting_loss", "relation_loss", "shares_loss", "site_map_weights"]

# Pixels under the region weigh this much more than others: they are few, and the question is about them.
_REGION_WEIGHT = 10.0
# A class of the site map weighs as its frequency ** -this. "None" has half of all pixels, a cistern 1 in 500.
_CLASS_POWER = 0.5
_LATERAL_WEIGHT = 0.5
_COUNTED_EXAMPLES = 1000  # whose site maps give the frequencies of the classes


def painting_loss(
    painting: Tensor, sites: Tensor, lateral: Tensor, region: Tensor, class_weights: Tensor
) -> Tensor:
    """How far a painting is from the site map and from the distances to the midline; a scalar.

    Args:
        painting: (n, n_sites + 2, h, w), see `situs.learn.nets.PathOutput`.
        sites: (n, h, w) uint8, 0 for none and a site's index + 1; `SITE_UNKNOWN` is ignored.
        lateral: (n, h, w) int8 in mm, positive on the patient's left; `LATERAL_UNKNOWN` is ignored.
        region: (n, h, w) how much of each pixel is region, in [0, 1].
        class_weights: (n_sites + 1,), see `site_map_weights`.
    """
    pixel_weights = 1 + (_REGION_WEIGHT - 1) * region
    target = sites.long()
    loss = F.cross_entropy(
        painting[:, :-1], target, class_weights, ignore_index=SITE_UNKNOWN, reduction="none"
    )
    valid = (target != SITE_UNKNOWN) * pixel_weights
    total = (valid * class_weights[target.clamp(max=len(class_weights) - 1)]).sum()
    site_loss = (loss * pixel_weights).sum() / total.clamp(min=1e-6)
    valid = (lateral != LATERAL_UNKNOWN) * pixel_weights
    error = F.smooth_l1_loss(painting[:, -1], lateral.float() / LATERAL_UNIT_MM, reduction="none")
    return site_loss + _LATERAL_WEIGHT * (error * valid).sum() / valid.sum().clamp(min=1e-6)


def shares_loss(share_logits: Tensor, sites: Tensor, region: Tensor) -> Tensor:
    """Cross-entropy of the predicted shares of each region with the exact ones; a scalar.

    Args:
        share_logits: (n, n_sites + 1), see `situs.learn.nets.BaseNetOutput`.
        sites: (n, h, w) uint8, as in `painting_loss`. A region of `SITE_UNKNOWN` alone does not count.
        region: (n, h, w) how much of each pixel is region, in [0, 1].
    """
    valid = region * (sites != SITE_UNKNOWN)
    classes = share_logits.shape[1]
    exact = torch.zeros_like(share_logits)
    exact.scatter_add_(1, sites.long().clamp(max=classes - 1).flatten(1), valid.flatten(1))
    total = exact.sum(dim=1, keepdim=True)
    loss = -(exact / total.clamp(min=1e-6) * share_logits.log_softmax(dim=1)).sum(dim=1)
    return loss.sum() / (total > 0).sum().clamp(min=1)


def site_map_weights(slices: Slices, chosen: NDArray[np.int64], seed: int) -> Tensor:
    """(n_sites + 1,) the weights of the classes of the site map; their mean over the pixels is 1.

    Args:
        slices: Examples with site maps.
        chosen: (n,) the examples to train on.
        seed: Of the random choice of those that are counted.
    """
    counted = np.sort(np.random.default_rng(seed).permutation(chosen)[:_COUNTED_EXAMPLES])
    counts = np.zeros(256)
    for maps in (slices.global_sites, slices.local_sites):
        assert maps is not None
        counts += np.bincount(maps[counted].ravel(), minlength=256)
    counts = counts[: len(slices.sites) + 1]
    frequency = counts / counts.sum()
    weights = np.maximum(frequency, 1e-4) ** -_CLASS_POWER
    return torch.from_numpy(weights / (weights * frequency).sum()).float()


def relation_loss(logits: Tensor, sites: Tensor) -> Tensor:
    """How far relation logits are from the sites: binary plus softmax cross-entropy; a scalar.

    The binary part makes each score an answer of its own in [0, 1], as in the paper; the one site weighs as
    much as all others together. The softmax part is about which score is the highest, which is the answer.

    Args:
        logits: (n, m).
        sites: (n,) in 0 to m - 1.
    """
    truth = F.one_hot(sites, logits.shape[1]).to(logits.dtype)
    others = torch.full((logits.shape[1],), float(logits.shape[1] - 1), device=logits.device)
    binary = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=others) / 2
    return binary + F.cross_entropy(logits, sites)
