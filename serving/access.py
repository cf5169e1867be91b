"""How a registry is reached: its address, credentials and certificate, in the variables of MLflow's own client.

MLFLOW_TRACKING_URI                             http(s)://HOST[:PORT][/PREFIX], also with USER:PASSWORD@ before the host
MLFLOW_TRACKING_USERNAME, ..._PASSWORD          basic authentication
MLFLOW_TRACKING_TOKEN                           a bearer token, where no user name is given
MLFLOW_TRACKING_SERVER_CERT_PATH                a file or folder of certificates to trust instead of the system's
MLFLOW_TRACKING_INSECURE_TLS                    true trusts any certificate
"""

import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from serving.failures import AddressError

_URI, _TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
_USERNAME, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_CERTIFICATE, _INSECURE = "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS"
_BOOLEANS = {"": False, "false": False, "0": False, "true": True, "1": True}


@dataclass(frozen=True, kw_only=True)
class Access:
    """A registry's address, without a slash at its end or credentials, and what it is asked with."""

    address: str
    authorization: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    is_insecure: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Take it from the environment; a variable that is empty counts as one that is not set. Raises `AddressError`."""
        parts = _split(environment.get(_URI, ""))
        certificate, insecure = environment.get(_CERTIFICATE), environment.get(_INSECURE, "").lower()
        if insecure not in _BOOLEANS:
            message = f"{_INSECURE}: expected true or false, got {insecure!r}"
            raise AddressError(message)
        if certificate and _BOOLEANS[insecure]:
            message = f"{_INSECURE}: expected nothing, since {_CERTIFICATE} is set: no certificate would be checked"
            raise AddressError(message)
        return cls(
            address=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}",
            authorization=_authorization(parts, environment),
            certificate=Path(certificate) if certificate else None,
            is_insecure=_BOOLEANS[insecure],
        )

    def tls(self) -> ssl.SSLContext:
        """What checks a server's certificate. Raises `AddressError`."""
        try:
            return self._tls()
        except OSError as error:
            message = f"{_CERTIFICATE}: expected certificates in PEM at {self.certificate}: {error}"
            raise AddressError(message) from None

    def _tls(self) -> ssl.SSLContext:
        if self.certificate:
            folder = self.certificate if self.certificate.is_dir() else None
            return ssl.create_default_context(cafile=None if folder else self.certificate, capath=folder)
        context = ssl.create_default_context()
        if self.is_insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def split_address(uri: str) -> SplitResult:
    """The parts of a URI. Raises `ValueError` where it has a host or a port that cannot be."""
    parts = urlsplit(uri)
    _ = parts.port
    (parts.hostname or "").encode("idna")
    return parts


def _split(uri: str) -> SplitResult:
    # Of what is no address of a server, a database's may hold a password.
    try:
        parts = split_address(uri)
    except ValueError as error:
        message = f"{_URI}: expected http(s)://HOST[:PORT], got another form: {error}"
        raise AddressError(message) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        found = f"one of scheme {parts.scheme!r}" if uri else "nothing"
        message = f"{_URI}: expected http(s)://HOST[:PORT] of an MLflow server, got {found}"
        raise AddressError(message)
    return parts


def _authorization(parts: SplitResult, environment: Mapping[str, str]) -> str | None:
    username, password = environment.get(_USERNAME, ""), environment.get(_PASSWORD, "")
    token = environment.get(_TOKEN, "")
    for name, value in ((_USERNAME, username), (_PASSWORD, password), (_TOKEN, token)):
        # A Secret made from a file often ends with a line break, and no server says that this is why it refuses.
        if not value.isprintable() or (name == _TOKEN and not value.isascii()):
            message = f"{name}: expected one line of text, got a line break or another character that no header can hold"
            raise AddressError(message)
    if bool(username) != bool(password):
        message = f"{_PASSWORD if username else _USERNAME}: expected both {_USERNAME} and {_PASSWORD}, or neither"
        raise AddressError(message)
    if not username and parts.username:
        username, password = unquote(parts.username), unquote(parts.password or "")
    if username:
        return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"
    return f"Bearer {token}" if token else None
