"""A DICOM archive over DICOMweb: what situs asks it, and what it answers, in one line where that is an error.

Requests that may succeed later are repeated with growing pauses.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from situs.errors import SitusError
from situs.pacs.access import VARIABLE, Access

__all__ = ["Archive", "ArchiveError", "Series"]

# What these log is an archive's own words, or a traceback for each attempt; errors are told in one line.
for _name in ("dicomweb_client", "retrying"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_T = TypeVar("_T")
_ATTEMPTS = 4
_FIRST_PAUSE_S = 1.0
_TIMEOUT_S = (10.0, 60.0)  # to connect, and between two bytes
_PAGE = 100
# What is asked about an object, as DICOM JSON names it.
_TAGS = {
    "study": "0020000D",
    "series": "0020000E",
    "instance": "00080018",
    "modality": "00080060",
    "body_part": "00180015",
    "count": "00201209",
}
_STATUS = {
    401: f"it wants to know the user, or does not know this one (401): see {VARIABLE} and --auth-file",
    403: "the user may not do this (403): ask its administrator",
    404: "there is no such thing (404): check --url, the root of its DICOMweb services, and STUDY",
    409: "it refuses the object (409 Conflict): ask its administrator",
}


class ArchiveError(SitusError):
    """The archive does not do what it is asked.

    Attributes:
        status: The HTTP status; 0 without one.
        temporary: Whether it may do so later.
    """

    def __init__(self, text: str, status: int = 0, temporary: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.temporary = temporary


@dataclass(frozen=True)
class Series:
    """A series of the archive.

    Attributes:
        study: StudyInstanceUID.
        uid: SeriesInstanceUID.
        body_part: BodyPartExamined; empty if it is not known.
        n_instances: How many objects it holds; 0 if that is not known.
    """

    study: str
    uid: str
    body_part: str = ""
    n_instances: int = 0


class Archive:
    """The archive; a context that closes the connections to it.

    Args:
        access: Its address, and how to be let in.
        pause: Waits for some seconds.
    """

    def __init__(self, access: Access, pause: Callable[[float], None] = time.sleep) -> None:
        self._url = access.url
        self._pause = pause
        self._session = access.session()
        self._response: requests.Response | None = None
        self._session.hooks["response"].append(self._remember)
        self._client = DICOMwebClient(
            access.url, session=self._session, timeout=_TIMEOUT_S, permissive_uid=True
        )
        self._client.set_http_retry_params(retry=False)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def series(self, modality: str, study: str | None = None, since: str = "") -> list[Series]:
        """The series of a modality, of one study or of all studies from a date (YYYYMMDD) on.

        Raises:
            ArchiveError: It does not answer.
        """
        filters = {"Modality": modality, **({"StudyDate": f"{since}-"} if since else {})}

        def page(offset: int) -> list[dict[str, Any]]:
            return self._client.search_for_series(
                study,
                search_filters=filters,
                fields=["BodyPartExamined", "NumberOfSeriesRelatedInstances", "StudyInstanceUID"],
                limit=_PAGE,
                offset=offset,
            )

        return [
            Series(study or row["study"], row["series"], row["body_part"], int(row["count"] or 0))
            for row in self._pages(page, "series")
            if row["modality"] in ("", modality)  # not every archive heeds the filter
        ]

    def instances(self, series: Series) -> list[str]:
        """The SOPInstanceUIDs of a series.

        Raises:
            ArchiveError: It does not answer.
        """

        def page(offset: int) -> list[dict[str, Any]]:
            return self._client.search_for_instances(series.study, series.uid, limit=_PAGE, offset=offset)

        return [row["instance"] for row in self._pages(page, "instance")]

    def has(self, study: str, series: str, instance: str) -> bool:
        """Whether it holds an object.

        Raises:
            ArchiveError: It does not answer.
        """
        filters = {"SeriesInstanceUID": series, "SOPInstanceUID": instance}
        try:
            found = self._ask(lambda: _rows(self._client.search_for_instances(study, search_filters=filters)))
        except ArchiveError as error:
            if error.status == 404:  # some archives say so if nothing matches
                return False
            raise
        return any(row["instance"] == instance for row in found)

    def fetch_instance(self, series: Series, instance: str, path: Path) -> None:
        """Write one object to a file.

        Raises:
            ArchiveError: It does not come, or not whole.
        """
        dataset = self._ask(lambda: self._client.retrieve_instance(series.study, series.uid, instance))
        if dataset.get("SOPInstanceUID") != instance:
            raise self._nonsense("another object than the one that was asked for")
        dataset.save_as(path)

    def fetch_series(self, series: Series, folder: Path) -> set[str]:
        """Write all objects of a series to a folder, each to a file of its own; their SOPInstanceUIDs.

        Raises:
            ArchiveError: They do not come, or not all of them.
        """
        wanted = set(self.instances(series))

        def fetch() -> set[str]:
            got: set[str] = set()
            media_types = (("application/dicom", "*"),)
            for dataset in self._client.iter_series(series.study, series.uid, media_types):
                dataset.save_as(folder / f"{len(got):06}.dcm")
                got.add(str(dataset.SOPInstanceUID))
            if missing := len(wanted - got):
                text = f"{missing} of {len(wanted)} images of the series did not come"
                raise ArchiveError(f"{self._url}: {text}: try again", temporary=True)
            return got

        return self._ask(fetch)

    def store(self, content: bytes, study: str) -> None:
        """Store an object in a study. One that is there already is left alone.

        Args:
            content: The bytes of a DICOM file.
            study: StudyInstanceUID.

        Raises:
            ArchiveError: It does not take it.
        """
        dataset = dcmread(io.BytesIO(content))
        try:
            answer = self._ask(lambda: self._client.store_instances([dataset], study))
        except ArchiveError as error:
            if error.status == 409 and self.has(study, dataset.SeriesInstanceUID, dataset.SOPInstanceUID):
                return
            raise
        if failed := answer.get("FailedSOPSequence"):
            reason = failed[0].get("FailureReason", 0)
            raise ArchiveError(f"{self._url}: it did not store the report (failure reason {reason:#06x})")

    def _pages(self, page: Callable[[int], list[Any]], key: str) -> list[dict[str, str]]:
        """All results of a search, each once, whether or not the archive heeds the limit and the offset."""
        found: dict[str, dict[str, str]] = {}
        offset = 0
        while True:
            rows = self._ask(lambda: _rows(page(offset)))  # noqa: B023  # called at once
            new = {row[key]: row for row in rows if row[key] and row[key] not in found}
            if rows and not new and not found:
                raise self._nonsense(f"results without the UID of the {key}")
            found |= new
            offset += len(rows)
            if not new or len(rows) < _PAGE:
                return list(found.values())

    def _ask(self, request: Callable[[], _T]) -> _T:
        """The answer to a request, which is repeated if it may succeed later."""
        pause = _FIRST_PAUSE_S
        for attempt in range(_ATTEMPTS):
            try:
                return request()
            except Exception as problem:  # a wrong answer can set off anything inside the libraries
                if self._response is not None:
                    self._response.close()  # the library leaves open what it cannot read
                error = self._explain(problem)
                if not error.temporary or attempt == _ATTEMPTS - 1:
                    raise error from None  # its traceback may hold headers
            self._pause(pause)
            pause *= 2
        raise AssertionError

    def _remember(self, response: requests.Response, *_: object, **__: object) -> None:
        self._response = response

    def _explain(self, problem: Exception) -> ArchiveError:
        if isinstance(problem, ArchiveError):
            return problem
        if isinstance(problem, requests.HTTPError) and problem.response is not None:
            status = problem.response.status_code
            temporary = status in (408, 429) or status >= 500
            text = _STATUS.get(status, f"it answers with HTTP status {status}")
            return ArchiveError(f"{self._url}: {text}{': try later' * temporary}", status, temporary)
        if isinstance(problem, requests.JSONDecodeError):
            return self._nonsense("no DICOM JSON")
        if isinstance(problem, requests.exceptions.SSLError):
            return ArchiveError(f"{self._url}: its certificate is not trusted: see --ca-file")
        if isinstance(problem, requests.Timeout):
            return ArchiveError(f"{self._url}: it does not answer in time: try later", temporary=True)
        if isinstance(problem, requests.ConnectionError):
            return ArchiveError(f"{self._url}: it cannot be reached: try later", temporary=True)
        if isinstance(problem, requests.RequestException):
            return ArchiveError(f"{self._url}: its answer breaks off: try later", temporary=True)
        if isinstance(problem, OSError):  # of the disk here
            return ArchiveError(
                f"an object of the archive cannot be written: {problem.strerror or 'no reason'}"
            )
        return self._nonsense("no DICOMweb")

    def _nonsense(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._url}: it answers with {what}: is it the root of DICOMweb services?")


def _rows(items: list[Any]) -> list[dict[str, str]]:
    """The values of `_TAGS` in each item of DICOM JSON, as text; empty where there is none."""
    return [
        {name: str((item.get(tag, {}).get("Value") or [""])[0]) for name, tag in _TAGS.items()}
        for item in items
    ]
