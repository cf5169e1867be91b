"""Each query of the dashboards, rules and runbooks: of metrics that there are, answered by Prometheus from real servers."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from model.bundle import Bundle
from model.data import MnistData
from tests.chart.rendering import CHART, NAMESPACE, RELEASE
from tests.monitoring.prometheus import Cluster, Prometheus
from tests.processes import Server
from tests.rules.groups import RUNBOOKS, groups, rules

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}
RULES = rules(groups())
# A value of the chart that is off by itself.
FLAGS = ["--feedback", "true"] if "feedback" in yaml.safe_load((CHART / "values.yaml").read_text()) else []
_VARIABLES = {"namespace": NAMESPACE, "release": RELEASE, "version": ".*", "statistic": "confidence", "__rate_interval": "1m"}
# What is asked of the names by which series are chosen and put together.
_STRINGS = re.compile(r"\"[^\"]*\"")
_PARTS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\b[0-9][\w.]*")
_WORDS = {"and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan", "s", "m", "h", "d"}


def filled(expression: str) -> str:
    for name, value in _VARIABLES.items():
        expression = expression.replace(f"${name}", value)
    return expression


def panels() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and expression."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets") or ():
                yield name, panel["title"], filled(target["expr"])


def runbooks() -> Iterator[tuple[str, str]]:
    """Name and expression."""
    for path in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.splitlines():
                yield path.stem, line


def names(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    bare = _PARTS.sub(" ", _STRINGS.sub("", expression))
    words = re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\()\b", bare)
    functions = set(re.findall(r"([A-Za-z_]\w*)\s*\(", bare))
    return {word for word in words if word not in _WORDS | functions}


PANELS = list(panels())
QUERIES = [
    *((f"{dashboard}: {title}", expression) for dashboard, title, expression in PANELS),
    *((rule.name, rule.content["expr"]) for rule in RULES),
    *runbooks(),
]


def feed_back(server: Server, images: list[Any], version: str) -> None:
    """Labels of some images, asked for and volunteered; and of an answer that another version gave."""
    for source, of in (("asked", version), ("volunteered", version), ("asked", "0")):
        body = {"instances": images, "labels": [7] * len(images), "model_version": of, "source": source}
        httpx.post(f"{server.url}/v1/models/digits:feedback", json=body, timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, mnist: MnistData) -> Iterator[Prometheus]:
    """Two pods that were asked a few hundred images, as the rules see them; no alert waits."""
    cluster = Cluster()
    images = mnist.split("test").images[:300].numpy().tolist()
    directory = tmp_path_factory.mktemp("prometheus")
    with (
        Server("--model_dir", str(bundle.directory), *FLAGS) as first,
        Server("--model_dir", str(bundle.directory), *FLAGS) as second,
        Prometheus(directory, cluster, waits=False) as running,
    ):
        pods = {f"digits-{letter}": server.url.removeprefix("http://") for letter, server in (("a", first), ("b", second))}
        running.watch(pods)
        running.until(lambda: running.value("sum(up)") == 3, "both are scraped")
        for server in (first, second):
            for start in range(0, len(images), 10):
                httpx.post(server.predict_url, json={"instances": images[start : start + 10]}, timeout=10).raise_for_status()
            httpx.post(server.predict_url, content=b"[", timeout=10)
            if FLAGS:
                feed_back(server, images[:20], bundle.version)
        running.until(lambda: running.value("chiffre:asked:increase5m") > 50, "rules see the requests")
        running.until(lambda: running.value("count(count by (alertname) (ALERTS))") > 0, "an alert")
        yield running
    cluster.close()


def test_names_are_found() -> None:
    expression = 'sum by (le) (rate(a_bucket{b=~"c{2}"}[5m])) / on (x) group_left (y) d:e and f offset 5m > 1e3'
    assert names(expression) == {"a_bucket", "d:e", "f"}
    assert names("time() - up{} > 3") == {"up"}


def test_every_metric_that_is_named_exists(prometheus: Prometheus) -> None:
    known = set(httpx.get(f"{prometheus.url}/api/v1/label/__name__/values", timeout=10).json()["data"])
    known |= {rule.name for rule in RULES if not rule.is_alert}
    unknown = {name: where for where, expression in QUERIES for name in names(expression) if name not in known}
    assert not unknown


@pytest.mark.parametrize(("dashboard", "title", "expression"), PANELS, ids=lambda value: value if len(value) < 40 else "")
def test_every_panel_shows_something(prometheus: Prometheus, dashboard: str, title: str, expression: str) -> None:
    prometheus.until(lambda: bool(prometheus.query(expression)), f"{dashboard}: {title}: {expression}", 15)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_evaluated(prometheus: Prometheus, rule: Any) -> None:
    prometheus.query(rule.content["expr"])
    assert not [broken for broken in prometheus.broken_rules() if broken.startswith(f"{rule.name}:")]


@pytest.mark.parametrize(("name", "expression"), list(runbooks()))
def test_every_query_of_a_runbook_is_answered(prometheus: Prometheus, name: str, expression: str) -> None:
    assert name
    prometheus.query(expression)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_has_values(prometheus: Prometheus, name: str) -> None:
    variables = [variable for variable in DASHBOARDS[name]["templating"]["list"] if variable["type"] == "query"]
    assert {"namespace", "release"} <= {variable["name"] for variable in variables}
    for variable in variables:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", filled(variable["query"])).groups()  # type: ignore[union-attr]
        answer = httpx.get(f"{prometheus.url}/api/v1/label/{label}/values", params={"match[]": series}, timeout=10)
        assert answer.raise_for_status().json()["data"], variable["query"]
