"""A series in which every text tag could name the patient, and the check that a text does not."""

from __future__ import annotations

from pydicom.datadict import DicomDictionary

from phantoms.io_cases import dicom_slices

# As a value each tag could hold: short, in capitals, digits at the end.
TELLTALE = "TELLTALE"
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"}
# What says how the pixels are to be read; another value is another scan.
READ = {"SpecificCharacterSet", "PatientPosition", "RescaleType", "Manufacturer"}


def telltale_tags():
    """(keyword, value) of each text tag of the dictionary that stands in a data set: over 1,500 tags."""
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if vr in TEXT and keyword and keyword not in READ and group >= 8 and not retired:
            yield keyword, f"{TELLTALE}{tag:08X}"[:16]


def named_slices():
    """The slices of a scan as data sets; over 500 of their tags tell."""
    slices = dicom_slices(range(-36, 37, 18))
    tags = list(telltale_tags())
    assert len(tags) > 500
    names = {keyword for keyword, _ in tags}
    assert {"PatientName", "PatientID", "OtherPatientNames", "InstitutionName", "InstitutionAddress"} <= names
    assert {"ReferringPhysicianName", "AccessionNumber", "StudyDescription", "SeriesDescription"} <= names
    assert {"ProtocolName", "OperatorsName", "StationName", "StudyID", "PatientComments"} <= names
    for ds in slices:
        for keyword, value in tags:
            setattr(ds, keyword, value)
        ds.PatientBirthDate, ds.PatientAge = "19120312", "091Y"
        block = ds.private_block(0x0009, f"{TELLTALE} MAKER", create=True)
        block.add_new(1, "LO", f"{TELLTALE} PRIVATE")
    return slices


def assert_silent(text):
    """Nothing of what tells is in a text or in bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    for word in (TELLTALE, "DOE", "JANE", "19120312", "091Y"):
        assert word.encode() not in data, data[:300]
