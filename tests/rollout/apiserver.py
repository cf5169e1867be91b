"""Kubernetes' API in memory, as much of it as Helm and the Python client need, with KServe and Knative reduced to what they do to
a canary. The programs that ask it are the real ones.
"""

import copy
import json
import threading
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Manifest = dict[str, Any]

# Group/version to kinds: (plural, kind, namespaced).
KINDS: dict[str, list[tuple[str, str, bool]]] = {
    "v1": [
        ("secrets", "Secret", True),
        ("serviceaccounts", "ServiceAccount", True),
        ("events", "Event", True),
        ("pods", "Pod", True),
    ],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", True)],
    "coordination.k8s.io/v1": [("leases", "Lease", True)],
    "serving.kserve.io/v1alpha1": [
        ("servingruntimes", "ServingRuntime", True),
        ("clusterstoragecontainers", "ClusterStorageContainer", False),
    ],
    "serving.kserve.io/v1beta1": [("inferenceservices", "InferenceService", True)],
    "serving.knative.dev/v1": [("services", "Service", True), ("revisions", "Revision", True)],
}
_PROTOBUF = b"k8s\0"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
Key = tuple[str, str, str]
Answer = tuple[int, Manifest]


class Store:
    """All objects, by plural, namespace and name; ``hosts`` are what tags lead to, and ``never_ready`` models that fail."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.hosts: dict[str, str] = {}
        self.never_ready: set[str] = set()
        self.fail_next: list[str] = []
        # While it is not set, nothing is applied.
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.lock = threading.RLock()
        self._count = 0

    def put(self, key: Key, content: Manifest, status: int = 200) -> Answer:
        self._count += 1
        old = self.objects.get(key)
        metadata = content.setdefault("metadata", {})
        before = old["metadata"] if old else {}
        metadata |= {
            "resourceVersion": str(self._count),
            "uid": before.get("uid", str(uuid.uuid4())),
            "namespace": key[1],
            "name": key[2],
        }
        metadata["generation"] = before.get("generation", 0) + 1
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        if old and "status" in old:
            content.setdefault("status", old["status"])
        self.objects[key] = content
        if key[0] in ("inferenceservices", "servingruntimes"):
            self.reconcile(key[1])
        return status, content

    def reconcile(self, namespace: str) -> None:
        for (plural, space, name), inference in list(self.objects.items()):
            runtime = self.objects.get(("servingruntimes", namespace, name))
            if plural == "inferenceservices" and space == namespace and runtime:
                self._serve(inference, runtime, name, namespace)

    def _serve(self, inference: Manifest, runtime: Manifest, name: str, namespace: str) -> None:
        predictor = inference["spec"]["predictor"]
        annotations = {**predictor.get("annotations", {}), SOURCE: predictor["model"]["storageUri"]}
        template = {"metadata": {"annotations": annotations}, "spec": {"containers": runtime["spec"]["containers"]}}
        full = f"{name}-predictor"
        revisions = [item for (plural, *_), item in self.objects.items() if plural == "revisions"]
        if not revisions or revisions[-1]["spec"] != template["spec"] or revisions[-1]["metadata"]["annotations"] != annotations:
            is_ready = predictor["model"]["storageUri"] not in self.never_ready
            ready = {"type": "Ready", "status": str(is_ready), **({} if is_ready else {"reason": "ProgressDeadlineExceeded"})}
            content = {**copy.deepcopy(template), "status": {"conditions": [ready]}}
            self.put(("revisions", namespace, f"{full}-{len(revisions) + 1:05}"), content)
            revisions = [item for (plural, *_), item in self.objects.items() if plural == "revisions"]
        status = inference.setdefault("status", {}).setdefault("components", {}).setdefault("predictor", {})
        self._route(revisions, template, predictor.get("canaryTrafficPercent"), status, (full, namespace))

    def _route(
        self, revisions: list[Manifest], template: Manifest, percent: int | None, status: Manifest, at: tuple[str, str]
    ) -> None:
        names = [item["metadata"]["name"] for item in revisions]
        ready = next(
            item["metadata"]["name"] for item in reversed(revisions) if item["status"]["conditions"][0]["status"] == "True"
        )
        old = status.get("latestRolledoutRevision")
        share = 100 if percent is None or not old else percent
        traffic = [{"revisionName": ready, "latestRevision": True, "percent": share, "tag": "latest", "url": self._url("latest")}]
        if share < 100:
            traffic.append({"revisionName": old, "percent": 100 - share, "tag": "prev", "url": self._url("prev")})
        elif ready == names[-1]:
            status["latestRolledoutRevision"] = ready
        full, namespace = at
        key = ("services", namespace, full)
        generation = self.objects.get(key, {}).get("metadata", {}).get("generation", 0) + 1
        found = {"latestCreatedRevisionName": names[-1], "latestReadyRevisionName": ready, "traffic": traffic}
        routes = {"conditions": [{"type": "RoutesReady", "status": "True"}]}
        served = {"observedGeneration": generation, **routes, "url": self._url(""), **found}
        self.put(key, {"spec": {"template": template}, "status": served})

    def _url(self, tag: str) -> str:
        return f"http://{self.hosts.get(tag, tag or 'users')}"


class Server(ThreadingHTTPServer):
    """Leads every request to a `Store`."""

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = store


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def respond(self) -> None:
        url = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = read_secret(sent) if sent.startswith(_PROTOBUF) else yaml.safe_load(sent) if sent else None
        if self.command == "PATCH":
            self.server.store.goes_on.wait(60)
        with self.server.store.lock:
            status, content = self.answer(url.path.strip("/").split("/"), parse_qs(url.query), body)
            text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815 -- the base class' names

    def answer(self, parts: list[str], query: dict[str, list[str]], body: Any) -> Answer:
        known: dict[tuple[str, ...], Manifest] = {
            ("version",): {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
            ("api",): {"kind": "APIVersions", "versions": ["v1"]},
            ("apis",): groups(),
        }
        if tuple(parts) in known:
            return 200, known[tuple(parts)]
        if parts[0] == "openapi":
            return openapi(parts)
        version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if version not in KINDS:
            return missing(self.path)
        namespace, rest = (rest[1], rest[2:]) if rest[:1] == ["namespaces"] else ("", rest)
        return self.objects(version, namespace, rest, query, body) if rest else (200, resources(version))

    def objects(self, version: str, namespace: str, rest: list[str], query: dict[str, list[str]], body: Any) -> Answer:
        plural, *name = rest
        kind = next(kind for found, kind, _ in KINDS[version] if found == plural)
        written = {"apiVersion": version, "kind": kind}
        if name:
            return self.one((plural, namespace, name[0]), written, body)
        store = self.server.store
        if self.command == "POST":
            called = body["metadata"].get("name") or f"{body['metadata']['generateName']}{uuid.uuid4().hex[:6]}"
            exists = (plural, namespace, called) in store.objects
            return (
                error(409, "AlreadyExists", called)
                if exists
                else store.put((plural, namespace, called), {**body, **written}, 201)
            )
        items = [
            {**written, **item}
            for (found, space, _), item in store.objects.items()
            if found == plural and space == namespace and selected(item, query)
        ]
        return 200, {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items}

    def one(self, key: Key, written: Manifest, body: Any) -> Answer:
        store, found = self.server.store, self.server.store.objects.get(key)
        if self.command == "PATCH":
            return self.patch(key, written, body)
        if not found:
            return missing(key[2])
        if self.command == "GET":
            return 200, {**written, **found}
        if self.command == "DELETE":
            del store.objects[key]
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if body["metadata"].get("resourceVersion") not in (None, found["metadata"]["resourceVersion"]):
            return error(409, "Conflict", key[2])
        return store.put(key, {**body, **written})

    def patch(self, key: Key, written: Manifest, body: Any) -> Answer:
        store, found = self.server.store, self.server.store.objects.get(key)
        if key[0] in store.fail_next:
            store.fail_next.remove(key[0])
            return error(500, "InternalError", "etcd is away")
        assert "apply" in self.headers["Content-Type"], "Helm applies on the server's side"
        return store.put(key, {**body, **written}, 200 if found else 201)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


def fields(message: bytes) -> dict[int, list[bytes]]:
    """The texts and messages in one of protobuf's, by number."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        length = number()
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(message[at : at + length])
            at += length
    return found


