"""Locust's way to change the load while it runs."""

import logging
import time
from collections.abc import Callable

from locust import LoadTestShape

from loadtests.slo.stages import Span, Stage

# Users who come at once; Locust advises against more.
_SPAWN_RATE = 100

logger = logging.getLogger(__name__)


class Stages(LoadTestShape):
    """Stages in turn, after ``idle_seconds`` without users; Locust asks every second what is due.

    ``is_over`` is asked at the end of each, with all that have been, whether the others are not needed.
    """

    use_common_options = True

    def __init__(self, stages: list[Stage], *, is_over: Callable[[list[Span]], bool], idle_seconds: int = 0) -> None:
        # Locust's own clock, which its constructor starts, is not looked at.
        self._stages, self._is_over, self._idle_seconds = stages, is_over, idle_seconds
        self.reset_time()

    def reset_time(self) -> None:
        """Begin from the first stage."""
        self.spans: list[Span] = []
        self.has_ended = False
        self._begin = 0.0

    def tick(self) -> tuple[int, float] | None:
        """Users who should be there now, and how many of them come in a second; nothing at the end."""
        if not self._begin:
            if self._idle_seconds:
                logger.info("idle for %d s", self._idle_seconds)
                time.sleep(self._idle_seconds)
            self._begin = time.time()
        now, stage = time.time(), self._stages[len(self.spans)]
        if now >= self._begin + stage.seconds:
            self.spans.append(Span(stage=stage, begin=self._begin, end=now))
            self._begin = now
            if len(self.spans) == len(self._stages) or self._is_over(self.spans):
                self.has_ended = True
                return None
            stage = self._stages[len(self.spans)]
        return stage.users, float(min(_SPAWN_RATE, stage.users))
