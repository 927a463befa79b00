import pytest

from situs import errors


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error") and n != "SitusError"])
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
    line = "sklearn is not installed: pip install 'situs[train]'"
    assert str(errors.MissingExtraError("sklearn")) == line


def test_all_names_every_error_of_the_module():
    defined = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert defined == set(errors.__all__) - {"EXTRAS", "did_you_mean"}


def test_a_wrong_word_is_told_the_known_one_most_like_it_or_what_there_is():
    assert errors.did_you_mean("talamus", ["thalamus", "brainstem"]) == "; did you mean 'thalamus'?"
    assert errors.did_you_mean("qq", ["thalamus", "brainstem"]) == "; expected one of thalamus, brainstem"
    many = [f"patient {n:02d}" for n in range(25)]
    assert errors.did_you_mean("qq", many).endswith("patient 19 or 5 more")


def test_a_wrong_word_gets_the_nearest_or_at_most_twenty():
    names = [f"p{n:03d}" for n in range(1000)]
    assert errors.did_you_mean("Bobb", ["Bob", *names]) == "; did you mean 'Bob'?"
    text = errors.did_you_mean("Bob", names)
    assert text.endswith("p018, p019 or 980 more") and text.count("p0") == 20
    assert errors.did_you_mean("Bob", names[:20]).endswith("p018, p019")
