"""The whole package: imports run one way, and what is light stays light."""

import ast
import doctest
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from phantoms import REPO

import situs
from situs.errors import EXTRAS

SOURCE = Path(situs.__file__).parent

# The rooms of the house and the rooms that each may import; "" is the flat core. Within and across rooms no
# module may import one that imports it, so that there is one way up. `cli` is imported by nobody.
MAY_IMPORT = {
    "": {"", "bundle", "io", "report"},
    "bundle": {"", "bundle"},
    "io": {"", "io"},
    "report": {"", "bundle", "report"},
    "cohort": {"", "bundle", "io", "cohort"},
    "synth": {"", "io", "cohort", "synth"},
    "learn": {"", "bundle", "cohort", "learn"},
    "paper": {"", "bundle", "io", "cohort", "synth", "learn", "paper"},
    "pacs": {"", "bundle", "io", "report", "pacs"},
    "batch": {"", "bundle", "io", "report", "batch"},
    "web": {"", "bundle", "io", "report", "web"},
    "cli": {"", "bundle", "io", "report", "pacs", "batch", "cohort", "synth", "learn", "paper", "web", "cli"},
}
# The rooms that need packages of an extra; what labels a scan needs none. `cohort` has joblib for `--jobs`,
# `report` has highdicom for Structured Reports and jinja2 for pages, `pacs` all that speaks with an archive,
# `batch` pyarrow too.
NEED_EXTRAS = {"synth", "learn", "paper"}
MAY_IMPORT_EXTRAS = {
    "batch": {"distributed", "jinja2", "joblib", "pyarrow"},
    "cohort": {"joblib"},
    "report": {"highdicom", "jinja2"},
    "pacs": {"dicomweb_client", "requests"},
    "web": {"python_multipart", "starlette", "uvicorn"},
    **{key: set(EXTRAS) for key in NEED_EXTRAS},
}


def modules() -> dict[str, Path]:
    """Module name within situs -> file; a package's ``__init__`` has the package's name."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("")  # situs/__init__.py imports nothing when it is imported: see below
    return found


def imported(path: Path) -> set[str]:
    """All that a module imports, anywhere in it, with dots."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path: Path) -> set[str]:
    names = {name.removeprefix("situs.") for name in imported(path) if name.startswith("situs.")}
    return names & set(modules())


def room(module: str) -> str:
    """The folder that a module lies in; "" for the flat core and the package's own two files."""
    return "" if "." not in module and module not in MAY_IMPORT else module.partition(".")[0]


def test_every_module_lies_in_a_room():
    folders = {path.relative_to(SOURCE).parts[0] for path in modules().values() if path.parent != SOURCE}
    assert folders == set(MAY_IMPORT) - {""}


@pytest.mark.parametrize("module", sorted(set(modules()) - {"__main__"}))
def test_a_room_imports_only_what_it_may(module):
    rooms = {room(name) for name in own_imports(modules()[module])}
    assert rooms <= MAY_IMPORT[room(module)]


def test_imports_run_one_way():
    uses = {name: own_imports(path) for name, path in modules().items()}
    # A package's front door may open its own rooms.
    graph = {name: {u for u in used if not f"{u}.".startswith(f"{name}.")} for name, used in uses.items()}
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize("module", sorted(modules()))
def test_what_labels_a_scan_needs_no_extra(module):
    roots = {name.partition(".")[0] for name in imported(modules()[module])}
    assert roots & set(EXTRAS) <= MAY_IMPORT_EXTRAS.get(room(module), set())


def test_every_extra_that_an_error_names_installs_the_package():
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = {
        "sklearn": "scikit-learn",
        "dicomweb_client": "dicomweb-client",
        "python_multipart": "python-multipart",
    }
    for package, extra in EXTRAS.items():
        assert any(line.startswith(distributions.get(package, package)) for line in extras[extra]), package


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_situs_is_light():
    assert not loaded_after("import situs") & {"torch", "pydicom", "numpy", "scipy", "nibabel", "onnxruntime"}


