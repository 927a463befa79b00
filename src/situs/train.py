"""Training: from a cohort to a bundle, in stages that leave checkpoints in a work folder.

``paint``     BaseNet's two paths learn to paint the site map over their views (where the cohort has one)
``basenet``   all of BaseNet learns the site of the region of interest, painting going on beside it
``features``  instead of these two, where the paths are frozen: what they say about every example
``fc``        and then the fully connected layers learn the site from that
``embed``     BaseNet embeds the references, and with random changes the targets of the next stage
``relation``  the Relation Network learns to relate targets to their nearest references, BaseNet fixed; it
              takes minutes, so it leaves no checkpoint

Lengths are counted in examples seen, so that a run on any cohort costs the same. The same seed, cohort,
machine and number of threads give the same weights, stopped and resumed or not; other processors, other
numbers of threads and other versions of torch add up in another order and give slightly different ones.
Under ``torchrun`` every process takes its share of each batch (`situs.devices`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from situs.checkpoints import load_weights, read_checkpoint, write_checkpoint
from situs.cohort_pictures import draw_pictures, wants_pictures
from situs.dataset import Batch, Slices, balanced_indices, choose_evenly, open_slices, split_patients
from situs.devices import CPU, DeviceName, Machine, open_machine
from situs.errors import InputError, OutputError
from situs.export import export_bundle
from situs.fit import Plan, Progress, fit
from situs.losses import paintings_loss, shares_loss, site_map_weights
from situs.neighbors import References
from situs.nets import BaseNet, RelationNetwork, compact_basenet
from situs.output import replacing
from situs.recipe import COMPACT, Recipe, relation_settings
from situs.relations import train_relations
from situs.synth.cohort import describe_cohort
from situs.vgg import fetch_imagenet_weights, load_vgg16_weights, vgg16_basenet

__all__ = [
    "Progress",
    "embed",
    "given_files",
    "new_basenet",
    "train",
    "train_basenet",
]

_STAGES = ("paint", "basenet", "embed", "relation", "fc")  # their places are in the seeds


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
    device: DeviceName = "auto",
    weights: str | Path | None = None,
    pictures: bool = False,
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
    device : see `situs.devices.open_machine`
    weights : a VGG16 in torchvision's names, to start the paths of such a recipe from; ``imagenet``
        downloads the published one
    pictures : whether small pictures of patients' scans go into the bundle with its references; those of
        rendered scans do, where the recipe's views allow

    Returns
    -------
    `out`

    Raises
    ------
    ManifestError : if the cohort, or a patient's name, cannot be used
    InputError : if `init` is no checkpoint of such a BaseNet, `weights` do not fit, there is no such device,
        or pictures are asked for that the recipe's views do not show
    OutputError : if `out` holds something else than a bundle, `work` holds another run, or something cannot
        be written
    """
    out = Path(out)
    check_replaceable(out)
    given = given_files(recipe, init, weights)
    machine = open_machine(device)
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
        training=True,
    )
    drawn = wants_pictures(Path(cohort), slices, pictures)
    kept, _ = split_patients(slices.patient.tolist(), test_patients)
    chosen = np.flatnonzero(np.isin(slices.patient, kept))
    run = _open_run(work, recipe, seed, slices, chosen, given, say, machine)

    basenet, results = _basenet_stages(run, given)
    references, targets, known = _embed_stage(basenet, run)
    _lay_out(basenet, torch.contiguous_format)
    relation, right = _relation_stage(references, targets, run)
    results["relation"] = {"accuracy": right}

    if not machine.first:
        machine.wait()
        return out
    say("export", 0, 1, "writing and checking the bundle")
    few = chosen[np.linspace(0, len(chosen) - 1, 8).astype(int)]
    path = export_bundle(
        basenet.cpu(),
        relation.cpu(),
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
        pictures=draw_pictures(Path(cohort), slices, known) if drawn else None,
    )
    machine.wait()
    say("export", 1, 1, "done")
    return path


def train_basenet(
    slices: Slices,
    chosen: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    work: Path,
    progress: Progress | None = None,
    machine: Machine = CPU,
    weights: str | Path | None = None,
) -> BaseNet:
    """BaseNet alone, trained on the examples `chosen` (n,) of a cohort; a run that was stopped goes on.

    The other arguments and the errors are those of `train`.
    """
    given = given_files(recipe, None, weights)
    run = _open_run(work, recipe, seed, slices, chosen, given, progress or _silent, machine)
    basenet, _ = _basenet_stages(run, given)
    return basenet


