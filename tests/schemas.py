"""Manifests held against the schemas of their kinds: Kubernetes' own, strictly, and for KServe's kinds the models of its SDK.

What is not known is an error, as it is to an API server that is asked strictly.
"""

import re
from typing import Any

import kserve.models
import kubernetes.client
import kubernetes_validate

KUBERNETES = "1.34"
# The SDK writes types in one way, the client in another.
_LIST, _MAP = re.compile(r"[Ll]ist\[(.+)\]"), re.compile(r"dict\(str, (.+)\)|Dict\[str, (.+)\]")
_PLAIN: dict[str, Any] = {
    "object": object,
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "IntOrString": (int, str),
    "ResourceQuantity": (int, str),
}


class ManifestError(ValueError):
    """A manifest that its kind does not allow; the message says where."""


def check(manifest: dict[str, Any]) -> None:
    """Raise `ManifestError` where ``manifest`` is none of its kind."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    name = f"{manifest['kind']} {manifest['metadata'].get('name')}"
    if group == "monitoring.coreos.com":
        _check_operators(manifest, name)
        return
    if group == "serving.kserve.io":
        _build(version.capitalize() + manifest["kind"], manifest, name)
        return
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        message = f"{name}: {error.message}"
        raise ManifestError(message) from error


# Of the Prometheus operator's API, the fields that the chart uses; no package has the schemas.
# https://prometheus-operator.dev/docs/api-reference/api/
_SPECS: dict[str, dict[str, Any]] = {
    "PodMonitor": {
        "selector": {"matchLabels": dict},
        "podMetricsEndpoints": [
            {
                "path": str,
                "interval": str,
                "relabelings": [
                    {"action": str, "sourceLabels": [str], "regex": str, "targetLabel": str, "replacement": str},
                ],
            }
        ],
    },
    "PrometheusRule": {
        "groups": [
            {
                "name": str,
                "interval": str,
                "rules": [{"record": str, "alert": str, "expr": str, "for": str, "labels": dict, "annotations": dict}],
            }
        ]
    },
}


def _check_operators(manifest: dict[str, Any], name: str) -> None:
    _expect(manifest["kind"] in _SPECS, name, " or ".join(_SPECS), manifest["kind"])
    _expect(set(manifest) == {"apiVersion", "kind", "metadata", "spec"}, name, "a spec and no more", sorted(manifest))
    _compare(_SPECS[manifest["kind"]], manifest["spec"], f"{name}.spec")


def _compare(shape: Any, value: Any, path: str) -> None:
    if isinstance(shape, dict):
        _expect(isinstance(value, dict) and value.keys() <= shape.keys(), path, f"a map of {', '.join(shape)}", value)
        for key, item in value.items():
            _compare(shape[key], item, f"{path}.{key}")
    elif isinstance(shape, list):
        _expect(isinstance(value, list), path, "a list", value)
        for index, item in enumerate(value):
            _compare(shape[0], item, f"{path}[{index}]")
    else:
        _expect(isinstance(value, shape), path, shape.__name__, value)


def _build(kind: str, value: Any, path: str) -> Any:
    """The SDK's object of ``kind``: its constructor asks for what is required. Raises `ManifestError`."""
    if found := _LIST.fullmatch(kind):
        _expect(isinstance(value, list), path, "a list", value)
        return [_build(found[1], item, f"{path}[{index}]") for index, item in enumerate(value)]
    if found := _MAP.fullmatch(kind):
        _expect(isinstance(value, dict), path, "a map", value)
        return {key: _build(found[1] or found[2], item, f"{path}.{key}") for key, item in value.items()}
    if kind in _PLAIN:
        # To Python, a boolean is a number.
        is_right = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        _expect(is_right, path, kind, value)
        return value
    return _build_model(kind, value, path)


def _build_model(kind: str, value: Any, path: str) -> Any:
    model = _model(kind)
    _expect(isinstance(value, dict), path, "a map", value)
    attributes = {written: attribute for attribute, written in model.attribute_map.items()}
    if unknown := sorted(value.keys() - attributes):
        message = f"{path}: {kind} has no {', '.join(unknown)}"
        raise ManifestError(message)
    parts = {attributes[key]: _build(model.openapi_types[attributes[key]], item, f"{path}.{key}") for key, item in value.items()}
    try:
        return model(**parts)
    except ValueError as error:
        message = f"{path}: {' '.join(str(error).split())}"
        raise ManifestError(message) from error


def _model(kind: str) -> Any:
    """A class of KServe's SDK or of Kubernetes' client, which the SDK names in two ways."""
    short = re.sub(r"^K8sIoApi[A-Z][a-z]+(?=V\d)", "", kind)
    return getattr(kserve.models, kind, None) or getattr(kubernetes.client, short)


def _expect(is_right: bool, path: str, expected: str, value: Any) -> None:
    if not is_right:
        message = f"{path}: expected {expected}, got {value!r}"
        raise ManifestError(message)
