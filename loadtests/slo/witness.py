"""From Locust's events to a tally."""

from typing import Any

from locust.env import Environment

from loadtests.peers.wire import AnswerError
from loadtests.slo.tally import Count, Tally
from loadtests.slo.users import Marks


def watch(environment: Environment, tally: Tally) -> None:
    """Count every request of the users of ``environment``."""

    def count_request(name: str, response_time: float, start_time: float, context: Any, **event: Any) -> None:
        marks, error = context["marks"], event["exception"]
        assert isinstance(marks, Marks)
        is_wrong = isinstance(error, AnswerError)
        is_failed = error is not None and not is_wrong
        count = Count(requests=1, failed=int(is_failed), wrong=int(is_wrong), images=marks.images, right=marks.right)
        tally.add(
            kind=name,
            sent=start_time,
            latency_ms=None if is_failed else response_time + 1000 * marks.late_seconds,
            count=count,
            version=marks.version,
            example=str(error) if error else "",
        )

    environment.events.request.add_listener(count_request)
