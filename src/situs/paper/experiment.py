"""The paper's experiment on rendered scans: its counts of scans and slices, its three methods, its tables.

Stages, each of which leaves whole files in a work folder, so that a run that was stopped goes on after the
last whole one:

``render``    scans of heads to train on and of others to test on; of these a second, balanced cohort
``choose``    scans and slices by the paper's counts (`situs.paper.cohorts`)
``basenet``   for every seed: BaseNet (`situs.learn.basenet`)
``embed``     the embeddings of the slices, and BaseNet's own answers; those to train on also changed as in
              its own training, because it has fitted them as they are
``relation``  the Relation Network on all references and on the nearest ones, tested after every epoch
``baselines`` plain classifiers of the same embeddings
``tables``    tables, intervals, tests and figures, from the answers alone

At their end all methods are also asked as if it were known how frequent each site is among the slices to test
on. Instead of the paper's scans, those of any cohort can be trained on: the tests stay the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.cohort.manifest import MANIFEST, read_manifest
from situs.cohort.sampling import choose_evenly
from situs.errors import InputError, OutputError
from situs.files import digest
from situs.learn.augment import augment
from situs.learn.basenet import count_examples, embed, given_files, train_basenet
from situs.learn.devices import DeviceName, Machine, open_machine
from situs.learn.loop import Progress, silent
from situs.learn.nets import BaseNet
from situs.learn.recipe import Recipe, relation_settings
from situs.learn.relations import Kind, Relations, train_relations
from situs.neighbors import Neighbors, References
from situs.paper.baselines import BASELINES, fit_baselines
from situs.paper.cohorts import PAPER_SCALE, SEED, TESTS, Part, Scale, open_parts, split_heads
from situs.paper.results import Answers, write_results
from situs.paper.stages import Arrays, keep_settings, make_stage, read_stage

__all__ = ["choose_references", "read_embedded", "reproduce"]

_KINDS: tuple[Kind, ...] = ("all", "nearest")
_KNOWN = ", mix known"
_LEAST_PROBABILITY = 1e-9  # before its logarithm


def reproduce(
    heads: Sequence[Path],
    out: str | Path,
    work: str | Path,
    recipe: Recipe,
    seeds: int = 3,
    scale: Scale = PAPER_SCALE,
    train_cohort: str | Path | None = None,
    jobs: int = 1,
    threads: int = 1,
    device: DeviceName = "auto",
    weights: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run the experiment and write its tables and figures. A run that was stopped goes on.

    Args:
        heads: label maps (`situs.synth.heads.find_heads`); the last quarter, by name, is tested on
        out: the folder for tables and figures; files of earlier results are replaced
        work: the folder for scans, checkpoints and answers
        recipe: of BaseNet; its examples are those of `scale`
        seeds: how many times networks are trained, with the seeds 0, 1, ...
        train_cohort: a cohort to train on instead of the paper's scans; those of its patients
            that are tested on are left out. BaseNet learns from the slices that `situs train` would take,
            the Relation Networks from as many of each site as there
        jobs: processes that render and read scans, and threads of torch
        threads: See `jobs`.
        device: see `situs.learn.train.train`
        weights: See `device`.
        progress: is called with (stage, done, total, message)

    Returns:
        `out`

    Raises:
        InputError: for fewer than two heads, weights that do not fit, or if the counts cannot be met
        ManifestError: if a patient is on both sides, or `train_cohort` cannot be used or has one site alone
        OutputError: if `work` holds a run of other settings, or something cannot be written
    """
    out, work = Path(out), Path(work)
    say = progress or silent
    machine = open_machine(device)
    if machine.world > 1:
        raise InputError("reproduce: runs as one process; torchrun is for 'situs train'")
    if seeds < 1:
        raise InputError(f"seeds: expected at least 1, got {seeds}")
    torch.set_num_threads(threads)
    given = given_files(recipe, None, weights).get("weights")
    recipe = replace(
        recipe,
        paint_samples=round(recipe.paint_samples * scale.samples),
        basenet_samples=round(recipe.basenet_samples * scale.samples),
    )
    split = train_heads, test_heads = split_heads(heads, scale.test_share)
    own = None if train_cohort is None else Path(train_cohort)
    cohorts = {
        **({"train_cohort": None} if own is None else _describe(own)),
        "train_heads": [head.name for head in train_heads],
        "test_heads": [head.name for head in test_heads],
        **{key: value for key, value in asdict(scale).items() if key not in ("samples", "epochs")},
    }
    training = {
        "recipe": recipe.to_dict(),
        "weights": None if given is None else given.name,
        **({} if given is None else {"weights_sha256": digest(given)}),
        "epochs": scale.epochs,
        "device": machine.device.type,
    }
    home = work / recipe.name
    keep_settings(work, cohorts)
    keep_settings(home, training)

    parts = open_parts(work, split, recipe, scale, jobs, say, own)
    # Of the paper's scans the Relation Networks see every slice, as in the paper.
    related = parts["train"] if own is None else parts["train"].few(recipe.n_targets)
    asked = {**parts, "train": related}
    mixes = {"test": scale.counts, "balanced": np.ones(len(SITES))}
    for seed in range(seeds):
        folder = home / f"seed{seed}"
        learn = partial(
            train_basenet,
            parts["train"].slices,
            parts["train"].chosen,
            recipe,
            seed,
            folder / "basenet",
            _named(say, f"seed {seed}, "),
            machine,
            given,
        )
        make_stage(folder / "embeddings.npz", partial(_embed_all, learn, asked, seed, say))
        labelled, _ = read_embedded(work, recipe, seed)
        for kind in _KINDS:
            relate = partial(_relate, kind, labelled, mixes, recipe, scale.epochs, seed, machine, say)
            make_stage(folder / f"relation_{kind}.npz", relate)
        make_stage(folder / "baselines.npz", partial(_answer_baselines, labelled, mixes, recipe, seed, say))

    say("tables", 0, 1, "counting and drawing")
    settings = {**training, "seeds": seeds, "cohorts": cohorts, "samples": scale.samples}
    settings["basenet_examples"] = count_examples(recipe, parts["train"].slices)
    write_results(out, _collect(work, recipe, mixes, seeds, parts, len(related.chosen)), settings)
    say("tables", 1, 1, "done")
    return out


