"""The ablation's variants: each is what its name says, and a run that was stopped goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.benchmark import load_benchmark
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.errors import InputError, OutputError
from situs.learn import relations
from situs.learn.losses import relation_loss
from situs.learn.nets import RelationNetwork
from situs.learn.recipe import COMPACT
from situs.neighbors import Neighbors, References, nearest

variants, ablation = load_benchmark("variants"), load_benchmark("ablation")
M, WIDTH = len(SITES), 6
RECIPE = replace(COMPACT, n_references=6, n_neighbors=3, relation_batch=32)
# Layers are small too, where that is not what varies; 20 references are as 10, but slow.
VARIANTS = [
    replace(v, settings={"hidden": 16, **v.settings})
    for v in variants.make_variants(RECIPE)
    if v.name != "k = 20"
]


def part(heads, seed):
    """Clusters of unit length around every site's own place, noisy; the first sites are more frequent."""
    places = np.random.default_rng(0).normal(size=(M, WIDTH))
    rng = np.random.default_rng(seed)
    sites = np.repeat(np.arange(M), np.where(np.arange(M) < 5, 12, 6))
    X = places[sites] + rng.normal(0, 0.7, (len(sites), WIDTH))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16)
    patients = np.array([heads[i % len(heads)] for i in range(len(sites))])
    return References(X, sites, np.array([f"{seed}/{i}" for i in range(len(sites))]), patients)


@pytest.fixture(scope="module")
def labelled():
    parts = {name: part(["c", "d"], seed) for seed, name in enumerate(ablation.COHORTS)}
    return {**parts, "train": part(["a", "b", "e"], 2), "targets": part(["a", "b", "e"], 3)}


@pytest.mark.slow
def test_every_variant_has_logits_of_its_own(labelled):
    logits = {v.name: ablation.train_and_test(v, labelled, RECIPE, 1, 0)[0] for v in VARIANTS}
    assert len(logits) == len(VARIANTS) and next(iter(logits)) == "default"
    for of in logits.values():
        for cohort in ablation.COHORTS:
            assert of[cohort].shape == (len(labelled[cohort]), M) and np.isfinite(of[cohort]).all()
    ways = {name: of["test"].tobytes() for name, of in logits.items()}
    assert ways.pop("references: 400 of every site") == ways["references: all"]  # here there are fewer
    assert len(set(ways.values())) == len(ways)


def test_the_default_is_the_package_s_and_it_is_left_as_it_was(labelled):
    before = dict(vars(relations))
    logits, _ = ablation.train_and_test(VARIANTS[0], labelled, RECIPE, 1, 0)
    references = ablation.choose_references(labelled["train"], 6)
    settings = {"hidden": 16, "batch": 32}
    trained = relations.train_relations(
        references, "nearest", 3, 1, 0, targets=labelled["targets"], **settings
    )
    X = labelled["test"].embeddings.astype(np.float32)
    np.testing.assert_array_equal(trained.logits(X, trained.find_neighbors(X)), logits["test"])
    with pytest.raises(ZeroDivisionError), variants.patched({"RelationModel": 1, "relation_loss": 2}):
        assert relations.RelationModel == 1
        raise ZeroDivisionError
    assert dict(vars(relations)) == before


def network(made, k=None, scale=2.0):
    torch.manual_seed(0)
    arguments = (WIDTH, 8, 0.0, scale)
    return made(*arguments) if k is None else made(k, *arguments)


def case(k, missing=True):
    """Targets of 4 patients with k references of 5 classes, of unit length; one class lacks its last one."""
    rng = torch.Generator().manual_seed(1)
    target, references = (torch.randn(s, generator=rng) for s in ((4, WIDTH), (4, 5, k, WIDTH)))
    present = torch.ones(4, 5, k, dtype=torch.bool)
    if missing:
        present[:, 1, -1] = False
    return F.normalize(target, dim=-1), F.normalize(references, dim=-1), present


@torch.no_grad()
def logits(made, k=3, **others):
    return network(made, **others).logits(*case(k, k > 1))


