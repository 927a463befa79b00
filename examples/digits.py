"""RelationClassifier outside head CT: handwritten digits, three of them rare.

Of the digits 0, 1 and 2 there are five images each to learn from, of the others about 120. Then a digit that
the network was never trained on is added as a class, by its references alone. Run, in about a minute:

    python examples/digits.py
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from situs import RelationClassifier
from situs.tables import text_table

RARE, N_RARE, NEW = (0, 1, 2), 5, 9
SEEDS = range(5)


def main() -> None:
    X, y = load_digits(return_X_y=True)
    models = {
        "RelationClassifier, nearest": lambda seed: RelationClassifier(random_state=seed),
        "RelationClassifier, all": lambda seed: RelationClassifier("all", random_state=seed),
        "5 nearest neighbours": lambda seed: KNeighborsClassifier(5),
        "1 nearest neighbour": lambda seed: KNeighborsClassifier(1),
        "nearest centroid": lambda seed: NearestCentroid(),
        "logistic regression, balanced": lambda seed: LogisticRegression(
            class_weight="balanced", max_iter=5000
        ),
    }
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    new: list[tuple[float, float]] = []
    for seed in SEEDS:
        train, test = split(y, seed)
        for name, make in models.items():
            predicted = make(seed).fit(X[train], y[train]).predict(X[test])
            scores = f1_score(y[test], predicted, average=None)
            results[name].append((scores.mean(), scores[list(RARE)].mean()))
        new.append(add_a_class(X, y, train, test, seed))

    rows = [["", "macro F1", f"F1 of {', '.join(map(str, RARE))}"]]
    for name, scores in results.items():
        rows.append([name, *(f"{np.mean(s):.3f} ± {np.std(s):.3f}" for s in zip(*scores, strict=True))])
    print(f"{N_RARE} images each of the digits {RARE} to learn from; {len(SEEDS)} splits, mean ± deviation\n")
    print(text_table(rows))
    own, others = np.mean(new, axis=0)
    print(f"\nDigit {NEW} added after training: recall {own:.3f}; the other digits' {others:.3f}")


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images (n,) to learn from, of the rare digits `N_RARE` each, and the third to test on."""
    rng = np.random.default_rng(seed)
    test = np.zeros(len(y), dtype=bool)
    train = np.zeros(len(y), dtype=bool)
    for digit in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == digit))
        n = len(members) // 3
        test[members[:n]] = True
        train[members[n : n + N_RARE] if digit in RARE else members[n:]] = True
    return train, test


def add_a_class(
    X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> tuple[float, float]:
    """Recall of a digit whose images became references after the training, and mean recall of the others."""
    others, new = train & (y != NEW), train & (y == NEW)
    model = RelationClassifier(random_state=seed).fit(X[others], y[others])
    right = model.add_references(X[new], y[new]).predict(X[test]) == y[test]
    recalls = [right[y[test] == digit].mean() for digit in np.unique(y)]
    return recalls[NEW], float(np.mean(np.delete(recalls, NEW)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of scikit-learn, about features that are always 0
    main()
