"""The table and the bars of the cold start, from the phases of each round.

A ratio is taken within each round, since a shared machine's speed differs more between rounds than between contestants of one.
"""

import statistics
from dataclasses import dataclass

from loadtests.cold.moments import PHASES

Figures = dict[str, list[dict[str, float]]]

# Ours, whose time it is held against, and how many times that it may take.
BARS = (("chiffre-mlflow", "stock-mlflow", 0.65), ("chiffre-pvc", "floor", 2.0))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A bar, and the ratio of each round."""

    ours: str
    peer: str
    limit: float
    ratios: list[float]

    @property
    def held(self) -> bool:
        """Whether the median is within the bar."""
        return bool(self.ratios) and statistics.median(self.ratios) <= self.limit

    @property
    def line(self) -> str:
        """The verdict in words."""
        measured = "not measured"
        if self.ratios:
            measured = f"{statistics.median(self.ratios):.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f})"
        return f"{'held' if self.held else 'MISSED'}: {self.ours}: at most {self.limit:g} of {self.peer}'s time, {measured}"


def totals(figures: Figures, name: str) -> list[float]:
    """Seconds from request to answer, round by round; none where it was not measured."""
    return [sum(phases.values()) for phases in figures.get(name, [])]


def judge(figures: Figures) -> list[Verdict]:
    """Each bar against the figures."""
    verdicts = []
    for ours, peer, limit in BARS:
        pairs = zip(totals(figures, ours), totals(figures, peer), strict=False)
        verdicts.append(Verdict(ours=ours, peer=peer, limit=limit, ratios=[mine / theirs for mine, theirs in pairs]))
    return verdicts


def markdown(figures: Figures) -> str:
    """Medians in seconds, and the spread of the whole."""
    rows = [["", *PHASES, "in all", "least, greatest"], ["---", *["---:"] * (len(PHASES) + 2)]]
    for name, rounds in figures.items():
        whole = totals(figures, name)
        medians = [f"{statistics.median(phases[phase] for phases in rounds):.2f}" for phase in PHASES]
        rows.append([name, *medians, f"{statistics.median(whole):.2f}", f"{min(whole):.2f}, {max(whole):.2f}"])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
