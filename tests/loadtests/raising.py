"""A locustfile whose users raise what no answer does.

locust -f tests/loadtests/raising.py --headless Stumbling
"""

from itertools import count

from locust import task

from loadtests.locustfile import V1User

__all__ = ["Breathless", "Stumbling"]


class Stumbling(V1User):
    """Asks as others do, and raises now and then."""

    @task
    def stumble(self) -> None:
        message = "over its\nown feet"
        raise LookupError(message)


class Breathless(V1User):
    """Raises instead of every other question that an open loop has it ask."""

    asked = count()

    @task
    def ask(self) -> None:
        if self.late_seconds and next(self.asked) % 2:
            message = "out of breath"
            raise LookupError(message)
        super().ask()
