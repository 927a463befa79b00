"""The paper's experiment on rendered scans: its counts of scans and slices, its three methods, its tables.

Stages, each of which leaves whole files in a work folder, so that a run that was stopped goes on after the
last whole one:

``render``    scans of heads to train on and of others to test on; of these a second, balanced cohort
``choose``    scans and slices by the paper's counts
``basenet``   for every seed: BaseNet (`situs.train`)
``embed``     the embeddings of all slices, and BaseNet's own answers; those to train on also changed as in
              its own training, because it has fitted them as they are
``relation``  the Relation Network on all references and on the nearest ones, tested after every epoch
``baselines`` plain classifiers of the same embeddings
``tables``    tables, intervals, tests and figures, from the answers alone
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS, SITES
from situs.augment import augment
from situs.baselines import fit_baselines
from situs.comparison import Answers, write_results
from situs.dataset import Slices, open_slices
from situs.devices import DeviceName, Machine, open_machine
from situs.errors import InputError, ManifestError, OutputError
from situs.manifest import read_manifest
from situs.neighbors import Neighbors, References
from situs.nets import BaseNet
from situs.output import replacing
from situs.recipe import Recipe, relation_settings
from situs.relations import Kind, Relations, train_relations
from situs.synth.cohort import MANIFEST_COLUMNS, paper_slices, render_cohort
from situs.train import choose_evenly, embed, given_files, train_basenet

__all__ = [
    "PAPER_SCALE",
    "SMALL_SCALE",
    "Scale",
    "check_apart",
    "choose_references",
    "choose_scans",
    "read_embedded",
    "reproduce",
]

Progress = Callable[[str, int, int, str], None]

# The paper has 71 slices a scan, of thick slices: more lesions than in a scan that is rendered to train on.
_LESIONS = 24
_POOL = 2  # scans rendered for every scan wanted; then, while a site has too few slices, as many times more
_LARGEST_POOL = 16
_TEST_SHARE = 0.2  # of every site's slices, as of the paper's scans
_SEED = 1710_09180  # of heads' scans and of the choice of slices; the same for all seeds of the networks
_SETS = ("test", "balanced")
_KINDS: tuple[Kind, ...] = ("all", "nearest")


@dataclass(frozen=True)
class Scale:
    """How large a run is.

    train_scans, test_scans : the paper's 216, split 80:20 by scan
    slices : of every site, both parts together
    balanced_scans : of the test heads, every site as often
    samples : share of the recipe's examples that BaseNet sees
    epochs : of the Relation Networks
    test_share : share of the heads that are tested on
    """

    train_scans: int = 173
    test_scans: int = 43
    slices: dict[str, int] = field(default_factory=paper_slices)
    balanced_scans: int = 160
    samples: float = 1.0
    epochs: int = 15
    test_share: float = 0.25


PAPER_SCALE = Scale()
SMALL_SCALE = Scale(
    train_scans=16,
    test_scans=6,
    slices={key: max(5, n // 20) for key, n in paper_slices().items()},
    balanced_scans=16,
    samples=0.015,
    epochs=8,
)


@dataclass(frozen=True)
class _Part:
    """Slices of a cohort that take part: their cohort's examples, and which of them."""

    slices: Slices
    chosen: NDArray[np.int64]

    @property
    def site(self) -> NDArray[np.int64]:
        return self.slices.site[self.chosen]

    @property
    def patient(self) -> NDArray[np.str_]:
        return self.slices.patient[self.chosen]


