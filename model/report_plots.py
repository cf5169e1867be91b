"""The quality report's plots, as SVG whose colours are the page's."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import image as pictures
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.bundle import LABELS, Floats, Histogram, Profile
from model.report_findings import Calibration, ConfidenceBin, Findings

# Fewer answers tell nothing of a bin.
LEAST_ANSWERS = 10

# What stands for a colour until the page, which knows whether it is light or dark, gives its own.
_COLOURS = {"--ink": "#010203", "--soft": "#040506", "--line": "#070809", "--first": "#0a0b0c", "--second": "#0d0e0f"}
_INK, _SOFT, _LINE, _FIRST, _SECOND = _COLOURS.values()
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def draw_calibration(before: Calibration, after: Calibration) -> Iterator[str]:
    """Accuracy over confidence: all of it, and enlarged from 0.9 on, where most answers are."""
    for low, title in ((0.0, "all answers"), (0.9, "confidence 0.9 and more")):
        label = (
            f"Calibration curve, {title}: accuracy over mean confidence, before and after the temperature; the tables have all"
        )
        with _panel(label, 3.9, 3.4) as (axes, drawn):
            axes.plot([low, 1], [low, 1], color=_SOFT, linewidth=0.8, linestyle=":", label="as it should be")
            for found, colour, marker, name in ((before, _SECOND, "s", "before"), (after, _FIRST, "o", "after")):
                bins = [each for each in found.bins if each.low > low - 1e-9 and each.accuracy.count >= LEAST_ANSWERS]
                _curve(axes, bins, colour, marker, name)
            axes.set_xlim(low, 1 + (1 - low) * 0.02)
            axes.set_ylim(low, 1 + (1 - low) * 0.02)
            axes.set_title(title)
            axes.set_xlabel("mean confidence")
            axes.set_ylabel("accuracy")
            axes.grid()
            axes.legend(loc="lower right")
        yield drawn()


def _curve(axes: Axes, bins: list[ConfidenceBin], colour: str, marker: str, name: str) -> None:
    accuracies = [each.accuracy for each in bins]
    reach = [[each.share - each.bounds[0] for each in accuracies], [each.bounds[1] - each.share for each in accuracies]]
    axes.errorbar(
        [each.confidence for each in bins],
        [each.share for each in accuracies],
        np.maximum(reach, 0),
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        elinewidth=0.8,
        label=name,
    )


def draw_classes(findings: Findings) -> str:
    """Accuracy of each class with its interval."""
    with _panel("Accuracy by class with 95 % intervals; the table has the figures", 6.4, 2.6) as (axes, drawn):
        accuracies = findings.by_class
        shares = np.array([each.share for each in accuracies])
        bounds = np.array([each.bounds for each in accuracies])
        axes.errorbar(
            LABELS, 100 * shares, 100 * np.abs(bounds.T - shares), fmt="o", color=_FIRST, markersize=5, elinewidth=1.2, capsize=3
        )
        axes.axhline(100 * findings.clean.accuracy.share, color=_SOFT, linewidth=0.8, linestyle=":")
        axes.annotate("all", (9.45, 100 * findings.clean.accuracy.share), va="bottom", ha="right", color=_SOFT)
        axes.set_xlim(-0.5, 9.5)
        axes.set_xticks(LABELS)
        axes.set_xlabel("class")
        axes.set_ylabel("accuracy, %")
        axes.grid(axis="y")
    return drawn()


def draw_shifts(findings: Findings) -> str:
    """Accuracy under each shift beside what confidence expects."""
    rows = [findings.clean, *findings.shifted]
    with _panel("Accuracy and expected accuracy under each shift; the table has the figures", 6.4, 4.6) as (axes, drawn):
        for place, row in enumerate(rows):
            axes.plot([100 * row.accuracy.share, 100 * row.expected], [place, place], color=_LINE, linewidth=2, zorder=1)
        places = range(len(rows))
        axes.scatter(
            [100 * row.accuracy.share for row in rows], places, color=_FIRST, marker="o", s=26, label="accuracy", zorder=3
        )
        axes.scatter(
            [100 * row.expected for row in rows],
            places,
            marker="D",
            s=22,
            facecolors="none",
            edgecolors=_SECOND,
            label="expected without labels",
            zorder=2,
        )
        axes.set_yticks(places, [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 102)
        axes.set_xlabel("% of the test images")
        axes.grid(axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return drawn()


def draw_profile(profile: Profile) -> Iterator[str]:
    """The reference profile: answers by class, and the histogram of each statistic."""
    with _panel("Reference profile: answers by class", 3.2, 2.2) as (axes, drawn):
        axes.bar(LABELS, profile.class_counts, color=_FIRST)
        axes.set_xticks(LABELS)
        axes.set_title("answers by class")
        axes.set_ylabel("images")
    yield drawn()
    for name, histogram in profile.histograms.items():
        title = name.replace("_", " ")
        with _panel(f"Reference profile: histogram of {title}", 3.2, 2.2) as (axes, drawn):
            (_by_bin if name == "confidence" else _by_width)(axes, histogram)
            axes.set_title(title)
        yield drawn()


def _by_bin(axes: Axes, histogram: Histogram) -> None:
    """Bins of one width, since the last ones are too narrow to be seen: most answers are almost certain."""
    places = range(len(histogram.counts))
    axes.bar(places, histogram.counts, color=_FIRST)
    axes.set_xticks([place + 0.5 for place in places], [f"{edge:.6g}" for edge in histogram.edges[1:]], rotation=45, ha="right")
    axes.set_ylabel("images")


def _by_width(axes: Axes, histogram: Histogram) -> None:
    """Density, since the bins hold about equal counts and differ in width."""
    widths = np.diff(histogram.edges)
    density = np.divide(histogram.counts, widths * max(sum(histogram.counts), 1), out=np.zeros(len(widths)), where=widths > 0)
    axes.stairs(density, histogram.edges, fill=True, color=_FIRST)
    axes.set_ylabel("density")


def draw_digit(image: Floats) -> bytes:
    """An image (28, 28) in [0, 1] as a PNG file, ink dark."""
    stream = io.BytesIO()
    pictures.imsave(stream, image, cmap="gray_r", vmin=0, vmax=1, format="png", metadata={"Software": "Chiffre"})
    return stream.getvalue()


@contextmanager
def _panel(label: str, width_inches: float, height_inches: float) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and what then tells the SVG element."""
    drawn: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield figure.subplots(), lambda: drawn[0]
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn.append(_element(stream.getvalue(), label))


def _element(document: str, label: str) -> str:
    """The SVG element of an SVG document: with a label for who does not see it, without names that others on the page have."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"|font-family: [^;]*; |<defs>\s*<style.*?</defs>', "", element, flags=re.DOTALL)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', element)[0]
    opening = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
    element = re.sub(r"<svg[^>]*>", opening, element, count=1).replace("xlink:href", "href")
    for name, colour in _COLOURS.items():
        element = element.replace(colour, f"var({name})")
    return element.strip()
