"""The plots of docs/rollout.md, from the figures of rollout/simulation.py."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("agg")

Curve = list[dict[str, Any]]
# Distinct without colour too (Okabe and Ito 2008).
_STYLES = {
    "PROMOTE": ("#0072B2", "o", "promoted"),
    "ROLLBACK": ("#D55E00", "s", "rolled back"),
    "INCONCLUSIVE": ("#777777", "^", "held"),
}


def draw(curves: dict[str, Curve], directory: Path) -> None:
    """Write simulation-accuracy.png and simulation-guards.png."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    outcomes, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _outcomes(outcomes, curves["difference"])
    for place, name in ((-1.0, "margin"), (0.0, "equal")):
        outcomes.axvline(place, color="black", linewidth=0.8, linestyle=":")
        outcomes.annotate(name, (place, 50), xytext=(3, 0), textcoords="offset points")
    figure.legend(*outcomes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    _images(images, curves)
    images.set_xlabel("true difference on the golden images, points (challenger - champion)")
    figure.savefig(directory / "simulation-accuracy.png", dpi=110)

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    failing, slower = figure.subplots(1, 2, sharey=True)
    _outcomes(failing, [{**point, "x": 100 * point["x"]} for point in curves["failing"]])
    failing.set_xscale("symlog", linthresh=0.05)
    failing.set_xticks([0, 0.1, 0.3, 1, 3], ["0", "0.1", "0.3", "1", "3"])
    failing.minorticks_off()
    failing.set_xlim(-0.01, 4)
    failing.axvline(0.1, color="black", linewidth=0.8, linestyle=":")
    failing.set_xlabel("challenger's requests that fail, % (0.1 allowed)")
    figure.legend(*failing.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    _outcomes(slower, curves["slower"])
    slower.axvline(10, color="black", linewidth=0.8, linestyle=":")
    slower.set_xlabel("challenger slower by, ms (10 allowed)")
    slower.set_ylabel("")
    figure.savefig(directory / "simulation-guards.png", dpi=110)


def _outcomes(axes: Axes, curve: Curve) -> None:
    """Shares of the three outcomes with their intervals."""
    places = [point["x"] for point in curve]
    for outcome, (colour, marker, label) in _STYLES.items():
        shares = [point["outcomes"][outcome] for point in curve]
        estimates, lows, highs = ([100 * share[end] for share in shares] for end in ("estimate", "low", "high"))
        axes.plot(places, estimates, color=colour, marker=marker, markersize=5, label=label)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("roll-outs, %")
    axes.grid(alpha=0.3)


def _images(axes: Axes, curves: dict[str, Curve]) -> None:
    """Golden images until the verdict, beside a test of one size."""
    for name, label, marker, colour in (
        ("difference", "three looks", "o", "#0072B2"),
        ("fixed size", "one look", "s", "#777777"),
    ):
        curve = curves[name]
        axes.plot([point["x"] for point in curve], [point["images"] for point in curve], marker=marker, color=colour, label=label)
    axes.set_ylim(0, 5300)
    axes.set_ylabel("golden images, mean")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
