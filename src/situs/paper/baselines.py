"""What the Relation Network has to beat: plain classifiers of the same embeddings.

Every baseline gives logits, and only logits: the logarithm of each site's probability if all sites were
equally frequent, up to a constant of the example. Its prediction is their argmax, with or without a prior
(`situs.paper.results.predict_sites`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.cohort.sampling import balanced_indices
from situs.learn.loop import optimizer_step
from situs.neighbors import References

__all__ = ["BASELINES", "Baseline", "fit_baselines", "fit_centroids", "fit_prototypes"]

BASELINES = ("kNN", "nearest centroid", "logistic regression", "mean prototypes")

_LEAST_PROBABILITY = 1e-9  # of a site without a vote, before its logarithm
_LEAST_VARIANCE = 1e-9
_HIDDEN, _BATCH = 256, 64  # of the prototypes' relation module


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted classifier of embeddings.

    Attributes:
        sites: (m,) the sites that it was trained on, ascending.
        class_logits: Gives the logits (n, m) of these sites for embeddings (n, width).
    """

    sites: NDArray[np.integer]
    class_logits: Callable[[NDArray[np.float32]], NDArray[np.floating]]

    def logits(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logits (n, 15) of all sites for embeddings (n, width); -inf for a site not trained on."""
        logits = np.full((len(X), len(SITES)), -np.inf)
        logits[:, self.sites] = self.class_logits(X)
        return logits


def fit_baselines(
    references: References, targets: References, seed: int, n_neighbors: int = 5
) -> dict[str, Baseline]:
    """Every baseline by its name, one of `BASELINES`, trained on what a Relation Network is trained on.

    Args:
        references: What kNN looks up, and what the centroids are the means of.
        targets: What the other two learn from.
        seed: Of the prototypes' relation module.
        n_neighbors: Of kNN.
    """
    fitted = (
        _fit_knn(references, n_neighbors),
        fit_centroids(references),
        _fit_logistic(targets),
        fit_prototypes(targets, seed),
    )
    return dict(zip(BASELINES, fitted, strict=True))


def _fit_knn(references: References, n_neighbors: int) -> Baseline:
    X, sites = _examples(references)
    model = KNeighborsClassifier(min(n_neighbors, len(X))).fit(X, sites)
    return Baseline(model.classes_, lambda X: np.log(np.maximum(model.predict_proba(X), _LEAST_PROBABILITY)))


def fit_centroids(references: References) -> Baseline:
    """The site whose mean embedding is nearest to the target, by Euclidean distance.

    A logit is -d^2 / (2 s^2), where d is the distance to the site's mean and s^2 the variance of a feature
    within the sites, pooled over sites and features. It is the logarithm of the site's probability if every
    site's embeddings are spread alike in all directions.
    """
    X, sites = _examples(references)
    classes, codes = np.unique(sites, return_inverse=True)
    means = _class_means(X, codes)
    freedom = max(len(X) - len(classes), 1) * X.shape[1]
    # At least a little: where sites have no spread, the nearest one is certain, whatever the prior.
    variance = max(float(((X - means[codes]) ** 2).sum()) / freedom, _LEAST_VARIANCE)
    return Baseline(classes, lambda X: -cdist(X, means, "sqeuclidean") / (2 * variance))


def _fit_logistic(targets: References) -> Baseline:
    X, sites = _examples(targets)
    logistic = LogisticRegression(class_weight="balanced", max_iter=2000)
    model = make_pipeline(StandardScaler(), logistic).fit(X, sites)

    def log_probabilities(X: NDArray[np.float32]) -> NDArray[np.floating]:
        with np.errstate(divide="ignore"):  # a probability may be too small for its type
            return np.asarray(model.predict_log_proba(X))

    return Baseline(model.classes_, log_probabilities)


def fit_prototypes(targets: References, seed: int, epochs: int = 15) -> Baseline:
    """A relation module over class means, after Sung et al. 2018 (Learning to Compare).

    A class is the mean of its embeddings. Two fully connected layers score the pair of an embedding and a
    mean. They are trained with the squared error to 1 for the own class and 0 for all others; the own one
    weighs as much as the others together. As in the Relation Network here, examples are drawn balanced over
    the classes, and means leave the target's own patient out.

    Args:
        targets: Labelled embeddings with their patients.
        seed: Of weights and examples.
        epochs: Passes, each of as many examples as there are.
    """
    rng = np.random.default_rng(seed)
    X, sites = _examples(targets)
    classes, codes = np.unique(sites, return_inverse=True)
    _, patients = np.unique(targets.patients, return_inverse=True)
    embeddings, owners = torch.from_numpy(X), torch.from_numpy(patients)
    other_means = torch.from_numpy(_means_without(X, codes, patients))
    m = len(classes)
    truth = torch.eye(m)[torch.from_numpy(codes)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(2 * X.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        order = torch.from_numpy(balanced_indices(codes, epochs * len(X), rng))
        for batch in order.split(_BATCH):
            scores = _relate(module, embeddings[batch], other_means[owners[batch]]).sigmoid()
            loss = ((scores - truth[batch]) ** 2 * (1 + (m - 2) * truth[batch])).mean()
            optimizer_step(module, optimizer, loss, "mean prototypes")
    means = torch.from_numpy(_class_means(X, codes))

    @torch.inference_mode()
    def class_logits(X: NDArray[np.float32]) -> NDArray[np.floating]:
        parts = torch.from_numpy(X).split(1024)
        relations = torch.cat([_relate(module, part, means.expand(len(part), -1, -1)) for part in parts])
        return np.asarray(_log_probability(relations).numpy())

    return Baseline(classes, class_logits)


def _relate(module: nn.Module, targets: Tensor, means: Tensor) -> Tensor:
    """The module's outputs (n, m) for targets (n, width) and means (n, m, width)."""
    pairs = torch.cat([targets[:, None].expand_as(means), means], dim=2)
    outputs: Tensor = module(pairs)
    return outputs.squeeze(2)


def _log_probability(outputs: Tensor) -> Tensor:
    """The log-probabilities of m classes that outputs (n, m) of a module stand for.

    Where a class has the probability p, the weighted squared error is least at the score
    (m - 1) p / ((m - 1) p + 1 - p). So p is the sigmoid of the output less log(m - 1).
    """
    others = max(outputs.shape[1] - 1, 1)
    return F.logsigmoid(outputs - float(np.log(others)))


def _examples(items: References) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    return items.embeddings.astype(np.float32), items.sites


def _class_means(X: NDArray[np.float32], codes: NDArray[np.integer]) -> NDArray[np.float32]:
    """The means (m, width) of the classes 0 to m - 1, each of which has an example."""
    return np.stack([X[codes == c].mean(axis=0) for c in range(codes.max() + 1)])


def _means_without(
    X: NDArray[np.float32], codes: NDArray[np.integer], patients: NDArray[np.integer]
) -> NDArray[np.float32]:
    """The means (patients, m, width) of the classes without each patient's examples.

    A class that no other patient has keeps its whole mean.
    """
    shape = (patients.max() + 1, codes.max() + 1)
    sums, counts = np.zeros((*shape, X.shape[1])), np.zeros(shape)
    np.add.at(sums, (patients, codes), X)
    np.add.at(counts, (patients, codes), 1)
    rest, n = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    whole = sums.sum(axis=0) / counts.sum(axis=0)[:, None]
    means = np.where(n[..., None] > 0, rest / np.maximum(n, 1)[..., None], whole)
    return np.asarray(means, dtype=np.float32)
