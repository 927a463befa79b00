"""What MkDocs adds to the guide: pages made from the program, and files of the repository that pages link to.

The command line's page comes from the typer program, the modules' pages from the package, the model card from
the shipped bundle. A link that leaves ``docs/`` leads to a copy of the file. ``<!-- table: WORDS -->`` is
replaced by the table of ``results.md`` that holds these words: figures are written once.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPO = Path(__file__).parents[1]
SOURCE = REPO / "src" / "situs"
# Files of the repository that become pages, and files that pages only link to.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
CARD = "src/situs/data/bundle/README.md"
LINKED = (
    "LICENSE",
    "NOTICE",
    "CITATION.cff",
    "examples/digits.py",
    "examples/finer_sites.csv",
    "src/situs/data/findings.schema.json",
    "src/situs/data/sites.csv",
    "src/situs/data/texts/en.json",
)
_TABLE = re.compile(r"<!-- table: (.+) -->")
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the linked files."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=_page_of(source)))
    for name in (*LINKED, *_notebooks()):
        files.append(File.generated(config, f"files/{name}", abs_src_path=str(REPO / name)))
    card = (REPO / CARD).read_text(encoding="utf-8")
    files.append(File.generated(config, "reference/model_card.md", content=card))
    files.append(File.generated(config, "reference/cli.md", content=cli_page()))
    for room, content in room_pages().items():
        files.append(File.generated(config, f"reference/modules/{room}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave ``docs/`` to the copies, or to the pages that the files became."""
    here = dirname(page.file.src_uri)

    def lead(match: re.Match[str]) -> str:
        target = normpath(f"{here}/{match[2]}" if here else match[2])
        if not target.startswith("../"):
            return match[0]
        name = target.removeprefix("../")
        inside = "reference/model_card.md" if name == CARD else PAGES.get(name, f"files/{name}")
        return f"{match[1]}{relpath(inside, here or '.')}{match[3]}"

    return _TABLE.sub(lambda match: table_with(match[1]), _LINK.sub(lead, markdown))


def table_with(words: str) -> str:
    """The first table of ``results.md`` that holds these words.

    Raises:
        PluginError: If there is none.
    """
    text = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        if words in table:
            return str(table)
    raise PluginError(
        f"docs/results.md has no table with the words {words!r}: correct the page that asks for it"
    )


def _notebooks() -> list[str]:
    return sorted(path.relative_to(REPO).as_posix() for path in REPO.glob("examples/*.ipynb"))


def _page_of(name: str) -> str:
    """A file of the repository's root as a page of the guide."""

    def lead(match: re.Match[str]) -> str:
        inside = match[2].removeprefix("docs/") if match[2].startswith("docs/") else f"../{match[2]}"
        return f"{match[1]}{inside}{match[3]}"

    return _LINK.sub(lead, (REPO / name).read_text(encoding="utf-8"))


def cli_page() -> str:
    """The commands, their arguments and options, from the program itself."""
    from situs.cli import app

    head = ["# Command line", "", "Made from the program. `situs COMMAND --help` shows the same.", ""]
    return "\n".join([*head, *_command_lines(typer.main.get_command(app), "situs")])


def _command_lines(command: Any, name: str) -> list[str]:
    """A command as Markdown, and the commands below it."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = [name, *["[OPTIONS]"][: len(command.params) - len(arguments)], *map(_value, arguments)]
    below = getattr(command, "commands", {})
    lines = [f"## `{name}`", "", f"`{' '.join(usage)}{' COMMAND ...' if below else ''}`", ""]
    lines += [_text(command.help).replace("\n", "\n\n"), ""]
    if command.params:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| {_names(parameter)} | {_meaning(parameter)} |" for parameter in command.params]
    for word, child in sorted(below.items()):
        lines += ["", *_command_lines(child, f"{name} {word}")]
    return lines


def _value(parameter: Any) -> str:
    """The word that stands for a value."""
    choices = getattr(parameter.type, "choices", None)
    return parameter.metavar or ("|".join(choices) if choices else parameter.name.upper())


def _names(parameter: Any) -> str:
    value = _value(parameter).replace("|", "\\|")
    if parameter.param_type_name == "argument":
        return f"`{value}`"
    return ", ".join(f"`{name}`" if parameter.is_flag else f"`{name} {value}`" for name in parameter.opts)


def _meaning(parameter: Any) -> str:
    plain = isinstance(parameter.default, (str, int, float)) and not getattr(parameter, "is_flag", False)
    tail = " Required." if parameter.required else f" Default: `{parameter.default}`." if plain else ""
    return _text(parameter.help).replace("\n", " ") + tail


def _text(words: str | None) -> str:
    """Words of a help text in Markdown."""
    return re.sub(r"([*_<|])", r"\\\1", (words or "").replace("\f", "").strip())


def room_pages() -> dict[str, str]:
    """A page for each room of the package, with a heading for each module that has public names."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        room = path.relative_to(SOURCE).parts[0] if path.parent != SOURCE else "core"
        if room != "cli" and name != "situs" and "__all__ = [" in path.read_text(encoding="utf-8"):
            rooms.setdefault(room, []).append(f"::: {name}\n")
    return {room: "\n".join([f"# Modules: {room}\n", *names]) for room, names in rooms.items()}
