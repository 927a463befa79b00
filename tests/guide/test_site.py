"""The guide as a site: built strictly, without network, from the program."""

import os
import re
import subprocess
import sys

import pytest
import typer
from phantoms import REPO

from situs.cli import app


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)]
    env = {**os.environ, "PYTHONPATH": str(REPO / "src"), "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        loaded += re.findall(
            r"<link[^>]+rel=\"(?:stylesheet|preconnect|icon)\"[^>]+href=\"(https?:[^\"]+)", text
        )
        assert not loaded, page


@pytest.mark.slow
def test_every_command_and_option_is_on_its_page(site):
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")

    def check(command, name):
        assert f"<code>{name}</code>" in text
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(f"<code>{option}" in text for option in parameter.opts), parameter.opts
        for word, below in getattr(command, "commands", {}).items():
            check(below, f"{name} {word}")

    check(typer.main.get_command(app), "situs")


@pytest.mark.slow
def test_the_pages_have_what_they_are_made_from(site):
    """The tables of results, the card of the bundle, and the modules."""
    assert (site / "figures.html").read_text(encoding="utf-8").count("<table>") == 5
    assert "Intended use" in (site / "reference" / "model_card.html").read_text(encoding="utf-8")
    learn = (site / "reference" / "modules" / "learn.html").read_text(encoding="utf-8")
    assert 'id="situs.learn.estimator.RelationClassifier"' in learn
