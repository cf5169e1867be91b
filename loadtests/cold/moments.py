"""When what happened between a request and its answer from zero pods."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

PHASES = ("schedule", "initializer", "process", "load", "ready", "answer")

Lines = list[tuple[float, str]]

_LISTENING = re.compile(r"Uvicorn running|Application startup complete")


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Seconds since the epoch, by the client's clock and the node's.

    ``scheduled`` and ``ready`` are when the API server told of it; ``fetched`` is the initializer's last word, none without one;
    ``begun`` is the start of the server's process and ``listening`` when it can answer. ``answered`` may be before ``ready``,
    since Knative's activator asks the pod itself.
    """

    asked: float
    scheduled: float
    fetched: float | None
    begun: float
    listening: float
    ready: float
    answered: float

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase, one after the other, which add up to the whole."""
        fetched = self.fetched or self.scheduled
        ready = max(self.listening, min(self.ready, self.answered))
        ends = (self.asked, self.scheduled, fetched, self.begun, self.listening, ready, self.answered)
        return {phase: end - begin for phase, (begin, end) in zip(PHASES, pairwise(ends), strict=True)}


def lines(log: str) -> Lines:
    """A container's log as Kubernetes gives it with timestamps."""
    found = []
    for line in log.splitlines():
        stamp, _, text = line.partition(" ")
        # Nanoseconds are more than Python reads.
        seconds, _, fraction = stamp.rstrip("Z").partition(".")
        found.append((datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}"), text))
    return found


def start(log: Lines) -> tuple[float, float]:
    """When the server's process began, and when it could answer.

    Ours says how long it took until then; a peer writes `begun` first. A peer that writes nothing more could answer at once.
    Raises `ValueError` where the log says neither.
    """
    begun = listening = None
    for time, text in log:
        if text == "begun":
            begun = listening = time
        if begun and _LISTENING.search(text):
            return begun, time
        if text.startswith("{") and (record := _record(text)).get("message") == "ready":
            return time - float(record["seconds"]), time
    if begun is None or listening is None:
        message = f"log: expected a line `begun` or the record `ready`, got {[text for _, text in log][:5]}"
        raise ValueError(message)
    return begun, listening


def _record(text: str) -> Mapping[str, str]:
    try:
        found: dict[str, str] = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found
