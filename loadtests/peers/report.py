"""The table, the ratios and the bars, from the figures of a run.

    from loadtests.peers.report import judge, markdown

A figure is a list, one value a round. A ratio is taken within each round, since a shared machine's speed differs more between
rounds than between contestants of one; given is the median of rounds, with the least and the greatest. A bar that is close is
taken from a duel, second by second.
"""

import statistics
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, list[float]]]

COLUMNS = {
    "v1_c64": "V1, 64 conn., req/s",
    "v1_c1": "V1, 1 conn., req/s",
    "p50": "p50 at half load, ms",
    "p99": "p99 at half load, ms",
    "v2_b32": "V2 binary, 32 images, images/s",
    "grpc_c64": "gRPC, 64 conn., req/s",
    "start": "cold start, s",
    "start_1": "cold start, one worker, s",
    "pss": "memory (PSS), MiB",
}
# No column of the table: ours divided by this peer's V1 requests a second at 64 connections, a second of each in turns.
DUEL = "duel"
LESS_IS_BETTER = {"p50", "p99", "start", "start_1", "pss"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Ours held against a peer's figure, or against a number where there is no peer."""

    column: str
    peer: str | None
    limit: float
    is_duel: bool = False

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.column in LESS_IS_BETTER


BARS = (
    Bar(column="v1_c64", peer="echo", limit=0.45, is_duel=True),
    Bar(column="v1_c64", peer="kserve", limit=3),
    Bar(column="v1_c1", peer="flask", limit=2),
    Bar(column="v2_b32", peer="kserve", limit=10),
    Bar(column="grpc_c64", peer="kserve", limit=2),
    Bar(column="p99", peer="echo", limit=3),
    Bar(column="start", peer="kserve", limit=0.5),
    Bar(column="start_1", peer="kserve", limit=0.5),
    Bar(column="pss", peer=None, limit=260),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A bar, and what was measured: one value a round, none where a figure is missing."""

    bar: Bar
    values: list[float]

    @property
    def held(self) -> bool:
        """Whether the median is on the right side of the bar."""
        if not self.values:
            return False
        median = statistics.median(self.values)
        return median <= self.bar.limit if self.bar.at_most else median >= self.bar.limit

    def line(self) -> str:
        """The verdict in words."""
        sign, against = "at most" if self.bar.at_most else "at least", f"{self.bar.peer}'s" if self.bar.peer else "MiB"
        measured = spread(self.values) if self.values else "not measured"
        measured += ", second by second in turns" if self.bar.is_duel else ""
        return f"{'held' if self.held else 'MISSED'}: {COLUMNS[self.bar.column]}: {sign} {self.bar.limit:g} {against}, {measured}"


def ratios(figures: Figures, column: str, peer: str) -> list[float]:
    """Ours divided by the peer's, round by round; empty where one of them has no figure."""
    ours, theirs = (figures.get(name, {}).get(column, []) for name in ("ours", peer))
    return [mine / other for mine, other in zip(ours, theirs, strict=False)]


def judge(figures: Figures) -> list[Verdict]:
    """Each bar whose contestants took part."""
    present = [bar for bar in BARS if "ours" in figures and (bar.peer is None or bar.peer in figures)]
    return [Verdict(bar=bar, values=_values(figures, bar)) for bar in present]


def _values(figures: Figures, bar: Bar) -> list[float]:
    if bar.peer is None:
        return figures["ours"].get(bar.column, [])
    return figures[bar.peer].get(DUEL, []) if bar.is_duel else ratios(figures, bar.column, bar.peer)


def spread(values: list[float]) -> str:
    """Median, and the least and the greatest where there is more than one value."""
    if len(values) == 1:
        return number(values[0])
    median, least, most = (number(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least}-{most})"


def number(value: float) -> str:
    """``value`` with three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def better(figures: Figures) -> list[str]:
    """What peers do better than ours by their medians, in words."""
    lines = []
    for column, title in COLUMNS.items():
        own = figures.get("ours", {}).get(column)
        for name, row in figures.items():
            if name in ("ours", "echo") or not own or not row.get(column):
                continue
            mine, theirs = statistics.median(own), statistics.median(row[column])
            if theirs < mine if column in LESS_IS_BETTER else theirs > mine:
                lines.append(f"{name} is better in {title}: {number(theirs)}, ours {number(mine)}")
    return lines


def table(figures: Figures, notes: dict[str, dict[str, str]], titles: dict[str, str]) -> list[str]:
    """Peers as rows, columns as in `COLUMNS`."""
    header = ["", *COLUMNS.values()]
    lines = [_row(header), _row(["---", *["---:"] * len(COLUMNS)])]
    for name, row in figures.items():
        cells = [spread(row[column]) if row.get(column) else _missing(notes.get(name, {}), column) for column in COLUMNS]
        lines.append(_row([titles.get(name, name), *cells]))
    return lines


def _missing(notes: dict[str, str], column: str) -> str:
    return "no (see below)" if column in notes else ""


def ratio_table(figures: Figures) -> list[str]:
    """Ours divided by each peer's, column by column."""
    lines = [_row(["ours / ...", *COLUMNS.values()]), _row(["---", *["---:"] * len(COLUMNS)])]
    for name in figures:
        if name != "ours":
            values = [ratios(figures, column, name) for column in COLUMNS]
            lines.append(_row([name, *(f"{spread(value)}x" if value else "" for value in values)]))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    figures, notes, machine = results["figures"], results["notes"], results["machine"]
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    place = f"{machine['cores']} cores of {machine['cpu']}, which servers and client share"
    parts = [
        "# Side by side",
        f"Measured on {results['date']} on {place}; {settings}.",
        f"Load average before each round: {', '.join(number(value) for value in results['load_averages'])}.",
        "The same client (h2load) for all, in turns; medians of rounds, with the least and the greatest.",
        "\n".join(table(figures, notes, results["titles"])),
        "\n".join(ratio_table(figures)) if "ours" in figures else "",
        "\n".join(f"- {verdict.line()}" for verdict in judge(figures)),
        "\n".join(f"- {line}" for line in better(figures)),
        "\n".join(f"- {name}, {column}: {note}" for name, row in notes.items() for column, note in row.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
