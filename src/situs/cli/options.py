"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "BundleArgument",
    "BundleOption",
    "CohortArgument",
    "CsvOption",
    "DeviceName",
    "DeviceOption",
    "HeadsArgument",
    "JobsOption",
    "JsonOption",
    "LanguageOption",
    "PicturesOption",
    "RecipeName",
    "ThreadsOption",
]

# The keys of `situs.learn.recipe.RECIPES`, and the devices of `situs.learn.devices`: both need torch.
RecipeName = Literal["compact", "paper"]
DeviceName = Literal["auto", "cpu", "cuda"]

BundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", help="Folder of a trained bundle. 'shipped' is the one inside the package."
    ),
]
BundleOption = Annotated[
    str | None,
    typer.Option(
        "--bundle", metavar="DIR", help="Folder of a trained bundle, instead of the one in the package."
    ),
]
CohortArgument = Annotated[
    Path, typer.Argument(metavar="COHORT", help="Folder of labelled cases, with a manifest.csv.")
]
HeadsArgument = Annotated[
    Path,
    typer.Argument(metavar="HEADS", help="Folder of head label maps (.nii.gz) in the FreeSurfer convention."),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the results as JSON. '-' is standard output."),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="Write the results as CSV, one per row. '-' is standard output."
    ),
]
LanguageOption = Annotated[
    str,
    typer.Option(
        "--language",
        metavar="LANG",
        help="Language of pages: 'en', or a file with the texts of another one (see docs/output.md).",
    ),
]
PicturesOption = Annotated[
    bool,
    typer.Option(
        "--pictures",
        help="Store small pictures of patients' scans in the bundle. Whoever gets the bundle sees them. "
        "Pictures of rendered scans are always stored.",
    ),
]
DeviceOption = Annotated[
    DeviceName, typer.Option(help="Processor that trains the networks. 'auto' takes a GPU if there is one.")
]
ThreadsOption = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of CPU threads of torch. The trained weights depend slightly on it, because sums are "
        "rounded in another order.",
    ),
]
JobsOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of processes that render or read scans in parallel.")
]
