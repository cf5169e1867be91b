"""How long the phases of a start take, from the start of the process on."""

import os
import time
from pathlib import Path

# interpreter: until our first line; imports; bundle: read and verified; engine: loaded and warm; listen: the ports; ready: all of
# these together. kserve: its import and app, while requests are answered already.
PHASES = ("interpreter", "imports", "bundle", "engine", "listen", "ready", "kserve")


class Startup:
    """A stopwatch that started with the process."""

    def __init__(self) -> None:
        self._begun = self._last = _process_start()
        self.seconds: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        """``phase`` ends now."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.seconds[phase] = now - (self._begun if phase == "ready" else self._last)
        self._last = now

    def report(self) -> str:
        """A line for each phase."""
        return "\n".join(f"{phase:12} {self.seconds[phase] * 1000:7.0f} ms" for phase in PHASES if phase in self.seconds)


def _process_start() -> float:
    """When the process began, in seconds since boot; the kernel counts in hundredths."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
