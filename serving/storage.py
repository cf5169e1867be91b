"""Bring a bundle from MLflow's registry to a directory: the storage initializer of KServe for mlflow:// URIs.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m serving.storage mlflow://digits/1 /mnt/models
    python -m serving.storage mlflow://runs/RUN_ID/bundle build/brought

It runs before every start of a pod, and so imports the standard library alone. `serving.access` names the variables that say
where the registry is and who asks, `serving.registry` the URIs, and `serving.failures` the exit codes.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from model.manifest import MANIFEST, BundleError, Reader, read_digests, verify_digest
from serving.access import Access
from serving.connection import Connection, Deadline, RefusedError
from serving.destination import Destination
from serving.failures import AlteredError, ContentError, StoppedError, StorageError, UnreachableError, note
from serving.registry import Place, Registry, Wanted, collect
from serving.startup import Startup

DEADLINE_SECONDS, CALL_SECONDS = 60.0, 10.0
MAX_BYTES = 1 << 30

_MANIFEST_BYTES = 1 << 20
# What the deadline is exceeded by where only the main thread can see to it.
_MARGIN_SECONDS = 0.5


def build_parser() -> argparse.ArgumentParser:
    """All flags; the two positional arguments are KServe's."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.storage",
        description="Bring a bundle from MLflow's registry.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("uri", help="mlflow://NAME/VERSION or mlflow://runs/RUN_ID/bundle.")
    parser.add_argument("directory", type=Path, help="Where to bring it; /mnt/models in a pod.")
    parser.add_argument("--deadline_seconds", type=_seconds, default=DEADLINE_SECONDS, help="For all of it, with retries.")
    parser.add_argument("--call_seconds", type=_seconds, default=CALL_SECONDS, help="After which a silent server is asked anew.")
    parser.add_argument("--max_bytes", type=_positive, default=MAX_BYTES, help="Most bytes of all files together.")
    path = Path("/dev/termination-log")
    parser.add_argument("--termination_log", type=Path, default=path, help="Where Kubernetes reads why a container ended.")
    return parser


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) <= threading.TIMEOUT_MAX:
        message = f"expected seconds, more than 0, got {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        message = f"expected at least 1, got {value}"
        raise argparse.ArgumentTypeError(message)
    return value


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What was brought: how many bytes, from where, of which manifest; ``source`` is empty where it was there already."""

    source: str
    bytes: int
    digest: str


class Errand:
    """Bringing what ``wanted`` names from a registry to ``destination``."""

    def __init__(self, wanted: Wanted, connection: Connection, registry: Registry, destination: Destination) -> None:
        self._wanted, self._connection, self._registry, self._destination = wanted, connection, registry, destination

    def run(self) -> Arrival:
        """Do it. Raises `StorageError`."""
        if self._wanted.registration and (digest := self._destination.find(self._wanted.registration)):
            return Arrival(source="", bytes=0, digest=digest)
        place = self._registry.locate(self._wanted)
        self._destination.open()
        try:
            digest = self._receive(place)
            self._destination.install(self._wanted.registration)
        finally:
            self._destination.discard()
        return Arrival(source=place.url, bytes=self._destination.received_bytes, digest=digest)

    def _receive(self, place: Place) -> str:
        manifest = self._get(place, MANIFEST, partial(collect, max_bytes=_MANIFEST_BYTES))
        digest = self._destination.receive(MANIFEST, iter([manifest]))
        if place.digest and place.digest != digest:
            message = (
                f"{place.url}/{MANIFEST}: sha256 is {digest[:12]}..., the registry says {place.digest[:12]}...: it was altered"
            )
            raise AlteredError(message)
        try:
            listed = read_digests(Reader.parse(Path(MANIFEST), manifest))
        except BundleError as error:
            message = f"{place.url}: {error}"
            raise ContentError(message) from None
        for name, expected in listed.items():
            found = self._get(place, name, partial(self._destination.receive, name))
            try:
                verify_digest(Path(name), found, expected)
            except BundleError as error:
                message = f"{place.url}: {error}"
                raise AlteredError(message) from None
        return digest

    def _get(self, place: Place, name: str, receive: Callable[..., Any]) -> Any:
        try:
            return self._connection.get(f"{place.url}/{name}", receive)
        except RefusedError as refused:
            message = f"{place.url}: expected a bundle, {name} cannot be had: {refused}"
            raise ContentError(message) from None


def bring(arguments: argparse.Namespace, access: Access, wanted: Wanted) -> Arrival:
    """Bring it, in the time there is. Raises `StorageError`."""

    def warn(reason: str) -> None:
        _say(sys.stderr, "WARNING", "trying again", uri=arguments.uri, reason=reason)

    deadline = Deadline(arguments.deadline_seconds)
    connection = Connection(access, deadline=deadline, call_seconds=arguments.call_seconds, on_retry=warn)
    destination = Destination(arguments.directory, arguments.max_bytes)
    errand = Errand(wanted, connection, Registry(access.address, connection), destination)
    outcome: list[Arrival | StorageError] = []

    def work() -> None:
        try:
            outcome.append(errand.run())
        except StorageError as error:
            outcome.append(error)

    # In a thread, because neither a signal nor a deadline interrupts the look-up of a host's name.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(deadline.seconds + _MARGIN_SECONDS)
    if thread.is_alive():
        message = f"not done in {deadline.seconds:g} s: {connection.trouble or 'no name was found, or no answer came'}"
        raise UnreachableError(message)
    assert outcome, "a fault of our own, which the thread has printed"
    if isinstance(outcome[0], StorageError):
        raise outcome[0]
    return outcome[0]


def _say(stream: Any, severity: str, message: str, **members: Any) -> None:
    """A line in the form of `serving.logs`, which needs more than the standard library."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "severity": severity, "logger": "serving.storage", "message": message, **members}
    print(json.dumps(line, default=str), file=stream, flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StoppedError(number)


def main() -> int:
    """Bring what the command line names; the exit code."""
    startup = Startup()
    arguments = build_parser().parse_args()
    try:
        # Process 1 of a container would not hear it otherwise.
        signal.signal(signal.SIGTERM, _stop)
        wanted, access = Wanted.parse(arguments.uri), Access.read(os.environ)
        arrival = bring(arguments, access, wanted)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except StorageError as error:
        # What a server said may have lines of its own.
        reason = " ".join(str(error).split())
        _say(sys.stderr, "ERROR", reason, uri=arguments.uri, exit_code=error.exit_code)
        note(arguments.termination_log, f"{arguments.uri}: {reason}")
        return error.exit_code
    startup.mark("ready")
    message = "brought" if arrival.source else "was there already"
    seconds = round(startup.seconds["ready"], 3)
    version = wanted.registration.version if wanted.registration else arrival.digest[:12]
    members = {"version": version, **vars(arrival), "seconds": seconds}
    _say(sys.stdout, "INFO", message, uri=arguments.uri, directory=arguments.directory, **members)
    return 0


if __name__ == "__main__":
    # Not by sys.exit: a thread that still waits for a name to be looked up is not to be waited for.
    os._exit(main())
