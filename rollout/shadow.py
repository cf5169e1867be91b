"""Live requests for a revision without users: taken from the champion's pods, sent to the challenger, answers thrown away.

A pod keeps a few recent requests in memory and shows them at a port of its own loopback. Only who may forward ports of pods gets
at them, and nothing here writes them anywhere.
"""

import asyncio
import base64
import binascii
import http.client
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from rollout.evidence import Arm
from rollout.lanes import awake, run
from rollout.questions import MARK, GrpcQuestions
from rollout.revision import Arms, FailedError, Revision
from rollout.wire import Request
from serving.shadow import PATH

PORT = 8082
_POD_SECONDS, _ANSWER_SECONDS = 20.0, 10.0
# What a pod of many processes shows at most is far below.
_MAX_BYTES = 64 * 1024 * 1024


class ShadowError(Exception):
    """No pod shows live requests."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A live request that was answered well; ``id`` is its own among those of all pods."""

    id: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def sample(core: Any, namespace: str, pods: Sequence[str], *, port: int = PORT) -> list[Sample]:
    """What ``pods`` show of their recent requests. ``core`` is the Kubernetes client's CoreV1Api.

    Raises `ShadowError` where none of them shows any, with the reason of the first.
    """
    found: list[Sample] = []
    problems = []
    for pod in pods:
        try:
            found += parse(_fetch(core, namespace, pod, port), pod)
        except ShadowError as error:
            problems.append(error)
    if len(problems) == len(pods) and problems:
        raise problems[0]
    return found


def parse(content: bytes, pod: str) -> list[Sample]:
    """The samples that ``pod`` shows. Raises `ShadowError`."""
    try:
        return [_sample(one, pod) for one in json.loads(content)["requests"]]
    except (ValueError, LookupError, TypeError, binascii.Error) as error:
        message = f"pod {pod}: expected a list of requests at {PATH}, got {content[:80]!r}"
        raise ShadowError(message) from error


def _sample(one: dict[str, Any], pod: str) -> Sample:
    body = base64.b64decode(one["body"], validate=True)
    return Sample(id=f"{pod}/{one['id']}", path=one["path"], headers=dict(one["headers"]), body=body)


def _fetch(core: Any, namespace: str, pod: str, port: int) -> bytes:
    """What stands at the port of the pod's own loopback. Raises `ShadowError`."""
    result: list[bytes | ShadowError] = []

    def fetch() -> None:
        try:
            result.append(_forwarded(core, namespace, pod, port))
        except ShadowError as error:
            result.append(error)

    # The client opens its connection without a timeout.
    thread = threading.Thread(target=fetch, name=f"samples of {pod}", daemon=True)
    thread.start()
    thread.join(_POD_SECONDS)
    found = result[0] if result else ShadowError(f"pod {pod}: its ports were not forwarded in {_POD_SECONDS:g} s")
    if isinstance(found, ShadowError):
        raise found
    return found


def _forwarded(core: Any, namespace: str, pod: str, port: int) -> bytes:
    # While it connects, the client it uses can do nothing else.
    own = client.CoreV1Api(client.ApiClient(core.api_client.configuration))
    try:
        forward: Any = portforward(own.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
    except ApiException as error:
        message = f"pod {pod}: its ports cannot be forwarded: {error.reason or error}"
        raise ShadowError(message) from error
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.sock = forward.socket(port)
        connection.sock.settimeout(_ANSWER_SECONDS)
        connection.request("GET", PATH, headers={"connection": "close"})
        reply = connection.getresponse()
        content = reply.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        message = f"pod {pod}: nothing is shown at port {port} ({forward.error(port) or error!r}); is shadow.requests above 0?"
        raise ShadowError(message) from error
    finally:
        connection.close()
        forward.close()
    if reply.status != http.client.OK:
        message = f"pod {pod}: expected 200 of {PATH}, got {reply.status}"
        raise ShadowError(message)
    return content


def mirror(samples: Iterable[Sample], arms: Arms, *, most: int) -> Arm:
    """Send up to ``most`` of ``samples`` to the challenger.

    The champion answered all of them well, so whatever is no answer is a failure. Raises `ProbeError`.
    """
    return asyncio.run(_mirror(list(islice(samples, most)), arms))


async def _mirror(samples: list[Sample], arms: Arms) -> Arm:
    async with awake(arms, "challenger") as (challenger,):
        await run(lambda one: _send(challenger, one), samples)
        return challenger.arm()


async def _send(challenger: Revision, one: Sample) -> None:
    questions = challenger.questions
    # Who asks for the champion by its number is not answered by another.
    if challenger.has_failed_enough or (isinstance(questions, GrpcQuestions) and questions.names_version(one.body)):
        return
    try:
        await challenger.ask(Request(path=one.path, body=one.body, headers={**one.headers, **MARK}))
    except FailedError:
        # It is counted.
        return
