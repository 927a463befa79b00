"""The commands that list, add, remove and index the references of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from situs.cli.console import (
    STDOUT,
    check_outputs,
    no_warnings,
    print_text,
    progress_bar,
    resumable_progress_bar,
    write_text,
)
from situs.cli.options import BundleArgument, CohortArgument, CsvOption, PicturesOption

__all__ = ["app", "sites"]

app = typer.Typer(rich_markup_mode=None)

OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write the changed bundle here. BUNDLE stays unchanged."),
]


def sites(
    bundle: BundleArgument = "shipped",
    csv_file: CsvOption = None,
) -> None:
    """Show the sites that a bundle names.

    The CSV is a list of sites as a cohort may have it, in its sites.csv.
    """
    check_outputs({"--csv": csv_file}, [Path(bundle)])
    from situs.anatomy import sites_csv
    from situs.bundle import read_bundle
    from situs.cohort.reference_tables import format_sites_text

    opened = read_bundle(bundle)
    if csv_file is not None:
        write_text(csv_file, sites_csv(opened.sites))
    if csv_file != STDOUT:
        print_text(f"{format_sites_text(opened)}\n")


@app.callback()
def references() -> None:
    """List, add, remove or index the references of a bundle.

    A reference is a labelled slice that lesions are compared with. A change needs no training and applies
    from the next lesion on. The networks stay unchanged. To change the shipped bundle, give --out.
    """


@app.command("list")
def list_references(
    bundle: BundleArgument,
    site: Annotated[
        str | None,
        typer.Option(metavar="SITE", help="List each reference of this site, instead of the numbers."),
    ] = None,
    csv_file: CsvOption = None,
) -> None:
    """Show how many references each site has, and of how many patients."""
    check_outputs({"--csv": csv_file}, [Path(bundle)])
    from situs.bundle import read_bundle
    from situs.cohort.reference_tables import format_references_csv, format_references_text

    opened = read_bundle(bundle)
    text = format_references_text(opened, site)
    if csv_file is not None:
        write_text(csv_file, format_references_csv(opened, site))
    if csv_file != STDOUT:
        print_text(f"{text}\n")


@app.command("add")
def add_references(
    bundle: BundleArgument,
    cohort: CohortArgument,
    out: OutOption = None,
    max_slices: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Add at most N slices of each region. Default: as many as in the bundle's training.",
        ),
    ] = None,
    new_site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A site that the bundle does not know. Its lesions are found from these references alone, "
            "without training. May be repeated.",
        ),
    ] = None,
    pictures: PicturesOption = False,
) -> None:
    """Add the labelled slices of a cohort.

    Patient and file names of the manifest are stored in the bundle: use pseudonyms. The id of a reference is
    SCAN/ROI/VALUE/SLICE, by the file names. An id that the bundle already has is refused: remove it first.
    """
    with no_warnings(), resumable_progress_bar() as progress:
        from situs.cohort.references import add_references as run

        change = run(bundle, cohort, out, max_slices, progress, pictures, new_site or ())
    print_text(f"{change.text()}\n")


@app.command("remove")
def remove_references(
    bundle: BundleArgument,
    patient: Annotated[
        list[str] | None,
        typer.Option(metavar="PATIENT", help="Remove references of this patient. May be repeated."),
    ] = None,
    id: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Remove the reference with this id, or all whose id starts with it and a slash. May be "
            "repeated.",
        ),
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="Remove references of this site.")] = None,
    out: OutOption = None,
) -> None:
    """Remove references.

    A reference is removed if it matches all of --patient, --id and --site that are given. The networks are
    not trained again: what they learned from a removed case stays in them.
    """
    from situs.cohort.references import remove_references as run

    with progress_bar() as progress:
        change = run(bundle, patient or (), id or (), site, out, progress)
    print_text(f"{change.text()}\n")


@app.command("index")
def index_references(bundle: BundleArgument, out: OutOption = None) -> None:
    """Check the references of a large bundle and make their index again.

    A bundle of 50,000 references or more has an index, so that a lesion is not compared with each of them. It
    is made whenever references are added or removed. The references are compared with their hashes first.
    """
    with progress_bar() as progress:
        from situs.bundle import read_bundle
        from situs.bundle.change import replace_index

        opened = read_bundle(bundle, indexed=False)
        folder = replace_index(opened, out, progress)
    print_text(f"{folder}: {len(opened.references)} references are whole and have a new index\n")
