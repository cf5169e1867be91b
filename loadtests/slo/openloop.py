"""Requests at a constant rate, whether or not the last was answered; latency counts from when each was due.

    counted = OpenLoop(environment.host, users, rate=500, seconds=10).run()

Locust's users wait for an answer before they ask again: a service that stalls is asked less while it does, and few latencies tell
of it. Here all requests that were due meanwhile have waited, as they would have without a load test.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gevent import Greenlet
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from locust.env import Environment

from loadtests.slo.findings import OpenCheck
from loadtests.slo.tally import Count, Tally
from loadtests.slo.users import GrpcUser, RestUser
from loadtests.slo.witness import watch

UserClass = type[RestUser] | type[GrpcUser]
# Connections; what is due while all of them wait, waits too.
_MOST_USERS = 256
_START_SECONDS = 0.2


@dataclass(kw_only=True)
class OpenLoop:
    """``rate`` requests per second to ``host`` for ``seconds``, from ``users`` in turn; `run` may be called once."""

    host: str
    users: Sequence[UserClass]
    rate: float
    seconds: float
    timeout_seconds: float
    _environment: Environment = field(init=False)
    _slots: BoundedSemaphore = field(init=False, default_factory=lambda: BoundedSemaphore(_MOST_USERS))
    _idle: dict[UserClass, list[RestUser | GrpcUser]] = field(init=False, default_factory=dict)
    _tally: Tally = field(init=False, default_factory=Tally)
    _late: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """An environment of its own, so that Locust's tables show what its users did."""
        self._environment = Environment(host=self.host)

    def run(self) -> OpenCheck:
        """What was seen; a request that was due and got no answer has failed."""
        watch(self._environment, self._tally)
        group = Group()
        begin = time.perf_counter() + _START_SECONDS
        due_count = round(self.rate * self.seconds)
        for number in range(due_count):
            due = begin + number / self.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            asked = group.spawn(self._ask, random.choice(self.users), due)  # noqa: S311 -- who asks is no secret
            asked.link_exception(self._note)
        # Users have timeouts of their own, and may have had to wait for each other.
        group.join(timeout=4 * self.timeout_seconds)
        group.kill()
        for idle in self._idle.values():
            for user in idle:
                user.on_stop()
        for _ in range(due_count - self._tally.requests):
            self._fail("no answer after all were due")
        return OpenCheck(rate=self.rate, seconds=self.seconds, tally=self._tally, late_ms=1000 * max(self._late, default=0.0))

    def _ask(self, kind: UserClass, due: float) -> None:
        self._late.append(time.perf_counter() - due)
        with self._slots:
            idle = self._idle.setdefault(kind, [])
            user: Any = idle.pop() if idle else kind(self._environment)
            user.late_seconds = time.perf_counter() - due
            user.ask()
            idle.append(user)

    def _note(self, asked: Greenlet) -> None:
        """What a user raised, which fires no event of a request."""
        self._fail(repr(asked.exception))

    def _fail(self, reason: str) -> None:
        self._tally.add(kind="all", sent=time.time(), latency_ms=None, count=Count(requests=1, failed=1), example=reason)
