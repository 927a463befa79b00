"""RelationClassifier: scikit-learn's checks, pipelines and searches, groups, references added and removed."""

import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from situs import RelationClassifier


def quick(**changes):
    return RelationClassifier(**{"max_epochs": 8, "hidden_size": 32, "random_state": 0, **changes})


def blobs(n=40, seed=0, classes=("a", "b", "c"), spread=0.4):
    """Classes around the corners of a simplex, the later ones rarer."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.repeat(name, n // (i + 1)) for i, name in enumerate(classes)])
    corners = {name: np.eye(6)[i] * 3 for i, name in enumerate("abcdef")}
    return np.array([corners[name] for name in y]) + rng.normal(0, spread, (len(y), 6)), y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("references", ["nearest", "all"])
def test_scikit_learns_checks(references):
    model = quick(references=references, max_epochs=15, hidden_size=64)
    done = check_estimator(model, on_fail=None, on_skip=None)
    failed = {c["check_name"]: c["exception"] for c in done if c["status"] == "failed"}
    assert not failed
    assert sum(c["status"] == "passed" for c in done) > 40


@pytest.mark.slow
@pytest.mark.parametrize("references", ["nearest", "all"])
def test_strings_rare_classes_and_pickles(references):
    X, y = blobs(60, classes="abcde")
    keep = np.flatnonzero((y != "e") | (np.cumsum(y == "e") <= 2))  # two items, fewer than k
    model = quick(references=references, max_epochs=30).fit(X[keep], y[keep])
    test, truth = blobs(60, seed=1, classes="abcde")
    assert model.score(test, truth) > 0.7  # 0.4 for the most frequent class alone
    scores = model.relation_scores(test)
    assert scores.shape == (len(test), 5) and (scores >= 0).all() and (scores <= 1).all()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.relation_scores(test), scores)


@pytest.mark.slow
def test_in_a_pipeline_and_a_grid_search_with_groups():
    X, y = blobs()
    groups = np.arange(len(y)) % 6
    model = make_pipeline(StandardScaler(), quick(max_epochs=20))
    search = GridSearchCV(model, {"relationclassifier__n_neighbors": [1, 3]}, cv=GroupKFold(3))
    search.fit(X, y, groups=groups, relationclassifier__groups=groups)  # the first is for GroupKFold alone
    assert search.best_score_ > 0.7  # 0.5 for the most frequent class alone
    owners = search.best_estimator_[-1].references_.patients.tolist()
    assert owners == [f"group {group}" for group in groups]
    with config_context(enable_metadata_routing=True):
        asked = quick(max_epochs=2).set_fit_request(groups=True)
        search = GridSearchCV(asked, {"n_neighbors": [1, 3]}, cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert search.best_estimator_.references_.patients.tolist() == owners


@pytest.mark.slow
def test_an_item_never_meets_its_own_group():
    """All items of a group are alike, and their class says nothing: only a leak could tell it."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    centres, classes = rng.normal(size=(30, 5)) * 5, rng.integers(0, 2, 30)
    X, y = centres[groups] + rng.normal(0, 0.1, (120, 5)), classes[groups]
    model = quick(n_neighbors=2).fit(X, y, groups)
    np.testing.assert_array_equal(model.references_.sites, y)
    leaky = model.predict(X)
    honest = model.classes_[model.relation_scores(X, groups).argmax(axis=1)]
    by_hand = []
    for n in range(len(X)):
        others = quick(n_neighbors=2).fit(X, y, groups).remove_references(groups == groups[n])
        by_hand.append(others.predict(X[n : n + 1])[0])
        if n == 7:
            break
    np.testing.assert_array_equal(honest[:8], by_hand)
    assert (leaky != honest).any()


def test_a_new_case_and_a_new_class_count_at_once():
    X, y = blobs(40, classes="abcd")
    known = y != "d"
    model = quick(max_epochs=20).fit(X[known], y[known])
    test, truth = blobs(40, seed=1, classes="abcd")
    assert not (model.predict(test) == "d").any()
    with pytest.warns(UserWarning, match="'d' was never seen"):
        model.score(test, truth)
    before = {name: p.clone() for name, p in model.network_.state_dict().items()}
    model.add_references(X[~known], y[~known])
    assert model.classes_.tolist() == list("abcd")
    assert (model.predict(test[truth == "d"]) == "d").mean() > 0.5
    assert all((p == before[name]).all() for name, p in model.network_.state_dict().items())

    new = np.isin(np.arange(len(model.references_)), np.arange(known.sum(), len(y)))
    scores = quick(max_epochs=20).fit(X[known], y[known]).relation_scores(test)
    model.remove_references(new)
    np.testing.assert_allclose(model.relation_scores(test)[:, :3], scores)
    assert (model.relation_scores(test)[:, 3] < 1e-6).all()


def test_moving_and_shrinking_all_embeddings_changes_nothing():
    X, y = blobs()
    test, _ = blobs(seed=1)
    first = quick().fit(X, y).relation_scores(test)
    second = quick().fit(50 * X + 1000, y).relation_scores(50 * test + 1000)
    np.testing.assert_allclose(first, second, atol=1e-3)


X, Y = blobs(12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.fit(X, np.zeros(len(X))), "one class"),
        (lambda m: m.fit(np.where(X[3, 2] == X, np.nan, X), Y), "NaN"),
        (lambda m: m.fit(np.where(X[3, 2] == X, np.inf, X), Y), "infinity"),
        (lambda m: m.fit(X, Y, groups=[1, 2]), "groups: expected one for each of 22 items"),
        (lambda m: m.set_params(n_neighbors=13).fit(X, Y), "no class has 13 items, the largest has 12"),
        (lambda m: m.set_params(n_neighbors=0).fit(X, Y), "n_neighbors"),
        (lambda m: m.set_params(references="some").fit(X, Y), "'nearest' or 'all'"),
        (lambda m: m.set_params(dropout=1).fit(X, Y), "dropout"),
        (lambda m: m.fit(X, Y).remove_references(np.ones(len(X))), "not all true"),
        (lambda m: m.fit(X, Y).add_references(X[:, :3], Y), "features"),
        (
            lambda m: m.fit(X, Y).add_references(X, np.arange(len(X)) % 3),
            "classes seen are strings, got numbers",
        ),
        (lambda m: m.fit(X, Y[0] == Y).add_references(X, Y), "classes seen are numbers, got strings"),
        (lambda m: m.set_params(references="all").fit(X, Y).relation_scores(X, Y), "references='nearest'"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change(quick(max_epochs=1))


@pytest.mark.slow
def test_digits_with_rare_classes():
    """Real data: of three digits there are five items to learn from. Chance is one in ten."""
    X, y = load_digits(return_X_y=True)
    test = np.arange(len(y)) % 3 == 0
    seen = np.array([np.sum(~test[:n] & (y[:n] == y[n])) for n in range(len(y))])
    train = ~test & ((y > 2) | (seen < 5))
    rare = test & (y <= 2)
    model = RelationClassifier(hidden_size=32, max_epochs=3, random_state=0).fit(X[train], y[train])
    assert model.score(X[rare], y[rare]) > 0.3
    assert model.score(X[test & ~rare], y[test & ~rare]) > 0.8
