"""Every overlay, built: its kinds' schemas, Pod Security, and that names, labels, ports and images agree."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.k8s.overlays import OVERLAYS, Overlay, build, build_own, environment
from tests.k8s.security import violations
from tests.processes import ROOT

KUBERNETES = "1.34"
NAMESPACE = "chiffre"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module", params=OVERLAYS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def overlay(name: str) -> Overlay:
    return build(ROOT / "k8s" / "overlays" / name)


def test_all_overlays_are_tested() -> None:
    assert {path.name for path in (ROOT / "k8s" / "overlays").iterdir()} == set(OVERLAYS)


def test_every_manifest_is_what_its_kind_allows(overlay: Overlay) -> None:
    for manifest in overlay.manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_check_of_kinds_is_strict(overlay: Overlay) -> None:
    job = copy.deepcopy(next(iter(overlay.of("Job").values())))
    job["spec"]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_all_is_in_one_namespace_that_enforces_restricted(overlay: Overlay) -> None:
    (namespace,) = overlay.of("Namespace").values()
    assert namespace["metadata"]["name"] == NAMESPACE
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for manifest in overlay.manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == NAMESPACE, manifest["metadata"]["name"]


def test_every_pod_is_restricted(overlay: Overlay) -> None:
    pods = list(overlay.templates())
    assert len(pods) >= 2
    for owner, template in pods:
        assert violations(template["spec"]) == [], owner


@pytest.mark.parametrize(
    "change",
    [
        {"securityContext": {}},
        {"hostNetwork": True},
        {"enableServiceLinks": True},
        {"automountServiceAccountToken": True},
        {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "bare"}]},
        {"initContainers": [{"name": "bare"}]},
    ],
)
def test_a_pod_that_is_not_restricted_is_found(overlay: Overlay, change: dict[str, Any]) -> None:
    assert violations({**overlay.pod("mlflow"), **change})


def test_what_a_pod_refers_to_is_there(overlay: Overlay) -> None:
    for owner, template in overlay.templates():
        pod = template["spec"]
        if account := pod.get("serviceAccountName"):
            assert overlay.of("ServiceAccount")[account]["automountServiceAccountToken"] is False
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in overlay.of("ConfigMap"), owner
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in overlay.of("PersistentVolumeClaim"), owner
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), owner


def test_a_volume_is_mounted_once_since_one_machine_can_mount_it(overlay: Overlay) -> None:
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for _, template in overlay.templates()
        for volume in template["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert len(claims) == len(set(claims))
    assert set(claims) == set(overlay.of("PersistentVolumeClaim"))
    for claim in overlay.of("PersistentVolumeClaim").values():
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_every_service_has_pods_and_their_ports(overlay: Overlay) -> None:
    templates = dict(overlay.templates())
    for service in overlay.of("Service").values():
        selector = service["spec"]["selector"].items()
        chosen = [template for template in templates.values() if selector <= template["metadata"]["labels"].items()]
        assert chosen, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            if target := port.get("targetPort"):
                for template in chosen:
                    (container,) = template["spec"]["containers"]
                    assert target in {own["name"] for own in container["ports"]}


def test_images_are_those_of_the_dockerfile_at_the_version_of_the_project(name: str, overlay: Overlay) -> None:
    assert re.search(r'title="chiffre-train"', (ROOT / "Dockerfile").read_text())
    expected = f"{'kind.local/' if name == 'kind' else ''}chiffre-train:{VERSION}"
    for _, template in overlay.templates():
        for container in template["spec"]["containers"]:
            assert container["image"] == expected
            assert container.get("imagePullPolicy") == ("Never" if name == "kind" else None)


def test_the_user_of_the_image_is_that_of_every_pod(overlay: Overlay) -> None:
    user, group = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
    for _, template in overlay.templates():
        context = template["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


def test_the_configurations_are_all_there(overlay: Overlay) -> None:
    (found,) = overlay.of("ConfigMap").values()
    files = {path.name: path.read_text() for path in (ROOT / "model" / "configs").iterdir() if path.name != "kustomization.yaml"}
    assert found["data"] == files


def test_an_overlay_over_it_sets_image_and_tag(tmp_path: Path) -> None:
    overlay = build_own(tmp_path, images=[{"name": "chiffre-train", "newName": "dev.local/chiffre-train", "newTag": "test"}])
    for _, template in overlay.templates():
        for container in template["spec"]["containers"]:
            assert container["image"] == "dev.local/chiffre-train:test"


def test_the_overlay_of_the_readme_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text("trainer:\n  max_epochs: 2\n")
    own = yaml.safe_load(text)
    (resource,) = own.pop("resources")
    assert resource == "../chiffre/k8s/overlays/gpu"
    overlay = build_own(tmp_path, overlay="gpu", **own)
    assert overlay.pod("chiffre-train")["containers"][0]["image"] == f"registry.example.com/chiffre-train:{VERSION}"
    (configs,) = overlay.of("ConfigMap").values()
    assert yaml.safe_load(configs["data"]["best.yaml"]) == {"trainer": {"max_epochs": 2}}
    values = environment(overlay.pod("mlflow")["containers"][0])
    assert values["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql:")
    assert values["MLFLOW_ARTIFACTS_DESTINATION"].startswith("gs:")


def test_platform_is_pinned_to_releases() -> None:
    urls = [
        resource
        for path in (ROOT / "k8s" / "platform").glob("*/kustomization.yaml")
        for resource in yaml.safe_load(path.read_text())["resources"]
        if "://" in resource
    ]
    assert len(urls) == 6
    for url in urls:
        assert re.fullmatch(r"https://github\.com/[\w/-]+/releases/download/(knative-)?v\d+\.\d+\.\d+/[\w.-]+\.yaml", url), url
    # Kinds and controllers of one release.
    for project in ("knative/serving", "kserve/kserve"):
        assert len({url.split("/")[7] for url in urls if f"/{project}/" in url}) == 1
    for path in (ROOT / "k8s" / "platform").glob("*/config.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