def reproduce(
    heads: Sequence[Path],
    out: str | Path,
    work: str | Path,
    recipe: Recipe,
    seeds: int = 3,
    scale: Scale = PAPER_SCALE,
    jobs: int = 1,
    threads: int = 1,
    device: DeviceName = "auto",
    weights: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run the experiment and write its tables and figures. A run that was stopped goes on.

    Parameters
    ----------
    heads : label maps (`situs.synth.heads.find_heads`); the last quarter, by name, is tested on
    out : the folder for tables and figures; files of earlier results are replaced
    work : the folder for scans, checkpoints and answers
    recipe : of BaseNet; its examples are those of `scale`
    seeds : how many times networks are trained, with the seeds 0, 1, ...
    jobs, threads : processes that render and read scans, and threads of torch
    device, weights : see `situs.train.train`
    progress : is called with (stage, done, total, message)

    Returns
    -------
    `out`

    Raises
    ------
    InputError : for fewer than two heads, or if the counts cannot be met
    ManifestError : if a patient is on both sides
    OutputError : if `work` holds a run of other settings, or something cannot be written
    """
    out, work = Path(out), Path(work)
    say = progress or _silent
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
    train_heads, test_heads = _split_heads(heads, scale.test_share)
    cohorts = {
        "train_heads": [head.name for head in train_heads],
        "test_heads": [head.name for head in test_heads],
        **{key: value for key, value in asdict(scale).items() if key not in ("samples", "epochs")},
    }
    training = {
        "recipe": recipe.to_dict(),
        "weights": None if given is None else given.name,
        "epochs": scale.epochs,
        "device": machine.device.type,
    }
    home = work / recipe.name
    _keep_settings(work, cohorts)
    _keep_settings(home, training)

    parts = {}
    for name, some_heads in (("train", train_heads), ("test", test_heads)):
        cohort, need = _paper_cohort(work, name, some_heads, scale, jobs, say)
        parts[name] = _open_part(cohort, recipe, jobs, need, say, training=name == "train")
    cohort = work / "balanced"
    render_cohort(
        test_heads, cohort, scale.balanced_scans, _SEED, "balanced", jobs,
        lambda done, n: say("render", done, n, "scans for the balanced test"),
    )  # fmt: skip
    parts["balanced"] = _open_part(cohort, recipe, jobs, None, say)
    for name in _SETS:
        check_apart(parts["train"].slices, parts[name].slices)

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
        _whole(folder / "embeddings.npz", partial(_embed_all, learn, parts, seed, say))
        embedded = _read(folder / "embeddings.npz")
        for kind in _KINDS:
            _whole(
                folder / f"relation_{kind}.npz",
                partial(_relate, kind, embedded, parts["train"], recipe, scale.epochs, seed, machine, say),
            )
        answer = partial(_answer_baselines, embedded, parts["train"], recipe, seed, say)
        _whole(folder / "baselines.npz", answer)

    say("tables", 0, 1, "counting and drawing")
    settings = {**training, "seeds": seeds, "cohorts": cohorts, "samples": scale.samples}
    write_results(out, _collect(home, seeds, parts), settings)
    say("tables", 1, 1, "done")
    return out


def read_embedded(
    work: str | Path, recipe: Recipe, seed: int = 0, jobs: int = 1
) -> tuple[dict[str, References], dict[str, NDArray[np.int64]]]:
    """What BaseNet made of the slices of a run, whose stage ``embed`` is done with this seed.

    Parameters
    ----------
    work, recipe : as given to `reproduce`
    jobs : processes that read scans, if their views are gone

    Returns
    -------
    labelled embeddings: ``train``; ``targets``, the same slices changed; ``test``; ``balanced``
    BaseNet's own answers (n,) of all but ``targets``

    Raises
    ------
    InputError : if the folder holds no such embeddings, or a run of other settings
    """
    work = Path(work)
    path = work / recipe.name / f"seed{seed}" / "embeddings.npz"
    if not path.exists():
        raise InputError(f"{path}: is not there: 'situs reproduce' writes it in its stage 'embed'")
    try:
        cohorts, training = (
            json.loads((home / "settings.json").read_text(encoding="utf-8"))
            for home in (work, work / recipe.name)
        )
        slices, spec = cohorts["slices"], training["recipe"]["spec"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{work}: its settings.json is gone or damaged: run 'situs reproduce' again"
        ) from error
    if spec != json.loads(json.dumps(recipe.spec.to_dict())):
        raise InputError(
            f"{work}: holds a run of other views than recipe {recipe.name!r} makes now: run again"
        )
    embedded = _read(path)
    needs = {name: _wanted(slices, name) for name in ("train", "test")}
    parts = {
        name: _open_part(work / name, recipe, jobs, needs.get(name), _silent, training=name == "train")
        for name in ("train", *_SETS)
    }
    labelled = {
        name: _label(embedded[name], parts["train" if name == "targets" else name])
        for name in ("train", "targets", *_SETS)
    }
    return labelled, {name: embedded[f"{name}_said"] for name in parts}


def choose_references(everything: References, n: int) -> References:
    """Of every site at most `n`, spread evenly over the heads; those of a smaller `n` are among them."""
    rng = np.random.default_rng(_SEED)
    return everything.take(choose_evenly(everything.sites, everything.patients, n, rng))


# --- the cohorts ----------------------------------------------------------------------------------------


def check_apart(train: Slices, test: Slices) -> None:
    """Refuse cohorts that share a patient.

    Raises
    ------
    ManifestError : with the names of those who are in both
    """
    if both := sorted(set(train.patient.tolist()) & set(test.patient.tolist())):
        raise ManifestError(
            f"patient {', '.join(map(repr, both))}: in the training and in the test cohort; leave one out"
        )


def choose_scans(slices: NDArray[np.integer], need: NDArray[np.integer], n: int) -> NDArray[np.int64] | None:
    """`n` scans that have enough slices of every site together; None if they are not found.

    One after the other, the scan is taken that gives most of what is still missing, as shares of each site's
    need; of equals the first.

    Parameters
    ----------
    slices : (scans, 15) slices of every site in every scan
    need : (15,) wanted in all
    """
    missing = need.astype(np.int64)
    taken: list[int] = []
    for _ in range(n):
        gain = (np.minimum(slices, missing) / np.maximum(need, 1)).sum(axis=1)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        missing = np.maximum(missing - slices[taken[-1]], 0)
    return None if missing.any() else np.array(sorted(taken), dtype=np.int64)


def _split_heads(heads: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    ordered = sorted(heads)
    n = max(1, round(share * len(ordered)))
    if len(ordered) < 2:
        raise InputError(f"heads: expected at least two, to train on and to test on, got {len(ordered)}")
    return ordered[:-n], ordered[-n:]


def _paper_cohort(
    work: Path, name: str, heads: list[Path], scale: Scale, jobs: int, say: Progress
) -> tuple[Path, NDArray[np.int64]]:
    """The cohort of one side, with its number of scans, and the slices of every site that it must have."""
    need, n = _wanted(scale.slices, name), scale.test_scans if name == "test" else scale.train_scans
    cohort, pool = work / name, work / f"{name}_pool"
    if (cohort / "manifest.csv").exists():
        return cohort, need
    size = n
    while True:
        size *= _POOL
        if size > _LARGEST_POOL * n:
            raise InputError(f"{pool}: {size} scans do not hold {n} with the wanted slices of every site")
        render_cohort(
            heads, pool, size, _SEED + (name == "test"), "paper", jobs,
            lambda done, total: say("render", done, total, f"scans to {name} on"), _LESIONS,
        )  # fmt: skip
        scans, slices = _count_slices(pool, say)
        chosen = choose_scans(slices, need, n)
        if chosen is not None:
            break
    _write_part(cohort, pool, {scans[i].name for i in chosen})
    return cohort, need


def _wanted(slices: dict[str, int], name: str) -> NDArray[np.int64]:
    """How many slices of every site one side has, of those of both."""
    total = np.array([slices.get(key, 0) for key in SITE_KEYS])
    of_test = np.rint(total * _TEST_SHARE).astype(np.int64)
    return of_test if name == "test" else total - of_test


def _count_slices(cohort: Path, say: Progress) -> tuple[list[Path], NDArray[np.int64]]:
    """The scans of a cohort, and how many slices of every site each has (scans, 15)."""
    from situs.io.nifti import read_nifti_grid

    rows = read_manifest(cohort)
    scans = list(dict.fromkeys(row.scan for row in rows))
    counts = np.zeros((len(scans), len(SITES)), dtype=np.int64)
    masks: dict[Path, NDArray[Any]] = {}
    for done, row in enumerate(rows, start=1):
        if row.roi not in masks:  # the rows of one file follow each other
            masks = {row.roi: read_nifti_grid(row.roi, ManifestError).values}
        slices = (masks[row.roi] == row.value).any(axis=(0, 1))
        counts[scans.index(row.scan), row.site] += int(slices.sum())
        say("choose", done, len(rows), "counting slices")
    return scans, counts


def _write_part(cohort: Path, pool: Path, names: set[str]) -> None:
    """The rows of a pool whose scan is among `names`, as a cohort that points to the same files."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(MANIFEST_COLUMNS)
    with (pool / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if Path(row["scan"]).name in names:
                files = {c: f"../{pool.name}/{row[c]}" for c in ("scan", "roi", "sites", "lateral")}
                writer.writerow([{**row, **files}[column] for column in MANIFEST_COLUMNS])
    _make_folder(cohort)
    with replacing(cohort / "manifest.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _open_part(
    cohort: Path,
    recipe: Recipe,
    jobs: int,
    need: NDArray[np.int64] | None,
    say: Progress,
    training: bool = False,
) -> _Part:
    """The slices of a cohort: all, or of every site as many as needed, spread evenly over the scans."""
    slices = open_slices(
        cohort,
        recipe.spec,
        None,
        jobs,
        lambda done, n: say("slices", done, n, f"of {cohort.name}"),
        training=training,
    )
    if need is None:
        return _Part(slices, np.arange(len(slices)))
    chosen = choose_evenly(slices.site, slices.scan, need, np.random.default_rng(_SEED))
    return _Part(slices, chosen)


# --- the stages of one seed -----------------------------------------------------------------------------

Arrays = dict[str, NDArray[Any]]


def _embed_all(learn: Callable[[], BaseNet], parts: dict[str, _Part], seed: int, say: Progress) -> Arrays:
    """``NAME`` and ``NAME_said``: embeddings (n, width) of every part, and BaseNet's own answers (n,);
    ``targets``: those of the training part, changed."""
    basenet = learn()
    arrays: Arrays = {}
    train = parts["train"]
    total, before = sum(len(part.chosen) for part in parts.values()) + len(train.chosen), 0

    def report(done: int) -> None:
        say(f"seed {seed}, embed", before + done, total, "slices")

    for name, part in parts.items():
        arrays[name], arrays[f"{name}_said"] = embed(basenet, part.slices, part.chosen, report)
        before += len(part.chosen)
    rng = np.random.default_rng(seed)
    change = partial(augment, spec=train.slices.spec, rng=rng)
    arrays["targets"], _ = embed(basenet, train.slices, train.chosen, report, change)
    return arrays


def _references(embedded: Arrays, train: _Part, recipe: Recipe) -> tuple[References, References, References]:
    """All references; of every site at most as many as the recipe's, among which the nearest are looked for
    (of a frequent site the nearest would else always be nearer); and the targets to learn from."""
    everything, targets = (_label(embedded[key], train) for key in ("train", "targets"))
    return everything, choose_references(everything, recipe.n_references), targets


def _label(embeddings: NDArray[np.floating], part: _Part) -> References:
    return References(embeddings, part.site, part.slices.id[part.chosen], part.patient)


def _relate(
    kind: Kind,
    embedded: Arrays,
    train: _Part,
    recipe: Recipe,
    epochs: int,
    seed: int,
    machine: Machine,
    say: Progress,
) -> Arrays:
    """Answers after every epoch, ``test`` and ``balanced`` (epochs, n), and ``seconds`` (epochs,) of
    training until then, neighbour search included, testing not."""
    asked = {name: embedded[name].astype(np.float32) for name in _SETS}
    answers: dict[str, list[NDArray[Any]]] = {name: [] for name in _SETS}
    near: dict[str, Neighbors | None] = {}
    seconds: list[float] = []
    resumed, spent = time.perf_counter(), 0.0

    def after(epoch: int, relations: Relations) -> None:
        nonlocal resumed, spent
        spent += time.perf_counter() - resumed
        seconds.append(spent)
        for name, X in asked.items():
            if name not in near:
                near[name] = relations.find(X)
            answers[name].append(relations.scores(X, near[name]).argmax(axis=1).astype(np.uint8))
        say(f"seed {seed}, relation {kind}", epoch, epochs, f"{spent:.0f} s of training")
        resumed = time.perf_counter()

    everything, few, targets = _references(embedded, train, recipe)
    train_relations(
        everything if kind == "all" else few,
        kind,
        recipe.n_neighbors,
        epochs,
        seed,
        after,
        machine,
        targets=targets,
        **relation_settings(recipe),
    )
    return {**{name: np.stack(said) for name, said in answers.items()}, "seconds": np.array(seconds)}


def _answer_baselines(embedded: Arrays, train: _Part, recipe: Recipe, seed: int, say: Progress) -> Arrays:
    """``NAME/SET``: the answers (n,) of every baseline."""
    say(f"seed {seed}, baselines", 0, 1, "training")
    _, few, targets = _references(embedded, train, recipe)
    fitted = fit_baselines(few, targets, seed, recipe.n_neighbors)
    arrays = {
        f"{name}/{part}": classifier.predict(embedded[part].astype(np.float32)).astype(np.uint8)
        for name, classifier in fitted.items()
        for part in _SETS
    }
    say(f"seed {seed}, baselines", 1, 1, "done")
    return arrays


def _collect(home: Path, seeds: int, parts: dict[str, _Part]) -> Answers:
    """What all methods said with every seed, by cohort and method."""
    said: dict[str, dict[str, list[NDArray[Any]]]] = {name: {} for name in _SETS}
    curves: dict[str, dict[str, list[NDArray[Any]]]] = {name: {} for name in _SETS}
    seconds: dict[str, list[NDArray[np.float64]]] = {}
    for seed in range(seeds):
        folder = home / f"seed{seed}"
        embedded, baselines = _read(folder / "embeddings.npz"), _read(folder / "baselines.npz")
        related = {
            "BaseNet+RN": _read(folder / "relation_all.npz"),
            "BaseNet+RN+NN": _read(folder / "relation_nearest.npz"),
        }
        for name in _SETS:
            said[name].setdefault("BaseNet", []).append(embedded[f"{name}_said"])
            for method, arrays in related.items():
                said[name].setdefault(method, []).append(arrays[name][-1])
                curves[name].setdefault(method, []).append(arrays[name])
            for key, answer in baselines.items():
                method, _, of = key.partition("/")
                if of == name:
                    said[name].setdefault(method, []).append(answer)
        for method, arrays in related.items():
            seconds.setdefault(method, []).append(arrays["seconds"])
    return Answers(
        truth={name: parts[name].site for name in _SETS},
        heads={name: parts[name].patient for name in _SETS},
        said=said,
        curves=curves,
        seconds=seconds,
        train_sites=parts["train"].site,
        scans={name: len(np.unique(part.slices.scan[part.chosen])) for name, part in parts.items()},
    )


# --- files ----------------------------------------------------------------------------------------------


def _whole(path: Path, make: Callable[[], Arrays]) -> None:
    """The file of a stage, unless it is there: written under another name, then renamed."""
    if not path.exists():
        arrays = make()
        _make_folder(path.parent)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise OutputError(f"{path}: is damaged: delete it to run this stage again") from error


def _keep_settings(home: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or refuse a folder that holds a run of other ones."""
    _make_folder(home)
    note = home / "settings.json"
    text = json.dumps(settings, indent=1)
    try:
        if note.exists() and note.read_text(encoding="utf-8") != text:
            raise OutputError(f"{home}: holds a run of other settings: delete it or choose another --work")
    except (UnicodeDecodeError, PermissionError) as error:
        raise OutputError(f"{note}: is damaged: delete {home} or choose another --work") from error
    with replacing(note) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({os.strerror(error.errno or 0)})") from error


def _named(say: Progress, prefix: str) -> Progress:
    return lambda stage, *rest: say(f"{prefix}{stage}", *rest)


def _silent(stage: str, done: int, total: int, message: str) -> None:
    pass
