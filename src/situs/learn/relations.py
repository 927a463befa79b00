"""Training a Relation Network on embeddings, with all references of a class or with the nearest ones.

*Nearest*: g sees the k references of each class that are nearest to the target (the paper's contribution).
*All*: g sees pairs of the whole class. All pairs of the largest class would be millions, so `PAIRS` of them
are drawn anew for every step and class. Answers are given with `FINAL_PAIRS` pairs, drawn once.

In training a target is never related to references of its own patient.
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
from situs.learn.loop import make_optimizer, optimizer_step
from situs.learn.losses import relation_loss
from situs.learn.nets import ABSENT_LOGIT, RelationNetwork
from situs.neighbors import Neighbors, References, nearest

__all__ = ["FINAL_PAIRS", "PAIRS", "ReferenceChoice", "RelationModel", "train_relations"]

ReferenceChoice = Literal["nearest", "all"]

PAIRS = 256
FINAL_PAIRS = 1024
_ANSWER_BATCH = 256


class _PairSample(NamedTuple):
    """Pairs of references drawn from every class, and what g reads of them.

    Attributes:
        read: (sites, pairs, hidden) the output of `RelationNetwork.read_pairs`.
        embeddings: (sites, pairs, 2, width) the scaled embeddings of both references.
        patients: (sites, pairs, 2) the numbers of their patients; -1 in a class without references.
    """

    read: Tensor
    embeddings: Tensor
    patients: Tensor


class RelationModel:
    """A Relation Network with the references that it relates targets to.

    Args:
        network: Trained, or in training.
        choice: Which references of each class g sees.
        references: r labelled embeddings with their patients.
        k: The number of nearest references.
        seed: Of the pairs that answers are given with, where all references are related.
        machine: Where the network runs.
    """

    def __init__(
        self,
        network: RelationNetwork,
        choice: ReferenceChoice,
        references: References,
        k: int,
        seed: int = 0,
        machine: Machine = CPU,
    ) -> None:
        self.network = network.to(machine.device)
        self.choice, self.references, self.k = choice, references, k
        self._seed, self._machine = seed, machine
        self._dtype = next(network.parameters()).dtype
        self._embeddings = machine.to_device(references.embeddings).to(self._dtype)
        _, patients = np.unique(references.patients, return_inverse=True)
        self._patients = machine.to_device(patients)
        self._members = [np.flatnonzero(references.sites == s) for s in range(references.n_sites)]

    def find_neighbors(
        self, X: NDArray[np.floating], patients: NDArray[np.str_] | None = None
    ) -> Neighbors | None:
        """The nearest references of every class; None where all references are related.

        Args:
            X: (n, width) embeddings.
            patients: (n,) their patients, whose own references they must not get; None if no patient is among
                the references.
        """
        return None if self.choice == "all" else nearest(X, self.references, self.k, patients)

    def scores(self, X: NDArray[np.floating], neighbors: Neighbors | None) -> NDArray[np.floating]:
        """Relation scores (n, sites) in [0, 1], the sigmoids of `logits`."""
        logits = torch.from_numpy(self.logits(X, neighbors))
        return np.asarray(logits.sigmoid().numpy())

    @torch.inference_mode()
    def logits(self, X: NDArray[np.floating], neighbors: Neighbors | None) -> NDArray[np.floating]:
        """Relation logits (n, sites) of targets.

        Args:
            X: (n, width) embeddings. Where all references are related, none of them may be of these patients.
            neighbors: Their `find_neighbors`.
        """
        was_training = self.network.training
        self.network.eval()
        pairs = None
        if neighbors is None:
            pairs = self._draw_pairs(FINAL_PAIRS, torch.Generator().manual_seed(self._seed))
        logits = []
        for start in range(0, len(X), _ANSWER_BATCH):
            rows = slice(start, start + _ANSWER_BATCH)
            with self._machine.autocast():
                targets = self._machine.to_device(X[rows]).to(self._dtype)
                if pairs is None:
                    logits.append(self._relate_nearest(targets, neighbors, rows))
                else:
                    logits.append(self._relate_all(targets, pairs))
        self.network.train(was_training)
        return np.concatenate([part.to(self._dtype).cpu().numpy() for part in logits])

    def _training_logits(
        self,
        targets: Tensor,
        neighbors: Neighbors | None,
        rows: NDArray[np.int64],
        patients: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Relation logits (n, sites) of a batch of training targets, with their gradients.

        Args:
            targets: (n, width) embeddings.
            neighbors: Of all training targets.
            rows: (n,) the rows of `neighbors` that are the targets'.
            patients: (n,) the numbers of their patients among those of the references; -1 for another
                patient.
            generator: Draws the pairs, where all references are related.
        """
        if neighbors is not None:
            return self._relate_nearest(targets, neighbors, rows)
        return self._relate_all(targets, self._draw_pairs(PAIRS, generator), patients)

    def _relate_nearest(
        self, targets: Tensor, neighbors: Neighbors | None, rows: slice | NDArray[np.int64]
    ) -> Tensor:
        assert neighbors is not None
        indices, present = (self._machine.to_device(a[rows]) for a in (neighbors.indices, neighbors.present))
        return self.network.logits(targets, self._embeddings[indices], present)

    def _draw_pairs(self, n: int, generator: torch.Generator) -> _PairSample:
        """`n` random pairs of every class, read by g but for its last layer, which is linear."""
        chosen = torch.full((self.references.n_sites, n, 2), -1)
        for site, members in enumerate(self._members):
            if len(members):
                drawn = torch.randint(len(members), (n, 2), generator=generator)
                chosen[site] = torch.from_numpy(members)[drawn]
        chosen = chosen.to(self._machine.device)
        patients = torch.where(chosen >= 0, self._patients[chosen], -1)
        embeddings = self._embeddings[chosen] * self.network.scale
        first, second = self.network.g_first(embeddings).split(self.network.hidden, dim=-1)
        read = self.network.read_pairs(first[:, :, 0] + second[:, :, 1])
        return _PairSample(read, embeddings, patients)

    def _relate_all(self, targets: Tensor, pairs: _PairSample, patients: Tensor | None = None) -> Tensor:
        """Logits (n, sites): every target is related to the mean of the pairs without its own patient."""
        allowed = (pairs.patients >= 0).all(dim=2)[None].expand(len(targets), -1, -1)
        if patients is not None:
            allowed = allowed & (pairs.patients != patients[:, None, None, None]).all(dim=3)
        targets = targets * self.network.scale
        weights = allowed.to(targets.dtype)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1)
        read, mean = (
            torch.einsum("nsp,sph->nsh", weights.to(values.dtype), values)
            for values in (pairs.read, pairs.embeddings.mean(dim=2))
        )
        # By a product of matrices: the differences of n targets and all pairs of all sites are too many.
        distances = torch.cdist(targets, pairs.embeddings.flatten(0, 2)) / targets.shape[1] ** 0.5
        distances = distances.view(len(targets), *pairs.embeddings.shape[:3]).mean(dim=3)
        joint = mean + self.network.g_last(read)
        logits = self.network.score(targets, joint, (distances * weights).sum(dim=2))
        return logits.masked_fill(~allowed.any(dim=2), ABSENT_LOGIT)


