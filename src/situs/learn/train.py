"""Training: from a cohort to a bundle, in stages that leave checkpoints in a work folder.

``paint``     BaseNet's two paths learn to paint the site map over their views (where the cohort has one)
``basenet``   all of BaseNet learns the site of the region of interest, painting going on beside it
``features``  instead of these two, where the paths are frozen: their features of every example
``fc``        and then the fully connected layers learn the site from these
``embed``     BaseNet embeds the references, and with random changes the targets of the next stage
``relation``  the Relation Network learns to relate targets to their nearest references, BaseNet fixed; it
              takes minutes, so it leaves no checkpoint

Lengths are counted in examples seen, so that a run on any cohort costs the same. The same seed, cohort,
machine and number of threads give the same weights, stopped and resumed or not. Other processors, other
numbers of threads and other versions of torch add up in another order and give slightly different ones.
Under ``torchrun`` every process takes its part of each batch (`situs.learn.devices`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from situs.bundle.folder import check_replaceable
from situs.cohort.manifest import describe_cohort, read_cohort_sites
from situs.cohort.reference_pictures import draw_pictures, wants_pictures
from situs.cohort.sampling import check_sites, choose_evenly, split_patients
from situs.cohort.slices import Batch, open_slices
from situs.learn.augment import augment
from situs.learn.basenet import basenet_stages, embed
from situs.learn.checkpoints import read_checkpoint, write_checkpoint
from situs.learn.devices import DeviceName, open_machine
from situs.learn.export import export_bundle
from situs.learn.from_bundle import is_bundle
from situs.learn.given import read_given
from situs.learn.nets import BaseNet, RelationNetwork
from situs.learn.recipe import COMPACT, Recipe, relation_settings
from situs.learn.relations import train_relations
from situs.learn.run import TrainingRun, open_run
from situs.neighbors import References
from situs.progress import Progress, silent

__all__ = ["train"]

_COMPARED_EXAMPLES = 8  # on which the exported networks are compared with the trained ones


def train(
    cohort: str | Path,
    out: str | Path,
    recipe: Recipe = COMPACT,
    seed: int = 0,
    test_patients: Sequence[str] = (),
    threads: int = 1,
    progress: Progress = silent,
    init: str | Path | Sequence[str | Path] = (),
    jobs: int = 1,
    device: DeviceName = "auto",
    weights: str | Path | None = None,
    pictures: bool = False,
) -> Path:
    """Train the two networks on a cohort and write the bundle. A run that was stopped goes on.

    Args:
        cohort: A folder with ``manifest.csv``, see `situs.cohort.slices`.
        out: The bundle's folder. The checkpoints lie beside it, in ``<out>.work``.
        recipe: What is trained, and for how long.
        seed: Of weights, order and augmentation.
        test_patients: Are left out of everything.
        threads: Of torch. Two are slower than one where the cores are shared.
        progress: Is called as the stages go on.
        init: A checkpoint of an earlier run, to start BaseNet's weights from; or a bundle, its folder or
            ``shipped``, to go on from by `Recipe.continued`; or several bundles, to go on from the mean of
            their weights, see `situs.learn.from_bundle.average_weights`.
        jobs: The number of processes that make the views.
        device: See `situs.learn.devices.open_machine`.
        weights: A VGG16 to start the paths of such a recipe from, see `situs.learn.vgg.read_vgg16_weights`;
            ``imagenet`` downloads the published one.
        pictures: Whether small pictures of patients' scans go into the bundle with its references. Those of
            rendered scans do anyway, where the recipe's views allow it.

    Returns:
        `out`.

    Raises:
        ManifestError: If the cohort, or a patient's name, cannot be used, or all examples are of one site.
        InputError: If `init` is no checkpoint or bundle of such a BaseNet, `weights` do not fit, there is no
            such device, pictures are asked for that the recipe's views do not show, or the loss is not
            finite.
        OutputError: If `out` holds something other than a bundle, the work folder holds a run of other
            settings or another run is writing it, or something cannot be written.
    """
    cohort, out = Path(cohort), Path(out)
    check_replaceable(out)
    starts = [init] if isinstance(init, str | Path) else list(init)
    if any(map(is_bundle, starts)):
        recipe = recipe.continued()
    known = read_cohort_sites(cohort)
    given = read_given(recipe, starts, weights, known)
    machine = open_machine(device)
    torch.set_num_threads(threads)
    begin = time.monotonic()
    slices = open_slices(cohort, recipe.spec, recipe.max_slices, jobs, progress, training=True)
    with_pictures = wants_pictures(cohort, slices, pictures)
    kept, _ = split_patients(slices.patient.tolist(), test_patients)
    chosen = np.flatnonzero(np.isin(slices.patient, kept))
    check_sites(slices.site[chosen], slices.sites)
    work = Path(f"{out}.work")
    with open_run(work, recipe, seed, slices, chosen, given, progress, machine) as run:
        basenet, metrics = basenet_stages(run, given)
        references, targets, reference_examples = _embed_stage(basenet, run)
        relation, metrics["relation"] = _relation_stage(references, targets, run)

        if machine.first:
            progress("export", 0, 1, "writing and checking the bundle")
            compared = chosen[np.linspace(0, len(chosen) - 1, _COMPARED_EXAMPLES).astype(int)]
            minutes = (time.monotonic() - begin) / 60
            data = describe_cohort(cohort, slices.patient.tolist())
            export_bundle(
                basenet.to("cpu", memory_format=torch.contiguous_format),  # type: ignore[call-overload]
                relation.cpu(),
                references,
                recipe,
                {**_facts(run), **metrics, "minutes in this run": minutes, **data},
                out,
                sites=slices.sites,
                sample_views=(slices.global_view[compared], slices.local_view[compared]),
                pictures=draw_pictures(cohort, slices, reference_examples) if with_pictures else None,
            )
            progress("export", 1, 1, "done")
        machine.wait()
    return out


def _embed_stage(basenet: BaseNet, run: TrainingRun) -> tuple[References, References, NDArray[np.int64]]:
    """The stage ``embed``.

    Targets are changed as in BaseNet's training. BaseNet has fitted the examples as they are, so that their
    embeddings lie nearer to each other than to those of another patient.

    Returns:
        The references of the bundle, the targets of the next stage, and (n,) the examples that are the
        references.
    """
    slices, chosen, recipe, machine = run.slices, run.chosen, run.recipe, run.machine
    rng = np.random.default_rng(run.stage_seed("embed"))
    sites, patients = slices.site[chosen], slices.patient[chosen]
    examples = {
        name: chosen[choose_evenly(sites, patients, n, rng)]
        for name, n in (("references", recipe.n_references), ("targets", recipe.n_targets))
    }

    def change(batch: Batch) -> Batch:
        return augment(batch, recipe.spec, rng)

    path, total = run.checkpoint("embed"), sum(map(len, examples.values()))
    if read_checkpoint(path, run.key) is None and machine.first:
        embeddings, before = {}, 0

        def report(done: int) -> None:
            run.progress("embed", before + done, total, "embedding")

        for name, part in examples.items():
            changed = change if name == "targets" else None
            embeddings[name] = torch.from_numpy(embed(basenet, slices, part, report, changed)[0])
            before += len(part)
        write_checkpoint(path, run.key, embeddings)
    machine.wait()
    written = read_checkpoint(path, run.key) or {}
    references, targets = (
        References(
            written[name].numpy(), slices.site[part], slices.id[part], slices.patient[part], len(slices.sites)
        )
        for name, part in examples.items()
    )
    return references, targets, examples["references"]


def _relation_stage(
    references: References, targets: References, run: TrainingRun
) -> tuple[RelationNetwork, dict[str, float]]:
    """The stage ``relation``: the Relation Network, and its accuracy on its targets.

    No target sees a reference of its own patient.
    """
    recipe = run.recipe
    epochs = max(1, round(recipe.relation_samples / len(targets)))
    run.progress("relation", 0, epochs, "looking for neighbours")
    model = train_relations(
        references,
        "nearest",
        recipe.n_neighbors,
        epochs,
        run.seed,
        lambda epoch, _: run.progress("relation", epoch, epochs, "epochs"),
        run.machine,
        targets=targets,
        **relation_settings(recipe),
    )
    X = targets.embeddings.astype(np.float32)
    predicted = model.logits(X, model.find_neighbors(X, targets.patients)).argmax(axis=1)
    return model.network, {"accuracy": float((predicted == targets.sites).mean())}


def _facts(run: TrainingRun) -> dict[str, Any]:
    """What the model card says about the examples and the machine."""
    slices, chosen = run.slices, run.chosen
    counts = np.bincount(slices.site[chosen], minlength=len(slices.sites))
    return {
        "patients": len(np.unique(slices.patient[chosen])),
        "scans": slices.count_scans(chosen),
        "regions": len(np.unique(slices.row[chosen])),
        "slices": len(chosen),
        "slices of each site": {site.key: int(n) for site, n in zip(slices.sites, counts, strict=True)},
        "seed": run.seed,
        "torch": torch.__version__,
        "torch threads": torch.get_num_threads(),
        "device": run.machine.device.type,
        "arithmetic": "bfloat16 where torch's autocast allows" if run.machine.half else "float32",
    }
