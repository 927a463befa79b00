"""Training: from a cohort to a bundle, in four stages that each leave a checkpoint in a work folder.

``paint``     BaseNet's two paths learn to paint the site map over their views (where the cohort has one)
``basenet``   all of BaseNet learns the site of the region of interest, painting going on beside it
``embed``     BaseNet embeds the references and the targets of the next stage
``relation``  the Relation Network learns to relate targets to their nearest references, BaseNet fixed

Lengths are counted in examples seen, so that a run on any cohort costs the same. The same seed, cohort,
machine and number of threads give the same weights, stopped and resumed or not; other processors, other
numbers of threads and other versions of torch add up in another order and give slightly different ones.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from situs.anatomy import SITES
from situs.augment import augment
from situs.bundle import check_replaceable
from situs.checkpoints import load_weights, read_checkpoint, write_checkpoint, write_whole
from situs.dataset import Batch, Slices, balanced_indices, open_slices, split_patients
from situs.errors import InputError, OutputError
from situs.export import export_bundle
from situs.fit import Plan, Progress, fit
from situs.losses import paintings_loss, relation_loss, site_map_weights
from situs.neighbors import References, nearest
from situs.nets import BaseNet, RelationNetwork, compact_basenet
from situs.synth.cohort import describe_cohort
from situs.views import ViewSpec

__all__ = [
    "COMPACT",
    "Progress",
    "Recipe",
    "choose_evenly",
    "embed",
    "new_basenet",
    "train",
]

_STAGES = ("paint", "basenet", "embed", "relation")


@dataclass(frozen=True)
class Recipe:
    """What a training run does; travels in the bundle.

    spec : how slices become views
    paint_samples, basenet_samples, relation_samples : examples seen in each stage
    n_neighbors : references of each site that the Relation Network sees
    n_references : of each site in the bundle, spread evenly over the patients
    n_targets : of each site, to train the Relation Network on; likewise
    max_slices : of each region, spread over its area: neighbouring thin slices say the same
    batch, relation_batch : examples in a step
    learning_rate, relation_learning_rate : the highest of the cycle (AdamW)
    weight_decay : on matrices and kernels, not on biases and normalization
    balance : 1 for equally many examples of every site, 0 for the cohort's own frequencies
    label_smoothing : of BaseNet's site
    painting_weight : of the painting beside the site, in the stage ``basenet``
    """

    name: str
    spec: ViewSpec
    paint_samples: int
    basenet_samples: int
    relation_samples: int
    n_neighbors: int = 5
    n_references: int = 400
    n_targets: int = 600
    max_slices: int | None = 8
    batch: int = 64
    relation_batch: int = 64
    learning_rate: float = 2e-3
    relation_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    balance: float = 1.0
    label_smoothing: float = 0.05
    painting_weight: float = 0.3

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {**asdict(self), "spec": self.spec.to_dict()}


COMPACT = Recipe(
    "compact",
    ViewSpec(channels=("brain_below", "roi_below", "brain_above", "roi_above", "brain", "wide", "roi")),
    paint_samples=40_000,
    basenet_samples=120_000,
    relation_samples=90_000,
)


def train(
    cohort: str | Path,
    out: str | Path,
    recipe: Recipe = COMPACT,
    seed: int = 0,
    test_patients: Sequence[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
    work: str | Path | None = None,
    init: str | Path | None = None,
    jobs: int = 1,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Train the two networks on a cohort and write the bundle. A run that was stopped goes on.

    Parameters
    ----------
    cohort : a folder with ``manifest.csv``, see `situs.dataset`
    out : the bundle's folder
    recipe, seed : what is done; with other ones, `work` must be another folder
    test_patients : are left out of everything
    threads : of torch; 1 by default, because two collapse where the cores are shared
    progress : is called with (stage, done, total, message)
    work : holds the checkpoints; ``<out>.work`` by default
    init : a checkpoint of an earlier run to start BaseNet's weights from
    jobs : processes that make the views
    facts : further facts for the model card, see `situs.card.model_card`

    Returns
    -------
    `out`

    Raises
    ------
    ManifestError : if the cohort, or a patient's name, cannot be used
    InputError : if `init` is no checkpoint of such a BaseNet
    OutputError : if `out` holds something else than a bundle, `work` holds another run, or something cannot
        be written
    """
    out = Path(out)
    check_replaceable(out)
    work = Path(f"{out}.work") if work is None else Path(work)
    torch.set_num_threads(threads or 1)
    say = progress or _silent
    begin = time.monotonic()
    slices = open_slices(
        Path(cohort),
        recipe.spec,
        recipe.max_slices,
        jobs,
        lambda done, n: say("slices", done, n, "scans read"),
    )
    kept, _ = split_patients(slices.patient.tolist(), test_patients)
    chosen = np.flatnonzero(np.isin(slices.patient, kept))
    run = _open_run(work, recipe, seed, slices, chosen, init, say)

    basenet = new_basenet(recipe, seed)
    if init is not None:
        load_weights(Path(init), basenet)
    _lay_out(basenet, torch.channels_last)  # twice as fast in convolutions
    results = {}
    if slices.global_sites is not None:
        results["paint"] = _train_basenet("paint", basenet, run)
    results["basenet"] = _train_basenet("basenet", basenet, run)
    references, targets = _embed_stage(basenet, run)
    _lay_out(basenet, torch.contiguous_format)
    relation, results["relation"] = _train_relation(references, targets, run)

    say("export", 0, 1, "writing and checking the bundle")
    few = chosen[np.linspace(0, len(chosen) - 1, 8).astype(int)]
    path = export_bundle(
        basenet,
        relation,
        references,
        recipe.spec,
        recipe.to_dict(),
        {
            **_facts(run, results),
            "minutes in this run": (time.monotonic() - begin) / 60,
            **describe_cohort(Path(cohort)),
            **(facts or {}),
        },
        out,
        n_neighbors=recipe.n_neighbors,
        sample_views=(slices.global_view[few], slices.local_view[few]),
    )
    say("export", 1, 1, "done")
    return path


