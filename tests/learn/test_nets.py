"""Shapes, and what must not matter to the networks; means under a region against plain numpy."""

import numpy as np
import pytest
import torch

from situs.anatomy import SITES
from situs.learn.compact import compact_basenet
from situs.learn.nets import ABSENT_LOGIT, LATERAL_UNIT_MM, RelationNetwork, mean_under, region_under
from situs.learn.nets import _read_midline as read_midline

M = len(SITES)


def views(n=2, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    view = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    view[:, 2] = 0
    view[:, 2, size // 4 : size // 2, size // 4 : size // 2] = 255
    return view


@pytest.fixture(scope="module")
def basenet():
    torch.manual_seed(0)
    return compact_basenet(M, size_px=32).eval()


@pytest.fixture(scope="module")
def relation():
    torch.manual_seed(0)
    return RelationNetwork(width=8, hidden=16).eval()


# --- BaseNet ---


@torch.no_grad()
def test_basenet_output(basenet):
    output = basenet(views(), views(seed=1))
    assert output.embedding.shape == (2, basenet.width)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(2))
    assert output.site_logits.shape == output.shares.shape == (2, M)
    torch.testing.assert_close(output.shares.sum(dim=1), torch.ones(2))
    assert output.share_logits.shape == (2, M + 1)
    none = output.share_logits.softmax(dim=1)[:, 0]
    torch.testing.assert_close(output.inside, 1 - none)
    assert output.global_painting.shape == output.local_painting.shape == (2, M + 2, 16, 16)
    assert output.midline.shape == (2, 2, 2, 16, 16)
    assert ((output.midline[:, :, 1] >= 0) & (output.midline[:, :, 1] <= 1)).all()


@torch.no_grad()
def test_basenet_treats_examples_alone(basenet):
    """In use, an answer does not depend on what else is in the batch."""
    many = views(4), views(4, seed=1)
    together = basenet(*many)
    alone = basenet(many[0][2:3], many[1][2:3])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_both_views_matter(basenet):
    a, b = views(), views(seed=1)
    first = basenet(a, b).embedding
    assert not torch.allclose(first, basenet(b, b).embedding, atol=1e-4)
    assert not torch.allclose(first, basenet(a, a).embedding, atol=1e-4)


@torch.no_grad()
def test_the_global_view_reaches_the_local_painting(basenet):
    """A crop alone does not say where in the head it lies."""
    b = views(seed=1)
    first, second = basenet(views(), b), basenet(views(seed=2), b)
    assert not torch.equal(first.local_painting, second.local_painting)


def test_all_weights_are_trained():
    torch.manual_seed(0)
    network = compact_basenet(M, size_px=32)
    output = network(views(), views(seed=1))
    outputs = (output.site_logits, output.share_logits, output.global_painting, output.local_painting)
    sum(output.sum() for output in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_size_must_fit():
    with pytest.raises(ValueError, match="multiple of 16, got 40"):
        compact_basenet(M, size_px=40)


def test_mean_under_against_numpy():
    rng = np.random.default_rng(0)
    maps, region = rng.normal(size=(3, 5, 4, 6)), rng.random((3, 1, 4, 6))
    means = mean_under(torch.from_numpy(maps), torch.from_numpy(region)).numpy()
    for n in range(3):
        expected = [np.average(plane, weights=region[n, 0]) for plane in maps[n]]
        np.testing.assert_allclose(means[n], expected, rtol=1e-6)
    nothing = mean_under(torch.from_numpy(maps), torch.zeros(3, 1, 4, 6, dtype=torch.float64))
    assert (nothing == 0).all()


def test_the_region_is_the_last_channel_at_half_the_size():
    view = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    view[0, :2] = 255
    view[0, 2, :2, :2] = view[0, 2, 3, 3] = 255
    assert region_under(view).tolist() == [[[[1, 0], [0, 0.25]]]]


def test_read_midline_by_hand():
    """Four pixels: what is not "none" lies in a site, and distances are in mm."""
    painting = torch.zeros(1, M + 2, 2, 2)
    painting[0, 0] = torch.log(torch.tensor([[3.0 * M, M], [0.0, 1e9]]))
    painting[0, -1] = torch.tensor([[40.0, 20.0], [-30.0, 99.0]]) / LATERAL_UNIT_MM
    (distance, inside) = read_midline(painting)[0]
    np.testing.assert_allclose(distance, [[40, 20], [-30, 99]], rtol=1e-6)
    np.testing.assert_allclose(inside, [[0.25, 0.5], [1, 0]], atol=1e-6)


# --- Relation Network ---


def sets(n=2, m=4, k=3):
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(n, 8, generator=generator)
    references = torch.randn(n, m, k, 8, generator=generator)
    return target, references, torch.ones(n, m, k, dtype=torch.bool)


@torch.no_grad()
def test_absent_references_do_not_matter(relation):
    target, references, present = sets()
    present[:, 1, 2] = False
    first = relation(target, references, present)
    references[:, 1, 2] = 1e3
    torch.testing.assert_close(relation(target, references, present), first)
    short = relation(target, references[:, 1:2, :2], present[:, 1:2, :2])
    torch.testing.assert_close(short, first[:, 1:2])


@torch.no_grad()
def test_single_reference(relation):
    """One reference is its own pair; none at all scores zero, however the others do."""
    target, references, present = sets()
    present[:, 0, 1:] = False
    present[0, 2] = False
    scores = relation(target, references, present)
    alone = relation(target, references[:, :1, :1], present[:, :1, :1])
    torch.testing.assert_close(scores[:, :1], alone)
    assert scores[0, 2] < 1e-6 and scores[0, 2] < scores[0, [0, 1, 3]].min()
    assert relation.logits(target, references, present)[0, 2] == ABSENT_LOGIT
    assert torch.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all()


@torch.no_grad()
def test_classes_and_targets_are_independent(relation):
    target, references, present = sets()
    scores = relation(target, references, present)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(relation(target, references[:, order], present[:, order]), scores[:, order])
    torch.testing.assert_close(relation(target[1:], references[1:], present[1:]), scores[1:])


@torch.no_grad()
def test_the_layers_one_after_the_other(relation):
    """g as three fully connected layers on two embeddings, f as two on target and joint, as in the paper."""
    h = relation.hidden
    weight, bias = relation.g_first.weight, relation.g_first.bias
    first, first_bias = torch.cat([weight[:h], weight[h:]], dim=1), bias[:h] + bias[h:]
    second = torch.cat(
        [relation.f_target.weight, relation.f_joint.weight, relation.f_difference.weight], dim=1
    )

    def g(pair):
        return relation.g_last(relation.g_middle((first @ pair + first_bias).relu()).relu())

    def f(target, joint):
        read = torch.cat([target, joint, (target - joint) ** 2])
        return relation.f_last((second @ read + relation.f_target.bias).relu())

    target, references, present = sets()
    scores = relation(target, references, present)
    for n, m in np.ndindex(2, 4):
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        outputs = [g(torch.cat([references[n, m, i], references[n, m, j]])) for i, j in pairs]
        joint = references[n, m].mean(dim=0) + torch.stack(outputs).mean(dim=0)
        torch.testing.assert_close(relation.join(references, present)[n, m], joint, rtol=1e-4, atol=1e-6)
        far = [float(((target[n] - reference) ** 2).mean()) ** 0.5 for reference in references[n, m]]
        expected = (f(target[n], joint) - relation.distance_weight * np.mean(far)).sigmoid()[0]
        torch.testing.assert_close(scores[n, m], expected, rtol=1e-4, atol=1e-6)


def test_dropout_drops_a_feature_of_all_pairs_of_a_class():
    torch.manual_seed(0)
    network = RelationNetwork(width=8, hidden=16).train()
    read = network.read_pairs(torch.ones(2, 3, 6, 16))
    assert (read == read[:, :, :1]).all()
    lost = (read[:, :, 0] == 0).float().mean(dim=2)
    assert (lost > 0).all() and len(lost.unique()) > 1