@torch.no_grad()
def test_networks_by_hand():
    default = network(RelationNetwork)
    target, references, present = case(3)
    shares = (present / present.sum(dim=2, keepdim=True))[..., None]
    middle = 2 * (references * shares).sum(dim=2)
    distance = (default.distances(2 * target[:, None, None], 2 * references) * shares[..., 0]).sum(dim=2)

    # The same weights, so every variant is the default with something else in one place.
    joint = default.join(2 * references, present)
    pairs = torch.tensor([6, 3, 6, 6, 6])[:, None]
    summed = middle + (joint - middle - default.g_last.bias) * pairs + default.g_last.bias
    by_hand = {
        RelationNetwork: default.score(2 * target, joint, distance),
        variants.NoDistance: default.score(2 * target, joint, torch.zeros(4, 5)),
        variants.NotAdded: default.score(2 * target, joint - middle, distance),
        variants.MeanAlone: default.score(2 * target, middle, distance),
        variants.Summed: default.score(2 * target, summed, distance),
        variants.DistanceToJoint: default.score(
            2 * target, joint, ((2 * target[:, None] - joint) ** 2).mean(dim=2).sqrt()
        ),
    }
    squares = (default.distances(2 * target[:, None, None], 2 * references) ** 2 * shares[..., 0]).sum(dim=2)
    by_hand[variants.Cosine] = default.score(2 * target, joint, squares)
    by_hand[variants.NoSquares] = (
        default.f_last(F.relu(default.f_target(2 * target)[:, None] + default.f_joint(joint))).squeeze(-1)
        - default.distance_weight * distance
    )
    raw = network(RelationNetwork, scale=1.0)
    by_hand[variants.Unscaled] = raw.score(target, raw.join(references, present), distance)
    for made, expected in by_hand.items():
        torch.testing.assert_close(logits(made), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_g_reads():
    singles = network(variants.Singles)
    _, references, present = case(3)
    reads = singles.g_last(F.relu(singles.g_middle(F.relu(singles.g_first(references)[..., :8]))))
    joined = singles.join(references, present)
    for c, n in ((0, 3), (1, 2)):
        expected = (references + reads)[:, c, :n].mean(dim=1)
        torch.testing.assert_close(joined[:, c], expected, rtol=1e-4, atol=1e-5)

    at_once = network(variants.Concatenation, k=3)
    joined = at_once.join(references, present)
    other = references.clone()
    other[:, 1, 2] = 7  # is not there
    torch.testing.assert_close(at_once.join(other, present), joined)
    turned = at_once.join(references.flip(2), present.flip(2))  # the order of the references is told apart
    assert not torch.allclose(turned, joined, atol=1e-3)


def test_losses_are_the_parts_of_the_default():
    logits, site = torch.randn(9, M, generator=torch.Generator().manual_seed(0)), torch.arange(9)
    parts = variants.binary_loss(logits, site) + F.cross_entropy(logits, site)
    torch.testing.assert_close(parts, relation_loss(logits, site))
    nothing = torch.zeros(9, M)  # scores of .5: squared errors of .25, the one site counting for 14
    assert variants.squared_loss(nothing, site).item() == pytest.approx(0.25 * 28 / M)


def test_scales_and_frequencies():
    X = np.zeros((50, 3), np.float32)
    X[:, :2] = np.random.default_rng(0).normal(0, (0.1, 3), (50, 2))
    of = References(X, np.zeros(50, int), *[np.full(50, "a")] * 2)
    np.testing.assert_allclose((X * variants.scale_features(of)).std(axis=0), [1, 1, 0], rtol=1e-5)
    sites = np.repeat([1, 4], [30, 10])
    order = variants.unbalanced_indices(sites, 40, np.random.default_rng(0))
    assert np.bincount(sites[order]).tolist() == [0, 30, 0, 0, 10]


def test_neighbours_are_drawn_among_twice_as_many(labelled):
    train = labelled["train"]
    X, patients = train.embeddings[:20].astype(np.float32), train.patients[:20]
    torch.manual_seed(0)
    model = variants.DrawnNeighbors(RelationNetwork(WIDTH), "nearest", train, 2, 0)
    wide, near = model.find_neighbors(X, patients), model.find_neighbors(X)
    assert wide.indices.shape == (20, M, 4) and near.indices.shape == (20, M, 2)
    np.testing.assert_array_equal(wide.indices, nearest(X, train, 4, patients).indices)
    rng, met = np.random.default_rng(0), set()
    for _ in range(30):
        drawn = variants.draw_neighbors(wide, 2, rng)
        assert (np.diff(drawn.distances, axis=2) >= 0).all()
        met |= set(drawn.indices[0, 3].tolist())
    assert met == set(wide.indices[0, 3].tolist())
    one_left = Neighbors(wide.indices, wide.distances, np.arange(4) < np.full((20, M, 1), 1))
    one = variants.draw_neighbors(one_left, 2, rng)
    assert (one.present == [True, False]).all() and (one.indices[..., 0] == wide.indices[..., 0]).all()


def test_targets_out_of_fold_are_never_of_the_head_that_is_asked(labelled):
    variant = next(v for v in VARIANTS if v.targets == variants.OUT_OF_FOLD)
    met = {name: np.zeros(len(labelled[name]), int) for name in ablation.COHORTS}
    for targets, tested in ablation.iter_trainings(variant, labelled):
        heads = {str(p) for name, which in tested.items() for p in labelled[name].patients[which]}
        assert len(heads) == 1 and not heads & set(targets.patients)
        assert set(targets.ids) <= set(labelled["balanced"].ids) and len(targets)
        for name, which in tested.items():
            met[name] += which
    assert all((of == 1).all() for of in met.values())


def test_plain_answers_by_hand():
    X = np.array([[0, 0], [3, 0], [1, 0], [1, 0.5]], np.float32)
    names = np.full(4, "a")
    of = References(X, np.array([2, 2, 7, 7]), names, names)
    target = np.array([[0.1, 0], [2, 2]], np.float32)
    for k, expected in ((1, [2, 7]), (2, [7, 7]), (5, [7, 7])):  # (.1 + 2.9) / 2 against (.9 + 1.03) / 2
        assert ablation.mean_distances(target, of, k).argmin(axis=1).tolist() == expected
    assert ablation.mean_distances(target, of, 2)[0, 2] == pytest.approx(1.5)


@pytest.fixture
def work(tmp_path, labelled, monkeypatch):
    """Stands for a run's work folder."""
    path = tmp_path / "work" / "compact" / "seed0" / "embeddings.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"any")
    logits = {name: np.eye(len(SITES))[of.sites] for name, of in labelled.items()}
    monkeypatch.setattr(ablation, "read_embedded", lambda work, recipe, seed: (labelled, logits))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    return tmp_path / "work"


def test_a_stopped_run_goes_on_and_prints_the_table(work, capsys, monkeypatch):
    args = ["--work", str(work), "--epochs", "1", "--only", "default", "k = 1", "squared err"]
    real, made = ablation.train_and_test, []

    def train_and_test(variant, labelled, recipe, *rest, most=4):
        if len(made) == most:
            raise KeyboardInterrupt
        made.append((variant.name, rest[1]))
        small = replace(variant, settings={"hidden": 16, **variant.settings})
        return real(small, labelled, RECIPE, *rest)

    monkeypatch.setattr(ablation, "train_and_test", train_and_test)
    with pytest.raises(KeyboardInterrupt):
        ablation.main(args)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("1 of 8: default, seed 0: macro F1 ")
    monkeypatch.setattr(ablation, "train_and_test", lambda *a: train_and_test(*a, most=99))
    assert ablation.main(args) == 0
    names = ["default", "k = 1", "k = 10", "loss: squared error"]
    assert made == [(name, seed) for seed in (0, 1) for name in names]
    printed = capsys.readouterr()
    assert [line.split(":")[0] for line in printed.err.splitlines()] == [f"{n} of 8" for n in (5, 6, 7, 8)]
    rows = [line.strip("| ").split(" | ") for line in printed.out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:6]] == names and len(rows) == 9
    assert rows[6][:2] == ["BaseNet alone", "1.000"]
    kept = json.loads((work.parent / "work.ablation" / "rows.json").read_text())
    mean = np.mean([kept["k = 1"][seed]["macro F1"] for seed in "01"])
    assert rows[3][1].startswith(f"{mean:.3f} ± ") and rows[2][2] == "+0.000"
    assert not list(work.parent.rglob(".writing-*"))

    with pytest.raises(OutputError, match="other settings"):
        ablation.main([*args[:2], "--epochs", "2"])
    (work / "compact" / "seed0" / "embeddings.npz").write_bytes(b"other")
    with pytest.raises(OutputError, match="other settings"):
        ablation.main(args)
    other = work.parent / "other"
    other.mkdir()
    (other / "rows.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        ablation.main([*args, "--out", str(other)])
    with pytest.raises(InputError, match="no variant"):
        ablation.main([*args[:2], "--only", "no such"])
