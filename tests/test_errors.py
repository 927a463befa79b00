import pytest

from situs import errors


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "SitusError"])
def test_everything_raised_on_purpose_is_caught_by_the_root(name):
    assert issubclass(getattr(errors, name), errors.SitusError)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ScanError, ValueError),
        (errors.RoiError, ValueError),
        (errors.ManifestError, ValueError),
        (errors.BundleError, ValueError),
        (errors.OutputError, OSError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_errors_are_also_what_python_programs_expect(kind, builtin):
    assert issubclass(kind, builtin)


def test_a_missing_extra_names_the_pip_line():
    assert (
        str(errors.MissingExtraError("torch", "train"))
        == "torch is not installed: pip install 'situs[train]'"
    )


def test_all_names_every_error_of_the_module():
    defined = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert defined == set(errors.__all__)
