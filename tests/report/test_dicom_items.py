"""Items that are encoded once: their copies are the items that highdicom makes, and are written alike."""

from io import BytesIO

from highdicom import sr
from phantoms import small_case
from pydicom import Dataset, dcmread

from situs.report.dicom_items import encoded, like, mark_encoded
from situs.report.dicom_object import new_object, to_bytes

NAME = sr.CodedConcept("SCORE", "99TEST", "Bewertung der Lösung")
UNITS = sr.CodedConcept("1", "UCUM", "no units")


def measurement(value):
    (item,) = sr.Measurement(NAME, value, UNITS)
    return item


def copy_of(model, value):
    measured = like(
        encoded(model.MeasuredValueSequence[0]), NumericValue=str(value), FloatingPointValue=value
    )
    return like(encoded(model), MeasuredValueSequence=[measured])


def written(items, mark):
    made = new_object(Dataset(), small_case.outside(), "1.2.840.10008.5.1.4.1.1.88.34", "SR", 1, "key")
    made.ContentDate = made.ContentTime = ""
    made.ContentSequence = items
    if mark:
        mark_encoded(made)
    return to_bytes(made)


def test_a_copy_with_another_value_is_the_item_of_that_value():
    model = measurement(0.25)
    assert copy_of(model, 0.5).to_json() == measurement(0.5).to_json()
    assert model.to_json() == measurement(0.25).to_json()


def test_copies_are_written_as_the_items_would_be():
    model = measurement(0.25)
    values = [0.5, 0.75]
    plain = written([measurement(value) for value in values], mark=False)
    assert written([copy_of(model, value) for value in values], mark=True) == plain
    assert written([copy_of(model, value) for value in values], mark=False) == plain
    (first, _) = dcmread(BytesIO(plain)).ContentSequence
    assert first.ConceptNameCodeSequence[0].CodeMeaning == NAME.meaning
