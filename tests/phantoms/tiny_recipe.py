"""Recipes that train a tiny network in seconds."""

from dataclasses import replace

from situs.learn.compact import CompactPath
from situs.learn.nets import BaseNet
from situs.learn.recipe import Recipe
from situs.views import ViewSpec

TINY = Recipe(
    "tiny",
    ViewSpec(size_px=32),
    paint_samples=320,
    basenet_samples=480,
    relation_samples=2400,
    n_neighbors=2,
    n_references=20,
    n_targets=50,
    batch=16,
    relation_batch=16,
)
SHORT = replace(TINY, paint_samples=64, basenet_samples=64, relation_samples=64)


def narrow_basenet(n_sites: int, n_channels: int, size_px: int) -> BaseNet:
    """Stands for `compact_basenet` where it does not matter how well it learns: a quarter of the time."""
    layers = {"widths": (4, 8, 8, 8), "n_bottom": 4}
    global_path = CompactPath(n_sites, n_channels, size_px, **layers)
    local_path = CompactPath(n_sites, n_channels, size_px, **layers, context=global_path.n_flat)
    return BaseNet(global_path, local_path, n_sites, hidden=16, width=16)