def test_labelling_loads_neither_torch_nor_pydicom_for_nifti():
    code = "from situs import Labeler, read_volume, read_rois; import situs.cli, situs.report.picture"
    assert not loaded_after(code) & {*EXTRAS, "pydicom"}


def test_situs_label_loads_no_torch(tmp_path):
    """The whole command, with real networks."""
    import nibabel as nib
    from phantoms import small_case
    from phantoms.findings_schema import read_findings
    from phantoms.small_bundle import small_bundle

    scan, mask, out = (str(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz", "out"))
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), scan)
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), mask)
    args = ["label", scan, "--roi", mask, "--bundle", str(small_bundle()), "--png", out, "--quiet"]
    code = f"from situs.cli import main; assert main({[*args, '--json', f'{out}/f.json']!r}) == 0"
    loaded = loaded_after(code)
    assert not loaded & {*EXTRAS, "rich", "nibabel", "pydicom"}
    report = read_findings(Path(out, "f.json").read_text())
    assert {f["bundle_name"] for f in report["findings"]} == {"small"}
    found = [(f["roi_value"], f["component"], f["slices"]) for f in report["findings"]]
    assert found == [(1, 1, [1, 2, 3]), (1, 2, [5]), (7, 1, [2])]
    assert len(list(Path(out).glob("*.png"))) == 3


def test_help_is_instant():
    """No package beyond the parser is loaded for ``--help``."""
    loaded = loaded_after("from situs.cli import main; main(['label', '--help'])")
    assert not loaded & {"numpy", "scipy", "nibabel", "pydicom", "onnxruntime", "PIL", "rich", *EXTRAS}


def test_public_names_are_there():
    for name in situs.__all__:
        assert getattr(situs, name) is not None
    assert set(situs.__all__) <= set(dir(situs))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = situs.absent


WITHOUT = """
import sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "{0}":
            raise ModuleNotFoundError("No module named '{0}'", name=name)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.slow
def test_the_classifier_is_a_public_name_that_tells_which_extra_it_needs():
    from situs import RelationClassifier
    from situs.learn import estimator

    assert RelationClassifier is estimator.RelationClassifier
    for package in ("sklearn", "torch"):
        code = WITHOUT.format(package) + "from situs import *\nfrom situs import RelationClassifier"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 1
        line = f"MissingExtraError: {package} is not installed: pip install 'situs[train]'"
        assert run.stderr.splitlines()[-1].endswith(line)


def test_version_is_the_package_metadata():
    from importlib.metadata import version

    assert situs.__version__ == version("situs")


def test_the_citation_names_this_version():
    citation = REPO / "CITATION.cff"
    assert f"\nversion: {situs.__version__}\n" in citation.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(m for m in modules() if room(m) not in NEED_EXTRAS))
def test_the_examples_of_docstrings_are_true(module):
    assert not doctest.testmod(importlib.import_module(f"situs.{module}")).failed


def test_every_public_name_of_a_module_exists():
    for name in sorted(set(modules()) - {"__main__"}):
        module = importlib.import_module(f"situs.{name}")
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.{public}"


def members(thing: type) -> dict[str, object]:
    """The methods and properties that a class itself has, without private ones."""
    kinds = (property, cached_property, classmethod, staticmethod)
    return {
        name: value
        for name, value in vars(thing).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))
    }


def test_every_public_name_is_documented():
    """So the guide's reference has words for it."""
    for name in sorted(set(modules()) - {"__main__"}):
        module = importlib.import_module(f"situs.{name}")
        assert module.__doc__, name
        for public in getattr(module, "__all__", ()):
            thing = getattr(module, public)
            if (
                not (inspect.isclass(thing) or inspect.isfunction(thing))
                or thing.__module__ != module.__name__
            ):
                continue  # a constant, a type or another module's
            assert inspect.getdoc(thing), f"{name}.{public}"
            for member, value in members(thing).items() if inspect.isclass(thing) else ():
                overrides = any(hasattr(base, member) for base in thing.__bases__)
                assert value.__doc__ or overrides, f"{name}.{public}.{member}"
