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
    said = {
        "None: this bundle holds no picture of any scan.": {},
        "1 of the 20 references, a slice each: all of rendered scans, which show no patient.": {
            "Fälle/3": both["Fälle/3"]
        },
        "1 of rendered scans, which show no patient, and 1 of patients' scans. **Whoever": both,
    }
    for text, pictures in said.items():
        folder = write_toy(tmp_path / "mine", pictures=pictures)
        assert text in (folder / "README.md").read_text(encoding="utf-8")
