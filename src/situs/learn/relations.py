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

from situs.cohort.sampling import balanced_indices
from situs.learn.devices import CPU, Machine
from situs.learn.loop import check_loss, make_optimizer
from situs.learn.losses import relation_loss
from situs.learn.nets import RelationNetwork
from situs.neighbors import Neighbors, References, nearest

__all__ = ["FINAL_PAIRS", "PAIRS", "Kind", "Relations", "train_relations"]

Kind = Literal["nearest", "all"]

PAIRS = 256
FINAL_PAIRS = 1024
_ANSWER_BATCH = 256


class _Joint(NamedTuple):
    """What g reads of pairs, before its last layer, (sites, pairs, hidden), both references of each pair,
    scaled, (sites, pairs, 2, width), and their owners, (sites, pairs, 2), -1 for a site without any."""

    read: Tensor
    both: Tensor
    owners: Tensor


class Relations:
    """A Relation Network with the references that it relates targets to.

    Args:
        network: trained, or to be
        kind: what g sees of each class
        k: See `kind`.
        references: r labelled embeddings with their patients
        seed: of the pairs that `scores` draws where all references are related
    """

    def __init__(
        self,
        network: RelationNetwork,
        kind: Kind,
        references: References,
        k: int,
        seed: int = 0,
        machine: Machine = CPU,
    ) -> None:
        self.network = network.to(machine.device)
        self.kind, self.references, self.k = kind, references, k
        self._seed, self._machine = seed, machine
        self._dtype = next(network.parameters()).dtype
        self._pool = machine.put(references.embeddings).to(self._dtype)
        _, owners = np.unique(references.patients, return_inverse=True)
        self._owners = machine.put(owners)
        self._members = [np.flatnonzero(references.sites == s) for s in range(references.n_sites)]

    def find(self, X: NDArray[np.floating], patients: NDArray[np.str_] | None = None) -> Neighbors | None:
        """The neighbours of targets (n, width), not of their own patients (n,); None if all are related."""
        return None if self.kind == "all" else nearest(X, self.references, self.k, patients)

    def scores(self, X: NDArray[np.floating], near: Neighbors | None) -> NDArray[np.floating]:
        """Relation scores (n, sites) in [0, 1] of targets (n, width), whose neighbours `find` gave; of
        patients without references where all are related."""
        logits = torch.from_numpy(self.site_logits(X, near))
        return np.asarray(logits.sigmoid().numpy())

    @torch.inference_mode()
    def site_logits(self, X: NDArray[np.floating], near: Neighbors | None) -> NDArray[np.floating]:
        """The logits (n, sites) of `scores`."""
        was_training = self.network.training
        self.network.eval()
        joint = None
        if near is None:
            joint = self._joint(FINAL_PAIRS, torch.Generator().manual_seed(self._seed))
        said = []
        for start in range(0, len(X), _ANSWER_BATCH):
            part = slice(start, start + _ANSWER_BATCH)
            with self._machine.autocast():
                targets = self._machine.put(X[part]).to(self._dtype)
                logits = self._nearest(targets, near, part) if joint is None else self._all(targets, joint)
            said.append(logits.to(self._dtype).cpu().numpy())
        self.network.train(was_training)
        return np.concatenate(said)

    def logits(
        self,
        targets: Tensor,
        near: Neighbors | None,
        part: NDArray[np.int64],
        owners: Tensor,
        draw: torch.Generator,
    ) -> Tensor:
        """Relation logits (n, sites) of training targets (n, width), the rows `part` (n,) of `near`.

        Args:
            owners: (n,) the number of each target's patient among the references' patients; -1 for none of
                them
            draw: of the pairs, where all references are related
        """
        if near is not None:
            return self._nearest(targets, near, part)
        return self._all(targets, self._joint(PAIRS, draw), owners)

    def _nearest(self, targets: Tensor, near: Neighbors | None, part: slice | NDArray[np.int64]) -> Tensor:
        assert near is not None
        indices, present = (self._machine.put(a[part]) for a in (near.indices, near.present))
        return self.network.relate(targets, self._pool[indices], present)

    def _joint(self, pairs: int, draw: torch.Generator) -> _Joint:
        """g on random pairs of every class, without its last layer, which is linear."""
        chosen = torch.full((self.references.n_sites, pairs, 2), -1)
        for site, members in enumerate(self._members):
            if len(members):
                drawn = torch.randint(len(members), (pairs, 2), generator=draw)
                chosen[site] = torch.from_numpy(members)[drawn]
        chosen = chosen.to(self._machine.device)
        owners = torch.where(chosen >= 0, self._owners[chosen], -1)
        both = self._pool[chosen] * self.network.scale
        first, second = self.network.g_first(both).split(self.network.hidden, dim=-1)
        return _Joint(self.network.read_pairs(first[:, :, 0] + second[:, :, 1]), both, owners)

    def _all(self, targets: Tensor, joint: _Joint, owners: Tensor | None = None) -> Tensor:
        """Logits (n, sites): every target is related to the mean of the pairs without its own patient."""
        fits = (joint.owners >= 0).all(dim=2)[None].expand(len(targets), -1, -1)
        if owners is not None:
            fits = fits & (joint.owners != owners[:, None, None, None]).all(dim=3)
        targets = targets * self.network.scale
        weights = fits.to(targets.dtype)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1)
        of_pairs = (joint.read, joint.both.mean(dim=2))
        read, middle = (torch.einsum("nsp,sph->nsh", weights.to(of.dtype), of) for of in of_pairs)
        # By the product of matrices: n targets with all pairs of all sites are too many differences.
        far = torch.cdist(targets, joint.both.flatten(0, 2)) / targets.shape[1] ** 0.5
        distance = (far.view(len(targets), *joint.both.shape[:3]).mean(dim=3) * weights).sum(dim=2)
        logits = self.network.score(targets, middle + self.network.g_last(read), distance)
        return logits.masked_fill(~fits.any(dim=2), -20.0)


