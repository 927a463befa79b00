"""The commands that train bundles and test them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from situs.cli.console import STDOUT, check_outputs, print_text, resumable_progress_bar, write_text
from situs.cli.options import (
    BundleArgument,
    CohortArgument,
    DeviceOption,
    HeadsArgument,
    JobsOption,
    JsonOption,
    PicturesOption,
    RecipeName,
    ThreadsOption,
)
from situs.errors import InputError

__all__ = ["calibrate", "evaluate", "reproduce", "train"]


FrozenOption = Annotated[
    bool,
    typer.Option(
        "--frozen", help="Train only the fully connected layers. VGG16 keeps the weights it is given."
    ),
]


def train(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder for the trained bundle.")],
    recipe: Annotated[
        RecipeName,
        typer.Option(
            help="Networks and length of the training. 'compact' trains on a CPU. 'paper' trains the paper's "
            "VGG16 and needs a GPU."
        ),
    ] = "compact",
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of the random numbers: initial weights, order of the examples, augmentation.",
        ),
    ] = 0,
    test_patient: Annotated[
        list[str] | None,
        typer.Option(metavar="PATIENT", help="Leave this patient out of the training. May be repeated."),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE|FILE",
            help="Start BaseNet from the weights of a bundle ('shipped' or its folder) and train for a third "
            "of the time, or from a checkpoint of an earlier run: its BUNDLE.work/basenet.pt or paint.pt. "
            "Repeat it to start from the mean of several bundles that were started from one.",
        ),
    ] = None,
    samples: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            metavar="FRACTION",
            help="Show BaseNet this fraction of the recipe's examples. 0, with --init: keep its weights and "
            "train the Relation Network alone.",
        ),
    ] = 1.0,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Initial VGG16 weights for --recipe paper: a file in torchvision's names, an ONNX file in "
            "Keras's names, or 'imagenet' to download them (528 MB).",
        ),
    ] = None,
    frozen: FrozenOption = False,
    pictures: PicturesOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    jobs: JobsOption = 1,
) -> None:
    """Train a bundle on a cohort.

    Checkpoints are stored in BUNDLE.work. The same command resumes a stopped run. For several GPUs:
    torchrun --nproc-per-node N -m situs train ...
    """
    from situs.files import check_folder

    check_folder(out)
    from dataclasses import replace

    from situs.learn.recipe import RECIPES
    from situs.learn.train import train as run

    chosen = RECIPES[recipe].shortened(samples)
    with resumable_progress_bar() as progress:
        path = run(
            cohort,
            out,
            replace(chosen, frozen=True) if frozen else chosen,
            seed,
            test_patient or (),
            threads=threads,
            progress=progress,
            init=init or (),
            jobs=jobs,
            device=device,
            weights=weights,
            pictures=pictures,
        )
    print_text(f"{path}\n")


def evaluate(
    bundle: BundleArgument,
    cohort: CohortArgument,
    json_file: JsonOption = None,
    test_patient: Annotated[
        list[str] | None,
        typer.Option(metavar="PATIENT", help="Evaluate on this patient only. May be repeated."),
    ] = None,
    into_card: Annotated[
        bool,
        typer.Option(
            "--into-card",
            help="Write the scores into the bundle's card. Those of a cohort of the same name are replaced.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --into-card: write the result here. BUNDLE stays unchanged."),
    ] = None,
    jobs: JobsOption = 1,
) -> None:
    """Test a bundle on a cohort.

    Prints precision, recall and F1 of each site, for BaseNet alone and for the Relation Network. The shipped
    bundle is never changed: to write its card, give --out.
    """
    if out is not None and not into_card:
        raise InputError("--out: is where --into-card writes the bundle; give --into-card too")
    check_outputs({"--json": json_file}, [cohort, Path(bundle)])
    with resumable_progress_bar() as progress:
        if into_card:
            from situs.cohort.card_entry import evaluate_into_card

            evaluation, written = evaluate_into_card(bundle, cohort, test_patient, out, jobs, progress)
        else:
            from situs.cohort.evaluate import evaluate as run

            evaluation = run(bundle, cohort, test_patient, jobs, progress=progress)
    if json_file is not None:
        import json

        write_text(json_file, json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n")
    if json_file != STDOUT:
        print_text(f"{evaluation.text()}\n")
        if into_card:
            print_text(f"{written / 'README.md'}: the scores are in the card.\n")


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle to calibrate.")],
    cohort: CohortArgument,
    fold: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            help="Folder of a bundle trained with --test-patient. It labels the patients that were left out. "
            "May be repeated.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the result here. BUNDLE stays unchanged.")
    ] = None,
    level: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            min=0.5,
            max=0.999,
            help="Coverage: the fraction of the lesions of each site whose site set must hold the true site.",
        ),
    ] = 0.9,
    jobs: JobsOption = 1,
) -> None:
    """Set the thresholds by which a bundle marks a lesion as not sure.

    Each site gets a threshold of its relation score. The site set of a lesion holds each site that reaches
    its threshold. A lesion is not sure if its site set holds several sites, if it is unlike all references,
    or if much of it lies in none of the sites.

    The thresholds are measured on patients whom the networks have not seen. Each fold is trained as the
    bundle was, but without some patients of COHORT.
    """
    from situs.cohort.calibrate import calibrate as run

    with resumable_progress_bar() as progress:
        calibration, coverage = run(bundle, cohort, fold, out, level, jobs, progress)
    print_text(
        f"{out or bundle}: calibrated on {calibration.regions} ROIs of {calibration.patients} patients; "
        f"the set of sites shall hold the true one in {100 * calibration.level:.0f} %.\n"
    )
    if coverage is not None:
        print_text(f"Every patient by a calibration on the others:\n{coverage.text()}\n")


def reproduce(
    heads: HeadsArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for tables and figures. Default: docs/results, or reproduce_small with --small.",
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for scans and checkpoints. A stopped run resumes from it. Default: reproduce.work, "
            "or reproduce_small.work with --small.",
        ),
    ] = None,
    recipe: Annotated[
        RecipeName,
        typer.Option(help="BaseNet to train. 'compact' trains on a CPU. 'paper' is VGG16 and needs a GPU."),
    ] = "compact",
    train_cohort: Annotated[
        Path | None,
        typer.Option(metavar="COHORT", help="Train on this cohort, instead of on the paper's 173 scans."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of trainings, with the seeds 0, 1, ... Default: 3, or 1 with --small.",
        ),
    ] = None,
    small: Annotated[
        bool,
        typer.Option(
            "--small", help="Try the experiment in minutes, on few scans. Its figures have no meaning."
        ),
    ] = False,
    samples: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="FRACTION",
            help="Train BaseNet on this fraction of the recipe's examples. 1 is the whole training.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Initial VGG16 weights for --recipe paper: a file in torchvision's names, an ONNX file in "
            "Keras's names, or 'imagenet' to download them (528 MB). Default: random weights.",
        ),
    ] = None,
    frozen: FrozenOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    jobs: JobsOption = 1,
) -> None:
    """Repeat the paper's experiment on synthetic scans.

    Renders as many scans and slices as the paper has. Trains its three methods and plain baselines. Writes
    the paper's tables beside ours, with confidence intervals, paired tests of its claims, and figures.
    """
    from situs.files import check_folder

    out = out or Path("reproduce_small" if small else "docs/results")
    work = work or Path("reproduce_small.work" if small else "reproduce.work")
    for folder in (out, work):
        check_folder(folder)
    from dataclasses import replace

    from situs.learn.recipe import RECIPES
    from situs.paper.cohorts import PAPER_SIZE, SMALL_SIZE
    from situs.paper.experiment import reproduce as run
    from situs.synth.heads import find_heads

    size = SMALL_SIZE if small else PAPER_SIZE
    with resumable_progress_bar() as progress:
        path = run(
            find_heads(heads),
            out,
            work,
            replace(RECIPES[recipe], frozen=frozen),
            seeds=seeds or (1 if small else 3),
            size=size if samples is None else replace(size, samples=samples),
            train_cohort=train_cohort,
            jobs=jobs,
            threads=threads,
            device=device,
            weights=weights,
            progress=progress,
        )
    print_text((path / "README.md").read_text(encoding="utf-8"))
