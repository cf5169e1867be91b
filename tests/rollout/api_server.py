"""Of the API server's, what leads to pods: their list, their ports by HTTP, and ports of their loopback by port-forward.

https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#read-connect-portforward-pod-v1-core and, for its WebSocket,
KEP-4006: each port has a channel for data and one for errors, both of which begin with the port's number.
"""

import json
import socket
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from kubernetes import client
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

_NAMESPACE = "/api/v1/namespaces/chiffre/pods"
_DATA, _ERRORS = b"\0", b"\1"


@dataclass(kw_only=True)
class PodServer:
    """A pod: which server runs in it, and where its loopback's ports really are."""

    url: str
    revision: str
    ports: dict[int, int] = field(default_factory=dict)
    restarts: int = 0
    is_ready: bool = True


class ApiServer:
    """``pods`` by their names, all of release ``digits`` in namespace ``chiffre``; asked by ``core`` while it is entered."""

    def __init__(self) -> None:
        self.pods: dict[str, PodServer] = {}
        self._forwards: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._server = serve(
            self._forward, "127.0.0.1", 0, process_request=self._answer, subprotocols=[Subprotocol("v4.channel.k8s.io")]
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._client: Any = client.ApiClient(
            client.Configuration(host=f"http://127.0.0.1:{self._server.socket.getsockname()[1]}")
        )
        self.core: Any = client.CoreV1Api(self._client)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()
        self._server.shutdown()
        # The client's end of a forwarded port is closed by a thread of the client's.
        proxies = [thread for thread in threading.enumerate() if thread.name.startswith("Kubernetes port forward proxy")]
        for thread in (self._thread, *self._forwards, *proxies):
            thread.join(20)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        del connection
        path = unquote(urlsplit(request.path).path)
        query = parse_qs(urlsplit(request.path).query)
        pod, _, rest = path.removeprefix(f"{_NAMESPACE}/").partition("/")
        if path == _NAMESPACE:
            assert query["labelSelector"] == ["serving.kserve.io/inferenceservice=digits"]
            return _json(HTTPStatus.OK, {"apiVersion": "v1", "kind": "PodList", "items": [*map(self._describe, self.pods)]})
        if pod.partition(":")[0] not in self.pods:
            return _json(HTTPStatus.NOT_FOUND, {"kind": "Status", "message": f'pods "{pod}" not found'})
        if rest == "portforward":
            return None
        assert (pod.partition(":")[2], rest) == ("8080", "proxy/metrics")
        try:
            found = httpx.get(f"{self.pods[pod.partition(':')[0]].url}/metrics", timeout=10)
        except httpx.TransportError as error:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"kind": "Status", "message": f"error trying to reach service: {error}"})
        return Response(found.status_code, "", Headers({"content-type": found.headers["content-type"]}), found.content)

    def _describe(self, name: str) -> dict[str, Any]:
        pod = self.pods[name]
        labels = {"serving.knative.dev/revision": pod.revision, "serving.kserve.io/inferenceservice": "digits"}
        names = {"kserve-container": pod.restarts, "queue-proxy": 7}
        states = [
            {"name": one, "restartCount": count, "image": "", "imageID": "", "ready": pod.is_ready}
            for one, count in names.items()
        ]
        return {"metadata": {"name": name, "labels": labels}, "status": {"containerStatuses": states}}

    def _forward(self, connection: ServerConnection) -> None:
        assert connection.request
        self._forwards.append(threading.current_thread())
        address = urlsplit(connection.request.path)
        pod = self.pods[address.path.removeprefix(f"{_NAMESPACE}/").partition("/")[0]]
        port = int(parse_qs(address.query)["ports"][0])
        for channel in (_DATA, _ERRORS):
            connection.send(channel + port.to_bytes(2, "little"))
        try:
            pipe = socket.create_connection(("127.0.0.1", pod.ports.get(port, 1)), timeout=10)
        except OSError as error:
            connection.send(_ERRORS + f"dial tcp4 127.0.0.1:{port}: {error}".encode())
            # It is the client who ends it.
            for _ in connection:
                pass
            return
        with pipe:
            downstream = threading.Thread(target=_downstream, args=(connection, pipe), daemon=True)
            downstream.start()
            for message in connection:
                assert isinstance(message, bytes)
                assert message[:1] == _DATA
                pipe.sendall(message[1:])
            downstream.join(20)


def _downstream(connection: ServerConnection, pipe: socket.socket) -> None:
    try:
        while content := pipe.recv(65536):
            connection.send(_DATA + content)
    except (OSError, ConnectionClosed):
        # Whoever asked has gone.
        return


def _json(status: HTTPStatus, content: dict[str, Any]) -> Response:
    return Response(status, status.phrase, Headers({"content-type": "application/json"}), json.dumps(content).encode())
