"""What the chart refuses, before anything is applied, and how its values are described."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from helm import document
from tests.chart.rendering import CHART, NAMES, refusal, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = list(document.values(SCHEMA))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
URI = {"uri": "mlflow://digits/1"}


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def part(path: tuple[str, ...]) -> dict[str, Any]:
    found = SCHEMA
    for key in path:
        found = found["properties"][key]
    reference = found.get("$ref", "").rpartition("/")[2]
    return {**found, **SCHEMA["definitions"].get(reference, {})}


def bad_values(rules: dict[str, Any]) -> Iterator[Any]:
    """For each rule of a value one that breaks it."""
    kinds = {type(option) for option in rules.get("enum", [])}
    types = rules.get("type", [])
    if "string" not in types and str not in kinds:
        yield "text"
    if not {"integer", "number"} & ({types} if isinstance(types, str) else set(types)):
        yield 7
    if "null" not in types and type(None) not in kinds:
        yield None
    yield from ({"unknown": 1}, [3])
    if "integer" in types:
        yield 1.5
    for name, offset in {"minimum": -1, "exclusiveMinimum": 0, "maximum": 1, "exclusiveMaximum": 0}.items():
        if name in rules:
            yield rules[name] + offset
    if "pattern" in rules or "enum" in rules:
        yield "_ what is this?"


LEAVES = [value for value in VALUES if value.default is not None]


@pytest.mark.parametrize("value", LEAVES, ids=lambda value: value.name)
def test_the_schema_refuses_what_a_value_cannot_be(value: document.Value) -> None:
    rules = part(value.path)
    # What Kubernetes has as a free map is left to Kubernetes.
    is_open = rules.get("type") == "object" and "additionalProperties" not in rules
    for bad in bad_values(rules):
        if not (is_open and isinstance(bad, dict)):
            assert not VALIDATOR.is_valid(nested(value.path, bad)), f"{value.name}={bad!r}"


@pytest.mark.parametrize("path", [(), *[value.path for value in VALUES if value.default is None]], ids=".".join)
def test_no_group_takes_an_unknown_key(path: tuple[str, ...]) -> None:
    (error,) = VALIDATOR.iter_errors(nested((*path, "unknown"), 1))
    assert "'unknown' was unexpected" in error.message


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (("image", "tag"), "latest"),
        (("image", "tag"), "a b"),
        (("image", "repository"), "https://registry/x"),
        (("image", "pullSecrets"), [""]),
        (("resources", "requests", "cpu"), "lots"),
        (("resources", "limits", "memory"), "0"),
        (("scale", "window"), "5s"),
        (("scale", "window"), "61m"),
        (("mlflow", "trackingUri"), "sqlite:///mlflow.db"),
        (("mlflow", "trackingUri"), "http://user:password@mlflow"),
        (("networkPolicy", "mlflowCidrs"), ["203.0.113.7"]),
        (("server", "extraArgs"), ["--http_port=1"]),
        (("server", "extraArgs"), ["--shadow_requests", "64"]),
        (("server", "extraArgs"), ["--feedback=true"]),
        (("shadow", "requests"), -1),
        (("server", "extraEnv"), [{"value": "nameless"}]),
        (("server", "extraEnv"), [{"name": "A", "valueFrom": {}}]),
        (("tolerations",), [{"keys": "a"}]),
        (("podLabels",), {"a": 1}),
        (("monitoring", "rules", "runbooks"), "https://git.example/wiki"),
        (("monitoring", "rules", "runbooks"), "docs/runbooks/"),
        (("monitoring", "labels"), {"release": None}),
    ],
    ids=str,
)
def test_the_schema_refuses(path: tuple[str, ...], bad: Any) -> None:
    assert not VALIDATOR.is_valid(nested(path, bad))


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_takes_what_is_installed(name: str) -> None:
    VALIDATOR.validate(DEFAULTS)
    VALIDATOR.validate(yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text()))


def test_helm_asks_the_schema() -> None:
    assert "additional properties 'replicas' not allowed" in refusal({"model": URI, "replicas": 3})
    assert "maximum" in refusal({"model": URI, "canary": {"percent": 101}})
    assert "/image/tag" in refusal({"model": URI, "image": {"tag": "latest"}})


STANDARD = {"mode": "Standard"}
ONE_OF = "mlflow://NAME/VERSION, mlflow://runs/RUN_ID/bundle or pvc://CLAIM/PATH"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": {}}, f"model.uri is missing: it says which model is served, {ONE_OF}."),
        ({"model": {"uri": "s3://bucket/model"}}, f'model.uri "s3://bucket/model": expected {ONE_OF}.'),
        (
            {"model": {"uri": "mlflow://digits@champion"}},
            "An alias may move, and pods of one revision would then serve different",
        ),
        ({"model": {"uri": "mlflow://digits/champion"}}, "with the number of a version. An alias may move"),
        ({"model": {"uri": "mlflow://digits/0"}}, "with the number of a version"),
        ({"model": {"uri": "mlflow://digits"}}, "with the number of a version"),
        ({"model": {"uri": "mlflow://runs/12"}}, "expected mlflow://runs/RUN_ID/bundle"),
        ({"model": {"uri": "pvc://Claim"}}, f"expected {ONE_OF}"),
        ({"scale": {"metric": "cpu"}}, 'scale.metric "cpu" is not a metric of Knative mode, which scales by concurrency or rps.'),
        ({**STANDARD, "scale": {"metric": "rps"}}, "is not a metric of Standard mode, which scales by cpu or memory."),
        ({**STANDARD, "canary": {"percent": 10}}, "canary.percent has no effect in Standard mode; leave it null, or set mode to"),
        ({**STANDARD, "canary": {"percent": 0}}, "canary.percent has no effect in Standard mode"),
        ({**STANDARD, "scale": {"window": "60s"}}, "scale.window has no effect in Standard mode"),
        ({**STANDARD, "progressDeadlineSeconds": 60}, "progressDeadlineSeconds has no effect in Standard mode"),
        (
            {"shutdown": {"preStopSeconds": 5}},
            "shutdown.preStopSeconds has no effect in Knative mode; leave it null, or set mode",
        ),
        ({"podDisruptionBudget": {"maxUnavailable": 1}}, "podDisruptionBudget.maxUnavailable has no effect in Knative mode"),
        ({**STANDARD, "scale": {"min": 0}}, "scale.min is 0, which Standard mode does not know"),
        ({"scale": {"min": 4}}, "scale.min is 4, more than scale.max, which is 3."),
        ({**STANDARD, "scale": {"max": 1}}, "scale.min is 2, more than scale.max, which is 1."),
        ({"slo": {"latencyMilliseconds": {"p95": 300}}}, "slo.latencyMilliseconds.p95 is more than slo.latencyMilliseconds.p99."),
        ({"protocol": "grpc", "feedback": {"enabled": True}}, "feedback.enabled has no effect where protocol is grpc"),
        (
            {"slo": {"latencyMilliseconds": {"p99": 20000}}, "monitoring": {"rules": {"kind": "PrometheusRule"}}},
            "slo.latencyMilliseconds.p99 is 20000, beyond the last bound of the server's histogram, 10000",
        ),
        ({"mlflow": {"trackingUri": "https://mlflow.example"}}, "networkPolicy.mlflowCidrs is empty, and https://mlflow.example"),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_a_sentence(values: dict[str, Any], says: str) -> None:
    assert says in refusal({"model": URI, **values})


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refusal({"mode": "Standard", "canary": {"percent": 5}, "scale": {"metric": "rps"}})
    assert all(name in said for name in ("model.uri", "canary.percent", "scale.metric"))


@pytest.mark.parametrize(("namespace", "most"), [("ns", 46), ("chiffre", 45), ("n" * 30, 22)])
def test_a_name_is_as_long_as_host_names_allow(namespace: str, most: int) -> None:
    longest = "d" * most
    assert len(f"{longest}-predictor-{namespace}") <= 63
    assert len(f"latest-{longest}-predictor") <= 63
    assert render({"model": URI}, release=longest, namespace=namespace)
    said = refusal({"model": URI}, release=f"{longest}d", namespace=namespace)
    assert f"has {most + 1} characters; in the namespace" in said
    assert f"it may have {most}, so that" in said


@pytest.mark.parametrize("release", ["1digits", "digits.two"])
def test_a_name_is_one_that_kserve_takes(release: str) -> None:
    assert "must consist of lower case letters, digits and dashes and start with a letter" in refusal(
        {"model": URI}, release=release
    )


@pytest.mark.parametrize("path", [path.name for path in document.documents()])
def test_values_and_readme_say_what_the_schema_says(path: str) -> None:
    (expected,) = [content for file, content in document.documents().items() if file.name == path]
    assert (CHART / path).read_text() == expected, "run: make values"


def test_every_value_is_in_the_values_with_its_default() -> None:
    for value in LEAVES:
        found = DEFAULTS
        for key in value.path:
            found = found[key]
        assert found == json.loads(value.default or ""), value.name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda schema: schema["properties"]["mode"].pop("description"), "mode: expected a description"),
        (lambda schema: schema["properties"]["slo"].pop("additionalProperties"), "slo: expected additionalProperties"),
        (lambda schema: schema["properties"]["mode"].pop("default"), "mode: expected a default"),
    ],
)
def test_a_schema_that_is_open_or_silent_is_an_error(change: Any, says: str) -> None:
    schema = copy.deepcopy(SCHEMA)
    change(schema)
    with pytest.raises(document.SchemaError, match=says):
        list(document.values(schema))
