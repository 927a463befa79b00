"""The command line: parse, one call, print.

Exit codes: 0 done; 2 an input or option is wrong (one line on standard error, nothing written); 130 stopped
by Ctrl-C; 1 a fault of situs itself. Heavy imports stay inside the commands: ``situs --help`` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from situs import __version__
from situs.cli import batch, label, learn, pacs, references, serve, synth
from situs.cli.console import explain
from situs.errors import InputError

__all__ = ["app", "main"]

# Plain help and errors: rich would add 50 ms to every start, typer alone costs 45 ms.
app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments after the program's name. None takes those of the process.

    Returns:
        The exit code.
    """
    try:
        if any("\0" in argument for argument in args or ()):
            raise InputError("an argument holds a NUL byte, which no file name can: leave it out")
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
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="With --version: also show the versions of Python, the bundle and the libraries.",
        ),
    ] = False,
) -> None:
    """Name the anatomical site of lesions in head CT. Research software, not a medical device."""
    if version:
        typer.echo(f"situs {__version__}")
        if verbose:
            from situs.cli.versions import versions_text

            typer.echo(versions_text())
        raise typer.Exit()
    if verbose:
        raise InputError("--verbose: goes with --version; leave it out")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


for command in (
    label.label,
    batch.batch,
    serve.serve,
    synth.synth,
    learn.train,
    learn.evaluate,
    learn.calibrate,
    learn.reproduce,
    references.sites,
):
    app.command()(command)
app.add_typer(references.app, name="references")
app.add_typer(pacs.app, name="pacs")
