"""A bundle with untrained networks, small enough to export and run in seconds, and what it was made from."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from situs.anatomy import SITES
from situs.learn.compact import CompactPath
from situs.learn.export import export_bundle
from situs.learn.nets import BaseNet, RelationNetwork
from situs.learn.recipe import Recipe
from situs.neighbors import References
from situs.views import ViewSpec

SPEC = ViewSpec(size_px=32)
N_NEIGHBORS = 3
WIDTH = 12
RECIPE = Recipe("small", SPEC, 0, 0, 0, n_neighbors=N_NEIGHBORS, max_slices=None)


@dataclass
class SmallModel:
    """Networks and references as they come out of a training."""

    basenet: BaseNet
    relation: RelationNetwork
    references: References

    def export(self, out: Path, **changes) -> Path:
        arguments = {
            "recipe": RECIPE,
            "facts": {"data": "None: the weights are random.", "seed": 0},
            "name": "small",
        } | changes
        return export_bundle(self.basenet, self.relation, self.references, out=out, **arguments)


def small_model(seed: int = 0) -> SmallModel:
    """Random weights; those of the last layers enlarged, so that different regions get different answers."""
    n = len(SITES)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        global_path = CompactPath(n, size_px=SPEC.size_px, widths=(4, 4, 8, 8), n_bottom=4)
        local_path = CompactPath(
            n, size_px=SPEC.size_px, widths=(4, 4, 8, 8), n_bottom=4, context=global_path.n_flat
        )
        basenet = BaseNet(global_path, local_path, n, hidden=16, width=WIDTH)
        relation = RelationNetwork(WIDTH, hidden=16)
        with torch.no_grad():
            for layer in (
                basenet.fc1,
                basenet.fc2,
                basenet.fc3,
                relation.g_first,
                relation.f_target,
                relation.f_joint,
                relation.f_last,
            ):
                layer.weight.mul_(4)
            assert basenet.fc_shares is not None  # it starts at zero, which an exported network leaves out
            basenet.fc_shares.weight.normal_(0, 0.1)
            basenet.fc_shares.bias.normal_(0, 0.1)
    embeddings = np.abs(rng.normal(size=(60, WIDTH)))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = np.array([f"case_{i:02d}" for i in range(60)])
    heads = np.array([f"head_{i % 4}" for i in range(60)])
    references = References(embeddings.astype(np.float16), np.arange(60) % n, names, heads)
    return SmallModel(basenet, relation, references)


@cache
def small_bundle() -> Path:
    """The folder of a bundle, exported once for all tests and processes of a run; do not change it."""
    shared = Path(os.environ["SITUS_TESTS_FOLDER"])
    with FileLock(shared / "small.lock"):
        if not (shared / "small").exists():
            small_model().export(shared / "small")
    return shared / "small"
