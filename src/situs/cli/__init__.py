"""The command line: parse, one call, print.

Exit codes: 0 done; 2 something given is wrong (one line on standard error, nothing written); 130 stopped by
Ctrl-C; 1 a fault of situs itself. Heavy imports stay inside the commands: ``situs --help`` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from situs import __version__
from situs.cli.console import STDOUT, explain, no_warnings, print_text, progress_bar, write_text
from situs.errors import OutputError

if TYPE_CHECKING:
    from situs.bundle import Bundle
    from situs.finding import Finding
    from situs.volume import Roi, Volume

__all__ = ["app", "main"]

_PICTURES_HELP = (
    "Small pictures of patients' scans go into the bundle and travel with it; else only rendered ones."
)

# Plain help and errors: rich would add 50 ms to every start, typer alone costs 45 ms.
app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

references_app = typer.Typer(rich_markup_mode=None)
app.add_typer(references_app, name="references")


class RecipeName(StrEnum):
    """The recipes of `situs.learn.train`."""

    compact = "compact"
    paper = "paper"


class DeviceName(StrEnum):
    """What networks are trained on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class SiteMix(StrEnum):
    """How often each site occurs in a rendered cohort."""

    paper = "paper"
    balanced = "balanced"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `args` default to the process's own."""
    try:
        code = app(args=args, prog_name="situs", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:  # the reader of a pipe went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return explain(error)


@app.callback(invoke_without_command=True)
def _situs(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Name the anatomical site of lesions in head CT. Research software, not a medical device."""
    if version:
        typer.echo(f"situs {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def label(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="NIfTI file, DICOM folder or zip.")],
    roi: Annotated[Path, typer.Option("--roi", metavar="ROI", help="NIfTI mask; every value is a region.")],
    bundle: Annotated[
        str | None, typer.Option(metavar="DIR", help="A trained bundle; without it the shipped one.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="SERIES", help="Which DICOM series, where there are several.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row a lesion; - is standard output.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write one picture a lesion into a folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """Name the site of every lesion.

    A lesion is a connected part of a value of the mask.
    """
    inputs = [scan, roi] if bundle is None else [scan, roi, Path(bundle)]
    _check_outputs(json_file, csv_file, png, inputs)
    with no_warnings():
        from situs.io import read_rois, read_volume
        from situs.labeler import Labeler

        volume = read_volume(scan, series=series)
        rois = read_rois(roi, volume)
        labeler = Labeler.load(bundle)
        if png is not None:
            _ = labeler.bundle.pictures  # refused before the work, if they are damaged
        findings = labeler.label(volume, rois)
    _write_outputs(volume, rois, findings, labeler.bundle, json_file, csv_file, png)
    if not quiet and STDOUT not in (json_file, csv_file):
        from situs.report import format_text

        print_text(format_text(volume, findings, (labeler.bundle.name, labeler.bundle.version)))


@app.command()
def synth(
    heads: Annotated[Path, typer.Argument(metavar="HEADS", help="Folder of head label maps (.nii.gz).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the cohort; a stopped run goes on.")],
    scans: Annotated[int, typer.Option(min=1, metavar="N", help="How many virtual scans.")],
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The same seed gives the same scans.")] = 0,
    sites: Annotated[
        SiteMix, typer.Option(help="Every site as often, or as often as in the paper.")
    ] = SiteMix.balanced,
    jobs: Annotated[int, typer.Option(min=1, metavar="J", help="Processes.")] = 1,
) -> None:
    """Render virtual scans with lesions.

    The sites of the lesions are known exactly; the folder is a cohort to train on.
    """
    from situs.synth.cohort import render_cohort
    from situs.synth.heads import find_heads

    with progress_bar() as progress:
        manifest = render_cohort(
            find_heads(heads), out, scans, seed, sites.value, jobs, progress=partial(progress, "scans")
        )
    print_text(f"{manifest}\n")


@app.command()
def train(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder with a manifest.csv.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder for the trained bundle.")],
    recipe: Annotated[
        RecipeName, typer.Option(help="What is trained, and for how long.")
    ] = RecipeName.compact,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Of weights, order and augmentation.")] = 0,
    test_patient: Annotated[
        list[str] | None, typer.Option(metavar="PATIENT", help="Leave this patient out; may be repeated.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from the BaseNet of an earlier run's checkpoint."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Start the paper recipe's VGG16 from a file, or: imagenet (a download)."
        ),
    ] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Keep these weights; only the fully connected layers learn.")
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help=_PICTURES_HELP)] = False,
    device: Annotated[DeviceName, typer.Option(help="auto takes a GPU if there is one.")] = DeviceName.auto,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Other numbers give slightly different weights.")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, metavar="J", help="Processes that read scans.")] = 1,
) -> None:
    """Train a bundle on a cohort.

    Checkpoints go to BUNDLE.work; the same command goes on where a stopped run was. Several GPUs: torchrun
    --nproc-per-node N -m situs train ...
    """
    from situs.files import check_folder

    check_folder(out)
    from dataclasses import replace

    from situs.learn.recipe import RECIPES
    from situs.learn.train import train as run

    chosen = RECIPES[recipe.value]
    with progress_bar() as progress:
        path = run(
            cohort,
            out,
            replace(chosen, frozen=True) if frozen else chosen,
            seed,
            test_patient or (),
            threads=threads,
            progress=progress,
            init=init,
            jobs=jobs,
            device=device.value,
            weights=weights,
            pictures=pictures,
        )
    print_text(f"{path}\n")


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A trained bundle, or: shipped")],
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder with a manifest.csv.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write JSON; - is standard output.")
    ] = None,
    test_patient: Annotated[
        list[str] | None, typer.Option(metavar="PATIENT", help="Only this patient; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="J", help="Processes that read scans.")] = 1,
) -> None:
    """Score a bundle on a cohort.

    Precision, recall and F1 of every site, of BaseNet's own answer and of the Relation Network's.
    """
    _check_outputs(json_file, None, None, [cohort, Path(bundle)])
    from situs.cohort.evaluate import evaluate as run

    with progress_bar() as progress:
        found = run(bundle, cohort, test_patient, jobs, progress=progress)
    if json_file is not None:
        import json

        write_text(json_file, json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
    if json_file != STDOUT:
        print_text(f"{found.text()}\n")


@app.command()
def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The trained bundle.")],
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder with a manifest.csv.")],
    fold: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="A bundle trained without some patients; may be repeated."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write here instead of into the bundle.")
    ] = None,
    level: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.5, max=0.999, help="Of lesions whose set holds their site."),
    ] = 0.9,
    jobs: Annotated[int, typer.Option(min=1, metavar="J", help="Processes that read scans.")] = 1,
) -> None:
    """Find what a bundle can be sure of.

    Every fold answers for the patients that it was not trained on (situs train --test-patient ...). From
    then on, the bundle names all sites that a lesion may be in, and says when it is not sure.
    """
    from situs.bundle import is_shipped
    from situs.cohort.calibrate import calibrate as run

    if out is None and is_shipped(bundle):
        raise OutputError("the shipped bundle is not changed: name another folder with --out")
    with progress_bar() as progress:
        found, done = run(bundle, cohort, fold, out, level, jobs, progress)
    print_text(
        f"{out or bundle}: calibrated on {found.regions} ROIs of {found.patients} patients; "
        f"the set of sites shall hold the true one in {100 * found.level:.0f} %.\n"
    )
    if done is not None:
        print_text(f"Every patient by a calibration on the others:\n{done.text()}\n")


@app.command()
def reproduce(
    heads: Annotated[Path, typer.Argument(metavar="HEADS", help="Folder of head label maps (.nii.gz).")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder for tables and figures: docs/results, or reproduce_small."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for scans and checkpoints, with which a stopped run goes on: reproduce.work, or "
            "reproduce_small.work.",
        ),
    ] = None,
    recipe: Annotated[RecipeName, typer.Option(help="Which BaseNet.")] = RecipeName.compact,
    train_cohort: Annotated[
        Path | None,
        typer.Option(metavar="COHORT", help="Train on this cohort instead of the paper's 173 scans."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trainings; 3, or 1 if the run is small.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Minutes instead of hours, with figures that say nothing.")
    ] = False,
    samples: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Of BaseNet's training; 1 is all.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="As for train; without it VGG16 learns from scratch.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="auto takes a GPU if there is one.")] = DeviceName.auto,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Other numbers give slightly different weights.")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, metavar="J", help="Processes that render and read scans.")] = 1,
) -> None:
    """Run the paper's experiment on rendered scans.

    Its counts of scans and slices, its three methods and plain baselines; its tables beside ours, intervals,
    paired tests of its claims, figures.
    """
    from situs.files import check_folder

    out = out or Path("reproduce_small" if small else "docs/results")
    work = work or Path("reproduce_small.work" if small else "reproduce.work")
    for folder in (out, work):
        check_folder(folder)
    from dataclasses import replace

    from situs.learn.recipe import RECIPES
    from situs.paper.cohorts import PAPER_SCALE, SMALL_SCALE
    from situs.paper.experiment import reproduce as run
    from situs.synth.heads import find_heads

    scale = SMALL_SCALE if small else PAPER_SCALE
    with progress_bar() as progress:
        path = run(
            find_heads(heads),
            out,
            work,
            RECIPES[recipe.value],
            seeds=seeds or (1 if small else 3),
            scale=scale if samples is None else replace(scale, samples=samples),
            train_cohort=train_cohort,
            jobs=jobs,
            threads=threads,
            device=device.value,
            weights=weights,
            progress=progress,
        )
    print_text((path / "README.md").read_text(encoding="utf-8"))


@references_app.callback()
def _references() -> None:
    """List, add or remove the labelled cases of a bundle.

    Lesions are compared with these references. A change needs no training and counts from the next lesion on;
    the networks stay as they are. The shipped bundle is never changed: give --out.
    """


@references_app.command("list")
def list_references(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A trained bundle, or: shipped")],
    site: Annotated[
        str | None, typer.Option(metavar="SITE", help="The references of this site, one by one.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a row a reference; - is standard output."),
    ] = None,
) -> None:
    """How many references each site has, and of how many patients."""
    _check_outputs(None, csv_file, None, [Path(bundle)])
    from situs.bundle import read_bundle
    from situs.cohort.references import format_references_csv, format_references_text

    found = read_bundle(bundle)
    text = format_references_text(found, site)
    if csv_file is not None:
        write_text(csv_file, format_references_csv(found, site))
    if csv_file != STDOUT:
        print_text(f"{text}\n")


@references_app.command("add")
def add_references(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A trained bundle, or: shipped")],
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder with a manifest.csv.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the changed bundle there; BUNDLE stays as it is."),
    ] = None,
    max_slices: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of each region; without it as many as in the training."),
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help=_PICTURES_HELP)] = False,
) -> None:
    """Add the regions of a cohort, each slice a reference.

    Patient and file names of the manifest go into the bundle: use pseudonyms. The file names make a
    reference's id, SCAN/ROI/VALUE/SLICE; one that is there already is refused: remove it first.
    """
    with no_warnings(), progress_bar() as progress:
        from situs.cohort.references import add_references as run

        done = run(bundle, cohort, out, max_slices, progress, pictures)
    print_text(f"{done.text()}\n")


@references_app.command("remove")
def remove_references(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A trained bundle, or: shipped")],
    patient: Annotated[
        list[str] | None, typer.Option(metavar="PATIENT", help="Of this patient; may be repeated.")
    ] = None,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="With this id, or its start up to a slash; may be repeated."),
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="Of this site.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the changed bundle there; BUNDLE stays as it is."),
    ] = None,
) -> None:
    """Remove references; several options narrow each other down.

    The networks are not trained again: what they learned from a removed case stays in them.
    """
    from situs.cohort.references import remove_references as run

    print_text(f"{run(bundle, patient or (), id or (), site, out).text()}\n")


def _check_outputs(
    json_file: Path | None, csv_file: Path | None, png: Path | None, inputs: Sequence[Path]
) -> None:
    """Refuse before the work what could not be written after it."""
    from situs.files import check_file, check_folder

    if json_file is not None and csv_file is not None:
        if json_file == csv_file == STDOUT:
            raise OutputError("--json - and --csv -: standard output takes one of them; name a file")
        if json_file.resolve() == csv_file.resolve():
            raise OutputError(f"--json and --csv: both are {json_file}; name two files")
    if png is not None:
        check_folder(png)
    for path in (json_file, csv_file):
        if path is not None and path != STDOUT:
            check_file(path, inputs, made=png)


def _write_outputs(
    volume: Volume,
    rois: Sequence[Roi],
    findings: Sequence[Finding],
    bundle: Bundle,
    json_file: Path | None,
    csv_file: Path | None,
    png: Path | None,
) -> None:
    from situs.report import format_csv, format_json

    if png is not None:
        from situs.files import write_file
        from situs.report.picture import iter_pictures

        png.mkdir(exist_ok=True)
        for name, content in iter_pictures(volume, rois, findings, bundle.picture):
            write_file(png / name, content)
    for path, form in ((csv_file, format_csv), (json_file, format_json)):
        if path is not None:
            write_text(path, form(volume, findings, (bundle.name, bundle.version)))
