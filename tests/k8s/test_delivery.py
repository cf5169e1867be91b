"""The cluster that workflows make on kind, and what they may do on one that is not theirs."""

from itertools import product
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import NAMES, render
from tests.k8s.overlays import OVERLAYS, build
from tests.processes import ROOT

K8S = ROOT / "k8s"
KUBERNETES = "1.34"
# By kubectl and by Helm.
_BRINGS = ("create", "get", "patch")
_GROUPS = {"v1": ""}


def load(*names: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(K8S.joinpath(*names).read_text()))


def test_the_gateway_of_kind_is_at_the_port_that_is_this_machines() -> None:
    (cluster,), (gateway,) = load("kind", "cluster.yaml"), load("kind", "gateway.yaml")
    kubernetes_validate.validate(gateway, KUBERNETES, strict=True)
    (node,) = cluster["nodes"]
    (mapping,), (port,) = node["extraPortMappings"], gateway["spec"]["ports"]
    assert mapping["containerPort"] == port["nodePort"]
    address = f"http://{mapping['listenAddress']}:{mapping['hostPort']}"
    assert address == "http://127.0.0.1:8080"
    assert f"GATEWAY: {address}" in (ROOT / ".github" / "workflows" / "e2e.yml").read_text()


def test_kind_has_the_kubernetes_that_manifests_are_checked_against() -> None:
    (cluster,) = load("kind", "cluster.yaml")
    (node,) = cluster["nodes"]
    assert node["image"].startswith(f"kindest/node:v{KUBERNETES}.")
    assert "@sha256:" in node["image"]


@pytest.fixture(scope="module")
def rights() -> dict[str, set[tuple[str, str, str]]]:
    """By role: group, resource, verb."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    for role in load("deployer", "roles.yaml"):
        kubernetes_validate.validate(role, KUBERNETES, strict=True)
        parts = [product(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in role["rules"]]
        found[role["metadata"]["name"]] = {right for rule in parts for right in rule}
    return found


def test_a_deployer_may_bring_what_the_chart_and_the_overlays_bring(rights: dict[str, set[tuple[str, str, str]]]) -> None:
    manifests = [manifest for name in NAMES for manifest in render(name)]
    manifests += [manifest for name in OVERLAYS for manifest in build(K8S / "overlays" / name).manifests]
    for manifest in manifests:
        if manifest["metadata"].get("annotations", {}).get("helm.sh/hook") == "test":
            continue
        group, kind = _GROUPS.get(manifest["apiVersion"], manifest["apiVersion"].partition("/")[0]), manifest["kind"]
        resource = "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s"
        role = "chiffre-deployer" if "namespace" in manifest["metadata"] else "chiffre-deployer-cluster"
        # Whoever binds the roles makes the namespace.
        verbs = _BRINGS[1:] if kind == "Namespace" else _BRINGS
        assert {(group, resource, verb) for verb in verbs} <= rights[role], f"{kind} {manifest['metadata']['name']}"


def test_a_deployer_is_no_administrator(rights: dict[str, set[tuple[str, str, str]]]) -> None:
    every = {right for found in rights.values() for right in found}
    assert not any("*" in right for right in every)
    assert not {resource for _, resource, _ in every} & {"clusterroles", "nodes", "pods/exec", "rolebindings", "roles"}
    beyond = {(group, resource) for group, resource, _ in rights["chiffre-deployer-cluster"]}
    assert beyond == {("", "namespaces"), ("serving.kserve.io", "clusterstoragecontainers")}
