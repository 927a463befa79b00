"""HTML pages that need nothing but themselves: no script, no network.

The Content-Security-Policy of a page allows only its own style sheet, by its hash, and pictures as data URIs.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from situs.report.findings import one_line

__all__ = ["package_text", "render_page", "style_hash"]


def package_text(name: str) -> str:
    """A text file of this package, such as ``templates/report.css``."""
    return resources.files("situs.report").joinpath(name).read_text(encoding="utf-8")


def style_hash(style: str) -> str:
    """A style sheet as a Content-Security-Policy names it, ``'sha256-...'``."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


def render_page(template: str, style: str, **values: Any) -> str:
    """A page from a Jinja template.

    Args:
        template: Its text. It puts ``style`` into the page, and ``style_hash`` into the page's policy.
        style: The style sheet.
        values: Of the template. Each is escaped, and has a space for every control character.
    """
    page = _environment().from_string(template)
    return page.render(style=Markup(style), style_hash=Markup(style_hash(style)), **values)


def _environment() -> Environment:
    def shown(value: Any) -> Any:
        return one_line(value) if type(value) is str else value

    return Environment(
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
