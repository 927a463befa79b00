"""The paths of the `compact` recipe: small U-Nets that paint the site map over their views."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from situs.learn.nets import BaseNet, PathOutput, ViewPath, mean_under, region_under

__all__ = ["CompactPath", "compact_basenet"]


class CompactPath(ViewPath):
    """One small convolutional path with a U-Net decoder that paints the site map over its view.

    The encoder goes down to a sixteenth of the view's size. The path's features are its bottom, thinned to
    `n_bottom` channels and flattened, and the means of the decoder's features under the region.

    Args:
        n_sites: The number of sites to paint.
        n_channels: Of the view; the last one shows the region.
        size_px: Rows and columns of the view, a multiple of 16.
        widths: Channels at 1/2, 1/4, 1/8 and 1/16 of the view's size.
        n_bottom: Channels of the thinned bottom.
        context: The number of the other path's features that are added to the bottom; 0 for none.

    Raises:
        ValueError: If `size_px` is no multiple of 16.
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
        """The output for a view (n, channels, size, size) of bytes and a context (n, `context`)."""
        x = self.stem(view.float() / 255 * 2 - 1)
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
        region = region_under(view)
        under = [mean_under(maps, region) for maps in (x, painting[:, :-1].softmax(dim=1))]
        return PathOutput(torch.cat([flat, *under], dim=1).float(), painting.float())


def compact_basenet(n_sites: int, n_channels: int = 3, size_px: int = 112) -> BaseNet:
    """The BaseNet of the `compact` recipe, for views (n, n_channels, size_px, size_px)."""
    global_path = CompactPath(n_sites, n_channels, size_px)
    local_path = CompactPath(n_sites, n_channels, size_px, context=global_path.n_flat)
    return BaseNet(global_path, local_path, n_sites)


def _convolution(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(_convolution(n_in, n_out), _convolution(n_out, n_out))
