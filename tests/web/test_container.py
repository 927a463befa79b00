"""The Dockerfile, as far as it can be checked without building it: what it names is there."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from itertools import pairwise
from shutil import copy, copytree, ignore_patterns

import pytest
from phantoms import REPO
from typer.main import get_command

from situs.cli import app

TEXT = (REPO / "Dockerfile").read_text(encoding="utf-8")
# Each instruction as its name and the rest of it; a backslash goes on with the next line.
STEPS = [
    line.split(maxsplit=1)
    for line in TEXT.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def rests(name):
    return [rest for step, rest in STEPS if step == name]


def copied():
    """What the first stage copies of this checkout."""
    *sources, target = rests("COPY")[0].split()
    assert target == "./" and rests("COPY")[1].split() == ["src", "./src"]
    return [*sources, "src"]


def test_it_is_said_to_be_untested_as_long_as_no_image_was_built():
    assert "Not tested" in TEXT.splitlines()[0]
    assert "It is **not tested**" in (REPO / "docs" / "serve.md").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_reaches_the_build():
    assert all((REPO / name).exists() for name in copied())
    ignore = (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == set(copied())


def test_the_wheel_and_its_extras_have_the_names_of_the_project():
    (name, extras) = re.search(r"/wheels/(\w+)-\*\.whl\)\[([\w,]+)\]", TEXT).groups()
    assert name == PROJECT["name"] and set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"web", "dicom"} <= set(extras.split(","))
    least = re.search(r">=([\d.]+)", PROJECT["requires-python"])[1]
    for image in rests("FROM"):
        version = re.match(r"python:([\d.]+)-slim", image)[1]
        assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))


def test_it_runs_without_rights_and_writes_to_the_temporary_folder_alone():
    names = [step for step, _ in STEPS]
    (user,) = rests("USER")
    assert int(user) > 0 and f"--uid {user}" in TEXT
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])
    (run,) = re.findall(r"docker run((?:.*\\\n)*.*)", TEXT)
    assert "--read-only" in run and "--cap-drop ALL" in run
    (folder,) = re.findall(r"--tmpfs (/\w+):", run)
    assert f"TMPDIR={folder}" in rests("ENV")[0] and "PYTHONDONTWRITEBYTECODE=1" in rests("ENV")[0]


def test_it_starts_the_server_where_its_own_check_and_the_port_expect_it():
    program, command, *given = json.loads(rests("ENTRYPOINT")[0])
    assert program in PROJECT["scripts"]
    serve = get_command(app).commands[command]
    options = {name for parameter in serve.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in given if word.startswith("--")} <= options
    values = dict(pairwise(given))
    assert values["--host"] == "0.0.0.0" and "--no-browser" in given
    assert values["--port"] == rests("EXPOSE")[0]
    assert f":{values['--port']}/health'" in rests("HEALTHCHECK")[0]
    assert f"127.0.0.1:{values['--port']}:{values['--port']}" in TEXT
    assert f":{values['--token-file']}:ro" in TEXT


@pytest.mark.slow
@pytest.mark.skipif(find_spec("setuptools") is None, reason="needs setuptools, which builds the wheel")
def test_the_wheel_of_what_is_copied_holds_all_that_is_served(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in copied():
        if (REPO / name).is_dir():
            copytree(REPO / name, source / name, ignore=ignore_patterns("__pycache__", "*.egg-info"))
        else:
            copy(REPO / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob(f"{PROJECT['name']}-*.whl")
    package = source / "src" / "situs"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("situs/") for name in archive.namelist() if name.startswith("situs/")}
    assert packed == {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
