"""The model card."""

from phantoms.toy_bundle import toy_pictures, write_toy

from situs.bundle import read_bundle
from situs.bundle.card import model_card


def test_card_is_made_from_the_description(tmp_path):
    bundle = read_bundle(write_toy(tmp_path / "mine"))
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert card == model_card(bundle.description)
    for text in (
        "## Intended use",
        "**Not a medical device.**",
        "Sixteen rendered heads.",
        "From A.\n\nFrom B.",
        "| recipe: learning rate | 0.001 |",
        "| slices | 1200 |",
        "| basenet.onnx | input | `view` | uint8 n x 2 | a \\| b |",
        bundle.description["files"]["basenet.onnx"]["sha256"],
    ):
        assert text.lower() in card.lower()


def test_the_card_says_whose_pictures_there_are(tmp_path):
    both = toy_pictures()
    expected = {
        "None: this bundle holds no picture of any scan.": {},
        "1 of the 20 references, a slice each: all of rendered scans, which show no patient.": {
            "Fälle/3": both["Fälle/3"]
        },
        "1 of rendered scans, which show no patient, and 1 of patients' scans. **Whoever": both,
    }
    for text, pictures in expected.items():
        folder = write_toy(tmp_path / "mine", pictures=pictures)
        assert text in (folder / "README.md").read_text(encoding="utf-8")


def test_without_an_evaluation_the_card_says_how_to_add_one(tmp_path):
    card = model_card(read_bundle(write_toy(tmp_path / "mine")).description)
    assert "## Evaluation\n\nNone yet. `situs evaluate BUNDLE COHORT --into-card` adds one.\n" in card


def test_an_evaluation_has_text_scores_and_facts_or_only_some_of_these(tmp_path):
    description = read_bundle(write_toy(tmp_path / "mine")).description
    scores = {"precision": 0.125, "recall": 0.25, "f1": 0.5}
    means = {"weighted": scores, "macro": scores}
    description["evaluation"] = [
        {
            "title": "Four heads",
            "text": ["Not seen.", "Rendered."],
            "sites": {"thalamus": scores},
            **means,
            "rois": means,
            "facts": {"sure": 0.75, "right": "3 of 4"},
        },
        {"title": "By scores alone", "sites": {"brainstem": scores}, **means},
        {"title": "By words alone", "text": "All right."},
    ]
    card = model_card(description)
    start, end = card.index("## Evaluation"), card.index("## Files")
    assert card[start:end] == (
        "## Evaluation\n\n"
        "### Four heads\n\nNot seen.\n\nRendered.\n\n"
        "| site | precision | recall | F1 |\n| --- | --- | --- | --- |\n"
        "| thalamus | 0.125 | 0.250 | 0.500 |\n"
        "| weighted mean | 0.125 | 0.250 | 0.500 |\n"
        "| macro mean | 0.125 | 0.250 | 0.500 |\n"
        "| weighted mean, a region as one example | 0.125 | 0.250 | 0.500 |\n"
        "| macro mean, a region as one example | 0.125 | 0.250 | 0.500 |\n\n"
        "| fact | value |\n| --- | --- |\n| sure | 0.75 |\n| right | 3 of 4 |\n\n"
        "### By scores alone\n\n"
        "| site | precision | recall | F1 |\n| --- | --- | --- | --- |\n"
        "| brainstem | 0.125 | 0.250 | 0.500 |\n"
        "| weighted mean | 0.125 | 0.250 | 0.500 |\n"
        "| macro mean | 0.125 | 0.250 | 0.500 |\n\n"
        "### By words alone\n\nAll right.\n\n"
    )
