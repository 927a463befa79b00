"""The command that renders scans."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from situs.cli.console import print_text, resumable_progress_bar
from situs.cli.options import HeadsArgument, JobsOption
from situs.errors import InputError

if TYPE_CHECKING:
    from situs.anatomy import SiteList

__all__ = ["synth"]

# `SiteFrequencies` of `situs.synth.cohort`.
SiteFrequencies = Literal["balanced", "paper"]


def synth(
    heads: HeadsArgument,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder for the cohort. The same command resumes a stopped run."),
    ],
    scans: Annotated[int, typer.Option(min=1, metavar="N", help="Number of scans to render.")],
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Seed of the random numbers. The same seed renders the same scans."
        ),
    ] = 0,
    sites: Annotated[
        str,
        typer.Option(
            metavar="balanced|paper|FILE",
            help="Sites of the lesions. 'balanced': the 15, all equally frequent. 'paper': the 15, as in the "
            "paper's Table 1. A CSV file: a list of your own (docs/sites.md), all equally frequent.",
        ),
    ] = "balanced",
    jobs: JobsOption = 1,
) -> None:
    """Render synthetic head CTs with lesions of known sites.

    The folder is a cohort: train and evaluate read it.
    """
    from situs.synth.cohort import render_cohort
    from situs.synth.heads import find_heads

    chosen, notes = _frequencies_or_list(sites), list[str]()
    with resumable_progress_bar() as progress:
        manifest = render_cohort(
            find_heads(heads), out, scans, seed, chosen, jobs, progress, note=notes.append
        )
    for line in notes:
        print(f"situs: {line}", file=sys.stderr)
    print_text(f"{manifest}\n")


def _frequencies_or_list(sites: str) -> SiteFrequencies | SiteList:
    """What ``--sites`` means.

    Raises:
        InputError: If it is no word and no file with a list.
    """
    from situs.anatomy import read_sites

    if sites in get_args(SiteFrequencies):
        return cast(SiteFrequencies, sites)
    if not Path(sites).exists():
        raise InputError(
            f"--sites {sites}: expected 'balanced', 'paper' or a CSV file with a list of sites; there is no "
            "such file"
        )
    return read_sites(Path(sites))