def new_basenet(recipe: Recipe, seed: int) -> BaseNet:
    """An untrained BaseNet of the recipe."""
    torch.manual_seed(seed)
    return compact_basenet(len(SITES), len(recipe.spec.channels), recipe.spec.size_px)


def choose_evenly(
    sites: NDArray[np.integer], patients: NDArray[np.str_], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices, ascending, of at most `n` examples of every site, spread evenly over the patients.

    Parameters
    ----------
    sites, patients : (m,) of every example
    """
    turn = np.empty(len(sites), dtype=np.int64)  # 0 for the first example of a patient and site, and so on
    order = rng.permutation(len(sites))
    _, group = np.unique(
        np.stack([np.unique(patients, return_inverse=True)[1], sites]), axis=1, return_inverse=True
    )
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    turn[by_group] = np.concatenate([np.arange(size) for size in sizes])
    chosen = []
    for site in np.unique(sites):
        members = order[sites[order] == site]
        chosen.append(members[np.argsort(turn[members], kind="stable")][:n])
    return np.asarray(np.sort(np.concatenate(chosen)), dtype=np.int64)


def embed(
    basenet: BaseNet,
    slices: Slices,
    indices: NDArray[np.integer],
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float16]:
    """Embeddings (n, width) of the examples `indices` (n,), in single precision as in use, stored in half."""
    parts = []
    was_training = basenet.training
    basenet.eval()
    with torch.inference_mode():
        for start in range(0, len(indices), _EMBED_BATCH):
            batch = slices.batch(indices[start : start + _EMBED_BATCH])
            said = basenet(torch.from_numpy(batch.global_view), torch.from_numpy(batch.local_view))
            parts.append(said.embedding.numpy().astype(np.float16))
            if progress is not None:
                progress(start + len(batch.site))
    basenet.train(was_training)
    return np.concatenate(parts)


_EMBED_BATCH = 32


# --- one run --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """What the stages share; `chosen` are the examples to train on, `key` tells this run from others."""

    work: Path
    recipe: Recipe
    seed: int
    slices: Slices
    chosen: NDArray[np.int64]
    key: str
    say: Progress
    half: bool  # bfloat16 for matrix products and convolutions


def _open_run(
    work: Path,
    recipe: Recipe,
    seed: int,
    slices: Slices,
    chosen: NDArray[np.int64],
    init: str | Path | None,
    say: Progress,
) -> _Run:
    key = _run_key(recipe, seed, slices, chosen, init)
    note = work / "run.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if note.exists() and json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            raise OutputError(
                f"{work}: holds a run of another cohort, recipe or seed: delete it or choose another"
            )
        write_whole(note, lambda path: path.write_text(json.dumps({"key": key, "recipe": recipe.to_dict()})))
    except (ValueError, KeyError) as error:
        raise OutputError(f"{note}: is damaged: delete {work} or choose another") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{work}: cannot be written ({error.strerror or error})") from error
    return _Run(work, recipe, seed, slices, chosen, key, say, _half_pays())


def _run_key(
    recipe: Recipe, seed: int, slices: Slices, chosen: NDArray[np.int64], init: str | Path | None
) -> str:
    """A name that changes with all that decides the weights."""
    digest = hashlib.sha256(json.dumps([recipe.to_dict(), seed]).encode())
    digest.update("\n".join(slices.id[chosen].tolist()).encode())
    digest.update(slices.site[chosen].tobytes())
    if init is not None:
        try:
            digest.update(Path(init).read_bytes())
        except OSError as error:
            raise InputError(f"{init}: cannot be read ({error.strerror}): expected a checkpoint") from error
    return digest.hexdigest()[:16]


def _half_pays() -> bool:
    """Whether the processor multiplies in bfloat16: then a step of BaseNet takes half the time."""
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def _facts(run: _Run, results: dict[str, dict[str, float]]) -> dict[str, Any]:
    slices, chosen = run.slices, run.chosen
    counts = np.bincount(slices.site[chosen], minlength=len(SITES))
    return {
        "patients": len(np.unique(slices.patient[chosen])),
        "scans": len(np.unique(slices.scan[chosen])),
        "regions": len(np.unique(slices.row[chosen])),
        "slices": len(chosen),
        "slices of each site": {site.key: int(n) for site, n in zip(SITES, counts, strict=True)},
        "seed": run.seed,
        "torch": torch.__version__,
        "torch threads": torch.get_num_threads(),
        "arithmetic": "bfloat16 where torch's autocast allows" if run.half else "float32",
        **results,
    }


def _lay_out(network: nn.Module, order: torch.memory_format) -> None:
    """Bring the kernels (4-D) of a network into a memory order."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=order)


def _silent(stage: str, done: int, total: int, message: str) -> None:
    pass


# --- stages ---------------------------------------------------------------------------------------------


def _train_basenet(stage: str, basenet: BaseNet, run: _Run) -> dict[str, float]:
    """The stages ``paint`` and ``basenet``; changes `basenet`, returns the last figures of the log."""
    recipe, slices, chosen = run.recipe, run.slices, run.chosen
    n = recipe.paint_samples if stage == "paint" else recipe.basenet_samples
    rng = np.random.default_rng(_stage_seed(run, stage))
    order = chosen[balanced_indices(slices.site[chosen], n, rng, recipe.balance)]
    weights = None if slices.global_sites is None else site_map_weights(slices, chosen, run.seed)

    def make(step: int) -> Batch:
        rng = np.random.default_rng([*_stage_seed(run, stage), step])
        part = order[step * recipe.batch : (step + 1) * recipe.batch]
        return augment(slices.batch(np.sort(part)), recipe.spec, rng)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        views = torch.from_numpy(batch.global_view), torch.from_numpy(batch.local_view)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.half):
            said = basenet(*views)
        site = torch.from_numpy(batch.site)
        loss = torch.zeros(())
        if weights is not None:
            share = 1.0 if stage == "paint" else recipe.painting_weight
            loss = loss + share * paintings_loss(said, batch, weights)
        if stage == "basenet":
            loss = loss + F.cross_entropy(said.site_logits, site, label_smoothing=recipe.label_smoothing)
        right = {"painting_accuracy": said.shares} if weights is not None else {}
        if stage == "basenet":
            right["accuracy"] = said.site_logits
        return loss, {name: _share_right(scores, site) for name, scores in right.items()}

    plan = _plan(run, stage, n, recipe.batch, recipe.learning_rate)
    return fit(basenet, make, loss_of, plan, run.say)


