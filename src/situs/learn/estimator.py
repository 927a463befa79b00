"""The Relation Network as a scikit-learn classifier of any embeddings; a thin skin over `relations`.

Useful outside head CT: wherever items come with embeddings, classes are unbalanced, and a new case or a new
class should count at once, without training again.
"""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from situs.learn.relations import ReferenceChoice, RelationModel, train_relations
from situs.neighbors import References
from situs.records import take_rows

__all__ = ["RelationClassifier"]


class RelationClassifier(ClassifierMixin, BaseEstimator):
    """Classify embeddings by their relation to the nearest references of every class.

    A network g joins the references of a class that are nearest to the target. A network f scores the target
    against the joint embedding. The class with the highest score is the answer. Training draws the classes
    equally often. An item is never related to itself, nor to items of its own group.

    Args:
        references: ``"nearest"`` or ``"all"``. What g sees of a class: the nearest references, or random
            pairs of all of them.
        n_neighbors: int. Nearest references of each class. A class with fewer has all of them taken.
        max_epochs: int. Passes over the data.
        hidden_size: int. Width of the layers of g and f.
        dropout: float. Fraction of the features that are dropped between the layers in training.
        batch_size: int. Targets in a step.
        learning_rate: float. Of AdamW.
        random_state: int, RandomState instance or None. Of weights, order and dropout.

    Attributes:
        classes_: (n_classes,) the classes seen, sorted.
        n_features_in_: Width of the embeddings.
        feature_names_in_: (n_features_in_,) their names; only where the embeddings had names.
        center_: (n_features_in_,) is subtracted from embeddings.
        scale_: Divides embeddings after that. It is one number, so that neighbours stay neighbours.
        references_: What targets are related to. Its sites are indices into `classes_`.
        network_: g and f, a `situs.learn.nets.RelationNetwork`.

    Note:
        A search such as ``GridSearchCV`` keeps the ``groups`` of its ``fit`` for its splits. They reach this
        classifier too with ``STEP__groups=groups`` where it is a step of a pipeline, or with scikit-learn's
        metadata routing, ``set_fit_request(groups=True)``.

    References:
        arXiv 1710.09180 (ISBI 2018); Santoro et al. 2017, A simple neural network module for relational
        reasoning.

    Examples:
        >>> import numpy as np
        >>> from situs import RelationClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat(["common", "rare"], [60, 6])
        >>> X = rng.normal(size=(66, 4)) + 4 * (y == "rare")[:, None]
        >>> model = RelationClassifier(random_state=0).fit(X, y)
        >>> model.predict([[0, 0, 0, 0], [4, 4, 4, 4]]).tolist()
        ['common', 'rare']
        >>> model.add_references([[9, -9, 9, -9]], ["new"]).classes_.tolist()
        ['common', 'new', 'rare']
    """

    references_: References

    def __init__(
        self,
        references: str = "nearest",
        n_neighbors: int = 5,
        max_epochs: int = 15,
        hidden_size: int = 256,
        dropout: float = 0.5,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.references = references
        self.n_neighbors = n_neighbors
        self.max_epochs = max_epochs
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> RelationClassifier:
        """Train g and f; the items become the references.

        Args:
            X: array-like of shape (n_samples, n_features). Embeddings.
            y: array-like of shape (n_samples,). Their classes, numbers or strings.
            groups: array-like of shape (n_samples,). The group of each item, such as its patient; items of a
                group are no neighbours of each other. None: every item is a group of its own.

        Raises:
            ValueError: For a single class, values that are not finite, lengths that differ, a parameter out
                of range, or an `n_neighbors` that no class can offer.
        """
        items, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        names = _group_names(groups, len(items))
        self._check_parameters(np.bincount(codes))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.center_ = items.mean(axis=0)
        self.scale_ = float(np.sqrt(((items - self.center_) ** 2).mean())) or 1.0
        self._set_references(self._standardize(items), codes, names)
        model = train_relations(
            self.references_,
            self._choice,
            self.n_neighbors,
            self.max_epochs,
            seed,
            hidden=self.hidden_size,
            dropout=self.dropout,
            batch=self.batch_size,
            learning_rate=self.learning_rate,
        )
        # In double precision an answer does not depend on what else is asked at the same time.
        self.network_ = model.network.double()
        return self

    def relation_scores(self, X: ArrayLike, groups: ArrayLike | None = None) -> NDArray[np.floating]:
        """Relation scores (n_samples, n_classes) in [0, 1]; they rank the classes and do not sum to 1.

        Args:
            X: array-like of shape (n_samples, n_features). Embeddings.
            groups: array-like of shape (n_samples,). The group of each item, as in `fit`, where it may be
                among the references' groups: its references are then not used. Only for
                ``references="nearest"``.

        Raises:
            ValueError: For values that are not finite or lengths that differ.
        """
        check_is_fitted(self)
        items = validate_data(self, X, dtype=np.float64, reset=False)
        names = None if groups is None else _group_names(groups, len(items))
        if names is not None and self.references != "nearest":
            raise ValueError("groups: only a classifier with references='nearest' can leave them out")
        model = RelationModel(self.network_, self._choice, self.references_, self.n_neighbors)
        embeddings = self._standardize(items)
        return model.scores(embeddings, model.find_neighbors(embeddings, names))

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Relation scores (n_samples, n_classes).

        With two classes (n_samples,): the second's score less the first's.
        """
        scores = self.relation_scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The class (n_samples,) with the highest relation score."""
        scores = self.relation_scores(X)
        return self.classes_[scores.argmax(axis=1)]

    def add_references(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> RelationClassifier:
        """Add references without training, of classes seen or new; they are used at once.

        Args:
            X: array-like of shape (n_samples, n_features). Embeddings.
            y: array-like of shape (n_samples,). Their classes.
            groups: array-like of shape (n_samples,). The group of each item, as in `fit`.

        Raises:
            ValueError: For values that are not finite, lengths that differ, or strings where the classes seen
                are numbers, or the other way round.
        """
        check_is_fitted(self)
        items, labels = validate_data(self, X, y, dtype=np.float64, reset=False)
        check_classification_targets(labels)
        old, old_classes = self.references_, self.classes_
        old_kind, new_kind = (
            "strings" if isinstance(classes[0], str) else "numbers" for classes in (old_classes, labels)
        )
        if new_kind != old_kind:
            raise ValueError(f"y: the classes seen are {old_kind}, got {new_kind}")
        names = _group_names(groups, len(items), first=len(old))
        self.classes_ = np.union1d(old_classes, labels)
        old_codes, new_codes = (np.searchsorted(self.classes_, classes) for classes in (old_classes, labels))
        self._set_references(
            np.concatenate([old.embeddings, self._standardize(items)]),
            np.concatenate([old_codes[old.sites], new_codes]),
            np.concatenate([old.patients, names]),
        )
        return self

    def remove_references(self, where: ArrayLike) -> RelationClassifier:
        """Remove references without training; a class that has none left is never the answer.

        Args:
            where: array-like of shape (n_references,). True for those to remove, in the order in which they
                were given.

        Raises:
            ValueError: For another length, or if none would be left.
        """
        check_is_fitted(self)
        kept = ~np.asarray(where, dtype=bool)
        old = self.references_
        if kept.shape != (len(old),) or not kept.any():
            raise ValueError(f"where: expected {len(old)} truth values, not all true, got shape {kept.shape}")
        self.references_ = take_rows(old, kept)
        return self

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy, as of any scikit-learn classifier.

        A class that was never seen is always missed; a warning names one.
        """
        check_is_fitted(self)
        if unseen := sorted(set(np.unique(y).tolist()) - set(self.classes_.tolist())):
            warnings.warn(
                f"y: class {unseen[0]!r} was never seen, so it is never predicted; use add_references",
                UserWarning,
                stacklevel=2,
            )
        return float(super().score(X, y, sample_weight))

    @property
    def _choice(self) -> ReferenceChoice:
        return "all" if self.references == "all" else "nearest"

    def _standardize(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((X - self.center_) / self.scale_)

    def _set_references(
        self, embeddings: NDArray[np.floating], codes: NDArray[np.integer], groups: NDArray[np.str_]
    ) -> None:
        self.references_ = References(embeddings, codes, groups, groups, len(self.classes_))

    def _check_parameters(self, counts: NDArray[np.integer]) -> None:
        if self.references not in ("nearest", "all"):
            raise ValueError(f"references: expected 'nearest' or 'all', got {self.references!r}")
        for name in ("n_neighbors", "max_epochs", "hidden_size", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if not 0 <= self.dropout < 1 or not self.learning_rate > 0:
            raise ValueError("dropout, learning_rate: expected 0 <= dropout < 1 and a positive learning_rate")
        if len(counts) < 2:
            raise ValueError("y: expected at least two classes, got one class")
        if self.references == "nearest" and self.n_neighbors > counts.max():
            raise ValueError(
                f"n_neighbors: no class has {self.n_neighbors} items, the largest has {counts.max()}"
            )


def _group_names(groups: ArrayLike | None, n: int, first: int = 0) -> NDArray[np.str_]:
    """A name (n,) for each item's group; without groups a name of its own, numbered from `first`."""
    if groups is None:
        return np.array([f"item {first + i}" for i in range(n)])
    names = check_array(groups, ensure_2d=False, dtype=None)
    if names.shape != (n,):
        raise ValueError(f"groups: expected one for each of {n} items, got shape {names.shape}")
    return np.array([f"group {name}" for name in names.tolist()])
