"""What the Relation Network has to beat: plain classifiers of the same embeddings."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from situs.cohort.sampling import balanced_indices
from situs.neighbors import References

__all__ = ["BASELINES", "PrototypeRelation", "fit_baselines"]

BASELINES = ("kNN", "nearest centroid", "logistic regression", "mean prototypes")


class Classifier(Protocol):
    """What has learned and can be asked."""

    classes_: NDArray[Any]

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Classes (n,) of embeddings (n, d)."""

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.floating]:
        """How likely each of the m classes is (n, m), if all were as frequent."""


def fit_baselines(
    references: References, targets: References, seed: int, n_neighbors: int = 5
) -> dict[str, Classifier]:
    """Every baseline by its name, one of `BASELINES`, trained on what a Relation Network is.

    Args:
        references: what is looked up: by kNN, and for the nearest centroid
        targets: what is learned from, by the others
        n_neighbors: of kNN
    """
    X, y = references.embeddings.astype(np.float32), references.sites
    many, labels = targets.embeddings.astype(np.float32), targets.sites
    logistic = LogisticRegression(class_weight="balanced", max_iter=2000)
    with warnings.catch_warnings():
        # About what shrinking would do, which is not asked for: where classes have no spread.
        warnings.simplefilter("ignore", UserWarning)
        centroid = NearestCentroid().fit(X, y)
    fitted: tuple[Classifier, ...] = (
        KNeighborsClassifier(min(n_neighbors, len(X))).fit(X, y),
        centroid,
        make_pipeline(StandardScaler(), logistic).fit(many, labels),
        PrototypeRelation(random_state=seed).fit(many, labels, targets.patients),
    )
    return dict(zip(BASELINES, fitted, strict=True))


class PrototypeRelation:
    """A relation module over class means, after Sung et al. 2018 (Learning to Compare).

    A class is the mean of its embeddings; two fully connected layers score the pair of an embedding and a
    mean, trained with the squared error to 1 for the own class and 0 for all others, the own one weighing as
    much as the others together. As in the Relation
    Network here, examples are drawn balanced over the classes, and means leave the target's own patient out.

    Args:
        max_epochs: passes, each of as many examples as there are
    """

    def __init__(
        self, max_epochs: int = 15, hidden: int = 256, batch: int = 64, random_state: int = 0
    ) -> None:
        self.max_epochs = max_epochs
        self.hidden = hidden
        self.batch = batch
        self.random_state = random_state

    def fit(
        self, X: NDArray[np.float32], y: NDArray[np.integer], groups: NDArray[np.str_]
    ) -> PrototypeRelation:
        """Train on embeddings (n, d), classes (n,) and patients (n,)."""
        rng = np.random.default_rng(self.random_state)
        self.classes_, codes = np.unique(y, return_inverse=True)
        _, patients = np.unique(groups, return_inverse=True)
        targets, owners = torch.from_numpy(X), torch.from_numpy(patients)
        others = torch.from_numpy(_means_without(X, codes, patients))
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            self._score = nn.Sequential(
                nn.Linear(2 * X.shape[1], self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1), nn.Sigmoid()
            )
            optimizer = torch.optim.Adam(self._score.parameters(), lr=1e-3)
            order = torch.from_numpy(balanced_indices(codes, self.max_epochs * len(X), rng))
            m = len(self.classes_)
            wanted = torch.eye(m)[torch.from_numpy(codes)]
            for part in order.split(self.batch):
                off = (self._scores(targets[part], others[owners[part]]) - wanted[part]) ** 2
                loss = (off * (1 + (m - 2) * wanted[part])).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self._means = torch.from_numpy(
            np.stack([X[codes == c].mean(axis=0) for c in range(len(self.classes_))])
        )
        return self

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Classes (n,) of embeddings (n, d)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @torch.inference_mode()
    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.floating]:
        """Relation scores (n, m) of embeddings (n, d) with the m classes, as shares of their sum."""
        parts = torch.from_numpy(X).split(1024)
        scores = torch.cat([self._scores(t, self._means.expand(len(t), -1, -1)) for t in parts])
        return np.asarray((scores / scores.sum(dim=1, keepdim=True)).numpy())

    def _scores(self, targets: Tensor, means: Tensor) -> Tensor:
        """Scores (n, classes) of targets (n, d) with means (n, classes, d)."""
        scores: Tensor = self._score(torch.cat([targets[:, None].expand_as(means), means], dim=2))
        return scores.squeeze(2)


def _means_without(
    X: NDArray[np.float32], codes: NDArray[np.integer], patients: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Means (patients, classes, d) of classes without a patient; of all where no other has the class."""
    shape = (patients.max() + 1, codes.max() + 1)
    sums, counts = np.zeros((*shape, X.shape[1])), np.zeros(shape)
    np.add.at(sums, (patients, codes), X)
    np.add.at(counts, (patients, codes), 1)
    rest, n = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    whole = sums.sum(axis=0) / counts.sum(axis=0)[:, None]
    means = np.where(n[..., None] > 0, rest / np.maximum(n, 1)[..., None], whole)
    return np.asarray(means, dtype=np.float32)