def _share_right(scores: Tensor, site: Tensor) -> float:
    return float((scores.detach().argmax(dim=1) == site).float().mean())


def _embed_stage(basenet: BaseNet, run: _Run) -> tuple[References, References]:
    """The references of the bundle, and the targets of the next stage, labelled in the same way."""
    slices, chosen, recipe = run.slices, run.chosen, run.recipe
    rng = np.random.default_rng(_stage_seed(run, "embed"))
    sites, patients = slices.site[chosen], slices.patient[chosen]
    parts = [chosen[choose_evenly(sites, patients, n, rng)] for n in (recipe.n_references, recipe.n_targets)]
    both = np.unique(np.concatenate(parts))
    path = run.work / "embed.safetensors"
    tensors, notes = read_checkpoint(path, run.key)
    if notes is None:
        embeddings = embed(basenet, slices, both, lambda done: run.say("embed", done, len(both), "embedding"))
        write_checkpoint(path, {"embeddings": torch.from_numpy(embeddings)}, {"key": run.key})
    else:
        embeddings = tensors["embeddings"].numpy()

    def label(indices: NDArray[np.int64]) -> References:
        rows = embeddings[np.searchsorted(both, indices)]
        return References(rows, slices.site[indices], slices.id[indices], slices.patient[indices])

    return label(parts[0]), label(parts[1])


