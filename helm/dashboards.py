"""Write the dashboards of the chart, as Grafana's JSON, from the panels in `helm.pages`.

python -m helm.dashboards
"""

from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import barchart, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from helm.pages import model, resources, service
from helm.pages.panel import Page, Panel

PAGES = (service.PAGE, model.PAGE, resources.PAGE)
FOLDER = Path(__file__).parent / "chiffre" / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_BUILDERS: dict[str, Any] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "heatmap": heatmap.Panel,
    "barchart": barchart.Panel,
    "table": table.Panel,
}
# A dashboard has pods come and go, and each of them is named.
_LEGEND = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
_HEIGHT = 8
# Releases are found by a series that each server has.
_VARIABLES = (
    ("namespace", "label_values(chiffre_start_time_seconds, namespace)"),
    ("release", 'label_values(chiffre_start_time_seconds{namespace="$namespace"}, inferenceservice)'),
)


def _variable(name: str, query: str) -> QueryVariable:
    variable = QueryVariable(name).label(name).datasource(_SOURCE).query(query)
    variable = variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    # Versions are compared: all of them at first.
    return variable.multi(True).include_all(True).all_value(".*") if name == "version" else variable


def _query(panel: Panel, letter: str, expression: str, legend: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend)
    if panel.kind == "heatmap":
        return query.format(PromQueryFormat.HEATMAP)
    if panel.kind in {"barchart", "table"}:
        # What is, not how it came about.
        return query.instant().format(PromQueryFormat.TABLE)
    return query.range()


def _panel(panel: Panel) -> Any:
    built = _BUILDERS[panel.kind]().title(panel.title).description(panel.description).datasource(_SOURCE).unit(panel.unit)
    built = built.span(panel.width).height(_HEIGHT)
    if panel.kind == "timeseries":
        built = built.legend(_LEGEND).min(0).fill_opacity(10)
    for letter, (expression, legend) in zip("ABCDEFGH", panel.queries, strict=False):
        built = built.with_target(_query(panel, letter, expression, legend))
    return built


def dashboard(page: Page) -> str:
    """Its JSON, with a newline at the end."""
    built = Dashboard(page.title).uid(f"chiffre-{page.name}").tags(["chiffre"]).editable().refresh("30s").time("now-6h", "now")
    built = built.tooltip(DashboardCursorSync.CROSSHAIR).with_variable(DatasourceVariable("datasource").type("prometheus"))
    for name, query in (*_VARIABLES, *page.variables):
        built = built.with_variable(_variable(name, query))
    for title, panels in page.rows.items():
        built = built.with_row(Row(title))
        for panel in panels:
            built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def documents() -> dict[Path, str]:
    """The files and what they ought to hold."""
    return {FOLDER / f"{page.name}.json": dashboard(page) for page in PAGES}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for path, content in documents().items():
        path.write_text(content)


if __name__ == "__main__":
    main()
