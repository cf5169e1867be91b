"""Where MLflow's registry keeps a bundle.

mlflow://NAME/VERSION           a registered version, whose files never change
mlflow://runs/RUN_ID/bundle     what a run made, published or not

https://mlflow.org/docs/latest/api_reference/rest-api.html describes the routes; the one for files is that of a server with
``--serve-artifacts``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

from model.manifest import Registration
from serving.access import split_address
from serving.connection import Connection, RefusedError, first_line
from serving.failures import AddressError, ContentError, MissingError

SCHEME = "mlflow://"

_RUNS, _FOLDER = "runs", "bundle"
_API, _ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
_FORMS = f"{SCHEME}NAME/VERSION or {SCHEME}{_RUNS}/RUN_ID/{_FOLDER}"
_VERSION, _RUN_ID = re.compile(r"[1-9][0-9]{0,9}"), re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_ANSWER_BYTES = 1 << 20
# What `publish` says of a version beside its files.
_DIGEST_TAG = "bundle_digest"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a URI names: a registered version, or a run's bundle."""

    registration: Registration | None = None
    run_id: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "Wanted":
        """Raises `AddressError`."""
        parts = [unquote(part) for part in uri.removeprefix(SCHEME).split("/")]
        if not uri.startswith(SCHEME) or not all(parts) or not uri.isprintable() or set("?#") & set(uri):
            message = f"expected {_FORMS}"
            raise AddressError(message)
        match parts:
            case ["runs", run_id, "bundle"] if _RUN_ID.fullmatch(run_id):
                return cls(run_id=run_id)
            case [name, version] if _VERSION.fullmatch(version) and "@" not in name:
                return cls(registration=Registration(name=name, version=version))
            case [only] if "@" not in only:
                message = f"expected {_FORMS}; a version's number is missing"
            case ["runs", *_] | [_, _, *_, _]:
                message = f"expected {_FORMS}"
            case _:
                alias = parts[0].partition("@")[2] or parts[1]
                message = (
                    f"expected a version's number, got {alias!r}: aliases and stages move, and all pods of a revision have to "
                    "serve the same bytes"
                )
        raise AddressError(message)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a bundle's files are, and the sha256 of its manifest where the registry knows it."""

    url: str
    digest: str | None = None


class Registry:
    """MLflow's registry at ``address``."""

    def __init__(self, address: str, connection: Connection) -> None:
        self._address, self._connection = address, connection

    def locate(self, wanted: Wanted) -> Place:
        """Find it. Raises `StorageError`, as `MissingError` where it is not there."""
        if wanted.registration:
            name, version = wanted.registration.name, wanted.registration.version
            found = self._ask("model-versions/get", "model_version", name=name, version=version)
            source, digest = str(found.get("source")), _tag(found, _DIGEST_TAG)
        else:
            found = self._ask("runs/get", "run", run_id=wanted.run_id or "")
            info = found.get("info")
            source, digest = f"{info.get('artifact_uri') if isinstance(info, dict) else None}/{_FOLDER}", None
        return Place(url=self._resolve(source), digest=digest)

    def _resolve(self, source: str) -> str:
        """The URL of the folder at ``source``, as a client of MLflow's would take it."""
        try:
            parts = split_address(source)
        except ValueError:
            parts = split_address("")
        path, host = unquote(parts.path), parts.netloc.rpartition("@")[2]
        if ".." in path.split("/") or not path.isprintable():
            parts = parts._replace(scheme="")
        if parts.scheme in ("http", "https") and parts.hostname:
            return f"{parts.scheme}://{host}{quote(path.rstrip('/'))}"
        if parts.scheme == "mlflow-artifacts":
            own = split_address(self._address)
            base = f"{own.scheme}://{host or own.netloc}{own.path}"
            return f"{base}{_ARTIFACTS}/{quote(path.strip('/'))}"
        message = (
            f"{self._address}: expected files that the MLflow server serves, got {source}: start it with --serve-artifacts, and "
            "publish again in a new experiment"
        )
        raise AddressError(message)

    def _ask(self, route: str, member: str, **question: str) -> dict[str, Any]:
        """The object ``member`` of what MLflow answers at ``route``."""
        try:
            body = self._connection.get(f"{self._address}{_API}/{route}?{urlencode(question)}", _read)
            found = _object(body).get(member)
        except RefusedError as refused:
            answer = _object(refused.body)
            if answer.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
                message = f"{self._address} has no such thing: {answer.get('message')}"
                raise MissingError(message) from None
            body, found = refused.body, None
        if not isinstance(found, dict):
            message = f"{self._address}: expected MLflow's answer at {_API}/{route}, got {first_line(body)!r}"
            raise AddressError(message)
        return found


def _read(chunks: Iterator[bytes]) -> bytes:
    return collect(chunks, _ANSWER_BYTES)


def collect(chunks: Iterator[bytes], max_bytes: int) -> bytes:
    """All of them. Raises `ContentError` where they are more than ``max_bytes``."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            message = f"expected at most {max_bytes} bytes, got more"
            raise ContentError(message)
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tag(found: dict[str, Any], key: str) -> str | None:
    tags = found.get("tags")
    for tag in tags if isinstance(tags, list) else []:
        if isinstance(tag, dict) and tag.get("key") == key:
            return str(tag.get("value"))
    return None