def _train_relation(
    references: References, targets: References, run: _Run
) -> tuple[RelationNetwork, dict[str, float]]:
    """The stage ``relation``: no target sees a reference of its own patient."""
    recipe = run.recipe
    torch.manual_seed(run.seed)
    relation = RelationNetwork(references.embeddings.shape[1])
    rng = np.random.default_rng(_stage_seed(run, "relation"))
    order = balanced_indices(targets.sites, recipe.relation_samples, rng, recipe.balance)
    run.say("relation", 0, len(order), "looking for neighbours")
    near = nearest(targets.embeddings, references, recipe.n_neighbors, targets.patients)
    own, pool = (torch.from_numpy(r.embeddings.astype(np.float32)) for r in (targets, references))
    sites = torch.from_numpy(targets.sites)
    indices, present = torch.from_numpy(near.indices), torch.from_numpy(near.present)

    def make(step: int) -> Tensor:
        return torch.from_numpy(order[step * recipe.relation_batch : (step + 1) * recipe.relation_batch])

    def loss_of(part: Tensor) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=run.half):
            logits = relation.relate(own[part], pool[indices[part]], present[part])
        logits = logits.float()
        return relation_loss(logits, sites[part]), {"accuracy": _share_right(logits, sites[part])}

    plan = _plan(run, "relation", len(order), recipe.relation_batch, recipe.relation_learning_rate)
    return relation, fit(relation, make, loss_of, plan, run.say)


def _plan(run: _Run, stage: str, samples: int, batch: int, learning_rate: float) -> Plan:
    return Plan(
        stage,
        samples // batch,
        batch,
        learning_rate,
        run.recipe.weight_decay,
        _stage_seed(run, stage),
        run.work / f"{stage}.safetensors",
        run.key,
    )


def _stage_seed(run: _Run, stage: str) -> list[int]:
    return [run.seed, _STAGES.index(stage)]
