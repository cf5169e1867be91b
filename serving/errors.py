"""What a request can be refused with, on every protocol: one class a status, one shape of message."""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn

_MAX_WAIT_SECONDS = 3600


class RequestError(ValueError):
    """A request that is not answered; the message is for its sender."""

    status = HTTPStatus.BAD_REQUEST
    headers: dict[str, str] = {}  # noqa: RUF012 -- replaced by instances, never changed


class FieldError(RequestError):
    """Bad input; the message names the field, what was expected there and what was found."""

    def __init__(self, field: str, expected: str, found: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {found}")


class UnknownModel(FieldError):
    """A request for a model, or a version of it, that is not served here."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, name: str, known: Sequence[str], field: str = "model") -> None:
        super().__init__(field, " or ".join(known), repr(name[:40]))


class UnknownRoute(FieldError):
    """A request for a path that is not served."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, path: str) -> None:
        super().__init__("path", "a route of the V1 or V2 protocol", path[:80])


class WrongMethod(FieldError):
    """A request by a method that its path does not take."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, allowed: str, found: str) -> None:
        super().__init__("method", allowed, found[:20])
        self.headers = {"allow": allowed}


class TooLarge(FieldError):
    """A request whose body is above the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    headers = {"connection": "close"}  # noqa: RUF012 -- never changed

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__("body", f"at most {max_body_bytes:,} bytes", "more")


class TooSlow(FieldError):
    """A request whose body did not come."""

    status = HTTPStatus.REQUEST_TIMEOUT
    headers = {"connection": "close"}  # noqa: RUF012 -- never changed

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__("body", f"all of it within {timeout_seconds:g} s", "a part")


class Overloaded(RequestError):
    """A request that came while the queue was full, or the server could not answer it yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"retry-after": "1"}  # noqa: RUF012 -- never changed


class FeedbackOff(FieldError):
    """Feedback to a server that takes none."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("feedback", "a server that takes it, which one started with --feedback true does", "one that does not")


class TooMuch(FieldError):
    """Feedback that came faster than it is taken."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, per_second: float, images: int, wait_seconds: float) -> None:
        super().__init__("feedback", f"{per_second:g} images a second in each process", f"{images} more")
        self.headers = {"retry-after": str(min(math.ceil(wait_seconds), _MAX_WAIT_SECONDS))}


class Disconnected(Exception):
    """The client went away before its answer: nobody is left to be told of an error."""


def fail(field: str, expected: str, found: str) -> NoReturn:
    """Raise a `FieldError`."""
    raise FieldError(field, expected, found)