def train_relations(
    references: References,
    choice: ReferenceChoice,
    k: int = 5,
    epochs: int = 15,
    seed: int = 0,
    after_epoch: Callable[[int, RelationModel], None] | None = None,
    machine: Machine = CPU,
    *,
    targets: References | None = None,
    hidden: int = 256,
    dropout: float = 0.5,
    batch: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    momentum: float | None = None,
) -> RelationModel:
    """Train a Relation Network.

    The learning rate is constant, so that an early epoch is not the middle of a cycle.

    Args:
        references: r labelled embeddings with their patients.
        choice: Which references of each class g sees.
        k: The number of nearest references.
        epochs: Passes. Each has as many targets as there are, drawn balanced over the sites.
        seed: Of weights, order, dropout and pairs.
        after_epoch: Is called with the number of the epoch, from 1, and the model.
        machine: Where the network is trained.
        targets: n labelled embeddings that are related. None: every reference is a target of the others.
        hidden: The width of the network's layers.
        dropout: The fraction of features that are dropped between them.
        batch: The number of targets in a step.
        learning_rate: The constant rate.
        weight_decay: See `situs.learn.loop.LoopSettings`.
        momentum: Of SGD; None for AdamW.

    Raises:
        InputError: If the loss is not finite.
    """
    targets = references if targets is None else targets
    X, sites = targets.embeddings.astype(np.float32), targets.sites.astype(np.int64)
    numbers = {name: number for number, name in enumerate(np.unique(references.patients).tolist())}
    patients = np.array([numbers.get(name, -1) for name in targets.patients.tolist()], dtype=np.int64)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # weights and dropout
        network = RelationNetwork(X.shape[1], hidden, dropout, _scale(references))
        model = RelationModel(network, choice, references, k, seed, machine)
        neighbors = model.find_neighbors(X, targets.patients)
        all_targets, all_sites, all_patients = (machine.to_device(a) for a in (X, sites, patients))
        optimizer = make_optimizer(network, learning_rate, weight_decay, momentum)
        network.train()
        for epoch in range(1, epochs + 1):
            order = balanced_indices(sites, len(X), rng)
            if len(order) % batch < machine.world:  # a last batch of which a process would have no part
                order = order[: len(order) // batch * batch]
            for start in range(0, len(order), batch):
                rows = machine.shard(order[start : start + batch])
                with machine.autocast():
                    logits = model._training_logits(
                        all_targets[rows], neighbors, rows, all_patients[rows], generator
                    )
                loss = relation_loss(logits.float(), all_sites[rows])
                optimizer_step(network, optimizer, loss, "relation", machine)
            if after_epoch is not None:
                after_epoch(epoch, model)
        network.eval()
    return model


def _scale(references: References) -> float:
    """The factor that makes the features of the references spread by 1, all together.

    The embeddings of a network that has hardly learned are almost alike. They are made no larger than 10;
    otherwise training would diverge.
    """
    embeddings = references.embeddings.astype(np.float64)
    spread, size = np.sqrt(embeddings.var(axis=0).mean()), np.sqrt((embeddings**2).mean())
    return 1 / (float(max(spread, size / 10)) or 1.0)
