"""The command line as a whole: help, version, pipes."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files

import typer

import situs
from situs.cli import app, main


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"situs {situs.__version__}\n"
    assert main(["label", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--roi", "--bundle", "--series", "--json", "--csv", "--png", "--quiet"):
        assert option in out
    assert main([]) == 2
    assert "Usage: situs" in capsys.readouterr().err


def test_verbose_version_names_what_an_answer_rests_on(capsys):
    assert main(["--version", "--verbose"]) == 0
    first, python, _, bundle, *libraries = capsys.readouterr().out.splitlines()
    assert first == f"situs {situs.__version__}" and python == f"Python {platform.python_version()}"
    described = json.loads((files("situs") / "data/bundle/bundle.json").read_text(encoding="utf-8"))
    assert bundle == f"bundle {described['name']} {described['version']}"
    assert f"onnxruntime {version('onnxruntime')}" in libraries
    assert not any(line.startswith(("mypy", "situs", "mkdocs")) for line in libraries)
    assert main(["--verbose"]) == 2
    assert capsys.readouterr().err == "situs: error: --verbose: goes with --version; leave it out\n"


def test_every_option_of_every_command_is_explained():
    def explain(command):
        for parameter in command.params:
            assert parameter.help and parameter.help.endswith("."), f"{command.name} {parameter.name}"
        for below in getattr(command, "commands", {}).values():
            explain(below)

    explain(typer.main.get_command(app))


def test_python_m_situs_is_the_same_command():
    found = subprocess.run([sys.executable, "-m", "situs", "--version"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"situs {situs.__version__}\n", "")


def test_a_closed_pipe_is_no_traceback():
    """`situs ... | head -0`: the reader is gone before the first line is written."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "situs", "--help"]
    found = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert found.returncode == 1 and found.stderr == ""


def test_a_nul_byte_in_an_argument_is_refused(capsys):
    assert main(["label", "scan\0.nii", "--roi", "mask.nii"]) == 2
    assert "NUL byte" in capsys.readouterr().err


def test_a_long_name_does_not_make_a_long_error(capsys):
    assert main(["label", "scan" + "x" * 5000, "--roi", "mask.nii"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 700 and line.startswith("situs: error: scanxxx") and " [...] " in line
