"""Ctrl-C and SIGTERM: they stop a roll-out between two things it does, and never in the middle of an upgrade."""

import signal
from types import FrameType, TracebackType
from typing import Self


class StoppedError(KeyboardInterrupt):
    """A signal asked to stop. Of the kind that no library takes for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interruption:
    """As a context manager, what it surrounds is done to its end, and only then stopped."""

    def __init__(self) -> None:
        self._pending: int | None = None
        self._depth = 0

    def install(self) -> None:
        """Take both signals; in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._pending = number
        if not self._depth:
            raise StoppedError(number)

    def __enter__(self) -> Self:
        self._depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._pending is not None and not self._depth and error is None:
            raise StoppedError(self._pending)
