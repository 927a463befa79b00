"""Sentences of findings: English as they are, in other languages by their keys."""

import ast
import json
import pickle
from string import Formatter

import pytest
from phantoms import REPO, small_case

from situs.report import to_json_object
from situs.sentences import Sentence, english, list_either

DOUBTS = {key: text for key, text in english().items() if key.startswith("doubt.")}


def fields(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def made():
    """Of each `Sentence(...)` in the package: a pattern of its key, and the names of its values."""
    for path in (REPO / "src" / "situs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Sentence":
                yield ast.unparse(node.args[0]), {word.arg for word in node.keywords}


def test_a_sentence_is_its_english_text():
    sentence = Sentence("doubt.few_slices", count="3")
    assert sentence == "The scan has only 3 slices." and isinstance(sentence, str)
    assert hash(sentence) == hash("The scan has only 3 slices.")


def test_a_sentence_is_said_in_another_language():
    texts = {"doubt.few_slices": "Nur {count} tran\u0109oj.", "doubt.several_sites": "A\u016d {sites}."}
    assert Sentence("doubt.few_slices", count="3").said_in(texts, "") == "Nur 3 tran\u0109oj."
    assert Sentence("doubt.several_sites", sites="a or b").said_in(texts, "x, y") == "A\u016d x, y."


def test_a_sentence_goes_to_other_processes():
    sentence = Sentence("doubt.few_slices", count="3")
    again = pickle.loads(pickle.dumps(sentence))
    assert (again, again.key, again.values) == (sentence, "doubt.few_slices", {"count": "3"})


def test_the_json_object_holds_plain_text():
    """msgspec, which answers for the server, writes no class of another name."""
    volume = small_case.volume()
    finding = small_case.finding(small_case.rois(volume.geometry)[0])
    object.__setattr__(finding, "doubts", (Sentence("doubt.in_bone"),))
    object.__setattr__(finding, "notes", (Sentence("doubt.part_outside", percent="9"),))
    found = to_json_object(volume, [finding])["findings"][0]
    assert {type(text) for text in (*found["doubts"], *found["notes"])} == {str}
    assert json.loads(json.dumps(found["doubts"])) == ["The lesion lies wholly in bone."]


@pytest.mark.parametrize(
    ("names", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_names_as_alternatives(names, text):
    assert list_either(names, english()) == text


def test_every_doubt_is_made_somewhere_with_the_values_of_its_text():
    known = set()
    for key, values in made():
        # A key that is put together stands for several.
        keys = [k for k in DOUBTS if _fits(k, key)]
        assert keys, key
        for match in keys:
            assert values - {None} <= fields(DOUBTS[match]), match
            assert None in values or values >= fields(DOUBTS[match]), match
        known.update(keys)
    assert known == set(DOUBTS)


def _fits(key, code):
    """Whether a key is what an expression of the source may give."""
    tree = ast.parse(code, mode="eval").body
    if isinstance(tree, ast.Constant):
        return tree.value == key
    start, end = tree.values[0].value, tree.values[-1]
    tail = end.value if isinstance(end, ast.Constant) else ""
    return key.startswith(start) and key.endswith(tail)
