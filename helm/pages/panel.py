"""What a dashboard consists of: panels, each with its queries in PromQL, in rows.

``$namespace`` and ``$release`` are chosen on the dashboard; `helm.dashboards` makes Grafana's JSON of it. What the chart's rules
record is asked by its name, so that a panel and an alert are about the same number.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "barchart", "table"]

# The release's series.
R = 'namespace="$namespace",inferenceservice="$release"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel; ``queries`` are pairs of an expression and the legend of its series, ``width`` is of 24."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Page:
    """A dashboard: its rows by their titles, and the variables it has beside namespace and release, with the query of each."""

    name: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    variables: tuple[tuple[str, str], ...] = ()
