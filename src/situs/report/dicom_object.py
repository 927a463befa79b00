"""What the DICOM objects that situs writes have in common: the modules around their content."""

from __future__ import annotations

import io
import warnings
from datetime import datetime
from uuid import UUID, uuid5

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from situs import __version__
from situs.anatomy import Site
from situs.errors import InputError
from situs.finding import Finding

__all__ = ["MAKER", "derived_uid", "new_object", "object_uids", "site_code", "to_bytes"]

MAKER = "The situs developers"
_NAMESPACE = UUID("6d8b2f0c-3c0e-4a5e-9d0a-5f1c7e2b9a41")


def derived_uid(*parts: str) -> str:
    """A UID that is the same whenever these texts are the same (PS3.5, B.2: derived from a UUID)."""
    return f"2.25.{uuid5(_NAMESPACE, '/'.join(parts)).int}"


def object_uids(key: str, modality: str, number: int = 1) -> tuple[str, str]:
    """The SeriesInstanceUID and the SOPInstanceUID of the object that `new_object` makes."""
    return derived_uid(key, modality), derived_uid(key, modality, str(number))


def site_code(site: Site) -> tuple[str, str, str]:
    """The code value of a site, its scheme and its meaning.

    Raises:
        InputError: It has none.
    """
    if not site.code:
        raise InputError(
            f"site {site.key}: has no code, and DICOM needs one: give it code_scheme and code in sites.csv"
        )
    return site.code, site.code_scheme, site.code_meaning


def new_object(
    patient: Dataset,
    finding: Finding,
    sop_class: str,
    modality: str,
    series_number: int,
    key: str,
    number: int = 1,
) -> Dataset:
    """An object of a series of its own in the scan's study; its content is still to come.

    Args:
        patient: The attributes of the Patient and General Study modules, see
            `situs.io.dicom.patient.read_patient`.
        finding: A finding; it names the bundle that answered.
        sop_class: SOPClassUID.
        modality: Modality.
        series_number: SeriesNumber.
        key: What the UIDs are derived from: the same key gives the same UIDs.
        number: InstanceNumber within the series, from 1.
    """
    now = datetime.now()
    made = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote values of the headers
        made.update({element.tag: element for element in patient})
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = sop_class
    made.SeriesInstanceUID, made.SOPInstanceUID = object_uids(key, modality, number)
    made.Modality = modality
    made.SeriesNumber, made.InstanceNumber = series_number, number
    made.SeriesDescription = "situs: sites of lesions (research only)"
    made.Manufacturer, made.ManufacturerModelName = MAKER, "situs"
    made.SoftwareVersions = __version__
    made.DeviceSerialNumber = f"bundle {finding.bundle_name} {finding.bundle_version}"[:64]
    made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def to_bytes(made: Dataset) -> bytes:
    """The object as the bytes of a DICOM file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(content, enforce_file_format=True)
    return content.getvalue()
