"""Latency over load, as a picture."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.slo.findings import Run
from loadtests.slo.objectives import Objectives
from loadtests.slo.tally import together

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_COLORS = {"p50": "tab:blue", "p95": "tab:orange", "p99": "tab:red"}


def draw(run: Run, objectives: Objectives, path: Path) -> None:
    """A line through the stages, a dot for each second, a cross for the open loop; dashed, what is allowed."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="answers per second", ylabel="latency, ms", title=f"{run.target}, {run.shape}")
    seconds = [together(kinds) for kinds in run.tally.seconds.values()]
    for name, share in _QUANTILES.items():
        color = _COLORS[name]
        rates = [count.requests - count.failed for count in seconds]
        axes.plot(rates, [count.quantile_ms(share) for count in seconds], ".", color=color, alpha=0.25)
        stages = [(span.rate(run.tally), together(span.counts(run.tally)).quantile_ms(share)) for span in run.spans]
        axes.plot([rate for rate, _ in stages], [latency for _, latency in stages], "o-", color=color, label=f"{name} of a stage")
        if run.open_check:
            opened = together(run.open_check.tally.by_kind())
            axes.plot(
                [run.open_check.rate], [opened.quantile_ms(share)], "x", color=color, markersize=9, label=f"{name}, open loop"
            )
    for name, limit in (("p95", objectives.p95_ms), ("p99", objectives.p99_ms)):
        axes.axhline(limit, color=_COLORS[name], linestyle="--", linewidth=1, label=f"{name} allowed")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
