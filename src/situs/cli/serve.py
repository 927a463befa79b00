"""The command that serves the page and the REST interface."""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer

from situs.cli.console import no_warnings, print_text
from situs.cli.options import BundleOption, LanguageOption
from situs.errors import InputError

__all__ = ["serve"]

_LOCAL = "127.0.0.1"
_LEAST_TOKEN = 16  # characters


def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on. 0 takes a free one.")
    ] = 8080,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. Any other than 127.0.0.1 can be reached from other computers, and "
            "needs a token in the variable SITUS_TOKEN or in --token-file.",
        ),
    ] = _LOCAL,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that holds the token that clients must give."),
    ] = None,
    keep_minutes: Annotated[
        float,
        typer.Option(
            min=0.1, max=24 * 60, metavar="MIN", help="Minutes that a scan is kept without a request for it."
        ),
    ] = 30.0,
    bundle: BundleOption = None,
    language: LanguageOption = "en",
) -> None:
    """Open a page in a browser to drop a scan on, and serve the same over REST.

    Scans stay in the memory of this process, and are dropped when it ends. Ctrl-C ends it.
    """
    is_local = host in (_LOCAL, "localhost", "::1")
    token = _token(token_file)
    if token is None and not is_local:
        raise InputError(
            f"--host {host}: can be reached from other computers: put a token of at least {_LEAST_TOKEN} "
            "characters into the variable SITUS_TOKEN or into a file for --token-file"
        )
    with no_warnings():
        from situs.labeler import Labeler
        from situs.report.html import read_texts
        from situs.web.limits import Limits
        from situs.web.security import Access
        from situs.web.server import listen, run_server

        texts = read_texts(language)
        with listen(host, port) as sockets:
            labeler = Labeler.load(bundle)
            access = Access(token or secrets.token_urlsafe(24), host, is_local)
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{sockets.getsockname()[1]}/"

            def started() -> None:
                print_text(f"situs serves {address} (Ctrl-C ends it)\n")
                if token is None:
                    print_text(f"Programs give the header X-Situs-Token: {access.token}\n")
                sys.stdout.flush()  # whoever reads a pipe learns the address now
                if browser:
                    Thread(target=webbrowser.open, args=(address,), daemon=True).start()

            run_server(labeler, sockets, access, Limits(keep_s=60 * keep_minutes), texts, started)
    print_text("situs: stopped; all scans were dropped\n")


def _token(path: Path | None) -> str | None:
    """The token that was given, if any."""
    try:
        given = os.environ.get("SITUS_TOKEN") if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read: give a text file with the token") from error
    if given is None:
        return None
    token = given.strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable():
        where = "SITUS_TOKEN" if path is None else f"--token-file {path}"
        raise InputError(f"{where}: expected a token of at least {_LEAST_TOKEN} plain characters")
    return token
