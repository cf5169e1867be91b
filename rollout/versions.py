"""Versions of the registered model, and the alias ``champion``, over MLflow's REST API.

https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx

from model.manifest import MANIFEST, Registration
from rollout.errors import RolloutError
from serving.access import Access
from serving.connection import Connection, Deadline
from serving.connection import RefusedError as Refused
from serving.failures import StorageError
from serving.registry import Registry, Wanted, collect

ALIAS = "champion"

_API = "/api/2.0/mlflow"
_CALL_SECONDS, _DEADLINE_SECONDS = 10.0, 30.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version that has a bundle; ``digest`` is the sha256 of its manifest."""

    name: str
    number: str
    digest: str


class Versions:
    """Of the registry that ``environment`` names, in the variables of MLflow's own client."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        try:
            self._access = Access.read(environment)
            context = self._access.tls()
        except StorageError as error:
            message = f"tracking_uri: {error}"
            raise RolloutError(message) from None
        headers = {"Authorization": self._access.authorization} if self._access.authorization else {}
        self._client = httpx.Client(
            base_url=f"{self._access.address}{_API}", headers=headers, timeout=_CALL_SECONDS, verify=context, trust_env=False
        )

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def find(self, name: str, number: str) -> Version:
        """A version and its bundle's digest. Raises `RolloutError` where either is not there."""
        wanted, deadline = Wanted(registration=Registration(name=name, version=number)), Deadline(_DEADLINE_SECONDS)
        asking = Connection(self._access, deadline=deadline, call_seconds=_CALL_SECONDS, on_retry=lambda _: None)
        try:
            with closing(asking) as connection:
                place = Registry(self._access.address, connection).locate(wanted)
                manifest = connection.get(f"{place.url}/{MANIFEST}", lambda chunks: collect(chunks, _MOST_BYTES))
        except StorageError as error:
            message = f"model_version: version {number} of {name}: {error}"
            raise RolloutError(message) from None
        except Refused as error:
            message = f"model_version: version {number} of {name} has no {MANIFEST}: the registry {error}"
            raise RolloutError(message) from None
        digest = sha256(manifest).hexdigest()
        if place.digest not in (None, digest):
            message = f"model_version: version {number} of {name}: its {MANIFEST} is not the one that was published"
            raise RolloutError(message)
        return Version(name=name, number=number, digest=digest)

    def champion(self, name: str) -> str:
        """The version that the alias names; empty where it names none."""
        answer = self._ask("GET", "registered-models/alias", params={"name": name, "alias": ALIAS})
        if answer.is_success:
            try:
                return str(answer.json()["model_version"]["version"])
            except (ValueError, LookupError, TypeError):
                # Whatever stands in the registry's place; a page to log in, say.
                raise self._refused(answer, "no version of a model, with ") from None
        if answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND):
            return ""
        raise self._refused(answer)

    def move_champion(self, name: str, number: str) -> None:
        """Call a version champion."""
        answer = self._ask("POST", "registered-models/alias", json={"name": name, "alias": ALIAS, "version": number})
        if not answer.is_success:
            raise self._refused(answer)

    def _ask(self, method: str, route: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, f"/{route}", **content)
        except httpx.HTTPError as error:
            message = f"tracking_uri: {self._access.address} does not answer: {error}"
            raise RolloutError(message) from None

    def _refused(self, answer: httpx.Response, what: str = "") -> RolloutError:
        return RolloutError(f"tracking_uri: {self._access.address} answered {what}{answer.status_code}: {answer.text[:200]}")