def read_embedded(
    work: str | Path, recipe: Recipe, seed: int = 0
) -> tuple[dict[str, References], dict[str, NDArray[np.float32]]]:
    """What BaseNet made of the slices of a run, whose stage ``embed`` is done with this seed.

    Args:
        work: as given to `reproduce`
        recipe: See `work`.

    Returns:
        labelled embeddings: ``train``; ``targets``, the same slices changed; ``test``; ``balanced``
        BaseNet's own site logits (n, 15) of all but ``targets``

    Raises:
        InputError: if the folder holds no such embeddings
        OutputError: if they are damaged
    """
    path = Path(work) / recipe.name / f"seed{seed}" / "embeddings.npz"
    if not path.exists():
        raise InputError(f"{path}: is not there: 'situs reproduce' writes it in its stage 'embed'")
    arrays = read_stage(path, *(f"{name}_logits" for name in ("train", *TESTS)))

    def label(name: str, part: str) -> References:
        site, names, patient = (arrays[f"{part}_{what}"] for what in ("site", "id", "patient"))
        return References(arrays[name], site, names, patient)

    try:
        labelled = {name: label(name, name) for name in ("train", *TESTS)}
        logits = {name: arrays[f"{name}_logits"] for name in labelled}
        return {**labelled, "targets": label("targets", "train")}, logits
    except (KeyError, ValueError) as error:
        raise OutputError(f"{path}: is damaged: delete it to run this stage again") from error


def choose_references(everything: References, n: int) -> References:
    """Of every site at most `n`, spread evenly over the heads; those of a smaller `n` are among them."""
    rng = np.random.default_rng(SEED)
    return everything.take(choose_evenly(everything.sites, everything.patients, n, rng))


