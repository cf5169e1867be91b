"""Questions to servers by HTTP, each asked again, after a while, where that may help and time is left.

Connections are kept between questions, and credentials go to the registry alone, wherever it says that its files lie.
"""

import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from serving.access import Access
from serving.failures import AddressError, TrustError, UnreachableError

_FIRST_DELAY_SECONDS, _LAST_DELAY_SECONDS = 0.1, 2.0
_CHUNK_BYTES = 1 << 18
_REASON_BYTES = 4096

Received = TypeVar("Received")
Kept = http.client.HTTPConnection


class RefusedError(Exception):
    """A server answered with a status that will be the same next time."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"answered {status}")
        self.status, self.body = status, body


class _PassingError(Exception):
    """What may go better next time."""


class Deadline:
    """A point in time that all there is to do shares."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then; 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())


class Connection:
    """Asks servers until ``deadline``; one that sends nothing for ``call_seconds`` is asked anew.

    ``on_retry`` is told each reason to ask again.
    """

    def __init__(self, access: Access, *, deadline: Deadline, call_seconds: float, on_retry: Callable[[str], None]) -> None:
        self._access, self._deadline, self._call_seconds, self._on_retry = access, deadline, call_seconds, on_retry
        self._origin = _origin(urlsplit(access.address))
        self._kept: dict[tuple[str, str], Kept] = {}
        self.trouble = ""

    def close(self) -> None:
        """Give the connections back that are kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    def get(self, url: str, receive: Callable[[Iterator[bytes]], Received]) -> Received:
        """What ``receive`` makes of the answer's body, which it may be given several times, each time from its beginning.

        Raises `UnreachableError`, `TrustError`, `AddressError`, or `RefusedError` at any other status than 200.
        """
        delay, tries = _FIRST_DELAY_SECONDS, 0
        while True:
            tries += 1
            try:
                return self._ask(urlsplit(url), receive)
            except _PassingError as error:
                self.trouble = f"{url}: {error}"
            # Pods that lost a registry together do not come back to it together.
            wait = delay * (0.5 + os.urandom(1)[0] / 512)
            if wait >= self._deadline.left():
                message = f"no answer in {self._deadline.seconds:g} s and {tries} tries: {self.trouble}"
                raise UnreachableError(message)
            self._on_retry(self.trouble)
            time.sleep(wait)
            delay = min(2 * delay, _LAST_DELAY_SECONDS)

    def _ask(self, url: SplitResult, receive: Callable[[Iterator[bytes]], Received]) -> Received:
        is_done = False
        try:
            kept = self._connect(url)
            kept.request("GET", url._replace(scheme="", netloc="").geturl() or "/", headers=self._headers(url))
            answer = kept.getresponse()
            if answer.status != http.client.OK:
                self._refuse(url, answer)
            received = receive(self._chunks(answer))
            is_done = True
        except ssl.SSLCertVerificationError as error:
            message = f"{url.netloc}: its certificate is not trusted: {error.verify_message}"
            raise TrustError(message) from None
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(str(error) or type(error).__name__) from error
        finally:
            # The rest of an answer that was not read to its end would be taken for the next one's beginning.
            if not is_done and _origin(url) in self._kept:
                self._kept.pop(_origin(url)).close()
        return received

    def _refuse(self, url: SplitResult, answer: http.client.HTTPResponse) -> None:
        body = answer.read(_REASON_BYTES)
        if answer.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            sent = "refused the credentials" if "Authorization" in self._headers(url) else "asks for credentials, none are given"
            message = f"{url.netloc}: {sent} ({answer.status} {answer.reason})"
            raise TrustError(message)
        if answer.status == http.client.TOO_MANY_REQUESTS or answer.status >= http.client.INTERNAL_SERVER_ERROR:
            raise _PassingError(f"answered {answer.status} {first_line(body)}".rstrip())
        if target := answer.getheader("Location"):
            message = f"{url.netloc}: expected an answer, got a redirection to {target}"
            raise AddressError(message)
        raise RefusedError(answer.status, body)

    def _chunks(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        while chunk := answer.read(_CHUNK_BYTES):
            if not self._deadline.left():
                message = "the deadline passed while it was answering"
                raise _PassingError(message)
            yield chunk
        # What was promised by Content-Length and did not come.
        if answer.length:
            message = f"the answer was cut short, {answer.length} bytes are missing"
            raise _PassingError(message)

    def _headers(self, url: SplitResult) -> dict[str, str]:
        headers = {"User-Agent": "chiffre"}
        if self._access.authorization and _origin(url) == self._origin:
            headers["Authorization"] = self._access.authorization
        return headers

    def _connect(self, url: SplitResult) -> Kept:
        """The connection that is kept, or a new one, which opens when it is used."""
        timeout = max(0.001, min(self._call_seconds, self._deadline.left()))
        kept = self._kept.get(_origin(url))
        if kept is None:
            if url.scheme == "https":
                kept = http.client.HTTPSConnection(url.hostname or "", url.port, context=self._access.tls())
            else:
                kept = http.client.HTTPConnection(url.hostname or "", url.port)
            self._kept[_origin(url)] = kept
        kept.timeout = timeout
        if kept.sock:
            kept.sock.settimeout(timeout)
        return kept


def first_line(body: bytes) -> str:
    """The beginning of a body, for a message."""
    return body.decode(errors="replace").strip().partition("\n")[0][:200]


def _origin(url: SplitResult) -> tuple[str, str]:
    return url.scheme, url.netloc.rpartition("@")[2].lower()
