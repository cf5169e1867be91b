"""The restricted profile of Pod Security, and what we ask for beyond it."""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What a namespace that enforces ``restricted`` would refuse a pod for, and what we would."""
    return [*_of_pod(pod), *(found for container in _containers(pod) for found in _of_container(container))]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    yield from (f"volume {volume['name']}" for volume in pod.get("volumes", []) if not volume.keys() - {"name"} <= _VOLUMES)
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if not context.get("runAsUser") or not context.get("runAsGroup"):
        yield "runAsUser, runAsGroup"
    if context.get("sysctls"):
        yield "sysctls"
    yield from (name for name in ("automountServiceAccountToken", "enableServiceLinks") if pod.get(name) is not False)


def _of_container(container: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if context.get("capabilities", {}).get("drop") != ["ALL"] or "add" in context["capabilities"]:
        yield "capabilities"
    if context.get("privileged") or context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield "privileged, runAsUser, runAsNonRoot"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
        yield "resources"
