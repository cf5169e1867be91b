"""One roll-out of a release at a time: a Lease in its namespace says who is at it, and lapses when nobody renews it.

https://kubernetes.io/docs/concepts/architecture/leases/
"""

import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rollout.errors import RolloutError

_DURATION_SECONDS, _RENEW_SECONDS = 45, 10.0
_CONFLICT, _MISSING = 409, 404
_ERRORS = (ApiException, urllib3.exceptions.HTTPError)


class LeaseError(RolloutError):
    """Somebody else rolls out the release."""


class Lease:
    """The one of a release, held and renewed while its context lasts. Raises `LeaseError` where somebody has it."""

    def __init__(self, api: Any, release: str, namespace: str) -> None:
        self._leases: Any = client.CoordinationV1Api(api)
        self._name, self._namespace, self._release = f"rollout-{release}", namespace, release
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"
        self._ended = threading.Event()
        self._renewed = 0.0
        self._thread = threading.Thread(target=self._renew_on, daemon=True)

    def verify(self) -> None:
        """Raises `LeaseError` where it could not be renewed in time, and may be another's by now."""
        if time.monotonic() - self._renewed > _DURATION_SECONDS - _RENEW_SECONDS:
            message = f"lease {self._name}: could not be renewed for {_DURATION_SECONDS - _RENEW_SECONDS:g} s"
            raise LeaseError(message)

    def __enter__(self) -> Self:
        try:
            self._take()
        except _ERRORS as error:
            reason = f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)
            message = f"lease {self._name} in namespace {self._namespace}: {reason}"
            raise LeaseError(message) from None
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(2 * _RENEW_SECONDS)
        with suppress(*_ERRORS):
            found = self._leases.read_namespaced_lease(self._name, self._namespace)
            if found.spec.holder_identity == self._holder:
                precondition = client.V1Preconditions(resource_version=found.metadata.resource_version)
                options = client.V1DeleteOptions(preconditions=precondition)
                self._leases.delete_namespaced_lease(self._name, self._namespace, body=options)

    def _take(self) -> None:
        try:
            found = self._leases.read_namespaced_lease(self._name, self._namespace)
        except ApiException as error:
            if error.status != _MISSING:
                raise
            metadata = client.V1ObjectMeta(name=self._name, namespace=self._namespace)
            self._write(self._leases.create_namespaced_lease, self._namespace, client.V1Lease(metadata=metadata))
            return
        spec = found.spec
        lapses = spec.renew_time + timedelta(seconds=spec.lease_duration_seconds)
        if datetime.now(UTC) < lapses and not _is_dead(spec.holder_identity):
            message = (
                f"release {self._release}: another roll-out is on, by {spec.holder_identity.rpartition('/')[0]} (host/process); "
                f"its lease {self._name} lapses at {lapses:%H:%M:%S} UTC unless it is renewed"
            )
            raise LeaseError(message)
        self._write(self._leases.replace_namespaced_lease, self._name, self._namespace, found)

    def _write(self, write: Any, *arguments: Any) -> None:
        *names, lease = arguments
        now = datetime.now(UTC)
        lease.spec = client.V1LeaseSpec(
            holder_identity=self._holder, lease_duration_seconds=_DURATION_SECONDS, acquire_time=now, renew_time=now
        )
        before = time.monotonic()
        try:
            write(*names, lease)
        except ApiException as error:
            if error.status == _CONFLICT:
                message = f"release {self._release}: another roll-out began at the same moment"
                raise LeaseError(message) from None
            raise
        self._renewed = before

    def _renew_on(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            # What fails is tried again; `verify` says when it has been too long.
            with suppress(*_ERRORS, LeaseError):
                found = self._leases.read_namespaced_lease(self._name, self._namespace)
                if found.spec.holder_identity == self._holder:
                    self._write(self._leases.replace_namespaced_lease, self._name, self._namespace, found)


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is gone; another one may have its number by now."""
    host, _, rest = holder.partition("/")
    number, _, started = rest.partition("/")
    return host == socket.gethostname() and number.isdigit() and _started(int(number)) != started


def _started(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks; empty where there is none, or the kernel does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""
