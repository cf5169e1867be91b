"""What the service promises, as the chart's values have it, and whether what was measured keeps it.

    objectives = Objectives.of_values(read_values(Path("helm/chiffre/values.yaml")))
    rows = judge(measured, objectives)

`helm/chiffre/values.schema.json` describes each of them. Chiffre's own client measures more than the server's time that ``slo``
speaks of: the network and the client are in it, so that what is kept here is kept there. Where the network alone takes longer
than the server may, ``network_ms`` is allowed for it.
"""

import json
import math
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from loadtests.slo.tally import Count, together

OPEN_LOOP = "open loop"
# The 99th percentile of fewer is the slowest one.
LEAST_ANSWERS = 100
_HELM_SECONDS = 30
# Of what an exception says.
_MOST_CHARACTERS = 200


class ObjectivesError(ValueError):
    """Values that cannot be read, or hold no objectives; the message names what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Limits of what is measured; ``least_accuracy`` is a share of right labels, ``network_ms`` a part of both percentiles."""

    error_rate: float
    p95_ms: float
    p99_ms: float
    cold_start_seconds: float
    least_accuracy: float
    network_ms: float = 0.0

    @classmethod
    def of_values(cls, values: Any, *, network_ms: float = 0.0) -> Self:
        """Those in the chart's values. Raises `ObjectivesError` that names a value that is missing or no number."""
        return cls(
            error_rate=_number(values, "slo.errorRate"),
            p95_ms=_number(values, "slo.latencyMilliseconds.p95") + network_ms,
            p99_ms=_number(values, "slo.latencyMilliseconds.p99") + network_ms,
            cold_start_seconds=_number(values, "slo.coldStartSeconds"),
            least_accuracy=_number(values, "test.leastAccuracy"),
            network_ms=network_ms,
        )


def _number(values: Any, path: str) -> float:
    found = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found) or found < 0:
        message = f"{path}: expected a number of at least 0 in the chart's values, got {found!r}"
        raise ObjectivesError(message)
    return float(found)


def read_values(path: Path) -> Any:
    """A file of values, YAML or JSON. Raises `ObjectivesError`."""
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{path}: cannot be read as values of the chart: {' '.join(str(error).split())}"
        raise ObjectivesError(message) from error


def release_values(release: str, namespace: str) -> Any:
    """All values of a release that is installed, by Helm. Raises `ObjectivesError`."""
    command = ["helm", "get", "values", release, "--namespace", namespace, "--all", "--output", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_HELM_SECONDS, check=True)
        return json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        message = f"release {release} in {namespace}: {error.stderr.strip()}"
        raise ObjectivesError(message) from error
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        message = f"release {release} in {namespace}: {error}"
        raise ObjectivesError(message) from error


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run has shown.

    Args:
        kinds: By kind, the seconds that latency and failures are judged by: all, or those up to a ramp's knee.
        everything: By kind, all seconds: a wrong answer is wrong under any load.
        open_loop: Of the check at a constant rate; its latencies begin when a request was due.
        first_answer_seconds: How long the service took to give its first right answer.
        stopped: Why the run ended before its end.
        exceptions: What users raised, and how often: requests that nothing else tells of.
    """

    kinds: Mapping[str, Count]
    everything: Mapping[str, Count] = field(default_factory=dict)
    open_loop: Count | None = None
    first_answer_seconds: float | None = None
    stopped: str = ""
    exceptions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An objective: what was measured of it, beside what is allowed; ``least`` says that it may not be less."""

    who: str
    objective: str
    measured: float
    allowed: float
    unit: str = ""
    least: bool = False
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether it is kept; what was not measured is not."""
        return self.measured >= self.allowed if self.least else self.measured <= self.allowed

    @property
    def sentence(self) -> str:
        """The row in words."""
        limit = f"{'at least' if self.least else 'at most'} {show(self.allowed, self.unit)}"
        found = "not measured" if math.isnan(self.measured) else show(self.measured, self.unit)
        return f"{self.who}: {self.objective}: {found}, {limit}{self.note and f' ({self.note})'}"


def show(value: float, unit: str) -> str:
    """``value``, a share where the unit is a percent, with its unit."""
    if math.isnan(value):
        return "-"
    if unit == "%":
        return f"{value:.2%}"
    return f"{value:,.0f}" if not unit else f"{value:,.1f} {unit}"


def judge(measured: Measured, objectives: Objectives) -> tuple[Row, ...]:
    """Each objective of each kind of request, and of the run."""
    return tuple(_rows(measured, objectives))


def _rows(measured: Measured, objectives: Objectives) -> Iterator[Row]:
    total = together(dict(measured.everything or measured.kinds))
    yield Row(who="run", objective="answers", measured=total.requests - total.failed, allowed=LEAST_ANSWERS, least=True)
    if measured.stopped:
        yield Row(who="run", objective="ended early", measured=1, allowed=0, note=measured.stopped)
    if found := measured.exceptions:
        note = " ".join(next(iter(found)).split())[:_MOST_CHARACTERS]
        yield Row(who="run", objective="exceptions", measured=sum(found.values()), allowed=0, note=note)
    if measured.first_answer_seconds is not None:
        seconds = measured.first_answer_seconds
        yield Row(who="run", objective="first answer", measured=seconds, allowed=objectives.cold_start_seconds, unit="s")
    for kind, count in measured.kinds.items():
        yield from _of_kind(kind, count, (measured.everything or measured.kinds)[kind], objectives)
    if measured.open_loop:
        yield from _of_kind(OPEN_LOOP, measured.open_loop, measured.open_loop, objectives)


def _of_kind(kind: str, count: Count, all_of_it: Count, objectives: Objectives) -> Iterator[Row]:
    low, high = all_of_it.accuracy_interval
    share = f"{all_of_it.accuracy:.2%} of {all_of_it.images:,} right" if all_of_it.images else "no labels"
    yield Row(who=kind, objective="failed requests", measured=count.failed_share, allowed=objectives.error_rate, unit="%")
    yield Row(who=kind, objective="wrong answers", measured=all_of_it.wrong, allowed=0)
    # Significantly too low is what fails.
    yield Row(
        who=kind,
        objective="accuracy, upper end",
        measured=high if all_of_it.images else math.nan,
        allowed=objectives.least_accuracy,
        unit="%",
        least=True,
        note=f"{share}, 99 % interval {low:.2%} to {high:.2%}",
    )
    network = objectives.network_ms
    for name, quantile, allowed in (("p95", 0.95, objectives.p95_ms), ("p99", 0.99, objectives.p99_ms)):
        note = f"{allowed - network:g} ms and {network:g} ms for the network" if network else ""
        yield Row(who=kind, objective=name, measured=count.quantile_ms(quantile), allowed=allowed, unit="ms", note=note)
