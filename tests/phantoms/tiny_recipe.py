"""Recipes that train a tiny network in seconds."""

from dataclasses import replace

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