# --- the stages of one seed -----------------------------------------------------------------------------

Labelled = dict[str, References]


def _embed_all(learn: Callable[[], BaseNet], parts: dict[str, Part], seed: int, say: Progress) -> Arrays:
    """Of every part its embeddings ``NAME`` (n, width), BaseNet's own ``NAME_logits`` (n, 15) and its
    labels ``NAME_site``, ``NAME_patient``, ``NAME_id`` (n,); ``targets``: those of ``train``, changed."""
    basenet = learn()
    arrays: Arrays = {}
    train = parts["train"]
    total, before = sum(len(part.chosen) for part in parts.values()) + len(train.chosen), 0

    def report(done: int) -> None:
        say(f"seed {seed}, embed", before + done, total, "slices")

    for name, part in parts.items():
        arrays[name], arrays[f"{name}_logits"] = embed(basenet, part.slices, part.chosen, report)
        arrays |= {f"{name}_site": part.site, f"{name}_patient": part.patient, f"{name}_id": part.id}
        before += len(part.chosen)
    rng = np.random.default_rng(seed)
    change = partial(augment, spec=train.slices.spec, rng=rng)
    arrays["targets"], _ = embed(basenet, train.slices, train.chosen, report, change)
    return arrays


def _few_references(labelled: Labelled, recipe: Recipe) -> References:
    """Of every site at most as many as the recipe's, among which the nearest are looked for: of a frequent
    site the nearest would else always be nearer."""
    return choose_references(labelled["train"], recipe.n_references)


def _relate(
    kind: Kind,
    labelled: Labelled,
    mixes: dict[str, NDArray[Any]],
    recipe: Recipe,
    epochs: int,
    seed: int,
    machine: Machine,
    say: Progress,
) -> Arrays:
    """Answers after every epoch, ``test`` and ``balanced`` (epochs, n), and ``seconds`` (epochs,) of
    training until then, neighbour search included, testing not; ``test_mix_known`` and
    ``balanced_mix_known`` (n,) at the end, by `_answer_of_mix` with the `mixes` (15,)."""
    asked = {name: labelled[name].embeddings.astype(np.float32) for name in TESTS}
    answers: dict[str, list[NDArray[Any]]] = {name: [] for name in TESTS}
    near: dict[str, Neighbors | None] = {}
    logits: Arrays = {}
    seconds: list[float] = []
    resumed, spent = time.perf_counter(), 0.0

    def after(epoch: int, relations: Relations) -> None:
        nonlocal resumed, spent
        spent += time.perf_counter() - resumed
        seconds.append(spent)
        for name, X in asked.items():
            if name not in near:
                near[name] = relations.find(X)
            logits[name] = relations.site_logits(X, near[name])
            answers[name].append(logits[name].argmax(axis=1).astype(np.uint8))
        say(f"seed {seed}, relation {kind}", epoch, epochs, f"{spent:.0f} s of training")
        resumed = time.perf_counter()

    train_relations(
        labelled["train"] if kind == "all" else _few_references(labelled, recipe),
        kind,
        recipe.n_neighbors,
        epochs,
        seed,
        after,
        machine,
        targets=labelled["targets"],
        **relation_settings(recipe),
    )
    known = {f"{name}_mix_known": _answer_of_mix(logits[name], mix) for name, mix in mixes.items()}
    return {**{name: np.stack(said) for name, said in answers.items()}, **known, "seconds": np.array(seconds)}


