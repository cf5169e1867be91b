"""What a run has shown, as the objectives ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from loadtests.slo.objectives import Measured, Objectives
from loadtests.slo.settings import Shape
from loadtests.slo.stages import Span, find_knee
from loadtests.slo.tally import Count, Tally, together, total


@dataclass(frozen=True, kw_only=True)
class OpenCheck:
    """What was seen at a constant ``rate`` of requests per second for ``seconds``.

    By its own fault, one was sent ``late_ms`` after it was due, and none later.
    """

    rate: float
    seconds: float
    tally: Tally
    late_ms: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """A load test that has ended.

    Args:
        target: Who was asked.
        model_name: About what.
        shape: How the load changed.
        kinds: What users sent.
        tally: What they saw.
        spans: The stages, as they were.
        open_check: The check at a constant rate, where there was one.
        first_answer_seconds: How long the first answer took, before the run.
        stopped: Why the run ended before its end.
        exceptions: What users raised, and how often.
        is_saturated: Whether Locust had too little processor time to measure well.
    """

    target: str
    model_name: str
    shape: Shape
    kinds: tuple[str, ...]
    tally: Tally
    spans: tuple[Span, ...]
    open_check: OpenCheck | None = None
    first_answer_seconds: float | None = None
    stopped: str = ""
    exceptions: Mapping[str, int] = field(default_factory=dict)
    is_saturated: bool = False


def measure(run: Run, objectives: Objectives) -> Measured:
    """The part of the run that each objective is about."""
    everything = run.tally.by_kind()
    judged, first = everything, run.first_answer_seconds
    if run.shape == "knee":
        knee, _ = find_knee(run.spans, run.tally, objectives)
        judged = total(span.counts(run.tally) for span in (run.spans[: run.spans.index(knee) + 1] if knee else run.spans[:1]))
    if run.shape == "zero" and len(run.spans) == 2:
        # Users' first requests find no pods; those that they send later, warm ones. None may fail.
        cold, warm = (span.all_counts(run.tally) for span in run.spans)
        judged = {kind: replace(count, ticks=warm.get(kind, Count()).ticks) for kind, count in everything.items()}
        first = together(cold).quantile_ms(1) / 1000
    return Measured(
        kinds=_of(run.kinds, judged),
        everything=_of(run.kinds, everything),
        open_loop=together(run.open_check.tally.by_kind()) if run.open_check else None,
        first_answer_seconds=first,
        stopped=run.stopped,
        exceptions=run.exceptions,
    )


def _of(kinds: tuple[str, ...], counts: Mapping[str, Count]) -> dict[str, Count]:
    """Each kind, though nothing of it was seen."""
    return {kind: counts.get(kind, Count()) for kind in kinds}