def entries(parts: list[bytes]) -> list[tuple[str, bytes]]:
    """Those of a map."""
    return [(item[1][0].decode(), item[2][0]) for item in map(fields, parts)]


def read_secret(sent: bytes) -> Manifest:
    """Helm writes its Secrets in protobuf.

    https://github.com/kubernetes/api/blob/master/core/v1/generated.proto
    """
    secret = fields(fields(sent.removeprefix(_PROTOBUF))[2][0])
    metadata = fields(secret[1][0])
    return {
        "metadata": {
            "name": metadata[1][0].decode(),
            "labels": {key: value.decode() for key, value in entries(metadata.get(11, []))},
        },
        "data": {key: b64encode(value).decode() for key, value in entries(secret.get(2, []))},
        "type": secret[3][0].decode(),
    }


def groups() -> Manifest:
    found: dict[str, list[str]] = {}
    for version in KINDS:
        group, _, number = version.rpartition("/")
        if group:
            found.setdefault(group, []).append(number)
    listed = [
        {"name": group, "versions": [{"groupVersion": f"{group}/{number}", "version": number} for number in numbers]}
        for group, numbers in found.items()
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def openapi(parts: list[str]) -> Answer:
    """Just enough to say that the server checks fields itself."""
    if parts == ["openapi", "v3"]:
        roots = {f"apis/{version}" if "/" in version else f"api/{version}" for version in KINDS}
        return 200, {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    if parts[:2] != ["openapi", "v3"]:
        return missing("/".join(parts))
    version = "/".join(parts[3:])
    group, _, number = version.rpartition("/")
    paths = {}
    for plural, kind, _ in KINDS[version]:
        called = {"group": group, "version": number, "kind": kind}
        patch = {"x-kubernetes-group-version-kind": called, "parameters": [{"name": "fieldValidation", "in": "query"}]}
        paths[f"/{'/'.join(parts[2:])}/{plural}/{{name}}"] = {"patch": {**patch, "responses": {}}}
    return 200, {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1"}, "paths": paths}


def resources(version: str) -> Manifest:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    listed = [
        {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": verbs}
        for plural, kind, namespaced in KINDS[version]
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def selected(item: Manifest, query: dict[str, list[str]]) -> bool:
    wanted = dict(part.split("=", 1) for part in query.get("labelSelector", [""])[0].split(",") if part)
    labels = item["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in wanted.items())


def error(code: int, reason: str, message: str) -> Answer:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}


def missing(what: str) -> Answer:
    return error(404, "NotFound", f"{what} not found")


@contextmanager
def api_server(store: Store, folder: Path) -> Iterator[Path]:
    """The path of a kubeconfig that leads to it."""
    server = Server(store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    named = {"cluster": "test", "user": "test", "namespace": "chiffre"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": named}],
        "current-context": "test",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