def _answer_of_mix(logits: NDArray[np.floating], mix: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The sites (n,) that logits (n, 15) name where it is known how frequent each is, `mix` (15,).

    All methods are trained as if sites were alike, so the logarithm of a site's frequency is added to its
    logit (Menon et al. 2021, logit adjustment).
    """
    with np.errstate(divide="ignore"):  # a site that does not occur
        adjusted = logits + np.log(mix / mix.sum())
    return adjusted.argmax(axis=1).astype(np.uint8)


def _answer_baselines(
    labelled: Labelled, mixes: dict[str, NDArray[Any]], recipe: Recipe, seed: int, say: Progress
) -> Arrays:
    """The answers (n,) of every baseline: ``METHOD/SET``; by `_answer_of_mix`, ``METHOD, mix known/SET``."""
    say(f"seed {seed}, baselines", 0, 1, "training")
    few = _few_references(labelled, recipe)
    fitted = fit_baselines(few, labelled["targets"], seed, recipe.n_neighbors)
    arrays: Arrays = {}
    for name, classifier in fitted.items():
        for part in TESTS:
            X = labelled[part].embeddings.astype(np.float32)
            arrays[f"{name}/{part}"] = classifier.predict(X).astype(np.uint8)
            logits = np.full((len(X), len(SITES)), -np.inf)
            logits[:, classifier.classes_] = np.log(
                np.maximum(classifier.predict_proba(X), _LEAST_PROBABILITY)
            )
            arrays[f"{name}{_KNOWN}/{part}"] = _answer_of_mix(logits, mixes[part])
    say(f"seed {seed}, baselines", 1, 1, "done")
    return arrays


def _collect(
    work: Path,
    recipe: Recipe,
    mixes: dict[str, NDArray[Any]],
    seeds: int,
    parts: dict[str, Part],
    n_related: int,
) -> Answers:
    """What all methods said with every seed, by cohort and method."""
    said: dict[str, dict[str, list[NDArray[Any]]]] = {name: {} for name in TESTS}
    curves: dict[str, dict[str, list[NDArray[Any]]]] = {name: {} for name in TESTS}
    seconds: dict[str, list[NDArray[np.float64]]] = {}
    for seed in range(seeds):
        folder = work / recipe.name / f"seed{seed}"
        logits = read_embedded(work, recipe, seed)[1]
        both = [f"{method}{known}/{name}" for method in BASELINES for known in ("", _KNOWN) for name in TESTS]
        baselines = read_stage(folder / "baselines.npz", *both)
        known = [f"{name}_mix_known" for name in TESTS]
        related = {
            "BaseNet+RN": read_stage(folder / "relation_all.npz", *known),
            "BaseNet+RN+NN": read_stage(folder / "relation_nearest.npz", *known),
        }
        for name in TESTS:
            for method, arrays in related.items():
                curves[name].setdefault(method, []).append(arrays[name])
            answers = {
                "BaseNet": logits[name].argmax(axis=1),
                **{method: arrays[name][-1] for method, arrays in related.items()},
                **{method: baselines[f"{method}/{name}"] for method in BASELINES},
                f"BaseNet{_KNOWN}": _answer_of_mix(logits[name], mixes[name]),
                **{f"{method}{_KNOWN}": arrays[f"{name}_mix_known"] for method, arrays in related.items()},
                **{f"{method}{_KNOWN}": baselines[f"{method}{_KNOWN}/{name}"] for method in BASELINES},
            }
            for method, answer in answers.items():
                said[name].setdefault(method, []).append(answer)
        for method, arrays in related.items():
            seconds.setdefault(method, []).append(arrays["seconds"])
    return Answers(
        truth={name: parts[name].site for name in TESTS},
        heads={name: parts[name].patient for name in TESTS},
        said=said,
        curves=curves,
        seconds=seconds,
        train_sites=parts["train"].site,
        n_related=n_related,
        scans={name: part.scans for name, part in parts.items()},
    )


def _describe(cohort: Path) -> dict[str, str]:
    """What tells a cohort to train on from others, those of its name too; one that cannot be read is refused
    before anything is rendered."""
    read_manifest(cohort)
    return {"train_cohort": cohort.name, "train_manifest": digest(cohort / MANIFEST)}


def _named(say: Progress, prefix: str) -> Progress:
    return lambda stage, *rest: say(f"{prefix}{stage}", *rest)
