"""Users' own requests to a release: a sample of them for the shadow, and how many failed by revision."""

from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rollout import counters
from rollout.cluster import View
from rollout.counters import Counts, Reading
from rollout.evidence import Arm
from rollout.shadow import Sample, ShadowError, sample

_REVISION = "serving.knative.dev/revision"
_CALL_SECONDS = 20.0


class Users:
    """Of ``release``, as its pods know them. What the cluster does not let us see is said, and counts as nothing."""

    def __init__(self, api: Any, namespace: str, release: str, view: Callable[[], View], say: Callable[[str], None]) -> None:
        self._core: Any = client.CoreV1Api(api)
        self._namespace, self._release, self._view, self._say = namespace, release, view, say

    def samples(self) -> list[Sample]:
        """Some of the champion's latest requests."""
        revision = self._view().tags.get("prev", "")
        try:
            pods = self._core.list_namespaced_pod(
                self._namespace, label_selector=f"{_REVISION}={revision}", _request_timeout=_CALL_SECONDS
            )
            return sample(self._core, self._namespace, [pod.metadata.name for pod in pods.items])
        except (ShadowError, ApiException, urllib3.exceptions.HTTPError) as error:
            self._say(f"no live requests are mirrored: {_brief(error)}")
            return []

    def read(self) -> Reading | None:
        """What the pods have counted by now."""
        try:
            return counters.read(self._core, self._namespace, self._release)
        except (ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
            self._say(f"users' requests are not counted: {_brief(error)}")
            return None

    def since(self, before: Reading | None, champion: Arm, challenger: Arm) -> tuple[Arm, Arm]:
        """What came since, without the requests that the probe sent meanwhile."""
        after = self.read() if before is not None else None
        if before is None or after is None:
            return Arm(), Arm()
        view, found = self._view(), counters.since(before, after)
        old = found.get(view.tags.get("prev", ""), Counts())
        return _users(old, champion), _users(found.get(view.created, Counts()), challenger)


def _users(counted: Counts, asked: Arm) -> Arm:
    failed = max(0, counted.failed + counted.deaths - asked.failed)
    requests = max(failed, counted.requests + counted.deaths - asked.requests)
    examples = (f"{failed} of {requests} requests of users failed, by the pods' own count",) if failed else ()
    return Arm(requests=requests, failed=failed, examples=examples)


def _brief(error: Exception) -> str:
    return f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)
