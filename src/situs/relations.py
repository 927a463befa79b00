"""Training a Relation Network on embeddings, on all references of a class or on the nearest ones.

*Nearest*: g sees the k references of each class that are nearest to the target (the paper's contribution).
*All*: g sees pairs of the whole class, `PAIRS` of them drawn anew for every step and class; all pairs of the
largest class would be millions. Answers are given with `FINAL_PAIRS` pairs, drawn once.

A target is never related to references of its own patient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from situs.anatomy import SITES
from situs.dataset import balanced_indices
from situs.devices import CPU, Machine
from situs.losses import relation_loss
from situs.neighbors import Neighbors, References, nearest
from situs.nets import RelationNetwork

__all__ = ["FINAL_PAIRS", "PAIRS", "Kind", "TrainedRelations", "train_relations"]

Kind = Literal["nearest", "all"]
Answer = NDArray[np.uint8]

PAIRS = 256
FINAL_PAIRS = 1024
_BATCH, _ANSWER_BATCH = 64, 256
_LEARNING_RATE = 1e-3  # constant, so that an early epoch is not the middle of a cycle


class _Joint(NamedTuple):
    """Joint embeddings of pairs before g's last layer, (sites, pairs, hidden), and the owners of both
    references of each pair, (sites, pairs, 2); -1 for a site without references."""

    outputs: Tensor
    owners: Tensor


class TrainedRelations:
    """A Relation Network with its references; `predict` answers at any moment of the training."""

    def __init__(
        self, kind: Kind, references: References, k: int, seed: int, machine: Machine, dropout: float = 0.5
    ) -> None:
        self._kind, self._references, self._k, self._machine = kind, references, k, machine
        self._seed = seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = RelationNetwork(references.embeddings.shape[1], dropout=dropout).to(machine.device)
        self._pool = machine.put(references.embeddings.astype(np.float32))
        _, owners = np.unique(references.patients, return_inverse=True)
        self._owners = machine.put(owners)
        self._members = [machine.put(np.flatnonzero(references.sites == s)) for s in range(len(SITES))]

    def find(self, X: NDArray[np.float32], patients: NDArray[np.str_] | None = None) -> Neighbors | None:
        """The neighbours of targets (n, width), not of their own patients (n,); None if all are related."""
        return None if self._kind == "all" else nearest(X, self._references, self._k, patients)

    @torch.inference_mode()
    def predict(self, X: NDArray[np.float32], near: Neighbors | None) -> Answer:
        """Sites (n,) of targets (n, width), whose neighbours `find` gave; of patients without references."""
        self.network.eval()
        generator = torch.Generator().manual_seed(self._seed)
        joint = self._joint(FINAL_PAIRS, generator) if near is None else None
        said = []
        for start in range(0, len(X), _ANSWER_BATCH):
            part = slice(start, start + _ANSWER_BATCH)
            with self._machine.autocast():
                targets = self._machine.put(X[part])
                logits = self._all(targets, joint) if joint else self._nearest(targets, near, part)
            said.append(logits.float().argmax(dim=1).cpu().numpy().astype(np.uint8))
        self.network.train()
        return np.concatenate(said)

    def logits(
        self, targets: Tensor, near: Neighbors | None, part: NDArray[np.int64], generator: torch.Generator
    ) -> Tensor:
        """Relation logits (n, sites) of training targets: the references numbered `part` (n,)."""
        if near is not None:
            return self._nearest(targets, near, part)
        return self._all(targets, self._joint(PAIRS, generator), self._owners[part])

    def _nearest(self, targets: Tensor, near: Neighbors | None, part: slice | NDArray[np.int64]) -> Tensor:
        assert near is not None
        indices, present = (self._machine.put(a[part]) for a in (near.indices, near.present))
        return self.network.relate(targets, self._pool[indices], present)

    def _joint(self, pairs: int, generator: torch.Generator) -> _Joint:
        """g's outputs on random pairs of every class, without its last layer, which is linear."""
        chosen = torch.full((len(SITES), pairs, 2), -1)
        for site, members in enumerate(self._members):
            if len(members):
                chosen[site] = members.cpu()[torch.randint(len(members), (pairs, 2), generator=generator)]
        chosen = chosen.to(self._machine.device)
        owners = torch.where(chosen >= 0, self._owners[chosen], -1)
        both = self._pool[chosen]
        network = self.network
        return _Joint(
            network.g_middle(network.g_first(both[:, :, 0]) + network.g_second(both[:, :, 1])), owners
        )

    def _all(self, targets: Tensor, joint: _Joint, patients: Tensor | None = None) -> Tensor:
        """Logits (n, sites): every target is related to the mean of the pairs without its own patient."""
        fits = (joint.owners >= 0).all(dim=2)[None].expand(len(targets), -1, -1)
        if patients is not None:
            fits = fits & (joint.owners != patients[:, None, None, None]).all(dim=3)
        weights = fits.to(joint.outputs.dtype)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1)
        means = self.network.g_last(torch.einsum("nsp,sph->nsh", weights, joint.outputs))
        pairs = torch.cat([targets[:, None].expand_as(means), means], dim=2)
        return self.network.f(pairs).squeeze(2).masked_fill(~fits.any(dim=2), -20.0)


def train_relations(
    references: References,
    kind: Kind,
    k: int = 5,
    epochs: int = 15,
    seed: int = 0,
    after: Callable[[int, TrainedRelations], None] | None = None,
    machine: Machine = CPU,
) -> TrainedRelations:
    """Train a Relation Network; every reference is a target of the others.

    Targets are drawn balanced over the sites, as many an epoch as there are.

    Parameters
    ----------
    references : r labelled embeddings with their patients
    kind, k : what g sees of each class
    after : is called with the epoch, from 1, and what was trained
    """
    relations = TrainedRelations(kind, references, k, seed, machine)
    X = references.embeddings.astype(np.float32)
    near = relations.find(X, references.patients)
    own, sites = machine.put(X), machine.put(references.sites.astype(np.int64))
    optimizer = torch.optim.AdamW(relations.network.parameters(), lr=_LEARNING_RATE)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout
        for epoch in range(1, epochs + 1):
            order = balanced_indices(references.sites, len(X), rng)
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                with machine.autocast():
                    logits = relations.logits(own[part], near, part, generator)
                loss = relation_loss(logits.float(), sites[part])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            if after is not None:
                after(epoch, relations)
    return relations