def new_basenet(recipe: Recipe, seed: int) -> BaseNet:
    """An untrained BaseNet of the recipe."""
    torch.manual_seed(seed)
    if recipe.network == "vgg16":
        return vgg16_basenet(len(SITES), recipe.spec.size_px)
    return compact_basenet(len(SITES), len(recipe.spec.channels), recipe.spec.size_px)


def embed(
    basenet: BaseNet,
    slices: Slices,
    indices: NDArray[np.integer],
    progress: Callable[[int], None] | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Embeddings (n, width) of the examples `indices` (n,), in single precision as in use, stored in half,
    and the sites (n,) that BaseNet itself would say; `change` is done to every batch first."""
    parts, sites = [], []
    was_training = basenet.training
    basenet.eval()
    machine = Machine(next(basenet.parameters()).device)
    with torch.inference_mode():
        for start in range(0, len(indices), _EMBED_BATCH):
            batch = slices.batch(indices[start : start + _EMBED_BATCH])
            batch = batch if change is None else change(batch)
            said = basenet(machine.put(batch.global_view), machine.put(batch.local_view))
            parts.append(said.embedding.cpu().numpy().astype(np.float16))
            sites.append(said.site_logits.argmax(dim=1).cpu().numpy())
            if progress is not None:
                progress(start + len(batch.site))
    basenet.train(was_training)
    return np.concatenate(parts), np.concatenate(sites)


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
    machine: Machine = CPU


def _open_run(
    work: Path,
    recipe: Recipe,
    seed: int,
    slices: Slices,
    chosen: NDArray[np.int64],
    given: dict[str, Path],
    say: Progress,
    machine: Machine,
) -> _Run:
    key = _run_key(recipe, seed, slices, chosen, given)
    note = work / "run.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        if note.exists() and json.loads(note.read_text(encoding="utf-8"))["key"] != key:
            raise OutputError(
                f"{work}: holds a run of another cohort, recipe or seed: delete it or choose another"
            )
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"key": key, "recipe": recipe.to_dict()}))
    except (ValueError, KeyError) as error:
        raise OutputError(f"{note}: is damaged: delete {work} or choose another") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{work}: cannot be written ({error.strerror or error})") from error
    return _Run(work, recipe, seed, slices, chosen, key, say, machine)


def _run_key(
    recipe: Recipe, seed: int, slices: Slices, chosen: NDArray[np.int64], given: dict[str, Path]
) -> str:
    """A name that changes with all that decides the weights."""
    digest = hashlib.sha256(json.dumps([recipe.to_dict(), seed]).encode())
    digest.update("\n".join(slices.id[chosen].tolist()).encode())
    digest.update(slices.site[chosen].tobytes())
    for name, file in given.items():
        try:
            with file.open("rb") as stream:
                digest.update(f"{name}{hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}): expected {name}") from error
    return digest.hexdigest()[:16]


def given_files(recipe: Recipe, init: str | Path | None, weights: str | Path | None) -> dict[str, Path]:
    """The files that weights come from, by the name of `train`'s argument; what does not fit is refused.

    Raises
    ------
    InputError : for weights that the recipe cannot take, or paths frozen without any
    """
    if weights is not None and recipe.network != "vgg16":
        raise InputError(f"weights: the recipe {recipe.name!r} has no VGG16 to load them into")
    if recipe.frozen and init is None and weights is None:
        raise InputError("frozen: give the weights that are to be kept")
    if weights == "imagenet":
        weights = fetch_imagenet_weights()
    return {name: Path(file) for name, file in (("init", init), ("weights", weights)) if file is not None}


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
        "device": run.machine.device.type,
        "arithmetic": "bfloat16 where torch's autocast allows" if run.machine.half else "float32",
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


def _basenet_stages(run: _Run, given: dict[str, Path]) -> tuple[BaseNet, dict[str, dict[str, float]]]:
    """A trained BaseNet, and the last figures of the log of every stage."""
    recipe = run.recipe
    basenet = new_basenet(recipe, run.seed)
    if "weights" in given:
        load_vgg16_weights(given["weights"], basenet)
    if "init" in given:
        load_weights(given["init"], basenet)
    basenet.to(run.machine.device)
    _lay_out(basenet, torch.channels_last)  # twice as fast in convolutions
    results = {}
    if recipe.frozen:
        results["fc"] = _train_fc(basenet, run)
    else:
        if recipe.paint_samples and run.slices.global_sites is not None:
            results["paint"] = _train_basenet("paint", basenet, run)
        results["basenet"] = _train_basenet("basenet", basenet, run)
    return basenet, results


def _train_basenet(stage: str, basenet: BaseNet, run: _Run) -> dict[str, float]:
    """The stages ``paint`` and ``basenet``; changes `basenet`, returns the last figures of the log."""
    recipe, slices, chosen, machine = run.recipe, run.slices, run.chosen, run.machine
    n = recipe.paint_samples if stage == "paint" else recipe.basenet_samples
    rng = np.random.default_rng(_stage_seed(run, stage))
    order = chosen[balanced_indices(slices.site[chosen], n, rng, recipe.balance)]
    paints = recipe.paint_samples and slices.global_sites is not None
    weights = site_map_weights(slices, chosen, run.seed).to(machine.device) if paints else None

    def make(step: int) -> Batch:
        rng = np.random.default_rng([*_stage_seed(run, stage), step, machine.rank])
        part = machine.share(order[step * recipe.batch : (step + 1) * recipe.batch])
        return augment(slices.batch(np.sort(part)), recipe.spec, rng)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        views = machine.put(batch.global_view), machine.put(batch.local_view)
        with machine.autocast():
            said = basenet(*views)
        site = machine.put(batch.site)
        loss = torch.zeros((), device=machine.device)
        if weights is not None:
            share = 1.0 if stage == "paint" else recipe.painting_weight
            loss = loss + share * paintings_loss(said, batch, weights)
        if stage == "basenet":
            loss = loss + F.cross_entropy(said.site_logits, site, label_smoothing=recipe.label_smoothing)
            if weights is not None and said.share_logits is not None:
                loss = loss + recipe.shares_weight * shares_loss(said.share_logits, batch)
        right = {"shares_accuracy": said.shares} if weights is not None else {}
        if stage == "basenet":
            right["accuracy"] = said.site_logits
        return loss, {name: _share_right(scores, site) for name, scores in right.items()}

    plan = _plan(run, stage, n, recipe.batch, recipe.learning_rate)
    return fit(basenet, make, loss_of, plan, run.say)


def _train_fc(basenet: BaseNet, run: _Run) -> dict[str, float]:
    """The stages ``features`` and ``fc``; changes the fully connected layers of `basenet`.

    Minority sites are over-sampled by mirrored examples, the one change that can be kept.
    """
    recipe, sites, machine = run.recipe, run.slices.site[run.chosen], run.machine
    basenet.global_path.requires_grad_(False)
    basenet.local_path.requires_grad_(False)
    features = _features(basenet, run)
    rng = np.random.default_rng(_stage_seed(run, "fc"))
    order = balanced_indices(sites, recipe.basenet_samples, rng, recipe.balance)
    mirrored = rng.integers(0, 2, len(order))

    def make(step: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        part = machine.share(np.arange(step * recipe.batch, (step + 1) * recipe.batch))
        return features[order[part], mirrored[part]], sites[order[part]]

    def loss_of(batch: tuple[NDArray[np.float16], NDArray[np.int64]]) -> tuple[Tensor, dict[str, float]]:
        site = machine.put(batch[1])
        with machine.autocast():
            logits = basenet.judge(machine.put(batch[0]).float()).site_logits
        loss = F.cross_entropy(logits, site, label_smoothing=recipe.label_smoothing)
        return loss, {"accuracy": _share_right(logits, site)}

    plan = _plan(run, "fc", len(order), recipe.batch, recipe.learning_rate)
    return fit(basenet, make, loss_of, plan, run.say)


def _features(basenet: BaseNet, run: _Run) -> NDArray[np.float16]:
    """What the frozen paths say about the chosen examples, as they are and mirrored: (n, 2, features), a file
    mapped into memory. A stopped run goes on."""
    chosen, machine = run.chosen, run.machine
    shape = (len(chosen), 2, basenet.fc1.in_features)
    path, note = run.work / "features.f16", run.work / "features.json"
    try:
        if machine.first:
            done = json.loads(note.read_text(encoding="utf-8"))["done"] if note.exists() else 0
            with path.open("ab") as file:
                file.truncate(done * 2 * shape[2] * 2)
                for start in range(done, len(chosen), _EMBED_BATCH):
                    batch = run.slices.batch(chosen[start : start + _EMBED_BATCH])
                    file.write(_features_of(basenet, batch, machine).tobytes())
                    file.flush()
                    done = start + len(batch.site)
                    with replacing(note) as temporary:
                        temporary.write_text(json.dumps({"done": done}))
                    run.say("features", done, len(chosen), "seen by the frozen paths")
        machine.wait()
        return np.memmap(path, np.float16, "r", shape=shape)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


@torch.inference_mode()
def _features_of(basenet: BaseNet, batch: Batch, machine: Machine) -> NDArray[np.float16]:
    """(n, 2, features) of a batch as it is and mirrored."""
    both = []
    for step in (1, -1):
        views = (np.ascontiguousarray(v[..., ::step]) for v in (batch.global_view, batch.local_view))
        with machine.autocast():
            paths = zip((basenet.global_path, basenet.local_path), views, strict=True)
            said = [path(machine.put(view)).features for path, view in paths]
        both.append(torch.cat(said, dim=1).half().cpu().numpy())
    return np.stack(both, axis=1)


def _share_right(scores: Tensor, site: Tensor) -> float:
    return float((scores.detach().argmax(dim=1) == site).float().mean())


def _embed_stage(basenet: BaseNet, run: _Run) -> tuple[References, References, NDArray[np.int64]]:
    """The references of the bundle, the targets of the next stage, and which examples the references are.

    Targets are changed as in BaseNet's training: it has fitted the examples as they are, whose embeddings lie
    nearer to each other than those of another patient.
    """
    slices, chosen, recipe = run.slices, run.chosen, run.recipe
    rng = np.random.default_rng(_stage_seed(run, "embed"))
    sites, patients = slices.site[chosen], slices.patient[chosen]
    parts = [chosen[choose_evenly(sites, patients, n, rng)] for n in (recipe.n_references, recipe.n_targets)]
    names, changes = ("references", "targets"), (None, lambda batch: augment(batch, recipe.spec, rng))
    path, total = run.work / "embed.safetensors", sum(map(len, parts))
    _, notes = read_checkpoint(path, run.key)
    if notes is None and run.machine.first:
        made, before = {}, 0
        for name, part, change in zip(names, parts, changes, strict=True):
            say = partial(_say_embedded, run, before, total)
            made[name] = torch.from_numpy(embed(basenet, slices, part, say, change)[0])
            before += len(part)
        write_checkpoint(path, made, {"key": run.key})
    run.machine.wait()
    tensors, _ = read_checkpoint(path, run.key)
    references, targets = (
        References(tensors[name].numpy(), slices.site[part], slices.id[part], slices.patient[part])
        for name, part in zip(names, parts, strict=True)
    )
    return references, targets, parts[0]


def _say_embedded(run: _Run, before: int, total: int, done: int) -> None:
    run.say("embed", before + done, total, "embedding")


def _relation_stage(references: References, targets: References, run: _Run) -> tuple[RelationNetwork, float]:
    """The Relation Network, and the share of its targets that it tells right; no target sees a reference of
    its own patient."""
    recipe = run.recipe
    epochs = max(1, round(recipe.relation_samples / len(targets)))
    run.say("relation", 0, epochs, "looking for neighbours")
    relations = train_relations(
        references,
        "nearest",
        recipe.n_neighbors,
        epochs,
        run.seed,
        lambda epoch, _: run.say("relation", epoch, epochs, "epochs"),
        run.machine,
        targets=targets,
        **relation_settings(recipe),
    )
    X = targets.embeddings.astype(np.float32)
    said = relations.scores(X, relations.find(X, targets.patients)).argmax(axis=1)
    return relations.network, float((said == targets.sites).mean())


def _plan(run: _Run, stage: str, samples: int, batch: int, learning_rate: float) -> Plan:
    return Plan(
        stage,
        samples // batch,
        batch,
        learning_rate,
        run.recipe.weight_decay,
        run.recipe.momentum,
        _stage_seed(run, stage),
        run.work / f"{stage}.safetensors",
        run.key,
        run.machine,
    )


def _stage_seed(run: _Run, stage: str) -> list[int]:
    return [run.seed, _STAGES.index(stage)]
