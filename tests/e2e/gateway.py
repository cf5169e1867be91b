"""Keeps a gateway from losing requests of its own in the moment in which a revision leaves its routes."""

import threading
from types import TracebackType
from typing import Any, Self

from tests.e2e.cluster import Cluster, Manifest

_CLASS = "envoy"
_LABEL = "keeps-revisions-of"
# What Knative's routes call the Service of a revision that speaks HTTP/1.
_PORT = 80
_POLL_SECONDS = 0.3


class KnownRevisions:
    """While this is entered, the gateway knows every revision of a release, whether or not a route leads there.

    There is a gateway that first forgets the backends which no route will name any more, and only then brings the routes that
    no longer name them. For some milliseconds the old routes lead nowhere, and it answers requests with 503 and no body. That is
    the gateway's fault: the pods that it forgets are still there, and nothing a release could do differently would hide it. The
    order holds for what all routes name together; so each revision is named by an Ingress besides, for a host that nobody asks,
    from the moment it exists. Where no controller takes this class of Ingress, nothing comes of it.

    What is lost for any other reason is lost as before.
    """

    def __init__(self, cluster: Cluster, release: str, namespace: str) -> None:
        self._cluster, self._release, self._namespace = cluster, release, namespace
        self._known: set[str] = set()
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._forget()
        self._name_new_ones()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "it still watches"
        self._forget()

    def _forget(self) -> None:
        labels = f"{_LABEL}={self._release}"
        self._cluster.networking.delete_collection_namespaced_ingress(self._namespace, label_selector=labels)

    def _watch(self) -> None:
        """What goes wrong here ends the thread, and pytest lets the test fail for it."""
        while not self._stop.wait(_POLL_SECONDS):
            self._name_new_ones()

    def _name_new_ones(self) -> None:
        """A revision takes seconds to be ready, and is in no route before."""
        for revision in self._cluster.revisions(self._release, self._namespace):
            if revision not in self._known:
                self._cluster.networking.create_namespaced_ingress(self._namespace, self._ingress(revision))
                self._known.add(revision)

    def _ingress(self, revision: str) -> Manifest:
        backend: dict[str, Any] = {"service": {"name": revision, "port": {"number": _PORT}}}
        path = {"path": "/", "pathType": "Prefix", "backend": backend}
        rule = {"host": f"{revision}.invalid", "http": {"paths": [path]}}
        metadata = {"name": revision, "labels": {_LABEL: self._release}}
        return {"metadata": metadata, "spec": {"ingressClassName": _CLASS, "rules": [rule]}}
