"""The items that a report repeats by the hundred: each kind is encoded once, and copied with other values.

To make a content item with highdicom, and to write each of its elements with pydicom, takes most of the time
of a report. pydicom writes an element that was read from a file, and not looked at, as the bytes that it is.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

__all__ = ["encoded", "like", "mark_encoded"]

_TEXT = "utf8"  # Python's name of the character set of a new object, ISO_IR 192


def encoded(item: Dataset) -> Dataset:
    """The same item as it is read from a file: its elements are bytes until they are looked at."""
    content = DicomBytesIO()
    content.is_implicit_VR, content.is_little_endian = False, True
    write_dataset(content, item, _TEXT)
    return read_dataset(BytesIO(content.getvalue()), False, True, parent_encoding=_TEXT)


def like(model: Dataset, **values: Any) -> Dataset:
    """A copy of an encoded item with other values of some elements, which are given by keyword."""
    made = Dataset(dict(model.items()), parent_encoding=_TEXT)
    made.set_original_encoding(False, True, _TEXT)
    for keyword, value in values.items():
        made.add_new(keyword, dictionary_VR(keyword), value)
    return made


def mark_encoded(made: Dataset) -> None:
    """Tell pydicom that the bytes of an object are as they shall be, and that no value's type is ambiguous.

    Else pydicom would decode the bytes, and search each item again for each item around it.

    Args:
        made: An object of `situs.report.dicom_object.new_object`, without pixels.
    """
    made.set_original_encoding(False, True, convert_encodings(made.SpecificCharacterSet))
    _mark_items(made)


def _mark_items(outer: Dataset) -> None:
    for element in outer.values():
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                if item.original_encoding == (None, None):
                    item.set_original_encoding(False, True, "iso8859")  # of a new data set
                _mark_items(item)
