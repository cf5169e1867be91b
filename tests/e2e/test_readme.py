"""The README's sections about a cluster, followed line by line where nothing of the project is yet."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.training import SHORT
from tests.processes import ROOT
from tests.tools import BIN

SECTIONS = ("Train on a cluster", "Serve on a cluster")


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    found = []
    for section in SECTIONS:
        (body,) = re.findall(rf"^## {section}$(.*?)^## ", text, re.DOTALL | re.MULTILINE)
        found += [line for block in re.findall(r"```console\n(.*?)```", body, re.DOTALL) for line in block.splitlines()]
    return found


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Path:
    """What a reader has, with the image where it is, and a configuration that takes seconds."""
    for name in ("k8s", "helm", "model/configs", "data/seven.png"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    repository, tag = cluster.image("train").rsplit(":", 1)
    path = tmp_path / "k8s" / "image" / "kustomization.yaml"
    content = yaml.safe_load(path.read_text())
    (image,) = content["images"]
    image.update(newName=repository, newTag=tag)
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "model" / "configs" / "best.yaml").write_text(yaml.safe_dump(SHORT))
    return tmp_path


def follow(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["/bin/bash", "-euc", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def serves_mlflow(command: str, folder: Path) -> bool:
    """Whether MLflow's page is there while ``command`` runs."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(BIN / "kubectl"), *command.split()[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                return httpx.get("http://127.0.0.1:5000/", timeout=5).is_success
            except httpx.TransportError:
                time.sleep(0.2)
        return False
    finally:
        process.terminate()
        process.wait(10)


def is_empty(cluster: Cluster) -> bool:
    return NAMESPACE not in {found.metadata.name for found in cluster.core.list_namespace().items}


def test_the_commands_work_in_the_order_of_the_readme(cluster: Cluster, checkout: Path) -> None:
    if os.environ.get("KEEP") and not is_empty(cluster):
        pytest.skip("KEEP leaves the namespace that this test would begin and end without")
    assert is_empty(cluster), f"the namespace {NAMESPACE} is there: expected a cluster without it"
    lines = commands()
    assert len(lines) == 11
    try:
        for command in lines:
            if " port-forward " in command:
                assert serves_mlflow(command, checkout), (checkout / "log").read_text()
                continue
            output = follow(command, checkout)
            if command.startswith("kubectl logs"):
                assert "published digits version 1, alias challenger" in output
            if command.startswith("curl"):
                answer = json.loads(output)
                assert (answer["predictions"][0]["label"], answer["model_version"]) == (7, "1")
    except AssertionError as error:
        message = f"{error}\n{cluster.report(NAMESPACE)}"
        raise AssertionError(message) from error
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=130)
    assert is_empty(cluster)
