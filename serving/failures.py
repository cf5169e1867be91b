"""Why a container ended: exit codes, of which 3 to 8 are those of `serving.storage`, and the message that Kubernetes shows."""

import signal
from contextlib import suppress
from pathlib import Path

# What was given must be mended first; argparse ends with it, too.
EXIT_CONFIGURATION = 2
EXIT_MISSING = 3
EXIT_UNREACHABLE = 4
EXIT_REFUSED = 5
EXIT_ALTERED = 6
EXIT_NO_BUNDLE = 7
EXIT_DISK = 8
# A signal's number is added to it, as shells do.
EXIT_SIGNAL = 128


class StorageError(Exception):
    """No bundle was brought; the message says why."""

    exit_code: int


class AddressError(StorageError):
    """The URI, or where and how the registry is reached, is none that can be followed."""

    exit_code = EXIT_CONFIGURATION


class MissingError(StorageError):
    """The registry has no such version or run."""

    exit_code = EXIT_MISSING


class UnreachableError(StorageError):
    """The registry gave no answer, or none but errors, until the deadline."""

    exit_code = EXIT_UNREACHABLE


class TrustError(StorageError):
    """The registry refused the credentials, or its certificate is not to be trusted."""

    exit_code = EXIT_REFUSED


class AlteredError(StorageError):
    """A file's digest is not the one that was published."""

    exit_code = EXIT_ALTERED


class ContentError(StorageError):
    """What lies there is no bundle of a kind that is served."""

    exit_code = EXIT_NO_BUNDLE


class DiskError(StorageError):
    """The destination cannot be written, or is full."""

    exit_code = EXIT_DISK


class StoppedError(StorageError):
    """A signal came before the end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = EXIT_SIGNAL + number


def note(termination_log: Path, message: str) -> None:
    """Leave ``message`` where Kubernetes reads why a container ended; there is no such file elsewhere."""
    if termination_log.exists():
        with suppress(OSError):
            termination_log.write_text(message)
