"""A journal of what is to be sent to the tracking server, kept beside the checkpoints.

Everything is written here first and sent from here, so that what a dead server did not take, or a killed process did not get
to send, is still there for the next attempt. Entries are JSON, one a line; a second file holds how far they were sent.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Outbox:
    """The journal in ``directory``; one process writes to it, and any process may send from it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "outbox.jsonl"
        self._sent, self._lock = directory / "outbox.sent", directory / "outbox.lock"
        directory.mkdir(parents=True, exist_ok=True)
        self._is_whole = False

    def append(self, entry: Entry) -> None:
        """Add an entry. It is on its way to the disk when this returns."""
        with self.path.open("ab+") as journal:
            if not self._is_whole:
                # A writer that was killed, or had no room left, in the middle of a line left a part of it behind.
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)
            self._is_whole = False
            journal.write(json.dumps(entry).encode() + b"\n")
        self._is_whole = True

    def pending(self) -> list[Entry]:
        """What was not sent yet, in order."""
        return [entry for _, entry in self._unsent()]

    def deliver(self, send: Callable[[Entry], None]) -> None:
        """Send what is pending, in order. What ``send`` raises ends it, and the entry that it was given stays pending.

        An entry is sent twice where a process dies between sending and noting it: ``send`` must bear that.
        """
        with self._locked():
            for end, entry in self._unsent():
                send(entry)
                scratch = self._sent.with_suffix(".new")
                scratch.write_text(str(end))
                scratch.replace(self._sent)

    def _unsent(self) -> Iterator[tuple[int, Entry]]:
        if not self.path.exists():
            return
        end = int(self._sent.read_text()) if self._sent.exists() else 0
        with self.path.open("rb") as journal:
            journal.seek(end)
            for line in journal.read().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield end, json.loads(line)

    def remove(self) -> None:
        """Forget all entries, sent or not."""
        for path in (self.path, self._sent, self._lock):
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
