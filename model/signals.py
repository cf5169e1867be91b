"""SIGTERM, for a program that is process 1 of its container: the kernel drops a signal that such a process does not handle."""

import signal
from types import FrameType

# A preempted pod has 15 s on GKE Spot; what is not sent to MLflow in these is kept for `sync` or the next pod.
FLUSH_SECONDS = 4.0


def stop_on_sigterm() -> None:
    """From now on SIGTERM ends the program with 143, through ``finally``; training takes it over while it runs."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)
