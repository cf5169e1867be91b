"""The chart's objects in each of the ways it is installed in ci/."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.feedback import Terms
from serving.flags import build_parser
from tests import schemas
from tests.chart.rendering import CHART, CI, NAMES, NAMESPACE, RELEASE, containers, helm, one, render
from tests.processes import ROOT

URI = {"uri": "mlflow://digits/1"}
KNATIVE = {"model": URI}
STANDARD = {"mode": "Standard", "model": URI}
RENDERED = {name: render(name) for name in NAMES}

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVE = DOCKERFILE[DOCKERFILE.index("FROM runtime AS serve") :]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FACTS = yaml.safe_load((CHART / "Chart.yaml").read_text())


def predictor(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = one(manifests, "InferenceService")["spec"]["predictor"]
    return found


def server(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return containers(manifests)["kserve-container"]


def flags(manifests: list[dict[str, Any]]) -> Any:
    return build_parser().parse_args(server(manifests)["args"])


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_one_of_its_kind(name: str) -> None:
    for manifest in RENDERED[name]:
        schemas.check(manifest)


@pytest.mark.parametrize("file", CI, ids=NAMES)
def test_helm_finds_nothing_to_lint(file: Path) -> None:
    done = helm("lint", "--strict", "--values", str(file), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_named_by_the_release(name: str) -> None:
    for manifest in RENDERED[name]:
        meta, is_in_namespace = manifest["metadata"], manifest["kind"] != "ClusterStorageContainer"
        expected = {"ServiceAccount": "serving" if name == "secured" else RELEASE, "Pod": f"{RELEASE}-test"}
        expected["ConfigMap"] = f"{RELEASE}-{'dashboards' if name == 'monitored' else 'prometheus'}"
        assert meta["name"] == (expected.get(manifest["kind"], RELEASE) if is_in_namespace else f"{NAMESPACE}-{RELEASE}")
        assert meta.get("namespace") == (NAMESPACE if is_in_namespace else None)
        assert meta["labels"]["app.kubernetes.io/instance"] == RELEASE


@pytest.mark.parametrize("name", NAMES)
def test_the_servers_arguments_are_taken_by_its_parser(name: str) -> None:
    arguments = flags(RENDERED[name])
    port = server(RENDERED[name])["ports"][0]["containerPort"]
    assert port == (arguments.grpc_port if arguments.enable_grpc else arguments.http_port)
    assert arguments.enable_grpc == ("grpc" in name)
    assert str(arguments.model_dir) == "/mnt/models"


def test_values_reach_the_server() -> None:
    arguments = flags(RENDERED["secured"])
    assert (arguments.model_name, arguments.workers, arguments.log_requests) == ("digits.v2", 2, "all")
    assert arguments.max_queued_images == 2048
    arguments = flags(RENDERED["standard-grpc"])
    assert (arguments.drain_seconds, arguments.grace_seconds) == (1, 10)
    assert {entry["name"] for entry in server(RENDERED["secured"])["env"]} == {"TZ", "NODE"}


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (KNATIVE, 64),
        ({**KNATIVE, "shadow": {"requests": 1024}}, 1024),
        ({**KNATIVE, "shadow": {"requests": 0}}, 0),
        (STANDARD, 0),
        ({**STANDARD, "shadow": {"requests": 5}}, 5),
    ],
)
def test_requests_are_kept_for_a_rollouts_shadow_where_there_are_rollouts(values: dict[str, Any], kept: int) -> None:
    manifests = render(values)
    assert flags(manifests).shadow_requests == kept
    assert ("--shadow_requests" in server(manifests)["args"]) is (kept > 0)


@pytest.mark.parametrize("values", [KNATIVE, STANDARD], ids=["Knative", "Standard"])
def test_feedback_is_taken_where_that_is_asked_for(values: dict[str, Any]) -> None:
    assert not any(word.startswith("--feedback") for word in server(render(values))["args"])
    assert flags(render(values)).feedback is False
    arguments = flags(render({**values, "feedback": {"enabled": True}}))
    assert (arguments.feedback, arguments.feedback_per_second, arguments.feedback_asked_share) == (True, 20, 0.05)
    # Defaults are the server's own.
    assert (Terms.per_second, Terms.asked_share) == (20, 0.05)
    arguments = flags(render({**values, "feedback": {"enabled": True, "perSecond": 0.5, "askedShare": 1}}))
    assert (arguments.feedback_per_second, arguments.feedback_asked_share) == (0.5, 1)


def test_the_shadows_port_is_the_pods_own() -> None:
    port = flags(RENDERED["knative-rest"]).shadow_port
    assert f"port {port} of the pod's loopback" in (CHART / "README.md").read_text()
    assert all(str(port) not in str(server(manifests)["ports"]) for manifests in RENDERED.values())
    # Those that Knative's queue-proxy listens at, beside the server, and the server's own.
    # https://github.com/knative/serving/blob/main/pkg/networking/constants.go
    assert port not in {8008, 8012, 8013, 8022, 8112, 9090, 9091, 8080, 8081}


@pytest.mark.parametrize("name", NAMES)
def test_ports_and_probes_are_those_of_the_image(name: str) -> None:
    container, arguments = server(RENDERED[name]), flags(RENDERED[name])
    (exposed,) = re.findall(r"^EXPOSE (.*)$", SERVE, re.MULTILINE)
    assert exposed.split() == [str(arguments.http_port), str(arguments.grpc_port)]
    # Knative takes one port, and gRPC by this name only.
    (port,) = container["ports"]
    assert port["name"] == ("h2c" if "grpc" in name else "http1")
    ready = container["readinessProbe"]["httpGet"]
    assert ready == {"path": f"/v2/models/{arguments.model_name}/ready", "port": arguments.http_port}
    assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": arguments.http_port}


@pytest.mark.parametrize("name", NAMES)
def test_every_container_keeps_to_the_restricted_standard_as_the_images_user(name: str) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", SERVE, re.MULTILINE)
    found = containers(RENDERED[name])
    assert set(found) >= {"kserve-container", "predict"}
    for container in found.values():
        assert container["securityContext"] == {
            "runAsUser": int(user[0]),
            "runAsGroup": int(user[1]),
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    (mount,) = server(RENDERED[name])["volumeMounts"]
    assert (mount["mountPath"], mount.get("readOnly")) == ("/tmp", None)  # noqa: S108 -- the image's home


@pytest.mark.parametrize("name", NAMES)
def test_every_container_says_what_it_needs(name: str) -> None:
    # KServe lays the service's part over the runtime's.
    needs = [{**predictor(RENDERED[name])["model"], "name": "kserve-container"}, *containers(RENDERED[name]).values()]
    for container in {found["name"]: found for found in reversed(needs)}.values():
        assert {kind: set(amounts) for kind, amounts in container["resources"].items()} == {
            "requests": {"cpu", "memory"},
            "limits": {"cpu", "memory"},
        }


def test_an_image_is_named_by_its_digest_where_there_is_one() -> None:
    digest = "sha256:" + "0" * 64
    rendered = render({"model": URI, "image": {"repository": "registry.example/serve", "tag": "1", "digest": digest}})
    assert {container["image"] for container in containers(rendered).values()} == {f"registry.example/serve@{digest}"}


@pytest.mark.parametrize("name", NAMES)
def test_one_image_serves_fetches_and_tests(name: str) -> None:
    image = "registry.example:5000/team/chiffre-serve:0.1.0-test" if name == "secured" else f"chiffre-serve:{PROJECT['version']}"
    assert {container["image"] for container in containers(RENDERED[name]).values()} == {image}
    makefile = (ROOT / "Makefile").read_text()
    assert "$(IMG)-$$target:$(TAG)" in makefile
    assert "\nTAG ?= $(VERSION)\n" in makefile


def test_the_charts_application_is_the_project() -> None:
    assert FACTS["appVersion"] == PROJECT["version"]
    assert FACTS["name"] == PROJECT["name"]


def test_a_release_of_the_chart_changes_no_pod(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "chiffre")
    newer = {**FACTS, "version": "9.9.9", "appVersion": "9.9.9"}
    (tmp_path / "chiffre" / "Chart.yaml").write_text(yaml.safe_dump(newer))
    values = {"model": URI, "image": {"tag": "1"}}
    for mode in ("Knative", "Standard"):
        assert render({**values, "mode": mode}) == render({**values, "mode": mode}, chart=tmp_path / "chiffre")


@pytest.mark.parametrize("name", NAMES)
def test_the_mode_is_said_and_its_own_options_alone(name: str) -> None:
    service, spec = one(RENDERED[name], "InferenceService"), predictor(RENDERED[name])
    is_standard = name.startswith("standard")
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == ("Standard" if is_standard else "Knative")
    kinds = {manifest["kind"] for manifest in RENDERED[name]}
    assert ("PodDisruptionBudget" in kinds) is is_standard
    assert ("lifecycle" in server(RENDERED[name])) is is_standard
    assert ("terminationGracePeriodSeconds" in spec) is is_standard
    assert ("timeout" in spec) is not is_standard
    assert ("serving.kserve.io/enable-tag-routing" in annotations) is not is_standard
    assert ("serving.knative.dev/progress-deadline" in spec.get("annotations", {})) is not is_standard
    assert (spec["scaleMetric"] in ("cpu", "memory")) is is_standard
    assert spec.get("canaryTrafficPercent") == (10 if name == "canary" else None)
    assert spec["model"]["protocolVersion"] == ("grpc-v2" if "grpc" in name else "v2")


@pytest.mark.parametrize("name", NAMES)
def test_the_service_runs_on_the_releases_runtime_and_no_other_model_does(name: str) -> None:
    model, runtime = predictor(RENDERED[name])["model"], one(RENDERED[name], "ServingRuntime")
    assert model["runtime"] == runtime["metadata"]["name"]
    (known,) = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"] == {"name": known["name"], "version": known["version"]}
    assert known["autoSelect"] is False
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


@pytest.mark.parametrize(
    ("values", "replicas", "metric"),
    [
        (KNATIVE, (0, 3), ("concurrency", 32)),
        ({**KNATIVE, "scale": {"metric": "rps", "min": 1}}, (1, 3), ("rps", 500)),
        ({**KNATIVE, "scale": {"target": 1000000, "max": 1000}}, (0, 1000), ("concurrency", 1000000)),
        (STANDARD, (2, 3), ("cpu", 80)),
        ({**STANDARD, "scale": {"metric": "memory", "target": 70, "max": 9}}, (2, 9), ("memory", 70)),
    ],
)
def test_scale(values: dict[str, Any], replicas: tuple[int, int], metric: tuple[str, int]) -> None:
    spec = predictor(render(values))
    assert (spec["minReplicas"], spec["maxReplicas"]) == replicas
    assert (spec["scaleMetric"], spec["scaleTarget"]) == metric


def test_a_share_of_nothing_is_a_share() -> None:
    assert predictor(render({**KNATIVE, "canary": {"percent": 0}}))["canaryTrafficPercent"] == 0


def test_null_on_the_command_line_promotes_a_canary() -> None:
    done = helm("template", RELEASE, str(CHART), "--values", str(CHART / "ci" / "canary.yaml"), "--set", "canary.percent=null")
    assert "kind: InferenceService" in done.stdout
    assert "canaryTrafficPercent" not in done.stdout


def test_knatives_window_and_deadline() -> None:
    assert predictor(RENDERED["knative-grpc"])["annotations"]["autoscaling.knative.dev/window"] == "6s"
    assert predictor(RENDERED["canary"])["annotations"]["serving.knative.dev/progress-deadline"] == "60s"
    # The queue-proxy probes at once and often only where no period is given.
    # Knative's own pace, with which it refuses all three.
    assert server(RENDERED["canary"])["readinessProbe"].keys() == {"httpGet"}


@pytest.mark.parametrize("shutdown", [{}, {"drainSeconds": 60, "graceSeconds": 300}])
@pytest.mark.parametrize("values", [KNATIVE, STANDARD], ids=["Knative", "Standard"])
def test_a_pod_has_the_time_that_its_end_takes(values: dict[str, Any], shutdown: dict[str, int]) -> None:
    manifests = render({**values, "shutdown": shutdown})
    arguments, spec = flags(manifests), predictor(manifests)
    before = server(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"] if "mode" in values else 30
    given = spec["terminationGracePeriodSeconds"] if "mode" in values else spec["timeout"]
    # The server kills its workers 3 s after the two; Knative allows 600 s unless told otherwise.
    assert before + arguments.drain_seconds + arguments.grace_seconds + 3 < given < 600


def test_in_standard_mode_pods_are_replaced_and_evicted_one_by_one() -> None:
    budget = one(RENDERED["standard-rest"], "PodDisruptionBudget")["spec"]
    # The label of the Deployment's pods is KServe's: isvc. and the name of the component.
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": {"app": f"isvc.{RELEASE}-predictor"}}}
    strategy = predictor(RENDERED["standard-rest"])["deploymentStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_the_storage_container_takes_mlflow_alone() -> None:
    spec = one(RENDERED["knative-rest"], "ClusterStorageContainer")["spec"]
    assert spec["supportedUriFormats"] == [{"prefix": "mlflow://"}]
    container = spec["container"]
    # KServe finds it by this name, and gives it the URI and the directory as its arguments.
    assert container["name"] == "storage-initializer"
    assert container["command"] == ["python", "-m", "serving.storage"]
    assert "args" not in container
    assert container["env"] == [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.chiffre.svc.cluster.local:5000"}]
    assert not container.keys() & {"envFrom", "volumeMounts"}
    assert "ClusterStorageContainer" not in {manifest["kind"] for manifest in RENDERED["pvc"]}


def test_the_storage_container_gets_secret_and_certificates() -> None:
    container, runtime = containers(RENDERED["secured"])["storage-initializer"], one(RENDERED["secured"], "ServingRuntime")
    assert container["envFrom"] == [{"secretRef": {"name": "mlflow-token"}}]
    (mount,) = container["volumeMounts"]
    (path,) = [entry["value"] for entry in container["env"] if entry["name"] == "MLFLOW_TRACKING_SERVER_CERT_PATH"]
    assert path == f"{mount['mountPath']}/ca.crt"
    (volume,) = [volume for volume in runtime["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["configMap"]["name"] == "mlflow-ca"


def test_the_service_account_has_no_token() -> None:
    account = one(RENDERED["secured"], "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["annotations"] == {"iam.example/role": "serving"}
    assert predictor(RENDERED["secured"])["serviceAccountName"] == account["metadata"]["name"]
    without = render({**KNATIVE, "serviceAccount": {"create": False}})
    assert predictor(without)["serviceAccountName"] == "default"
    assert "ServiceAccount" not in {manifest["kind"] for manifest in without}


def test_where_pods_run_and_what_they_carry() -> None:
    spec, runtime = predictor(RENDERED["secured"]), one(RENDERED["secured"], "ServingRuntime")["spec"]
    assert spec["nodeSelector"] == {"pool": "serving"}
    assert spec["tolerations"][0]["key"] == "dedicated"
    assert spec["affinity"].keys() == {"podAntiAffinity"}
    assert spec["labels"] == {"team": "vision"}
    assert spec["annotations"]["example.org/owner"] == "vision"
    assert runtime["imagePullSecrets"] == one(RENDERED["secured"], "Pod")["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert not predictor(RENDERED["knative-rest"]).keys() & {"nodeSelector", "tolerations", "affinity", "labels"}


def egress(manifests: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    policy = one(manifests, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    assert policy["podSelector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": RELEASE}
    dns, *others = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    return [(rule["to"], rule["ports"]) for rule in others]


@pytest.mark.parametrize(
    ("uri", "namespace", "port"),
    [
        ("http://mlflow.chiffre.svc.cluster.local:5000", "chiffre", 5000),
        ("https://mlflow.tracking.svc/prefix", "tracking", 443),
        ("http://mlflow", NAMESPACE, 80),
    ],
)
def test_pods_reach_mlflow_and_dns_only(uri: str, namespace: str, port: int) -> None:
    ((to, ports),) = egress(render({**KNATIVE, "mlflow": {"trackingUri": uri}}))
    assert to == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]
    assert ports == [{"port": port, "protocol": "TCP"}]


def test_pods_reach_mlflow_outside_the_cluster_or_none() -> None:
    ((to, ports),) = egress(RENDERED["secured"])
    assert to == [{"ipBlock": {"cidr": "203.0.113.7/32"}}, {"ipBlock": {"cidr": "2001:db8::/64"}}]
    assert ports == [{"port": 443, "protocol": "TCP"}]
    assert egress(RENDERED["pvc"]) == []
    without = render({**KNATIVE, "networkPolicy": {"create": False}})
    assert "NetworkPolicy" not in {manifest["kind"] for manifest in without}


def test_a_manifest_with_a_misspelt_field_is_none_of_its_kind() -> None:
    manifests = render("standard-rest")
    predictor(manifests)["minReplica"] = 1
    with pytest.raises(schemas.ManifestError, match="has no minReplica"):
        schemas.check(one(manifests, "InferenceService"))
    server(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"] = "5"
    with pytest.raises(schemas.ManifestError, match="expected int, got '5'"):
        schemas.check(one(manifests, "ServingRuntime"))
    one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailabel"] = 1
    with pytest.raises(schemas.ManifestError, match="maxUnavailabel"):
        schemas.check(one(manifests, "PodDisruptionBudget"))
