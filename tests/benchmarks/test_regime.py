"""The training sets of `benchmarks/regime.py`, and that every method learns from them."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import REPO
from phantoms.benchmark import load_benchmark

from situs.anatomy import SITES
from situs.errors import InputError
from situs.learn import features, relations
from situs.learn.devices import CPU
from situs.learn.features import Features
from situs.learn.vgg import vgg16_basenet
from situs.paper import baselines
from situs.synth.cohort import paper_slices

regime = load_benchmark("regime")
COUNTS = np.array([paper_slices()[site.key] for site in SITES])
M = len(SITES)
RECIPE = replace(
    regime.FROZEN, n_neighbors=2, n_targets=60, basenet_samples=120, relation_samples=60, learning_rate=0.02
)


def test_sets_are_what_their_names_say():
    settings = {setting.value: setting for setting in regime.make_settings(COUNTS)}
    fifth = np.array(settings["20 %"].counts)
    np.testing.assert_allclose(fifth, COUNTS / 5, atol=0.5)
    assert min(settings["1 %"].counts) == 1 and settings["1 %"].balanced
    balanced, paper, steep = (
        np.array(settings[name].counts) for name in ("balanced", "the paper's", "ten times steeper")
    )
    assert set(balanced.tolist()) == {regime.MIX // M}
    np.testing.assert_allclose(paper, regime.MIX * COUNTS / COUNTS.sum(), atol=0.51)
    assert not settings["the paper's"].balanced
    assert abs(steep.sum() - regime.MIX) < M and (steep >= 1).all() and (steep <= COUNTS).all()
    # Before rounding, the most frequent site is ten times as frequent against the rarest as in the paper.
    power = 1 + np.log(10) / np.log(COUNTS.max() / COUNTS.min())
    assert (COUNTS.max() / COUNTS.min()) ** power == pytest.approx(10 * COUNTS.max() / COUNTS.min())
    exact = COUNTS**power / (COUNTS**power).sum() * regime.MIX
    np.testing.assert_allclose(steep, np.clip(exact, 1, None), atol=0.5)


def test_small_sets_are_seen_more_often():
    assert regime.passes(30, 40_000, 12_340) == 30
    assert regime.passes(30, 40_000, 123) == 326
    settings = regime.fc_settings(regime.FROZEN, 123, 0, REPO / "x.pt", CPU)
    assert settings.steps * settings.batch == pytest.approx(40_000, abs=64 + 123)


def pool(heads, seed, n_features):
    """Features near every site's own place; the mirrored ones are noisier."""
    places = np.random.default_rng(0).normal(size=(M, n_features))
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(M), 4)
    noise = [rng.normal(0, scale, (len(site), n_features)) for scale in (0.2, 0.4)]
    values = np.concatenate([places[site] + of for of in noise]).astype(np.float16)
    patient = np.array([heads[i % len(heads)] for i in range(len(site))])
    features = Features(values, len(site) + np.arange(len(site)))
    return regime.Pool(features, site, patient, np.array([f"{seed}/{i}" for i in range(len(site))]))


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [True, False])
def test_every_method_learns_from_a_set(tmp_path, monkeypatch, balanced):
    monkeypatch.setattr(regime, "LEAST_BASENET", 3000)
    monkeypatch.setattr(regime, "LEAST_RELATION", 240)

    def start(seed):
        return vgg16_basenet(M, 32, widths=(2, 2, 2, 2, 8), hidden=32)

    n = start(0).fc1.in_features
    pools = {"train": pool("abc", 1, n), "test": pool("de", 2, n), "balanced": pool("de", 3, n)}
    setting = regime.Setting(regime.SLICES, "all", (4,) * 14 + (3,), balanced)
    seen = set()

    def spy(draw):
        def drawn(*args):
            seen.add(draw)
            return draw(*args)

        return drawn

    again, natural = features.balanced_indices, regime.unbalanced_indices
    for module in (features, relations, baselines):
        monkeypatch.setattr(module, "balanced_indices", spy(again))
    monkeypatch.setattr(regime, "unbalanced_indices", spy(natural))
    arrays = regime.train_and_test(setting, pools, start, RECIPE, 0, tmp_path, CPU, lambda *args: None)
    assert seen == {again if balanced else natural}
    assert not list(tmp_path.iterdir())
    assert len(arrays) == 2 * len(regime.ALL_METHODS)
    for key, logits in arrays.items():
        assert logits.shape == (4 * M, M)
        assert (logits.argmax(axis=1) == pools["test"].site).mean() > 0.5, key
    counts = regime.count_all({key.removesuffix("_logits"): [of, of] for key, of in arrays.items()}, pools)
    rows = regime.score_rows(setting, counts)
    assert len(rows) == len(arrays)
    assert all(0.4 < row[5] <= 1 and row[6] <= row[7] for row in rows)
    gaps = regime.gap_rows(setting, counts)
    assert len(gaps) == 2 * (len(regime.ALL_METHODS) - 1) and all(row[9].endswith(" of 4") for row in gaps)
    better = regime.gap_rows(setting, {**counts, "BaseNet/test": np.roll(counts["kNN/test"], 1, axis=-1)})
    assert {row[9] for row in better if row[2] == "test" and row[4] == "kNN"} == {"4 of 4"}


def test_results_of_whole_runs_are_read_and_drawn(tmp_path):
    with pytest.raises(InputError, match=r"no methods\.csv"):
        regime.result_rows("embedding", "compact", tmp_path)
    rows = regime.result_rows("embedding", "compact", REPO / "docs/results")
    found = {(row[2], row[4]): row[5:] for row in rows}
    assert found["balanced", "BaseNet"] == [0.8443, 0.8364, 0.8503]
    regime.write_tables(tmp_path, rows)
    assert "regime.svg" in {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "regime.csv").read_text().count("compact") == len(rows)
    (tmp_path / "methods.csv").write_text("cohort,method,f1,mean,spread,low,high\n")
    with pytest.raises(InputError, match="has no macro F1 of 'BaseNet'"):
        regime.result_rows("embedding", "compact", tmp_path)


def test_whole_runs_are_drawn_beside_what_was_trained_before(tmp_path, capsys):
    results = str(REPO / "docs/results")
    args = ["--results", results, "--out", str(tmp_path), "--strength", f"compact={results}"]
    with pytest.raises(InputError, match=r"regime\.csv"):
        regime.main(args)
    names = {"balanced": "macro", "test": "weighted"}
    trained = [
        [regime.SLICES, "5 %", test, mean, method, 0.5, 0.25, 0.75]
        for test, mean in names.items()
        for method in regime.ALL_METHODS
    ]
    old = [[regime.STRENGTH, "of an earlier run", *row[2:]] for row in trained]
    regime.write_tables(tmp_path, [*trained, *old])
    regime.main(args)
    text = (tmp_path / "regime.csv").read_text()
    n = len(trained)
    assert text.count(f"{regime.SLICES},5 %,") == text.count(f"{regime.STRENGTH},compact,") == n
    assert text.count(f"{regime.SLICES},all,") == n and "earlier" not in text
    capsys.readouterr()
    regime.main(args)
    assert (tmp_path / "regime.csv").read_text() == text
    with pytest.raises(SystemExit):
        regime.main(["heads", *args])
    assert "--work and --weights" in capsys.readouterr().err
