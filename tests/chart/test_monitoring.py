"""What the chart tells Prometheus and Grafana, and how objectives become numbers in rules."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import dashboards
from serving.metrics import LATENCY_BUCKETS
from tests.chart.rendering import CHART, NAMESPACE, RELEASE, one, render
from tests.rules.groups import NAMES, groups, promtool, rules

URI = {"uri": "mlflow://digits/1"}
OPERATOR = {"rules": {"kind": "PrometheusRule"}, "scrape": {"kind": "PodMonitor"}}
PLAIN = {"rules": {"kind": "ConfigMap"}, "scrape": {"kind": "ConfigMap"}}


def expressions(**values: Any) -> str:
    return "\n".join(rule.content["expr"] for rule in rules(groups(**values)))


def relabelings(values: dict[str, Any]) -> list[dict[str, Any]]:
    rendered = render({"model": URI, "monitoring": OPERATOR, **values})
    (endpoint,) = one(rendered, "PodMonitor")["spec"]["podMetricsEndpoints"]
    found: list[dict[str, Any]] = endpoint["relabelings"]
    return found


def relabelled(steps: list[dict[str, Any]], labels: dict[str, str]) -> dict[str, str] | None:
    """A target's labels as Prometheus makes them, None where it is dropped.
    https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config"""
    labels = dict(labels)
    for step in steps:
        joined = ";".join(labels.get(label, "") for label in step["sourceLabels"])
        match = re.fullmatch(step.get("regex", "(.*)"), joined)
        action = step.get("action", "replace")
        if (action == "keep" and not match) or (action == "drop" and match):
            return None
        if action == "replace" and match:
            labels[step["targetLabel"]] = match.expand(step.get("replacement", "$1").replace("$1", r"\1"))
    return labels


def found(container: str, port: int, **changes: str) -> dict[str, str]:
    meta = {
        "namespace": NAMESPACE,
        "pod_name": f"{RELEASE}-predictor-00001-deployment-6d5f9c7b8-x2x4z",
        "pod_phase": "Running",
        "pod_container_name": container,
        "pod_label_serving_kserve_io_inferenceservice": RELEASE,
        "pod_label_serving_knative_dev_revision": f"{RELEASE}-predictor-00001",
        **changes,
    }
    return {"__address__": f"10.0.0.7:{port}", **{f"__meta_kubernetes_{key}": value for key, value in meta.items()}}


def test_nothing_is_there_unless_it_is_asked_for() -> None:
    kinds = {manifest["kind"] for manifest in render({"model": URI})}
    assert not kinds & {"PodMonitor", "PrometheusRule", "ConfigMap"}


@pytest.mark.parametrize(("protocol", "port"), [("rest", 8080), ("grpc", 8081)])
def test_a_pod_is_one_target_at_the_port_of_rest(protocol: str, port: int) -> None:
    steps = relabelings({"protocol": protocol})
    target = relabelled(steps, found("kserve-container", port))
    assert target
    assert {key: value for key, value in target.items() if not key.startswith("__meta")} == {
        "__address__": "10.0.0.7:8080",
        "namespace": NAMESPACE,
        "pod": f"{RELEASE}-predictor-00001-deployment-6d5f9c7b8-x2x4z",
        "inferenceservice": RELEASE,
        "revision": f"{RELEASE}-predictor-00001",
    }
    six = relabelled(steps, {**found("kserve-container", port), "__address__": f"[2001:db8::7]:{port}"})
    assert six
    assert six["__address__"] == "[2001:db8::7]:8080"


@pytest.mark.parametrize(
    "target",
    [
        found("queue-proxy", 9090),
        found("kserve-container", 8080, pod_phase="Succeeded"),
        found("kserve-container", 8080, pod_label_serving_kserve_io_inferenceservice="digits-two"),
    ],
)
def test_nothing_else_is_a_target(target: dict[str, str]) -> None:
    assert relabelled(relabelings({}), target) is None


def test_without_the_operator_there_are_files_of_the_same_content(tmp_path: Path) -> None:
    data = one(render({"model": URI, "monitoring": PLAIN}), "ConfigMap")["data"]
    assert set(data) == {"scrape.yaml", *(f"rules-{name}.yaml" for name in NAMES)}
    assert [yaml.safe_load(data[f"rules-{name}.yaml"])["groups"] for name in NAMES] == [[groups()[name]] for name in NAMES]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    (job,) = yaml.safe_load(data["scrape.yaml"])["scrape_configs"]
    # Debian builds Prometheus without Kubernetes.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": [NAMESPACE]}}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [job], "rule_files": ["rules-*.yaml"]}))
    code, output = promtool("check", "config", "prometheus.yaml", directory=tmp_path)
    assert code == 0, output
    renamed = json.loads(
        json.dumps(relabelings({})).replace("sourceLabels", "source_labels").replace("targetLabel", "target_label")
    )
    assert job["relabel_configs"] == renamed


def test_buckets_are_those_of_the_server() -> None:
    (text,) = re.findall(r"^\[(.*)\]$", (CHART / "templates" / "_monitoring.tpl").read_text(), re.MULTILINE)
    assert tuple(float(bound) for bound in text.split(", ")) == LATENCY_BUCKETS


@pytest.mark.parametrize(
    ("milliseconds", "selector"),
    [(200, 'le="0.2"'), (201, 'le="0.25"'), (1, 'le="0.001"'), (1000, r'le=~"1(\\.0)?"'), (9000, r'le=~"10(\\.0)?"')],
)
def test_an_objective_between_two_bounds_is_the_greater(milliseconds: int, selector: str) -> None:
    slo = {"latencyMilliseconds": {"p95": 1, "p99": milliseconds}}
    assert f'chiffre_request_duration_seconds_bucket{{namespace="chiffre",inferenceservice="digits",{selector}}}' in expressions(
        slo=slo
    )


@pytest.mark.parametrize(
    ("slo", "thresholds"),
    [
        ({}, (0.0144, 0.006, 0.003, 0.001)),
        ({"availability": 0.99, "windowDays": 7}, (0.0336, 0.014, 0.01, 0.01)),
        ({"availability": 0.5}, (0.9, 0.9, 0.9, 0.5)),
    ],
)
def test_burn_rates_are_of_the_objective_and_its_window(slo: dict[str, Any], thresholds: tuple[float, ...]) -> None:
    shares = re.findall(r"chiffre:failures:ratio(1h|6h|1d|3d)\{[^}]*\} > ([0-9.]+)", expressions(slo=slo))
    # Six hours are the shorter window of three days, too.
    greatest = {window: max(float(share) for name, share in shares if name == window) for window in ("1h", "6h", "1d", "3d")}
    assert tuple(greatest.values()) == pytest.approx(thresholds)


@pytest.mark.parametrize(("mode", "pod"), [("Knative", "00001-deployment-6d5f9c7b8-x2x4z"), ("Standard", "6d5f9c7b8-x2x4z")])
def test_pods_are_the_releases_own(mode: str, pod: str) -> None:
    (pattern, *_) = re.findall(r'pod=~"([^"]+)"', expressions(mode=mode))
    assert re.fullmatch(pattern, f"digits-predictor-{pod}")
    assert not re.fullmatch(pattern, f"digits-predictor-predictor-{pod}")


def test_dashboards_are_as_the_code_makes_them_and_as_the_sidecar_finds_them() -> None:
    for path, content in dashboards.documents().items():
        assert path.read_text() == content, "run: make values"
    manifest = one(render("monitored"), "ConfigMap")
    assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert len(json.dumps(manifest)) < 2**20, "what a ConfigMap may hold"
    shown = {name: json.loads(text) for name, text in manifest["data"].items()}
    assert shown == {f"chiffre-{path.name}": json.loads(content) for path, content in dashboards.documents().items()}


def test_dashboards_fit_together() -> None:
    for content in dashboards.documents().values():
        dashboard = json.loads(content)
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
        assert len({panel["title"] for panel in panels}) == len(panels)
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            assert {target["refId"] for target in panel["targets"]} <= set("ABCDEFGH")
            assert panel["datasource"]["uid"] == "${datasource}"
