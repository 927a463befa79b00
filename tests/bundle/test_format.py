"""How the files of a bundle are encoded."""

import numpy as np
from phantoms.toy_bundle import toy_references

from situs.bundle.format import decode_references, description_digest, encode_references, recipe_settings


def test_former_settings_count_only_with_another_value_than_the_present_one():
    assert recipe_settings({"batch": 64, "balance": 1.0, "averaged": 0.0}) == {"batch": 64}
    assert recipe_settings({"balance": 0.5, "averaged": 0.35}) == {"balance": 0.5, "averaged": 0.35}


def test_the_digest_is_of_the_content_alone():
    description = {"name": "a", "version": "1"}
    digest = description_digest(description)
    assert digest == description_digest({"version": "1", "name": "a", "sha256": digest})
    assert digest != description_digest({"name": "a", "version": "2"})


def test_references_are_decoded_as_they_were():
    references = toy_references()
    again = decode_references(encode_references(references), 15)
    np.testing.assert_array_equal(again.embeddings, references.embeddings.astype(np.float16))
    np.testing.assert_array_equal(again.sites, references.sites)
    assert again.ids.tolist() == references.ids.tolist()
    assert again.patients.tolist() == references.patients.tolist()
