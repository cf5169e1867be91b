"""What kustomize makes of the folders in ``k8s/``."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT
from tests.tools import KUBECTL

Manifest = dict[str, Any]

OVERLAYS = ("cpu", "gpu", "gke-spot", "multinode", "kind")


@dataclass(frozen=True)
class Overlay:
    """All that one `kubectl apply -k` brings."""

    manifests: list[Manifest]

    def of(self, kind: str) -> dict[str, Manifest]:
        """By name."""
        return {found["metadata"]["name"]: found for found in self.manifests if found["kind"] == kind}

    def templates(self) -> Iterator[tuple[str, Manifest]]:
        """Each pod that comes of it: the name of what makes it, labels and specification."""
        for kind in ("Job", "Deployment"):
            for name, found in self.of(kind).items():
                yield name, found["spec"]["template"]

    def pod(self, name: str) -> Manifest:
        """The specification of the pods of ``name``."""
        spec: Manifest = dict(self.templates())[name]["spec"]
        return spec


def build(folder: Path) -> Overlay:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return Overlay(list(yaml.safe_load_all(done.stdout)))


def build_own(folder: Path, *, overlay: str = "cpu", **kustomization: Any) -> Overlay:
    """An overlay of a user's own, in ``folder``, over one of ours."""
    base = os.path.relpath(ROOT / "k8s" / "overlays" / overlay, folder)
    content = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base], **kustomization}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return build(folder)


def environment(container: Manifest, **injected: str) -> dict[str, str]:
    """A container's variables, with what the cluster adds to them."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry} | injected


def expand(arguments: list[str], variables: dict[str, str]) -> list[str]:
    """Arguments as a kubelet passes them."""
    for name, value in variables.items():
        arguments = [argument.replace(f"$({name})", value) for argument in arguments]
    return arguments
