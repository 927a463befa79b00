"""The whole package: imports run one way, and what is light stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import situs

SOURCE = Path(situs.__file__).parent

# A module imports only modules named before it; those of a package come in the order they are named here.
IN_ORDER = """
errors output anatomy geometry volume views evidence neighbors finding midline midplane
io io.values io.series io.regrid io.nifti io.dicom io.rois
card certainty bundle runtime doubts labeler report picture
synth synth.head_frame synth.sinuses synth.site_map synth.noise synth.atrophy synth.heads synth.lesions
synth.artifacts synth.render synth.cohort
nets checkpoints vgg devices manifest extract dataset cohort_pictures recipe augment fit losses relations
training_run train_frozen train_basenet export train scores answers evaluate calibrate references estimator
baselines figures claims comparison paper_cohorts stage_files reproduce console cli __main__
"""
ORDER = IN_ORDER.split()

# What a scan is labelled with; none of it may import these, not even inside a function.
LABELS_A_SCAN = ORDER[: ORDER.index("synth")]
TRAINING_ONLY = {"torch", "sklearn", "joblib", "onnx", "onnxscript", "safetensors"}


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


def test_every_module_has_its_place():
    assert set(modules()) <= set(ORDER)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module):
    place = {name: number for number, name in enumerate(ORDER)}
    # A package's front door may open its own rooms.
    own = {name for name in own_imports(modules()[module]) if not name.startswith(f"{module}.")}
    later = {name for name in own if place[name] >= place[module]}
    assert not later, f"{module} imports {sorted(later)}, which come after it"


@pytest.mark.parametrize("module", [m for m in LABELS_A_SCAN if m in modules()])
def test_what_labels_a_scan_needs_no_training_packages(module):
    roots = {name.partition(".")[0] for name in imported(modules()[module])}
    assert not roots & TRAINING_ONLY


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_situs_is_light():
    assert not loaded_after("import situs") & {"torch", "pydicom", "numpy", "scipy", "nibabel", "onnxruntime"}


def test_labelling_loads_neither_torch_nor_pydicom_for_nifti():
    code = "from situs import Labeler, read_volume, read_rois; import situs.cli, situs.report, situs.picture"
    assert not loaded_after(code) & {*TRAINING_ONLY, "pydicom"}


def test_situs_label_loads_no_torch(tmp_path):
    """The whole command, with real networks."""
    import nibabel as nib
    import small_case
    from small_bundle import small_bundle

    scan, mask, out = (str(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz", "out"))
    nib.save(nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE), scan)
    nib.save(nib.Nifti1Image(small_case.lesion_mask(), small_case.AFFINE), mask)
    args = ["label", scan, "--roi", mask, "--bundle", str(small_bundle()), "--png", out, "--quiet"]
    code = f"from situs.cli import main; assert main({[*args, '--json', f'{out}/f.json']!r}) == 0"
    assert not loaded_after(code) & {*TRAINING_ONLY, "rich"}
    report = json.loads(Path(out, "f.json").read_text())
    assert report["bundle"]["name"] == "small"
    found = [(f["roi_value"], f["component"], f["slices"]) for f in report["findings"]]
    assert found == [(1, 1, [1, 2, 3]), (1, 2, [5]), (7, 1, [2])]
    assert len(list(Path(out).glob("*.png"))) == 3


def test_help_is_instant():
    """No package beyond the parser is loaded for ``--help``."""
    loaded = loaded_after("from situs.cli import main; main(['label', '--help'])")
    assert not loaded & {"numpy", "scipy", "nibabel", "pydicom", "onnxruntime", "PIL", "rich", *TRAINING_ONLY}


def test_public_names_are_there():
    for name in situs.__all__:
        assert getattr(situs, name) is not None
    assert set(situs.__all__) <= set(dir(situs))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = situs.absent


def test_version_is_the_package_metadata():
    from importlib.metadata import version

    assert situs.__version__ == version("situs")


def test_the_citation_names_this_version():
    citation = Path(__file__).parents[1] / "CITATION.cff"
    assert f"\nversion: {situs.__version__}\n" in citation.read_text(encoding="utf-8")


def test_every_public_name_of_a_module_exists():
    import importlib

    for name in LABELS_A_SCAN:
        if name in modules():
            module = importlib.import_module(f"situs.{name}")
            for public in getattr(module, "__all__", ()):
                assert hasattr(module, public), f"{name}.{public}"
