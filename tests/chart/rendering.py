"""The chart as Helm renders it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT
from tests.tools import HELM

CHART = ROOT / "helm" / "chiffre"
CI = sorted((CHART / "ci").glob("*.yaml"))
NAMES = [path.stem for path in CI]
RELEASE, NAMESPACE = "digits", "chiffre"


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)


def _arguments(values: dict[str, Any] | str, release: str, namespace: str, chart: Path) -> tuple[list[str], str]:
    """Of ``helm template`` and ``helm install``, with values given or those of a file in ci/, and what goes to standard input."""
    file, text = (str(CHART / "ci" / f"{values}.yaml"), "") if isinstance(values, str) else ("-", json.dumps(values))
    return [release, str(chart), "--namespace", namespace, "--values", file], text


def render(
    values: dict[str, Any] | str, release: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART
) -> list[dict[str, Any]]:
    """All objects."""
    arguments, text = _arguments(values, release, namespace, chart)
    done = helm("template", *arguments, stdin=text)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refusal(values: dict[str, Any], release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """What Helm says about values that it does not take."""
    arguments, text = _arguments(values, release, namespace, CHART)
    done = helm("template", *arguments, stdin=text)
    assert done.returncode != 0, done.stdout
    assert not done.stdout
    return done.stderr


def notes(values: dict[str, Any] | str) -> str:
    arguments, text = _arguments(values, RELEASE, NAMESPACE, CHART)
    done = helm("install", *arguments, "--dry-run=client", stdin=text)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:\n")[2]


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def containers(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All containers by name."""
    runtime, test = one(manifests, "ServingRuntime")["spec"], one(manifests, "Pod")["spec"]
    storage = [manifest["spec"]["container"] for manifest in manifests if manifest["kind"] == "ClusterStorageContainer"]
    return {container["name"]: container for container in (*runtime["containers"], *test["containers"], *storage)}
