"""The plots of docs/watching.md, from the figures of watching/simulation.py."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("agg")

# Distinct without colour too (Okabe and Ito 2008).
_KINDS = {
    "none": ("black", "*"),
    "rotation": ("#0072B2", "o"),
    "noise": ("#E69F00", "s"),
    "blur": ("#009E73", "^"),
    "contrast": ("#CC79A7", "v"),
    "polarity": ("#D55E00", "D"),
    "translation": ("#56B4E9", "P"),
}
_DAY = 86_400


def draw(content: dict[str, Any], directory: Path) -> None:
    """Write watching-estimate.png and watching-delays.png."""
    _estimates(content["estimates"]).savefig(directory / "watching-estimate.png", dpi=100)
    _delays(content["delays"]).savefig(directory / "watching-delays.png", dpi=100)


def _estimates(found: dict[str, Any]) -> Figure:
    """The estimate over the truth, one point a shift; confidence alone, where it differs, is hollow."""
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.axhline(found["constant"], color="black", linewidth=0.8, linestyle=":", label="validation accuracy, whatever comes")
    for name, row in found["shifts"].items():
        kind = name.split()[0]
        colour, marker = _KINDS[kind]
        axes.plot([row["truth"]] * 2, [row["plain"], row["estimate"]], color=colour, linewidth=0.6)
        axes.plot(row["truth"], row["plain"], marker=marker, color=colour, fillstyle="none", linestyle="none")
        axes.plot(row["truth"], row["estimate"], marker=marker, color=colour, linestyle="none")
        if abs(row["estimate"] - row["truth"]) > 0.1:
            axes.annotate(name, (row["truth"], row["estimate"]), xytext=(6, 4), textcoords="offset points", fontsize=8)
    for kind, (colour, marker) in _KINDS.items():
        axes.plot([], [], marker=marker, color=colour, linestyle="none", label="no shift" if kind == "none" else kind)
    axes.plot([], [], marker="o", color="black", fillstyle="none", linestyle="none", label="confidence alone")
    axes.set(
        xlabel="share of answers that are right", ylabel="share that is estimated to be", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03)
    )
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _delays(delays: dict[str, Any]) -> Figure:
    """Requests until the alarm by shift: a bar from the median to the 95th percentile, and the reference's median."""
    shifts = [key.split("|")[1] for key in delays if key.startswith("independent|")]
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    for offset, (name, colour) in enumerate({"independent": "#0072B2", "writers of 3": "#D55E00"}.items()):
        for place, shift in enumerate(shifts):
            row = delays[f"{name}|{shift}"]
            median, late = (row[figure_] or _DAY for figure_ in ("median", "percentile_95"))
            axes.plot([median, late], [place + 0.25 * offset - 0.12] * 2, color=colour, linewidth=2, marker="|")
            axes.plot(median, place + 0.25 * offset - 0.12, color=colour, marker="os"[offset], label=None if place else name)
    theirs = [delays[f"writers of 3|{shift}"]["reference_median"] or _DAY for shift in shifts]
    axes.plot(theirs, range(len(shifts)), "x", color="black", label="Kolmogorov-Smirnov, writers of 3")
    axes.axvline(500, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="requests until the alarm, median and 95th percentile; the right edge is a day without one")
    axes.set_yticks(range(len(shifts)), shifts)
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize=8)
    return figure
