"""The plots of a study, from its findings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from model.study.findings import Findings, Group
from model.study.grid import rate_at
from model.study.plan import METHODS, batch_kind, method_kind

mpl.use("agg")

Style = Mapping[str, str]

# Distinct without colour too (Okabe and Ito 2008).
_METHOD_STYLES: dict[str, Style] = {
    "gd": {"color": "#777777", "linestyle": "--", "marker": "v"},
    "sgd": {"color": "#E69F00", "linestyle": "-", "marker": "o"},
    "momentum": {"color": "#56B4E9", "linestyle": "-", "marker": "s"},
    "nesterov": {"color": "#009E73", "linestyle": ":", "marker": "^"},
    "rmsprop": {"color": "#D55E00", "linestyle": "--", "marker": "D"},
    "adam": {"color": "#0072B2", "linestyle": "-", "marker": "x"},
}
_MARKERS = "osD^vPX*<>"
# What curves go over; the first point, before any step, has no place on a logarithmic axis.
_AXES = (("epoch", "epochs"), ("wall_seconds", "wall time, s"), ("step", "gradient steps"))
_ACCURACY_TICKS = (10, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.9)
_DPI = 90


def draw(findings: Findings, directory: Path) -> list[str]:
    """Write the plots into ``directory``; their names."""
    directory.mkdir(parents=True, exist_ok=True)
    methods = [(group, _METHOD_STYLES[name]) for name, group in findings.optimizers().items()]
    batches = [(replace(group, label=f"batch {group.label}"), style) for group, style in _shaded(findings)]
    figures = {
        "optimizers-loss": _curves(methods, "loss", _losses),
        "optimizers-accuracy": _curves(methods, "accuracy", _accuracies),
        "batches-loss": _curves(batches, "loss", _losses),
        "batches-accuracy": _curves(batches, "accuracy", _accuracies),
        "rates": _rates(findings),
        "dropout": _dropout(list(findings.dropouts().values())),
        "costs": _costs(findings),
    }
    for name, figure in figures.items():
        figure.savefig(directory / f"{name}.png", dpi=_DPI)
    return list(figures)


def _shaded(findings: Findings) -> list[tuple[Group, Style]]:
    """Batch sizes, from dark to light."""
    groups, colours = list(findings.batches().values()), mpl.colormaps["viridis"]
    return [
        (group, {"color": mpl.colors.to_hex(colours(0.92 * place / max(1, len(groups) - 1))), "marker": _MARKERS[place % 10]})
        for place, group in enumerate(groups)
    ]


def _losses(axes: Axes) -> None:
    axes.set_yscale("log")
    _number(axes.yaxis, (1, 2, 5))


def _number(axis: Axis, digits: Sequence[float]) -> None:
    """Put plain numbers on a logarithmic axis, at these digits of each decade."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _accuracies(axes: Axes) -> None:
    """Errors on a logarithmic scale, told as accuracies, so that 98 and 99 % are as far apart as 80 and 90 %."""
    axes.set_yscale("log")
    least, most = axes.get_ylim()
    axes.set_yticks([100 - tick for tick in _ACCURACY_TICKS], [f"{tick:g}" for tick in _ACCURACY_TICKS])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(most, least)


def _curves(groups: Sequence[tuple[Group, Style]], figure_name: str, scale: Callable[[Axes], None]) -> Figure:
    """Means and ranges over seeds: training above validation, over epochs, wall time and steps."""
    figure = Figure(figsize=(10.5, 6.6), layout="constrained")
    grid = figure.subplots(2, 3, sharex="col", sharey=True)
    unit = ", %" if figure_name == "accuracy" else ""
    for row, part in zip(grid, ("train", "validation"), strict=True):
        for axes, (over, label) in zip(row, _AXES, strict=True):
            for group, style in groups:
                _band(axes, group, style, over, f"{part}_{figure_name}")
            axes.set_xscale("log")
            least, most = axes.get_xlim()
            # More would run into each other.
            _number(axes.xaxis, (1, 3) if most < 1e4 * least else (1,))
            axes.grid(alpha=0.3)
            if part == "validation":
                axes.set_xlabel(label)
        row[0].set_ylabel(f"{'training' if part == 'train' else part} {figure_name}{unit}")
    scale(grid[0][0])
    lines = [Line2D([], [], label=group.label, markersize=4, **style) for group, style in groups]  # type: ignore[arg-type]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 6), fontsize="small")
    return figure


