"""The stages of one seed of `situs reproduce`, and the file that each leaves in the work folder.

A stage's file is written whole, read back, and never made twice. All predictions are made later from the
logits in these files (`situs.paper.results.predict_sites`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from situs.cohort.sampling import choose_evenly
from situs.errors import InputError, OutputError
from situs.files import make_folder, replacing
from situs.learn.augment import augment
from situs.learn.basenet import embed
from situs.learn.devices import Machine
from situs.learn.features import Features, embed_features
from situs.learn.nets import BaseNet
from situs.learn.recipe import Recipe, relation_settings
from situs.learn.relations import ReferenceChoice, RelationModel, train_relations
from situs.neighbors import Neighbors, References
from situs.paper.baselines import BASELINES, fit_baselines
from situs.paper.cohorts import SEED, TESTS, SliceSubset
from situs.paper.results import METHODS, predict_sites
from situs.progress import Progress
from situs.records import take_rows

__all__ = [
    "RELATIONS",
    "Arrays",
    "Labelled",
    "baseline_logits",
    "choose_references",
    "embed_subsets",
    "make_stage",
    "read_baselines",
    "read_embedded",
    "read_relation",
    "read_stage",
    "relation_predictions",
    "seed_folder",
]

Arrays = dict[str, NDArray[Any]]
Labelled = dict[str, References]  # labelled embeddings by the name of their subset

# What g sees of each class, and the method's name.
RELATIONS: dict[ReferenceChoice, str] = {"all": METHODS[1], "nearest": METHODS[2]}


# --- files ----------------------------------------------------------------------------------------------


def seed_folder(work: str | Path, recipe: Recipe, seed: int) -> Path:
    """The folder of one seed's files in the work folder."""
    return Path(work) / recipe.name / f"seed{seed}"


