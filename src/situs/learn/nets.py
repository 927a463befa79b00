"""The networks (torch): BaseNet with its two paths, and the Relation Network.

BaseNet (paper, section 3.3, figure 1) embeds a region of interest from a global and a local view. The
Relation Network (paper, section 2; Santoro et al. 2017) relates an embedding to reference embeddings of
every site. They are trained separately.

Views come in as bytes (n, channels, size, size); nothing here knows about scans.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "BaseNet",
    "BaseNetOutput",
    "CompactPath",
    "PathOutput",
    "RelationNetwork",
    "ViewPath",
    "compact_basenet",
]

# The decoder regresses the signed distance to the midline in these units, so that the loss is about 1.
LATERAL_UNIT_MM = 30.0
# Added to painted shares before their logarithm.
_LEAST_SHARE = 1e-3
# Relation logits a unit of distance, before training; distances between classes are 1 to 1.5 units.
_NEARNESS = 5.0


class PathOutput(NamedTuple):
    """What one path says about its view.

    Attributes:
        features: (n, n_features) for the fully connected layers
        painting: (n, n_sites + 2, h, w) logits of "none" and of every site, then the distance to the midline;
            None from a path that does not paint
    """

    features: Tensor
    painting: Tensor | None


class BaseNetOutput(NamedTuple):
    """What BaseNet says about n regions.

    Attributes:
        embedding: (n, width) of unit length, the output of the second-last fully connected layer
        site_logits: (n, n_sites)
        global_painting: (n, n_sites + 2, h, w), see `PathOutput`
        local_painting: See `global_painting`.
        share_logits: (n, n_sites + 1) of the parts of the region in none of the sites and in every site
        midline: (n, 2, 2, h, w) over the global and over the local view: the signed distance to the midline
            in mm (positive: the patient's left), and how much of each pixel is head

    Paths that do not paint leave the last four None.
    """

    embedding: Tensor
    site_logits: Tensor
    global_painting: Tensor | None = None
    local_painting: Tensor | None = None
    share_logits: Tensor | None = None
    midline: Tensor | None = None

    @property
    def shares(self) -> Tensor | None:
        """(n, n_sites) the part of what lies in any site that lies in each, sums to 1."""
        return None if self.share_logits is None else self.share_logits[:, 1:].softmax(dim=1)

    @property
    def inside(self) -> Tensor | None:
        """(n,) the part of the region that lies in any site."""
        return None if self.share_logits is None else 1 - self.share_logits.softmax(dim=1)[:, 0]


class ViewPath(nn.Module):
    """What BaseNet asks of a path: called with a view and the other path's flattened bottom or None, it gives
    a `PathOutput`.

    Attributes:
        n_features: how many it gives
        n_flat: how many of them, the first, are its flattened bottom
        paints: whether it paints
    """

    n_features: int
    n_flat: int
    paints = False


class CompactPath(ViewPath):
    """One small convolutional path with a U-Net decoder that paints the site map over its view.

    The encoder goes down to a sixteenth of the view; its bottom, thinned to `n_bottom` channels and
    flattened, and the decoder's features averaged under the region are the path's features.

    Args:
        n_channels: of the view; the last channel must be the region of interest
        size_px: See `n_channels`.
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the view's size
        context: number of features of the other path that are added to the bottom; 0 for none
    """

    paints = True

    def __init__(
        self,
        n_sites: int,
        n_channels: int = 3,
        size_px: int = 112,
        widths: tuple[int, int, int, int] = (32, 64, 128, 128),
        n_bottom: int = 24,
        context: int = 0,
    ) -> None:
        super().__init__()
        if size_px % 16:
            raise ValueError(f"size_px: expected a multiple of 16, got {size_px}")
        a, b, c, d = widths
        self.stem = _convolution(n_channels, a, kernel=5, stride=2)
        self.down = nn.ModuleList(
            [_convolution(a, a), _block(a, b), _block(b, c), _block(c, d)],
        )
        self.context = nn.Linear(context, d) if context else None
        self.skips = nn.ModuleList([nn.Conv2d(c, 96, 1), nn.Conv2d(b, 64, 1), nn.Conv2d(a, 32, 1)])
        self.narrow = nn.ModuleList([nn.Conv2d(d, 96, 1), nn.Conv2d(96, 64, 1), nn.Conv2d(64, 32, 1)])
        self.up = nn.ModuleList([_convolution(96, 96), _convolution(64, 64), _convolution(32, 32)])
        self.paint = nn.Conv2d(32, n_sites + 2, 1)
        self.thin = nn.Conv2d(d, n_bottom, 1)
        self.n_flat = n_bottom * (size_px // 16) ** 2
        self.n_features = self.n_flat + 32 + n_sites + 1

    def forward(self, view: Tensor, context: Tensor | None = None) -> PathOutput:
        """view (n, channels, size, size) bytes; context (n, `context`)."""
        x = view.float() / 255
        region = F.avg_pool2d(x[:, -1:], 2)
        x = self.stem(x * 2 - 1)
        levels = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            levels.append(x)
        if self.context is not None and context is not None:
            x = x + self.context(context)[:, :, None, None]
        flat = F.relu(self.thin(x)).flatten(1)
        for narrow, up, skip, level in zip(self.narrow, self.up, self.skips, levels[-2::-1], strict=True):
            x = up(F.interpolate(narrow(x), scale_factor=2.0, mode="nearest") + skip(level))
        painting = self.paint(x)
        under = [_mean_under(maps, region) for maps in (x, painting[:, :-1].softmax(dim=1))]
        return PathOutput(torch.cat([flat, *under], dim=1).float(), painting.float())


class BaseNet(nn.Module):
    """Two paths, their features concatenated, three fully connected layers.

    Where the paths paint, a fourth layer beside the last turns what is painted under the region into the part
    of it in each site: where the painting is unsure, the region need not be divided.

    Args:
        global_path: `CompactPath` or `situs.learn.vgg.VGGPath`; the local one is also given the
            global path's flattened bottom, which tells it where in the head its crop lies
        local_path: See `global_path`.
        width: of the embedding
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
        self.n_sites = n_sites
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
        """Views (n, channels, size, size) as bytes."""
        everywhere = self.global_path(global_view)
        here = self.local_path(local_view, everywhere.features[:, : self.global_path.n_flat])
        hidden = self._hidden(torch.cat([everywhere.features, here.features], dim=1))
        said = self._judge(hidden)
        if self.fc_shares is None or everywhere.painting is None or here.painting is None:
            return said
        region = F.avg_pool2d(local_view[:, -1:].float() / 255, 2)
        painted = _mean_under(here.painting[:, :-1].softmax(dim=1), region)
        midline = torch.stack([_read_midline(p) for p in (everywhere.painting, here.painting)], dim=1)
        return said._replace(
            global_painting=everywhere.painting,
            local_painting=here.painting,
            share_logits=(painted + _LEAST_SHARE).log() + self.fc_shares(self.dropout(hidden)).float(),
            midline=midline,
        )

    def judge(self, features: Tensor) -> BaseNetOutput:
        """The three fully connected layers alone: embedding and site of both paths' features (n, m)."""
        return self._judge(self._hidden(features))

    def _hidden(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.fc1(features))
        return F.relu(self.fc2(self.dropout(hidden)))

    def _judge(self, hidden: Tensor) -> BaseNetOutput:
        logits = self.fc3(self.dropout(hidden)).float()
        return BaseNetOutput(F.normalize(hidden.float(), dim=1), logits)


class RelationNetwork(nn.Module):
    """g joins the reference embeddings of one class; f scores a target against the joint reference.

    g (3 fully connected layers) reads pairs of references and its outputs are averaged over all pairs
    i <= j, so that a class with a single reference has one pair, and added to the references' mean. f (2
    fully connected layers) reads target, joint and how far they are apart in every feature, and corrects what
    the mean distance from the target to the references alone would say: so it compares, and does not only
    know the classes that it was trained on. Dropout between the layers of g drops a feature from all pairs of
    a class at once: a mask of its own for every pair would cost more than the layers.

    Args:
        width: of the embeddings
        hidden: of the layers between
        scale: embeddings are multiplied by it, so that their features spread by about 1
    """

    scale: Tensor

    def __init__(self, width: int = 256, hidden: int = 256, dropout: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        # g's first layer on a pair (a, b) is first(a) + second(b), and f's on what it reads likewise:
        # computed for every reference, target and joint, not for every pair.
        self.g_first = nn.Linear(width, 2 * hidden)
        self.g_middle = nn.Linear(hidden, hidden)
        self.g_last = nn.Linear(hidden, width)  # linear, so it may follow the mean over the pairs
        self.f_target = nn.Linear(width, hidden)
        self.f_joint = nn.Linear(width, hidden, bias=False)
        self.f_apart = nn.Linear(width, hidden, bias=False)
        self.f_last = nn.Linear(hidden, 1)
        self.nearness = nn.Parameter(torch.tensor(_NEARNESS))

    def read_pairs(self, pairs: Tensor) -> Tensor:
        """g without its last layer, and its first, on pairs (..., pairs, hidden): the sums of the parts of
        `g_first`'s output that belong to their first and to their second reference."""
        read = self._drop(F.relu(pairs))
        return self._drop(F.relu(self.g_middle(read)))

    def join(self, references: Tensor, present: Tensor) -> Tensor:
        """Joint embeddings (n, m, width) of scaled references (n, m, k, width) where present (n, m, k)."""
        k = references.shape[2]
        i, j = torch.triu_indices(k, k)
        first, second = self.g_first(references).split(self.hidden, dim=-1)
        # As [i] and [j] would give them, whose gradients are slow.
        pairs = torch.cat([first[:, :, a : a + 1] + second[:, :, a:] for a in range(k)], dim=2)
        read = self.read_pairs(pairs)
        weights = _shares(present[:, :, i] & present[:, :, j]).to(read.dtype)
        return _mean(references, present) + self.g_last((weights[:, :, None] @ read).squeeze(2))

    def score(self, target: Tensor, joint: Tensor, distance: Tensor) -> Tensor:
        """Logits (n, m): f's correction, from scaled targets (n, width) and joint embeddings (n, m, width),
        of what their mean distances (n, m) to the references say, see `distances`."""
        apart = (target[:, None] - joint) ** 2
        both = F.relu(self.f_target(target)[:, None] + self.f_joint(joint) + self.f_apart(apart))
        correction = self.f_last(F.dropout(both, self.dropout, self.training)).squeeze(-1)
        return correction - self.nearness * distance

    def distances(self, target: Tensor, references: Tensor) -> Tensor:
        """Root mean square differences (...) of the features of scaled embeddings (..., width)."""
        return ((target - references) ** 2).mean(dim=-1).clamp(min=1e-12).sqrt()

    def relate(self, target: Tensor, references: Tensor, present: Tensor) -> Tensor:
        """Logits (n, m) of the relation of target (n, width) with m classes; -20 for a class without any."""
        target, references = target * self.scale, references * self.scale
        distances = self.distances(target[:, None, None], references)
        mean = (distances * _shares(present)).sum(dim=2)
        logits = self.score(target, self.join(references, present), mean)
        return logits.masked_fill(~present.any(dim=2), -20.0)

    def forward(self, target: Tensor, references: Tensor, present: Tensor) -> Tensor:
        """Relation scores (n, m) in [0, 1]; not probabilities over the classes."""
        return self.relate(target, references, present).sigmoid()

    def _drop(self, read: Tensor) -> Tensor:
        """Dropout of features of all pairs (..., pairs, hidden) of a class."""
        if not self.training:
            return read
        return read * F.dropout(torch.ones_like(read[..., :1, :]), self.dropout)


def compact_basenet(n_sites: int, n_channels: int = 3, size_px: int = 112) -> BaseNet:
    """The BaseNet of the `compact` recipe."""
    global_path = CompactPath(n_sites, n_channels, size_px)
    local_path = CompactPath(n_sites, n_channels, size_px, context=global_path.n_flat)
    return BaseNet(global_path, local_path, n_sites)


def _read_midline(painting: Tensor) -> Tensor:
    """(n, 2, h, w) the painted distance to the midline in mm, and the probability of any site."""
    head = 1 - painting[:, :-1].softmax(dim=1)[:, 0]
    return torch.stack([painting[:, -1] * LATERAL_UNIT_MM, head], dim=1)


def _shares(present: Tensor) -> Tensor:
    """Weights (n, m, k) that sum to 1 over those that are present; all 0 where none is."""
    weights = present.float()
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=1)


def _mean(references: Tensor, present: Tensor) -> Tensor:
    """(n, m, width) mean of the references (n, m, k, width) that are present."""
    return (references * _shares(present).to(references.dtype)[..., None]).sum(dim=2)


def _mean_under(maps: Tensor, region: Tensor) -> Tensor:
    """Means (n, c) of maps (n, c, h, w) weighted by the region (n, 1, h, w)."""
    area = region.flatten(1).sum(dim=1, keepdim=True).clamp(min=1e-3)
    weights = (region.flatten(1) / area).to(maps.dtype)
    return (maps.flatten(2) @ weights[:, :, None]).squeeze(-1)


def _convolution(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(_convolution(n_in, n_out), _convolution(n_out, n_out))