def _band(axes: Axes, group: Group, style: Style, over: str, name: str) -> None:
    """One group's line, and a band from the least to the greatest of its seeds."""
    places = [group.median(over, index) for index in range(1, group.evaluations)]
    values = [[getattr(result.points[index], name) for result in group.results] for index in range(1, group.evaluations)]
    if name.endswith("accuracy"):
        # Not quite all right, so that the logarithm of the error is finite.
        values = [[max(100 * (1 - value), 1e-2) for value in point] for point in values]
    means = [sum(point) / len(point) for point in values]
    axes.plot(places, means, markersize=3, linewidth=1.2, **style)  # type: ignore[arg-type]  # a mapping of texts
    axes.fill_between(
        places, [min(point) for point in values], [max(point) for point in values], color=style["color"], alpha=0.2, linewidth=0
    )


def _rates(findings: Findings) -> Figure:
    """Validation loss by learning rate, the chosen one filled: methods, then batch sizes."""
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    grids, settings = findings.grids(), findings.settings
    batches = dict(zip(settings.all_batch_sizes, _shaded(findings), strict=True))
    lines = [(left, method_kind(settings, name), method.label, _METHOD_STYLES[name]) for name, method in METHODS.items()]
    lines += [(right, batch_kind(size), f"batch {group.label}", style) for size, (group, style) in batches.items()]
    for axes, kind, label, style in lines:
        losses = {rung: loss for rung, loss in sorted(grids[kind].losses.items()) if loss < 10}
        axes.plot([rate_at(rung) for rung in losses], list(losses.values()), label=label, markersize=4, linewidth=1, **style)
        best = grids[kind].best
        axes.plot([rate_at(best)], [grids[kind].losses[best]], "o", markersize=10, fillstyle="none", color=style["color"])
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        _number(axes.xaxis, (1,))
        _number(axes.yaxis, (1, 2, 5))
        axes.set_xlabel("learning rate")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    left.set_ylabel("validation loss of one run")
    return figure


def _dropout(groups: Sequence[Group]) -> Figure:
    """Accuracy and loss at the end, by dropout rate, with 95 % intervals."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    places = [group.trial.dropout_rate for group in groups]
    for part, colour, marker in (("train", "#777777", "v"), ("validation", "#0072B2", "o"), ("test", "#D55E00", "s")):
        label = "training" if part == "train" else part
        for axes, name, factor in ((accuracy, "accuracy", 100), (loss, "loss", 1)):
            if (part, name) == ("test", "loss"):
                continue
            found = [group.accuracy if part == "test" else group.last(f"{part}_{name}") for group in groups]
            scale = 1 if part == "test" else factor
            means = [scale * one.mean for one in found]
            errors = [scale * (one.high - one.mean) for one in found]
            axes.errorbar(places, means, errors, color=colour, marker=marker, markersize=5, capsize=3, label=label)
    for axes, name in ((accuracy, "accuracy at the end, %"), (loss, "loss at the end")):
        axes.set_xlabel("dropout rate")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _costs(findings: Findings) -> Figure:
    """Times of a gradient both ways, and memory of a step."""
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    times, memory = figure.subplots(1, 2)
    sizes = [row.images for row in findings.gradients]
    times.plot(sizes, [row.loop_ms for row in findings.gradients], color="#D55E00", marker="s", label="loop over images")
    times.plot(sizes, [row.vectorised_ms for row in findings.gradients], color="#0072B2", marker="o", label="vectorised")
    times.set_xscale("log")
    times.set_yscale("log")
    _number(times.yaxis, (1,))
    times.set_xticks(sizes, [str(size) for size in sizes])
    times.xaxis.set_minor_locator(NullLocator())
    times.set_xlabel("images in the batch")
    times.set_ylabel("gradient, ms")
    times.grid(alpha=0.3)
    times.legend()
    labels = [
        f"{row.batch_size:,}" + (f"\nin parts of {row.chunk:,}" if row.chunk < row.batch_size else "") for row in findings.memory
    ]
    bars = memory.barh(labels, [row.median_mib for row in findings.memory], color="#0072B2")
    memory.bar_label(bars, [f"{row.median_mib:,.0f}" for row in findings.memory], padding=3)
    memory.margins(x=0.15)
    memory.invert_yaxis()
    memory.set_ylabel("images in the batch")
    memory.set_xlabel("peak of a step beyond the baseline, MiB")
    return figure
