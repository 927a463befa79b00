"""The error tree. Everything situs raises on purpose is a `SitusError`; its text is one line that says
what is wrong and what to do, ready to be shown to a user.

::

    SitusError
    ├── InputError (also ValueError)     what the user gave cannot be used
    │   ├── ScanError                    the scan: no such file, corrupt, 4-D, not HU, ...
    │   │   └── SeveralSeriesError       it holds several head CT series, and somebody can be asked
    │   ├── RoiError                     the region of interest: empty, other space, no overlap, ...
    │   ├── ManifestError                a cohort's manifest or the files it names
    │   └── BundleError                  a bundle: missing, changed, of an unknown version
    ├── OutputError (also OSError)       a result cannot be written
    ├── situs.pacs.archive.ArchiveError  a DICOM archive does not do what it is asked
    └── MissingExtraError (also ImportError)   an optional dependency is absent; names the pip line
"""

import difflib
from collections.abc import Sequence

__all__ = [
    "EXTRAS",
    "BundleError",
    "InputError",
    "ManifestError",
    "MissingExtraError",
    "OutputError",
    "RoiError",
    "ScanError",
    "SeveralSeriesError",
    "SitusError",
    "did_you_mean",
]

# The extra of situs that installs a package, by the name that is imported.
EXTRAS = {
    "dicomweb_client": "dicom",
    "distributed": "dask",
    "highdicom": "dicom",
    "isal": "train",
    "jinja2": "report",
    "joblib": "train",
    "matplotlib": "plots",
    "onnx": "train",
    "onnxscript": "train",
    "pyarrow": "batch",
    "requests": "dicom",
    "python_multipart": "web",
    "sklearn": "train",
    "starlette": "web",
    "torch": "train",
    "uvicorn": "web",
}

_MOST_TOLD = 20  # words of an error's line; the sites are fewer


class SitusError(Exception):
    """Root of the tree; catch this to catch everything situs raises on purpose."""


class InputError(SitusError, ValueError):
    """Something the user gave cannot be used."""


class ScanError(InputError):
    """The scan cannot be read, or its values cannot be HU or a window of them."""


class SeveralSeriesError(ScanError):
    """There are several head CT series.

    Args:
        text: The line.
        series: What to ask for, a description, and the number of slices of each, the best first.
    """

    def __init__(self, text: str, series: Sequence[tuple[str, str, int]]) -> None:
        super().__init__(text)
        self.series = tuple(series)


class RoiError(InputError):
    """The region of interest cannot be read or cannot be bound to the scan."""


class ManifestError(InputError):
    """A cohort's manifest, or a file it names, cannot be used."""


class BundleError(InputError):
    """A bundle is missing, was changed after its export, or has an unknown version."""


class OutputError(SitusError, OSError):
    """A result cannot be written."""


class MissingExtraError(SitusError, ImportError):
    """An optional dependency is absent.

    Args:
        package: The package that could not be imported.
        extra: The extra that installs it; by default the one of `EXTRAS`.
    """

    def __init__(self, package: str, extra: str | None = None) -> None:
        super().__init__(f"{package} is not installed: pip install 'situs[{extra or EXTRAS[package]}]'")

    @classmethod
    def from_import(cls, error: Exception) -> "MissingExtraError | None":
        """The error to show instead of a failed import, if an extra installs the package; else None."""
        package = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        return cls(package) if package in EXTRAS else None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of an error's line: the known word that is most like the wrong one, else all or some."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = f" or {len(known) - _MOST_TOLD} more" if len(known) > _MOST_TOLD else ""
    return f"; expected one of {', '.join(known[:_MOST_TOLD])}{more}"
