"""h2load: its command line for a closed and for an open loop, and what it prints and logs.

h2load --h1 -c 64 -t 1 -D 5 -d body.json -H 'content-type: application/json' URL
"""

import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "h2load"
INSTALL = "h2load is not installed; on Debian and Ubuntu it is in the package nghttp2-client (apt-get install nghttp2-client)"
WARM_UP_SECONDS = 1
# How long a load may take beyond its own time before it is ended.
_SPARE_SECONDS = 15
# How far the sum of the answers' lengths may be from that of right ones.
_BYTES_SHARE = 0.05
_RATE = re.compile(r"^finished in [^,]+, ([0-9.]+) req/s", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_DATA = re.compile(r"^traffic: .* \((\d+)\) data$", re.MULTILINE)


class LoadError(RuntimeError):
    """A load whose requests were not all answered well; it has no figure."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A request: where it goes, what it holds, and bytes of a right answer's body."""

    url: str
    body: Path
    headers: tuple[str, ...]
    answer_bytes: int
    http2: bool = False

    def arguments(self) -> list[str]:
        """The part of the command line that says what is sent."""
        protocol = ["-m", "1"] if self.http2 else ["--h1"]
        headers = [word for header in self.headers for word in ("-H", header)]
        return [*protocol, "-t", "1", "-d", str(self.body), *headers, self.url]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What h2load prints at its end."""

    rate: float
    done: int
    bad: int
    data_bytes: int


def available() -> bool:
    """Whether h2load is installed."""
    return shutil.which(PROGRAM) is not None


def parse_summary(text: str) -> Summary:
    """The figures in h2load's output. Raises `LoadError` where there are none."""
    found = [pattern.search(text) for pattern in (_RATE, _REQUESTS, _STATUSES, _DATA)]
    rate, requests, statuses, data = found
    if not (rate and requests and statuses and data):
        message = f"h2load printed no result: {' '.join(text.split())[-200:]}"
        raise LoadError(message)
    done, _, *bad = (int(count) for count in requests.groups())
    others = [int(count) for count in statuses.groups()[1:]]
    return Summary(rate=float(rate[1]), done=done, bad=sum(bad) + sum(others), data_bytes=int(data[1]))


def check(summary: Summary, target: Target, *, connections: int) -> None:
    """Raise `LoadError` unless all answers were good ones, as far as their status and the sum of their lengths tell."""
    if summary.bad or not summary.done:
        message = f"{summary.bad} of {summary.done} requests failed or were answered otherwise than 2xx"
        raise LoadError(message)
    # A gRPC error is a 200 without a body. When the time is over, each connection may have one answer more or less than counted.
    answers = summary.data_bytes / target.answer_bytes
    if abs(answers - summary.done) > _BYTES_SHARE * summary.done + connections:
        message = f"{summary.done} answers have the length of {answers:.0f} right ones"
        raise LoadError(message)


def _run(arguments: list[str], seconds: float) -> Summary:
    try:
        result = subprocess.run(
            [PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds + _SPARE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"h2load did not end within {seconds + _SPARE_SECONDS:.0f} s"
        raise LoadError(message) from error
    return parse_summary(result.stdout + result.stderr)


def closed_loop(target: Target, *, connections: int, seconds: int, warm_up: bool = True) -> float:
    """Requests a second, each connection sending its next one when it has the answer. Raises `LoadError`."""
    # h2load's own warm-up is left out of its counts but not of its bytes, which then tell nothing.
    for duration in (*([WARM_UP_SECONDS] if warm_up else []), seconds):
        summary = _run(["-c", str(connections), "-D", str(duration), *target.arguments()], duration)
        check(summary, target, connections=connections)
    return summary.rate


def spacing_ms(connections: int, per_connection: float) -> int:
    """Milliseconds between the starts of connections, so that their requests, one each 1/``per_connection`` s, do not coincide.

    h2load sends each connection's requests at equal distances from its start; if all began together, each period would begin
    with a burst of as many requests as there are connections. Chosen is the spacing whose phases leave the smallest gap empty.
    """
    period = 1000 / per_connection

    def widest_gap(spacing: int) -> float:
        phases = sorted(index * spacing % period for index in range(connections))
        return max(after - before for before, after in zip(phases, [*phases[1:], phases[0] + period], strict=True))

    return min(range(1, 21), key=widest_gap)


def open_loop(target: Target, *, connections: int, rate: float, seconds: int) -> tuple[list[float], float]:
    """Milliseconds of each request at ``rate`` a second in all, and the rate that was reached. Raises `LoadError`."""
    per_connection = rate / connections
    spacing = spacing_ms(connections, per_connection)
    # h2load takes its start one connection at a time as a rate, and a rate of connections only with a number of requests.
    begin = WARM_UP_SECONDS + connections * spacing / 1000
    count = max(round(per_connection * (seconds + begin)), 2) * connections
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        pace = ["-r", "1", "--rate-period", f"{spacing}ms", "--rps", f"{per_connection:.4f}", "--log-file", str(log)]
        timing = ["-c", str(connections), "-n", str(count), *pace]
        check(_run([*timing, *target.arguments()], seconds + 2 * begin), target, connections=connections)
        return steady(parse_log(log.read_text()), begin=begin, end=begin + seconds)


def parse_log(text: str) -> list[tuple[int, int, int]]:
    """Start in microseconds, status and duration in microseconds of each line, in the order of starts."""
    rows = [line.split("\t")[:3] for line in text.splitlines()]
    return sorted((int(start), int(status), int(duration)) for start, status, duration in rows)


def steady(rows: list[tuple[int, int, int]], *, begin: float, end: float) -> tuple[list[float], float]:
    """Milliseconds of the requests that were sent ``begin`` to ``end`` s after the first, and how many were a second.

    Raises `LoadError` where there are none or one was answered otherwise than 2xx.
    """
    origin = rows[0][0] if rows else 0
    chosen = [row for row in rows if begin <= (row[0] - origin) / 1e6 < end]
    if not chosen or any(status // 100 != 2 for _, status, _ in chosen):
        message = f"{len(chosen)} requests are logged, not all of them answered with 2xx"
        raise LoadError(message)
    return [duration / 1000 for _, _, duration in chosen], len(chosen) / (end - begin)


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that at least ``percent`` of a hundred values are not above, interpolated."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
