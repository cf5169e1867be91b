"""The drift alarm over simulated traffic: what each statistic and window says at each evaluation, against a drawn reference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.profile import quantile_edges
from watching.detector import SCRAPE_SECONDS, Counts, scores
from watching.rules import Rules
from watching.traffic import Bins, Population, Traffic, count

# As many as a bundle's validation images.
REFERENCE_IMAGES = 5000
_CLASSES = 10


@dataclass(frozen=True)
class Reference:
    """A statistic's bins: their inner ``edges``, how many reference images are in each, and these images' ``values``, rising."""

    edges: npt.NDArray[np.floating[Any]]
    counts: Counts
    values: npt.NDArray[np.floating[Any]]


def draw_references(population: Population, generator: np.random.Generator) -> dict[str, Reference]:
    """The profile of as many images as a bundle has, drawn anew: the alarm has to bear any bundle's luck."""
    chosen = generator.integers(population.size, size=REFERENCE_IMAGES)
    references = {}
    for name, values in population.values.items():
        edges: npt.NDArray[np.floating[Any]] = (
            np.arange(_CLASSES - 1) + 0.5 if name == "class" else quantile_edges(values[chosen])[1:-1]
        )
        bins = np.searchsorted(edges, values[chosen], side="right")
        references[name] = Reference(
            edges, np.bincount(bins, minlength=len(edges) + 1).astype(np.float64), np.sort(values[chosen])
        )
    return references


def bin_values(population: Population, references: dict[str, Reference]) -> dict[str, Bins]:
    """The bin of each image of ``population`` by statistic."""
    return {name: np.searchsorted(one.edges, population.values[name], side="right") for name, one in references.items()}


@dataclass(frozen=True)
class Drawn:
    """What came of ``population`` between ``scrapes`` scrapes: ``images``, and the scrape that counted each, (requests,) each."""

    population: Population
    images: Bins
    counted: Bins
    scrapes: int


def draw(traffic: Traffic, parts: list[tuple[Population, float]], generator: np.random.Generator) -> list[Drawn]:
    """Traffic from one population after the other, each for so many seconds."""
    lengths = [int(seconds) // SCRAPE_SECONDS for _, seconds in parts]
    return [
        Drawn(population, *population.draw(traffic, scrapes, generator), scrapes)
        for (population, _), scrapes in zip(parts, lengths, strict=True)
    ]


def watch(drawn: list[Drawn], rules: Rules, references: dict[str, Reference]) -> dict[tuple[str, str], Counts]:
    """The score by statistic and window, at each evaluation from the first request on; before it was nothing."""
    before = max(rules.windows.values()) // SCRAPE_SECONDS
    parts = [(part, bin_values(part.population, references)) for part in drawn]
    found = {}
    for name, reference in references.items():
        pieces = [count(bins[name][part.images], part.counted, part.scrapes, len(reference.counts)) for part, bins in parts]
        counts = np.concatenate([np.zeros((len(reference.counts), before)), *pieces], axis=1)
        for window, window_seconds in rules.windows.items():
            found[name, window] = scores(
                counts[:, before - window_seconds // SCRAPE_SECONDS :],
                reference.counts,
                design_effect=rules.design_effects[name],
                window_seconds=window_seconds,
                interval_seconds=rules.interval_seconds,
                least_images=rules.least_images,
            )
    return found


def first_alarm(found: dict[tuple[str, str], Counts], rules: Rules, start: int = 0) -> tuple[int | None, str]:
    """The first evaluation from ``start`` on at which any of them is above its threshold, counted from there; and whose it is."""
    firsts = {}
    for test, found_scores in found.items():
        if (above := np.flatnonzero(found_scores[start:] > rules.thresholds[test[1]])).size:
            firsts[test] = int(above[0])
    if not firsts:
        return None, ""
    test = min(firsts, key=lambda one: firsts[one])
    return firsts[test], test[0]
