"""What the pods run: their commands and arguments, given to the programs' own parsers."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run
import yaml
from jsonargparse import Namespace
from mlflow.cli import cli as mlflow_cli

from model import cli
from model.__main__ import EXIT_CONFIGURATION, EXIT_REFUSED
from model.registry import MODEL_NAME
from tests.k8s.overlays import OVERLAYS, Manifest, Overlay, build, environment, expand
from tests.processes import ROOT

MOUNTED = "/etc/chiffre"
JOB_UID = "8a4d1f0e"


@pytest.fixture(scope="module", params=[*OVERLAYS, "multinode on GPUs"])
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Overlay:
    if request.param in OVERLAYS:
        return build(ROOT / "k8s" / "overlays" / request.param)
    # As the comment of the overlay says: the component of GPUs instead of that of processors.
    text = (ROOT / "k8s" / "overlays" / "multinode" / "kustomization.yaml").read_text()
    own = tmp_path_factory.mktemp("own")
    folder = Path("../" * len(own.parts), *ROOT.parts[1:], "k8s")
    content = text.replace("- ../../components/cpu", "- ../../components/gpu").replace("- ../..", f"- {folder}")
    (own / "kustomization.yaml").write_text(content)
    return build(own)


@pytest.fixture
def configs(overlay: Overlay, tmp_path: Path) -> Path:
    (found,) = overlay.of("ConfigMap").values()
    for name, text in found["data"].items():
        (tmp_path / name).write_text(text)
    return tmp_path


def parse(arguments: list[str], configs: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """What the training program takes from its arguments."""
    taken: list[Namespace] = []
    monkeypatch.setattr("sys.argv", ["model", *[argument.replace(MOUNTED, str(configs)) for argument in arguments]])
    monkeypatch.setattr(cli.TrainingCLI, "instantiate_classes", lambda _: None)
    monkeypatch.setattr(cli.TrainingCLI, "_run_subcommand", lambda self, name: taken.append(self.config[name]))
    cli.run_lightning()
    return taken[0]


def command(container: Manifest, index: int, tmp_path: Path) -> list[str]:
    """The program and its arguments, run by a shell where the container says so, as pod ``index`` of its Job."""
    variables = environment(container, JOB_UID=JOB_UID, JOB_COMPLETION_INDEX=str(index))
    words = expand([*container.get("command", ["python", "-m", "model"]), *container["args"]], variables)
    if words[0] != "sh":
        return words
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nprintf '%s\\n' python \"$@\"\n")
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    return subprocess.run(words, env=path, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()


def program(words: list[str]) -> list[str]:
    """The arguments of the training program, whoever starts it."""
    start = max(index for index, word in enumerate(words) if word == "model" and words[index - 1] == "-m")
    return words[start + 1 :]


def test_every_job_gives_the_training_program_what_it_takes(
    overlay: Overlay, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in overlay.of("Job"):
        pod = overlay.pod(name)
        (container,) = pod["containers"]
        config = parse(program(command(container, 0, tmp_path)), configs, monkeypatch)
        assert config.publish_as == MODEL_NAME
        assert config.trainer.default_root_dir == f"build/{JOB_UID}"
        # WORKDIR of the image is /app.
        assert "/app/build" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert config.trainer.accelerator == ("gpu" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu")
        best = yaml.safe_load((configs / "best.yaml").read_text())
        assert config.model.hidden_sizes == best["model"]["hidden_sizes"]
        assert config.trainer.max_epochs == best["trainer"]["max_epochs"]
        assert config.trainer.num_nodes == sum(job["spec"].get("completions", 1) for job in overlay.of("Job").values())


def test_jobs_fail_on_what_must_be_mended_and_go_on_after_what_is_nobodys_fault(overlay: Overlay) -> None:
    for job in overlay.of("Job").values():
        spec = job["spec"]
        rules = {str(rule.get("onExitCodes", {}).get("values")): rule for rule in spec["podFailurePolicy"]["rules"]}
        assert rules["None"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert rules["None"]["action"] == "Ignore"
        assert rules[str([EXIT_CONFIGURATION, EXIT_REFUSED])]["action"] == "FailJob"
        assert rules[str([128 + signal.SIGTERM])]["action"] == "Ignore"
        names = {container["name"] for container in spec["template"]["spec"]["containers"]}
        assert all(rule["onExitCodes"]["containerName"] in names for rule in rules.values() if "onExitCodes" in rule)
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["podReplacementPolicy"] == "Failed"
        assert spec["backoffLimit"]
        assert spec["activeDeadlineSeconds"]
        assert spec["ttlSecondsAfterFinished"]


def test_mlflow_takes_its_arguments_and_is_found_by_the_job(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = overlay.pod("mlflow")["containers"]
    for name, value in environment(container).items():
        monkeypatch.setenv(name, value)
    program, (subcommand, *arguments) = container["command"], container["args"]
    assert program == ["mlflow"]
    taken: dict[str, Any] = mlflow_cli.commands[subcommand].make_context(subcommand, arguments).params
    (port,) = container["ports"]
    assert taken["port"] == port["containerPort"]
    assert taken["host"] == "0.0.0.0"  # noqa: S104 -- a Service's requests come from outside the pod
    assert taken["serve_artifacts"] is True
    data = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data")
    assert taken["backend_store_uri"].startswith(f"sqlite:///{data}/")
    assert taken["artifacts_destination"].startswith(f"{data}/")
    service = overlay.of("Service")["mlflow"]
    (own,) = service["spec"]["ports"]
    for job in overlay.of("Job"):
        uri = environment(overlay.pod(job)["containers"][0])["MLFLOW_TRACKING_URI"]
        assert uri == f"http://mlflow:{own['port']}"
    namespace = service["metadata"]["namespace"]
    names = ["mlflow", *(f"mlflow.{namespace}{domain}" for domain in ("", ".svc", ".svc.cluster.local"))]
    assert {f"{name}:{own['port']}" for name in names} <= set(taken["allowed_hosts"].split(","))
    assert "*" not in taken["allowed_hosts"].split(",")


def test_gpu_pods_ask_for_one_and_go_where_there_is_one() -> None:
    for name in ("gpu", "gke-spot"):
        pod = build(ROOT / "k8s" / "overlays" / name).pod("chiffre-train")
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
        spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        if name == "gke-spot":
            assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-accelerator": "nvidia-l4"}
            assert spot in pod["tolerations"]
            assert pod["terminationGracePeriodSeconds"] == 15
        else:
            assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
            assert spot not in pod["tolerations"]
            assert pod["terminationGracePeriodSeconds"] == 30


def test_the_nodes_of_torchrun_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = build(ROOT / "k8s" / "overlays" / "multinode")
    jobs, service = overlay.of("Job"), overlay.of("Service")["chiffre-train"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    configured = yaml.safe_load((ROOT / "model" / "configs" / "multinode.yaml").read_text())["trainer"]
    ranks, pods = [], 0
    for name in ("chiffre-train", "chiffre-train-workers"):
        spec = jobs[name]["spec"]
        assert spec["completionMode"] == "Indexed"
        assert spec["completions"] == spec["parallelism"]
        pods += spec["completions"]
        pod = overlay.pod(name)
        assert pod["subdomain"] == service["metadata"]["name"]
        (container,) = pod["containers"]
        for variable, value in environment(container).items():
            monkeypatch.setenv(variable, value)
        words = command(container, 0, tmp_path)
        assert words[:3] == ["python", "-m", "model.launch"]
        taken = torch.distributed.run.parse_args(words[3:])
        ranks.append(taken.node_rank)
        # A pod of an Indexed Job is named by its index, in the domain of the Service.
        assert taken.master_addr == f"chiffre-train-0.{service['metadata']['name']}"
        assert taken.master_port == service["spec"]["ports"][0]["port"]
        assert (taken.nnodes, taken.nproc_per_node) == (str(configured["num_nodes"]), str(configured["devices"]))
        assert (taken.module, taken.training_script) == (True, "model")
    assert ranks == [0, 1]
    assert pods == configured["num_nodes"]
    assert [any("persistentVolumeClaim" in volume for volume in overlay.pod(name)["volumes"]) for name in jobs] == [True, False]