def train_relations(
    references: References,
    kind: Kind,
    k: int = 5,
    epochs: int = 15,
    seed: int = 0,
    after: Callable[[int, Relations], None] | None = None,
    machine: Machine = CPU,
    *,
    targets: References | None = None,
    hidden: int = 256,
    dropout: float = 0.5,
    batch: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    momentum: float | None = None,
) -> Relations:
    """Train a Relation Network.

    Args:
        references: r labelled embeddings with their patients
        kind: what g sees of each class
        k: See `kind`.
        epochs: passes; each has as many targets as there are, drawn balanced over the sites
        after: is called with the epoch, from 1, and what was trained
        targets: n labelled embeddings to learn to relate; None: every reference is a target of the others
        hidden: of the network
        dropout: See `hidden`.
        batch: see `situs.learn.loop`; the rate is constant, so that an early epoch is not the middle of a
            cycle
        learning_rate: See `batch`.
        weight_decay: See `batch`.
        momentum: See `batch`.

    Raises:
        InputError: if the loss is not finite any more
    """
    targets = references if targets is None else targets
    X, sites = targets.embeddings.astype(np.float32), targets.sites.astype(np.int64)
    known = {name: number for number, name in enumerate(np.unique(references.patients).tolist())}
    numbers = np.array([known.get(name, -1) for name in targets.patients.tolist()], dtype=np.int64)
    rng, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # weights and dropout
        network = RelationNetwork(X.shape[1], hidden, dropout, _scale(references))
        relations = Relations(network, kind, references, k, seed, machine)
        near = relations.find(X, targets.patients)
        own, truth, owners = (machine.put(a) for a in (X, sites, numbers))
        optimizer = make_optimizer(network, learning_rate, weight_decay, momentum)
        network.train()
        for epoch in range(1, epochs + 1):
            order = balanced_indices(sites, len(X), rng)
            if len(order) % batch < machine.world:  # a last batch with a process that has no share
                order = order[: len(order) // batch * batch]
            for start in range(0, len(order), batch):
                part = machine.share(order[start : start + batch])
                with machine.autocast():
                    logits = relations.logits(own[part], near, part, owners[part], draw)
                loss = relation_loss(logits.float(), truth[part])
                check_loss(loss, "relation")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                machine.average_gradients(network.parameters())
                optimizer.step()
            if after is not None:
                after(epoch, relations)
        network.eval()
    return relations


def _scale(references: References) -> float:
    """What makes the features of the references spread by 1, together. Those of a network that has hardly
    learned are all but alike: they are made no larger than 10, else training would diverge."""
    embeddings = references.embeddings.astype(np.float64)
    spread, size = np.sqrt(embeddings.var(axis=0).mean()), np.sqrt((embeddings**2).mean())
    return 1 / (float(max(spread, size / 10)) or 1.0)
