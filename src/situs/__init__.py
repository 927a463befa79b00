"""situs names the anatomical site of any lesion in a head CT.

>>> from situs import Labeler, read_rois, read_volume         # doctest: +SKIP
>>> volume = read_volume("scan.nii.gz")                       # doctest: +SKIP
>>> findings = Labeler.load().label(volume, read_rois("mask.nii.gz", volume))  # doctest: +SKIP

The public names below are imported when they are first used, so that ``import situs`` costs nothing and
brings in neither torch nor pydicom. `RelationClassifier` needs the extra ``train``. Research software, not a
medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from situs.anatomy import SITES, Site
    from situs.errors import SitusError
    from situs.finding import Finding, Reference
    from situs.geometry import Geometry
    from situs.io import read_rois, read_volume
    from situs.labeler import Labeler
    from situs.learn.estimator import RelationClassifier as RelationClassifier
    from situs.report import to_json_object
    from situs.volume import Roi, Volume

__version__ = "0.1.0"

# Without `RelationClassifier`, so that ``from situs import *`` and ``help(situs)`` need no extra.
__all__ = [
    "SITES",
    "Finding",
    "Geometry",
    "Labeler",
    "Reference",
    "Roi",
    "Site",
    "SitusError",
    "Volume",
    "__version__",
    "read_rois",
    "read_volume",
    "to_json_object",
]

_HOMES = {
    "SITES": "anatomy",
    "Finding": "finding",
    "Geometry": "geometry",
    "Labeler": "labeler",
    "Reference": "finding",
    "RelationClassifier": "learn.estimator",
    "Roi": "volume",
    "Site": "anatomy",
    "SitusError": "errors",
    "Volume": "volume",
    "read_rois": "io",
    "read_volume": "io",
    "to_json_object": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'situs' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"situs.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from situs.errors import MissingExtraError

        raise MissingExtraError.from_import(error) or error from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
