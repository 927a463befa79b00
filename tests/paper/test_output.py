"""The folder of results: every file, and a README that says what was run."""

import pytest
from phantoms.made_up_results import SETTINGS, made_up_results

from situs.errors import OutputError
from situs.paper import output
from situs.paper.output import write_results

SMALL_RUN = "A small run"
STUBBED = ("make_table1", "make_table2", "make_methods", "make_claims", "draw_curves", "draw_confusions")


@pytest.fixture
def readme(tmp_path, monkeypatch):
    """Writes results, with one file for each table and figure, and gives the README."""
    for name in STUBBED:
        monkeypatch.setattr(output, name, lambda results, name=name: {f"{name}.txt": name})

    def write(results, **settings):
        write_results(tmp_path / "deep" / "out", results, {**SETTINGS, **settings})
        return (tmp_path / "deep" / "out" / "README.md").read_text()

    return write


def test_readme_names_what_was_run(readme, tmp_path):
    text = readme(made_up_results())
    written = {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    assert written == {"README.md", *(f"{name}.txt" for name in STUBBED)}
    assert "Recipe `compact`; seeds: 2; on cpu" in text and SMALL_RUN not in text
    assert "Highest macro F1 on the balanced cohort: BaseNet+RN+NN, 1.000;" in text
    assert "| BaseNet+RN+NN | .590 | 1.000 | 1.000 | 1.000 |" in text
    assert "BaseNet saw 24 examples" in text
    assert "| features | 1.50 |\n| fc | 0.25 |" in text
    assert "Nothing to train on, so always missed: parietal region." in text


def test_readme_of_part_of_the_paper_s_recipe(readme):
    vgg = {**SETTINGS["recipe"], "network": "vgg16"}
    text = readme(made_up_results(), recipe=vgg, samples=0.1)
    assert "VGG16 without ImageNet weights" in text and "frozen" not in text
    text = readme(made_up_results(), recipe={**vgg, "frozen": True}, weights="vgg16.onnx")
    assert "VGG16 from vgg16.onnx, its convolutions frozen" in text
    text = readme(made_up_results(), recipe=vgg, samples=0.1)
    assert "trained on 10 % of the recipe's examples" in text and SMALL_RUN not in text


def test_readme_of_fewer_scans(readme):
    results = made_up_results()
    results.scans["train"] = 16
    assert SMALL_RUN in readme(results)
    own = {**SETTINGS["cohorts"], "train_cohort": "mine"}
    for n, small in ((43, False), (6, True)):  # of its own scans to train on there may be any number
        results.scans["test"] = n
        text = readme(results, cohorts=own)
        assert "Trained on 16 scans of the cohort `mine`" in text and "Heads to train on" not in text
        assert (SMALL_RUN in text) == small


def test_what_cannot_be_written_is_told(readme, tmp_path):
    (tmp_path / "deep").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        readme(made_up_results())
