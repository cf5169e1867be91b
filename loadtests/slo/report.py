"""The report: JSON for programs, Markdown for people, CSV and a plot by time and load, and Locust's own page with it.

build/load/report.json   schema 1: held, target, shape, objectives, kinds, stages, knee, open_loop, versions, failures
build/load/summary.md    measured against allowed
build/load/seconds.csv   each second of the run
build/load/latency.png   latency over load
build/load/locust.html   Locust's page
"""

import csv
import html
import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.slo.findings import Run
from loadtests.slo.objectives import Objectives, Row, show
from loadtests.slo.plot import draw
from loadtests.slo.stages import Span, find_knee
from loadtests.slo.tally import Count, together

SCHEMA = 1
CLOSED_LOOP = (
    "Locust is closed-loop: its users wait for an answer before they ask again, so that a service that stalls is asked less and"
    " its latency looks better than it is. The open loop does not wait."
)
_COLUMNS = ("failed requests", "wrong answers", "accuracy, upper end", "p95", "p99")


def write(run: Run, rows: tuple[Row, ...], objectives: Objectives, output: Path, page: str) -> str:
    """Write all files to ``output``; the summary."""
    output.mkdir(parents=True, exist_ok=True)
    summary = markdown(run, rows, objectives)
    (output / "report.json").write_text(json.dumps(to_json(run, rows, objectives), indent=1) + "\n")
    (output / "summary.md").write_text(summary)
    (output / "seconds.csv").write_text(_seconds(run))
    draw(run, objectives, output / "latency.png")
    added = f'<pre style="margin: 2em">{html.escape(summary)}</pre><img src="latency.png" alt="latency over load"></body>'
    (output / "locust.html").write_text(page.replace("</body>", added))
    return summary


def to_json(run: Run, rows: tuple[Row, ...], objectives: Objectives) -> dict[str, Any]:
    """The report in plain values; what was not measured is null."""
    knee, _ = find_knee(run.spans, run.tally, objectives)
    check = run.open_check
    objectives_met = [{**vars(row), "measured": _plain(row.measured), "held": row.held, "sentence": row.sentence} for row in rows]
    return {
        "schema": SCHEMA,
        "held": all(row.held for row in rows),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": run.target,
        "model_name": run.model_name,
        "versions": dict(run.tally.versions),
        "shape": run.shape,
        "stopped": run.stopped,
        "is_saturated": run.is_saturated,
        "objectives": objectives_met,
        "kinds": {kind: _figures(count) for kind, count in run.tally.by_kind().items()},
        "stages": [_stage(span, run) for span in run.spans],
        "knee": _stage(knee, run) if knee and run.shape == "knee" else None,
        "open_loop": {
            "rate": check.rate,
            "seconds": check.seconds,
            "late_ms": check.late_ms,
            **_figures(together(check.tally.by_kind())),
        }
        if check
        else None,
        "failures": _failures(run),
        "note": CLOSED_LOOP,
    }


def _stage(span: Span, run: Run) -> dict[str, Any]:
    rate = span.rate(run.tally)
    return {"name": span.stage.name, "users": span.stage.users, "rate": rate, **_figures(together(span.counts(run.tally)))}


def _figures(count: Count) -> dict[str, Any]:
    low, high = count.accuracy_interval
    found = {"accuracy": count.accuracy, "accuracy_low": low, "accuracy_high": high, "failed_share": count.failed_share}
    found |= {f"p{100 * share:g}_ms": count.quantile_ms(share) for share in (0.5, 0.95, 0.99, 1.0)}
    counts = {name: getattr(count, name) for name in ("requests", "failed", "wrong", "images", "right")}
    return {**counts, **{name: _plain(value) for name, value in found.items()}}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _failures(run: Run) -> dict[str, int]:
    seen = run.tally.examples + (run.open_check.tally.examples if run.open_check else type(run.tally.examples)())
    return dict(seen.most_common(20))


def markdown(run: Run, rows: tuple[Row, ...], objectives: Objectives) -> str:
    """What was measured beside what is allowed, what was missed in words, and what the figures are worth."""
    missed = [row.sentence for row in rows if not row.held]
    count, versions = together(run.tally.by_kind()), ", ".join(run.tally.versions) or "none"
    head = f"{count.requests:,} requests to {run.target}, shape {run.shape}, answered by version {versions}"
    verdict = f"**Missed**: {len(missed)} of {len(rows)} objectives" if missed else f"**Held**: all {len(rows)} objectives"
    parts = [
        f"### Load test\n\n{verdict}. {head}.",
        "\n".join(f"- {sentence}" for sentence in missed),
        _table(rows),
        "\n".join(f"- {line}" for line in _notes(run, rows, objectives)),
        "\n".join(f"- {times} x `{_code(text)}`" for text, times in list(_failures(run).items())[:5]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _table(rows: tuple[Row, ...]) -> str:
    kinds = {row.who: {other.objective: other for other in rows if other.who == row.who} for row in rows if row.who != "run"}
    lines = [f"| | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    if kinds:
        allowed = [f"{'≥' if row.least else '≤'} {show(row.allowed, row.unit)}" for row in next(iter(kinds.values())).values()]
        lines.append(f"| allowed | {' | '.join(allowed)} |")
    for who, found in kinds.items():
        cells = (found[name] for name in _COLUMNS)
        lines.append(f"| {who} | {' | '.join(_cell(row) for row in cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    text = show(row.measured, row.unit)
    return text if row.held else f"**{text}**"


def _notes(run: Run, rows: tuple[Row, ...], objectives: Objectives) -> list[str]:
    lines = [
        f"{row.objective}: {show(row.measured, row.unit)}" for row in rows if row.who == "run" and row.objective == "first answer"
    ]
    knee, passed = find_knee(run.spans, run.tally, objectives)
    if run.shape == "knee" and knee:
        end = "" if passed else ", and the ramp ended before it was passed"
        lines.append(
            f"knee: {knee.stage.users} users, {knee.rate(run.tally):,.0f} requests/s{end}; latency and failures are up to it"
        )
    if check := run.open_check:
        late = f"by itself it sent them up to {check.late_ms:,.1f} ms late"
        made = f"{check.rate:,.0f} requests/s for {check.seconds:g} s, whether or not others were answered; {late}"
        lines.append(
            f"open loop: {made if check.rate else 'not made, since no stage had a rate to take half of; see `--open-rate`'}"
        )
    if objectives.network_ms:
        lines.append(f"network: {objectives.network_ms:g} ms of what p95 and p99 may be are for it")
    if run.is_saturated:
        lines.append("Locust had too little processor time: latencies are partly its own; `--processes` gives it more")
    return [*lines, CLOSED_LOOP]


def _seconds(run: Run) -> str:
    """A line for each second."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["time", "requests", "failed", "wrong", "images", "right", "p50_ms", "p95_ms", "p99_ms"])
    for second in sorted(run.tally.seconds):
        count = together(run.tally.seconds[second])
        times = [_plain(count.quantile_ms(share)) for share in (0.5, 0.95, 0.99)]
        table.writerow([second, count.requests, count.failed, count.wrong, count.images, count.right, *times])
    return text.getvalue()
