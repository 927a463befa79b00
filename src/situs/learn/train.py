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
Under ``torchrun`` every process takes its share of each batch (`situs.learn.devices`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from situs.anatomy import SITES
from situs.bundle.write import check_replaceable
from situs.cohort.manifest import describe_cohort
from situs.cohort.pictures import draw_pictures, wants_pictures
from situs.cohort.sampling import check_sites, choose_evenly, split_patients
from situs.cohort.slices import open_slices
from situs.learn.augment import augment
from situs.learn.basenet import basenet_stages, embed, given_files, lay_out
from situs.learn.checkpoints import read_checkpoint, write_checkpoint
from situs.learn.devices import DeviceName, open_machine
from situs.learn.export import export_bundle
from situs.learn.loop import Progress, silent
from situs.learn.nets import BaseNet, RelationNetwork
from situs.learn.recipe import COMPACT, Recipe, relation_settings
from situs.learn.relations import train_relations
from situs.learn.run import Run, open_run
from situs.neighbors import References

__all__ = ["train"]


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

    Args:
        cohort: a folder with ``manifest.csv``, see `situs.cohort.slices`
        out: the bundle's folder
        recipe: what is done; with other ones, `work` must be another folder
        seed: See `recipe`.
        test_patients: are left out of everything
        threads: of torch; 1 by default, because two collapse where the cores are shared
        progress: is called with (stage, done, total, message)
        work: holds the checkpoints; ``<out>.work`` by default
        init: a checkpoint of an earlier run to start BaseNet's weights from
        jobs: processes that make the views
        facts: further facts for the model card, see `situs.bundle.card.model_card`
        device: see `situs.learn.devices.open_machine`
        weights: a VGG16 in torchvision's names, to start the paths of such a recipe from; ``imagenet``
            downloads the published one
        pictures: whether small pictures of patients' scans go into the bundle with its references; those of
            rendered scans do, where the recipe's views allow

    Returns:
        `out`

    Raises:
        ManifestError: if the cohort, or a patient's name, cannot be used, or all examples are of one site
        InputError: if `init` is no checkpoint of such a BaseNet, `weights` do not fit, there is no such
            device, pictures are asked for that the recipe's views do not show, or the loss is not finite any
            more
        OutputError: if `out` holds something else than a bundle, `work` holds another run, or something
            cannot be written
    """
    out = Path(out)
    check_replaceable(out)
    given = given_files(recipe, init, weights)
    machine = open_machine(device)
    work = Path(f"{out}.work") if work is None else Path(work)
    torch.set_num_threads(threads or 1)
    say = progress or silent
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
    check_sites(slices.site[chosen])
    run = open_run(work, recipe, seed, slices, chosen, given, say, machine)

    basenet, results = basenet_stages(run, given)
    references, targets, known = _embed_stage(basenet, run)
    lay_out(basenet, torch.contiguous_format)
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
        recipe,
        {
            **_facts(run, results),
            "minutes in this run": (time.monotonic() - begin) / 60,
            **describe_cohort(Path(cohort)),
            **(facts or {}),
        },
        out,
        sample_views=(slices.global_view[few], slices.local_view[few]),
        pictures=draw_pictures(Path(cohort), slices, known) if drawn else None,
    )
    machine.wait()
    say("export", 1, 1, "done")
    return path


def _embed_stage(basenet: BaseNet, run: Run) -> tuple[References, References, NDArray[np.int64]]:
    """The references of the bundle, the targets of the next stage, and which examples the references are.

    Targets are changed as in BaseNet's training: it has fitted the examples as they are, whose embeddings lie
    nearer to each other than those of another patient.
    """
    slices, chosen, recipe = run.slices, run.chosen, run.recipe
    rng = np.random.default_rng(run.stage_seed("embed"))
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


def _say_embedded(run: Run, before: int, total: int, done: int) -> None:
    run.say("embed", before + done, total, "embedding")


def _relation_stage(references: References, targets: References, run: Run) -> tuple[RelationNetwork, float]:
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


def _facts(run: Run, results: dict[str, dict[str, float]]) -> dict[str, Any]:
    slices, chosen = run.slices, run.chosen
    counts = np.bincount(slices.site[chosen], minlength=len(SITES))
    return {
        "patients": len(np.unique(slices.patient[chosen])),
        "scans": slices.count_scans(chosen),
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
