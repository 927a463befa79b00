"""The methods that `references.py` compares: each scores targets by references, with a new place or without.

Scores are higher for likelier sites; their means over the slices of a region are compared. The new place
comes after the bundle's sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from situs.bundle import Bundle
from situs.cohort.score_corrections import Asked, fit_correction, largest_offset, to_logits
from situs.learn.relations import RelationModel, train_relations
from situs.neighbors import References, nearest, reference_sets
from situs.paper.baselines import fit_centroids
from situs.records import join_rows
from situs.runtime import Runtime, relate_to_nearest

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Method:
    """How a method scores s slices; some give scores of several kinds at once, by name.

    Attributes:
        before: Of every kind, the scores (s, m) of the bundle's sites.
        after: For each set of cases of a new place, the same with it, (s, m + 1).
    """

    before: dict[str, Floats]
    after: Callable[[Sequence[References]], Iterator[dict[str, Floats]]]


def make_method(name: str, bundle: Bundle, X: NDArray[np.float32]) -> Method:
    """A method of `METHODS`.

    Args:
        name: Its name.
        bundle: Has the references of m sites, and the Relation Network.
        X: (s, width) embeddings of the slices.
    """
    stored = bundle.references
    return METHODS[name](bundle, replace(stored, embeddings=stored.embeddings.astype(np.float32)), X)


def relation_nearest(bundle: Bundle, known: References, X: NDArray[np.float32]) -> Method:
    """The bundle's Relation Network with the nearest references of each class, as `situs references add`.

    The correction is that of `situs.cohort.score_corrections`, with all references asked. Beside it, its
    offset alone and none of it.
    """
    runtime, m = Runtime(bundle), len(bundle.sites)
    before, of_known = relate_known(runtime, bundle, known, X)
    logits = to_logits(of_known)

    def after(cases: Sequence[References]) -> Iterator[dict[str, Floats]]:
        for a in range(0, len(cases), m):  # the network takes m classes at a time
            part = cases[a : a + m]
            classes = as_classes(part, m)
            targets = np.concatenate([X, known.embeddings, classes.embeddings])
            patients = np.concatenate([np.full(len(X), ""), known.patients, classes.patients])
            neighbors = nearest(targets, classes, bundle.n_neighbors, patients)
            scores = to_logits(runtime.relate(targets, reference_sets(classes, neighbors), neighbors.present))
            for number, new in enumerate(part):
                of_slices, of_known, of_cases = np.split(scores[:, number], [len(X), len(X) + len(known)])
                joined = join(known, new)
                own = of_cases[classes.sites == number]
                asked = Asked(
                    joined.embeddings,
                    joined.sites,
                    joined.patients,
                    np.concatenate([logits, np.zeros((len(new), m))]),
                )
                correction = fit_correction(asked, m, np.concatenate([of_known, own]))
                added = {
                    "RN+NN": X @ correction.weights + correction.offset,
                    "RN+NN, offset alone": largest_offset(logits, of_known, known.sites),
                    "RN+NN, no correction": 0,
                }
                yield {
                    name: np.column_stack([before, expit(of_slices + more)]) for name, more in added.items()
                }

    kinds = ("RN+NN", "RN+NN, offset alone", "RN+NN, no correction")
    return Method(dict.fromkeys(kinds, before), after)


def relate_known(
    runtime: Runtime, bundle: Bundle, known: References, X: NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """Relation scores (s, m) of slices, and (r, m) of the references without those of their own patient."""
    _, before = relate_to_nearest(runtime, bundle, X)
    parts = np.array_split(np.arange(len(known)), len(known) // 128 + 1)
    of_known = [
        relate_to_nearest(runtime, bundle, known.embeddings[part], known.patients[part])[1] for part in parts
    ]
    return before, np.concatenate(of_known)


def relation_all(_: Bundle, known: References, X: NDArray[np.float32]) -> Method:
    """A Relation Network that was trained on pairs of all references of a class, and is asked so."""
    name, model = "RN, all-to-all", train_relations(known, "all", epochs=15)
    before = model.scores(X, None)

    def after(cases: Sequence[References]) -> Iterator[dict[str, Floats]]:
        for new in cases:
            asked = RelationModel(model.network, "all", as_classes([new], 1), model.k)
            yield {name: np.column_stack([before, asked.scores(X, None)])}

    return Method({name: before}, after)


def k_nearest(_: Bundle, known: References, X: NDArray[np.float32], k: int = 5) -> Method:
    """Votes of the k nearest references."""
    name, m = "kNN", known.n_sites
    distances = cdist(X, known.embeddings)
    order = np.argsort(distances, axis=1)[:, :k]
    near, voters = np.take_along_axis(distances, order, axis=1), known.sites[order]

    def votes(near: Floats, voters: NDArray[np.integer]) -> Floats:
        chosen = np.take_along_axis(voters, np.argsort(near, axis=1, kind="stable")[:, :k], axis=1)
        return np.stack([(chosen == site).mean(axis=1) for site in range(m + 1)], axis=1)

    def after(cases: Sequence[References]) -> Iterator[dict[str, Floats]]:
        for new in cases:
            to_new = cdist(X, new.embeddings)
            yield {name: votes(np.hstack([near, to_new]), np.hstack([voters, np.full(to_new.shape, m)]))}

    return Method({name: votes(near, voters)[:, :m]}, after)


def centroids(_: Bundle, known: References, X: NDArray[np.float32]) -> Method:
    """Probabilities by the distances to the means of the classes."""
    name = "nearest centroid"

    def scores(references: References) -> dict[str, Floats]:
        return {name: np.asarray(softmax(fit_centroids(references).class_logits(X), axis=1))}

    return Method(scores(known), lambda cases: (scores(join(known, new)) for new in cases))


def linear_probe(_: Bundle, known: References, X: NDArray[np.float32]) -> Method:
    """Logistic regression on all references, each class weighing the same."""
    name, scaler = "linear probe", StandardScaler().fit(known.embeddings)
    targets = scaler.transform(X)

    def fit(references: References) -> dict[str, Floats]:
        model = LogisticRegression(class_weight="balanced", C=0.05, max_iter=500)
        model.fit(scaler.transform(references.embeddings), references.sites)
        return {name: model.predict_proba(targets)}

    return Method(fit(known), lambda cases: (fit(join(known, new)) for new in cases))


def as_classes(cases: Sequence[References], n: int) -> References:
    """Sets of cases as the first of n classes."""
    joined = join_rows(list(cases))
    sites = np.repeat(np.arange(len(cases)), [len(new) for new in cases])
    return References(joined.embeddings, sites, joined.ids, joined.patients, n)


def join(known: References, new: References) -> References:
    """The references of m classes, and those of a new one after them."""
    m = known.n_sites
    moved = replace(new, sites=np.full(len(new), m), n_sites=m + 1)
    return join_rows([replace(known, n_sites=m + 1), moved])


METHODS: dict[str, Callable[[Bundle, References, NDArray[np.float32]], Method]] = {
    "RN+NN": relation_nearest,
    "RN, all-to-all": relation_all,
    "kNN": k_nearest,
    "nearest centroid": centroids,
    "linear probe": linear_probe,
}
