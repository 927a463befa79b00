"""Who asks the archive: its address and the user's secret, which comes from the environment or a file.

The secret is one line: ``basic USER:PASSWORD`` or ``bearer TOKEN``. No error shows any of it.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Session
from requests.auth import AuthBase, HTTPBasicAuth

from situs.errors import InputError
from situs.files import read_whole

__all__ = ["VARIABLE", "Access", "read_access"]

VARIABLE = "SITUS_PACS_AUTH"
_MOST_BYTES = 2**16
_FORM = "expected one line: 'basic USER:PASSWORD' or 'bearer TOKEN'"


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _TrustingSession(Session):
    """A session that trusts certificates of its own, whatever variables of the environment name."""

    def __init__(self, ca_file: Path) -> None:
        super().__init__()
        self._ca_file = str(ca_file)

    def merge_environment_settings(self, *args: Any) -> Any:
        return {**super().merge_environment_settings(*args), "verify": self._ca_file}


@dataclass(frozen=True)
class Access:
    """An archive's address, and how to be let in.

    Attributes:
        url: The root of its DICOMweb services.
        auth: Adds the secret to a request; None without one.
        ca_file: Certificates to trust instead of the usual ones.
    """

    url: str
    auth: AuthBase | None = field(default=None, repr=False)
    ca_file: Path | None = None

    def session(self) -> Session:
        """A session of HTTP that sends the secret to the archive's host alone."""
        session = Session() if self.ca_file is None else _TrustingSession(self.ca_file)
        session.auth = self.auth
        return session


def read_access(url: str, auth_file: Path | None = None, ca_file: Path | None = None) -> Access:
    """The access to an archive. The secret is in a file, or else in the variable `VARIABLE`.

    Args:
        url: The root of the archive's DICOMweb services, ``http`` or ``https``.
        auth_file: The file with the secret.
        ca_file: Certificates (PEM) to trust instead of the usual ones.

    Raises:
        InputError: The address, the secret or the certificates cannot be used, or the secret would be sent
            unencrypted to another machine.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise InputError("--url: expected https://HOST/PATH, the root of the archive's DICOMweb services")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"--url: give the address alone; a user and a password belong into {VARIABLE}")
    if ca_file is not None:
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # there is no such file, or it holds no certificate
            raise InputError(f"{ca_file}: cannot be read as certificates in PEM form (--ca-file)") from error
    auth = _read_auth(auth_file)
    if auth is not None and parts.scheme == "http" and not _is_loopback(host):
        raise InputError("--url: http would send the user's secret unencrypted: give an https address")
    return Access(url.rstrip("/"), auth, ca_file)


def _read_auth(auth_file: Path | None) -> AuthBase | None:
    if auth_file is None:
        source, text = VARIABLE, os.environ.get(VARIABLE)
        if text is None:
            return None
    else:
        source = str(auth_file)
        try:
            text = read_whole(auth_file, _MOST_BYTES).decode()
        except OSError as error:
            raise InputError(f"{auth_file}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError:
            raise InputError(f"{auth_file}: {_FORM}") from None
    kind, _, secret = text.strip().partition(" ")
    user, colon, password = secret.partition(":")
    if kind.lower() == "bearer" and secret.isascii() and secret.isprintable() and secret:
        return _Bearer(secret)
    if kind.lower() == "basic" and colon and secret.isprintable():
        return HTTPBasicAuth(user.encode(), password.encode())
    raise InputError(f"{source}: {_FORM}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