def make_stage(path: Path, make: Callable[[], Arrays]) -> None:
    """Make and write a stage's arrays, unless its file is there.

    Raises:
        OutputError: If the file cannot be written.
    """
    if not path.exists():
        arrays = make()
        make_folder(path.parent)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def read_stage(path: Path, *names: str) -> Arrays:
    """A stage's arrays; those of these `names`, at least, must be there.

    Raises:
        OutputError: If the file is damaged, or of a version that had other names.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise OutputError(f"{path}: is damaged: delete it to run this stage again") from error
    if not set(names) <= set(arrays):
        raise OutputError(f"{path}: is of an earlier version: delete it to run this stage again")
    return arrays


def read_embedded(
    work: str | Path, recipe: Recipe, seed: int = 0
) -> tuple[Labelled, dict[str, NDArray[np.float32]]]:
    """The embeddings of a run whose stage ``embed`` is done for this seed.

    Args:
        work: The work folder, as given to `situs.paper.experiment.reproduce`.
        recipe: The run's recipe.
        seed: The seed.

    Returns:
        Labelled embeddings of ``train``, ``test``, ``balanced`` and ``targets``, which are those of ``train``
        changed at random; and BaseNet's own site logits (n, 15) of all but ``targets``.

    Raises:
        InputError: If the folder holds no such embeddings.
        OutputError: If they are damaged.
    """
    path = seed_folder(work, recipe, seed) / "embeddings.npz"
    if not path.exists():
        raise InputError(f"{path}: is not there: 'situs reproduce' writes it in its stage 'embed'")
    arrays = read_stage(path, *(f"{name}_logits" for name in ("train", *TESTS)))

    def label(name: str, subset: str) -> References:
        site, names, patient = (arrays[f"{subset}_{what}"] for what in ("site", "id", "patient"))
        return References(arrays[name], site, names, patient)

    try:
        labelled = {name: label(name, name) for name in ("train", *TESTS)}
        logits = {name: arrays[f"{name}_logits"] for name in labelled}
        return {**labelled, "targets": label("targets", "train")}, logits
    except (KeyError, ValueError) as error:
        raise OutputError(f"{path}: is damaged: delete it to run this stage again") from error


def read_relation(folder: Path, kind: ReferenceChoice) -> Arrays:
    """The arrays of `relation_predictions`, from the file of one seed.

    Raises:
        OutputError: If the file is damaged or of an earlier version.
    """
    logits = (f"{name}_logits" for name in TESTS)
    return read_stage(folder / f"relation_{kind}.npz", *TESTS, *logits, "seconds")


def read_baselines(folder: Path) -> Arrays:
    """The arrays of `baseline_logits`, from the file of one seed.

    Raises:
        OutputError: If the file is damaged or of an earlier version.
    """
    return read_stage(folder / "baselines.npz", *(f"{m}/{name}_logits" for m in BASELINES for name in TESTS))


# --- stages ---------------------------------------------------------------------------------------------


def embed_subsets(
    learn: Callable[[], BaseNet],
    subsets: dict[str, SliceSubset],
    seed: int,
    progress: Progress,
    keep: Callable[[BaseNet, SliceSubset, bool], Features] | None = None,
) -> Arrays:
    """The stage ``embed``: train BaseNet and embed the slices of all subsets.

    Args:
        learn: Trains BaseNet.
        subsets: ``train``, ``test`` and ``balanced``.
        seed: Of the random changes of ``targets``.
        progress: Is told of every batch.
        keep: Gives the features of a subset, and of those to train on some mirrored, where the paths are
            frozen (`situs.learn.features.keep_features`). Then the only change of ``targets`` is that half of
            those of over-sampled sites are mirrored.

    Returns:
        For every subset its embeddings ``NAME`` (n, width), BaseNet's own ``NAME_logits`` (n, 15) and its
        labels ``NAME_site``, ``NAME_patient``, ``NAME_id`` (n,). Also ``targets``: the embeddings of
        ``train``, each slice changed at random as in BaseNet's training, which has fitted it unchanged.
    """
    basenet = learn()
    arrays: Arrays = {}
    train = subsets["train"]
    total, before = sum(len(subset.chosen) for subset in subsets.values()) + len(train.chosen), 0

    def report(done: int) -> None:
        progress("embed", before + done, total, "slices")

    rng = np.random.default_rng(seed)

    def embed_of(subset: SliceSubset, changed: bool) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        if keep is None:
            change = partial(augment, spec=subset.slices.spec, rng=rng) if changed else None
            return embed(basenet, subset.slices, subset.chosen, report, change)
        n = len(subset.chosen)
        mirror = rng.integers(0, 2, n) if changed else np.zeros(n, dtype=np.int64)
        return embed_features(basenet, keep(basenet, subset, subset is train), mirror, report)

    for name, subset in subsets.items():
        arrays[name], arrays[f"{name}_logits"] = embed_of(subset, changed=False)
        arrays |= {f"{name}_site": subset.site, f"{name}_patient": subset.patient, f"{name}_id": subset.id}
        before += len(subset.chosen)
    arrays["targets"], _ = embed_of(train, changed=True)
    return arrays


def relation_predictions(
    kind: ReferenceChoice,
    labelled: Labelled,
    recipe: Recipe,
    epochs: int,
    seed: int,
    machine: Machine,
    progress: Progress,
) -> Arrays:
    """The stage ``relation``: train a Relation Network and test it after every epoch.

    Returns:
        ``test`` and ``balanced`` (epochs, n): the predicted sites. ``test_logits`` and ``balanced_logits``
        (n, 15): the logits after the last epoch. ``seconds`` (epochs,): the time of training until then, with
        the neighbour search, without the tests.
    """
    X = {name: labelled[name].embeddings.astype(np.float32) for name in TESTS}
    predictions: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in TESTS}
    neighbors: dict[str, Neighbors | None] = {}
    logits: Arrays = {}
    seconds: list[float] = []
    resumed, spent = time.perf_counter(), 0.0

    def test(epoch: int, model: RelationModel) -> None:
        nonlocal resumed, spent
        spent += time.perf_counter() - resumed
        seconds.append(spent)
        for name in TESTS:
            if name not in neighbors:
                neighbors[name] = model.find_neighbors(X[name])
            logits[name] = model.logits(X[name], neighbors[name])
            predictions[name].append(predict_sites(logits[name]))
        progress(f"relation {kind}", epoch, epochs, f"{spent:.0f} s of training")
        resumed = time.perf_counter()

    train_relations(
        labelled["train"] if kind == "all" else _nearest_references(labelled, recipe),
        kind,
        recipe.n_neighbors,
        epochs,
        seed,
        test,
        machine,
        targets=labelled["targets"],
        **relation_settings(recipe),
    )
    last = {f"{name}_logits": logits[name] for name in TESTS}
    return {**{name: np.stack(predictions[name]) for name in TESTS}, **last, "seconds": np.array(seconds)}


def baseline_logits(labelled: Labelled, recipe: Recipe, seed: int, progress: Progress) -> Arrays:
    """The stage ``baselines``: the logits (n, 15) of every baseline, ``METHOD/COHORT_logits``."""
    progress("baselines", 0, 1, "training")
    references = _nearest_references(labelled, recipe)
    fitted = fit_baselines(references, labelled["targets"], seed, recipe.n_neighbors)
    arrays = {
        f"{method}/{name}_logits": baseline.logits(labelled[name].embeddings.astype(np.float32))
        for method, baseline in fitted.items()
        for name in TESTS
    }
    progress("baselines", 1, 1, "done")
    return arrays


def choose_references(everything: References, n: int) -> References:
    """At most `n` references of every site, spread evenly over the heads.

    The references of a smaller `n` are among those of a larger one.
    """
    rng = np.random.default_rng(SEED)
    return take_rows(everything, choose_evenly(everything.sites, everything.patients, n, rng))


def _nearest_references(labelled: Labelled, recipe: Recipe) -> References:
    """The references among which the nearest are looked for, as many of each site as the recipe says.

    With all of them the nearest reference of a frequent site would always be nearer.
    """
    return choose_references(labelled["train"], recipe.n_references)
