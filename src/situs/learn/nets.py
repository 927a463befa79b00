"""The networks: BaseNet with its two paths, and the Relation Network.

BaseNet (paper, section 3.3, figure 1) embeds a region of interest from a global and a local view. The
Relation Network (paper, section 2; Santoro et al. 2017) relates an embedding to reference embeddings of
every site. The two are trained separately.

A view is a tensor of bytes (n, channels, size, size). Where a network needs to know the region, the last
channel shows it (see `region_under`). Nothing here knows about scans.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ABSENT_LOGIT",
    "LATERAL_UNIT_MM",
    "BaseNet",
    "BaseNetOutput",
    "PathOutput",
    "RelationNetwork",
    "ViewPath",
    "mean_under",
    "region_under",
]

# The decoder regresses the signed distance to the midline in this unit, so that the loss is about 1.
LATERAL_UNIT_MM = 30.0
# The relation logit of a class without any reference.
ABSENT_LOGIT = -20.0
# Added to painted shares before their logarithm.
_LEAST_SHARE = 1e-3
# Relation logits per unit of distance, before training. Distances between classes are 1 to 1.5 units.
_DISTANCE_WEIGHT = 5.0


class PathOutput(NamedTuple):
    """The output of one path for n views.

    Attributes:
        features: (n, n_features) for the fully connected layers.
        painting: (n, n_sites + 2, h, w) the logits of "none" and of every site, then the distance to the
            midline in units of `LATERAL_UNIT_MM`. None from a path that does not paint.
    """

    features: Tensor
    painting: Tensor | None


class BaseNetOutput(NamedTuple):
    """The output of BaseNet for n regions. Paths that do not paint leave the last four None.

    Attributes:
        embedding: (n, width) of unit length, from the second-last fully connected layer.
        site_logits: (n, n_sites).
        global_painting: (n, n_sites + 2, h, w) the painting of the global path, see `PathOutput`.
        local_painting: (n, n_sites + 2, h, w) the painting of the local path.
        share_logits: (n, n_sites + 1) of the parts of the region in none of the sites and in every site.
        midline: (n, 2, 2, h, w) over the global and over the local view: the signed distance to the midline
            in mm (positive: the patient's left), and the probability that a pixel lies in any site.
    """

    embedding: Tensor
    site_logits: Tensor
    global_painting: Tensor | None = None
    local_painting: Tensor | None = None
    share_logits: Tensor | None = None
    midline: Tensor | None = None

    @property
    def shares(self) -> Tensor | None:
        """(n, n_sites) the part of the region in each site, of what lies in any site; they sum to 1."""
        return None if self.share_logits is None else self.share_logits[:, 1:].softmax(dim=1)

    @property
    def inside(self) -> Tensor | None:
        """(n,) the part of the region that lies in any site."""
        return None if self.share_logits is None else 1 - self.share_logits.softmax(dim=1)[:, 0]


class ViewPath(nn.Module):
    """What BaseNet asks of a path.

    A path is called with a view and with the other path's flattened bottom, or None. It gives a `PathOutput`.

    Attributes:
        n_features: The number of its features.
        n_flat: The number of those, the first ones, that are its flattened bottom.
        paints: Whether it paints.
    """

    n_features: int
    n_flat: int
    paints = False


class BaseNet(nn.Module):
    """Two paths, their features concatenated, three fully connected layers.

    Where the paths paint, a fourth layer beside the last one turns what is painted under the region into the
    part of the region in each site. A painting that is unsure does not mean that the region is divided.

    Args:
        global_path: A `situs.learn.compact.CompactPath` or a `situs.learn.vgg.VGGPath`.
        local_path: As the global one. It is also given the global path's flattened bottom, which tells where
            in the head its crop lies.
        n_sites: The number of sites.
        hidden: The width of the first fully connected layer.
        width: Of the embedding.
        dropout: The fraction of features that are dropped between the layers in training.
    """

    def __init__(
        self,
        global_path: ViewPath,
        local_path: ViewPath,
        n_sites: int,
        hidden: int = 384,
        width: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.width = width
        self.global_path = global_path
        self.local_path = local_path
        self.fc1 = nn.Linear(global_path.n_features + local_path.n_features, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.fc3 = nn.Linear(width, n_sites)
        self.fc_shares: nn.Linear | None = None
        if global_path.paints and local_path.paints:
            self.fc_shares = nn.Linear(width, n_sites + 1)
            nn.init.zeros_(self.fc_shares.weight)
            nn.init.zeros_(self.fc_shares.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, global_view: Tensor, local_view: Tensor) -> BaseNetOutput:
        """The output for a global and a local view (n, channels, size, size) of bytes."""
        global_out = self.global_path(global_view)
        local_out = self.local_path(local_view, global_out.features[:, : self.global_path.n_flat])
        hidden = self._hidden(torch.cat([global_out.features, local_out.features], dim=1))
        output = self._answer(hidden)
        if self.fc_shares is None or global_out.painting is None or local_out.painting is None:
            return output
        painted = mean_under(local_out.painting[:, :-1].softmax(dim=1), region_under(local_view))
        midline = torch.stack([_read_midline(out.painting) for out in (global_out, local_out)], dim=1)
        return output._replace(
            global_painting=global_out.painting,
            local_painting=local_out.painting,
            share_logits=(painted + _LEAST_SHARE).log() + self.fc_shares(self.dropout(hidden)).float(),
            midline=midline,
        )

    def classify(self, features: Tensor) -> BaseNetOutput:
        """The output of the fully connected layers alone, for the features (n, m) of both paths."""
        return self._answer(self._hidden(features))

    def _hidden(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.fc1(features))
        return F.relu(self.fc2(self.dropout(hidden)))

    def _answer(self, hidden: Tensor) -> BaseNetOutput:
        logits = self.fc3(self.dropout(hidden)).float()
        return BaseNetOutput(F.normalize(hidden.float(), dim=1), logits)


class RelationNetwork(nn.Module):
    """g joins the reference embeddings of one class; f scores a target against the joint embedding.

    g has three fully connected layers. It reads the pairs of references i <= j, so that a class with a single
    reference has one pair. Its outputs are averaged over the pairs and added to the mean of the references.

    f has two fully connected layers. It reads the target, the joint embedding and their squared difference in
    every feature. Its output corrects the mean distance from the target to the references, times a learned
    weight. So the network compares, and also serves classes that it was not trained on.

    Dropout between the layers of g drops a feature of all pairs of a class at once. A mask for every pair
    would cost more than the layers.

    Args:
        width: Of the embeddings.
        hidden: The width of the layers between.
        dropout: The fraction of features that are dropped between the layers in training.
        scale: Embeddings are multiplied by it, so that their features spread by about 1.
    """

    scale: Tensor

    def __init__(self, width: int = 256, hidden: int = 256, dropout: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        # The first layer of g on a pair (a, b) is first(a) + second(b), and so is that of f on what it reads.
        # So they are computed for every reference, target and joint embedding, not for every pair.
        self.g_first = nn.Linear(width, 2 * hidden)
        self.g_middle = nn.Linear(hidden, hidden)
        self.g_last = nn.Linear(hidden, width)  # linear, so it may follow the mean over the pairs
        self.f_target = nn.Linear(width, hidden)
        self.f_joint = nn.Linear(width, hidden, bias=False)
        self.f_difference = nn.Linear(width, hidden, bias=False)
        self.f_last = nn.Linear(hidden, 1)
        self.distance_weight = nn.Parameter(torch.tensor(_DISTANCE_WEIGHT))

    def read_pairs(self, pairs: Tensor) -> Tensor:
        """The middle of g: its second layer, (..., pairs, hidden).

        Args:
            pairs: (..., pairs, hidden). For each pair, `g_first`'s output for its first reference (the first
                half) plus that for its second reference (the second half).
        """
        read = self._drop(F.relu(pairs))
        return self._drop(F.relu(self.g_middle(read)))

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        """Joint embeddings (n, m, width) of scaled references (n, m, k, width) where present (n, m, k)."""
        k = references.shape[2]
        i, j = torch.triu_indices(k, k)
        first, second = self.g_first(references).split(self.hidden, dim=-1)
        # The same as first[i] + second[j], whose gradients are slow.
        pairs = torch.cat([first[:, :, a : a + 1] + second[:, :, a:] for a in range(k)], dim=2)
        read = self.read_pairs(pairs)
        weights = _mean_weights(present[:, :, i] & present[:, :, j]).to(read.dtype)
        mean = (references * _mean_weights(present).to(references.dtype)[..., None]).sum(dim=2)
        return mean + self.g_last((weights[:, :, None] @ read).squeeze(2))

    def score(self, target: Tensor, joint: Tensor, distance: Tensor) -> Tensor:
        """Logits (n, m): f's correction of what the distances alone would say.

        Args:
            target: (n, width) scaled embeddings.
            joint: (n, m, width) the joint embeddings of m classes.
            distance: (n, m) the mean distances from the target to the references, see `distances`.
        """
        difference = (target[:, None] - joint) ** 2
        read = F.relu(self.f_target(target)[:, None] + self.f_joint(joint) + self.f_difference(difference))
        correction = self.f_last(F.dropout(read, self.dropout, self.training)).squeeze(-1)
        return correction - self.distance_weight * distance

    def distances(self, target: Tensor, references: Tensor) -> Tensor:
        """Root mean square differences (...) of the features of scaled embeddings (..., width)."""
        return ((target - references) ** 2).mean(dim=-1).clamp(min=1e-12).sqrt()

    def logits(self, target: Tensor, references: Tensor, present: Tensor) -> Tensor:
        """Relation logits (n, m) of targets with m classes; `ABSENT_LOGIT` for a class without references.

        Args:
            target: (n, width) embeddings.
            references: (n, m, k, width) embeddings of the k references of each class.
            present: (n, m, k) which of them are there.
        """
        target, references = target * self.scale, references * self.scale
        distances = self.distances(target[:, None, None], references)
        mean = (distances * _mean_weights(present)).sum(dim=2)
        logits = self.score(target, self.join(references, present), mean)
        return logits.masked_fill(~present.any(dim=2), ABSENT_LOGIT)

    def forward(self, target: Tensor, references: Tensor, present: Tensor) -> Tensor:
        """Relation scores (n, m) in [0, 1], the sigmoids of `logits`; no probabilities over the classes."""
        return self.logits(target, references, present).sigmoid()

    def _drop(self, read: Tensor) -> Tensor:
        """Dropout of features of all pairs (..., pairs, hidden) of a class."""
        if not self.training:
            return read
        return read * F.dropout(torch.ones_like(read[..., :1, :]), self.dropout)


def region_under(view: Tensor) -> Tensor:
    """How much of each painted pixel is region, (n, 1, size / 2, size / 2) in [0, 1].

    Args:
        view: (n, channels, size, size) bytes, whose last channel shows the region.
    """
    return F.avg_pool2d(view[:, -1:].float() / 255, 2)


def _read_midline(painting: Tensor) -> Tensor:
    """(n, 2, h, w) the painted distance to the midline in mm, and the probability of any site."""
    inside = 1 - painting[:, :-1].softmax(dim=1)[:, 0]
    return torch.stack([painting[:, -1] * LATERAL_UNIT_MM, inside], dim=1)


def _mean_weights(present: Tensor) -> Tensor:
    """Equal weights (n, m, k) of those that are present, which sum to 1; all 0 where none is."""
    weights = present.float()
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=1)


def mean_under(maps: Tensor, region: Tensor) -> Tensor:
    """Means (n, c) of maps (n, c, h, w) weighted by the region (n, 1, h, w)."""
    area = region.flatten(1).sum(dim=1, keepdim=True).clamp(min=1e-3)
    weights = (region.flatten(1) / area).to(maps.dtype)
    return (maps.flatten(2) @ weights[:, :, None]).squeeze(-1)
