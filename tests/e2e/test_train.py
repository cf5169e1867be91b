"""Training on a cluster: a Job that publishes, a pod that is preempted, a GPU that is not there, two machines."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.e2e.cluster import NAMESPACE, Cluster
from tests.e2e.training import EPOCHS, JOB, Registry, Training
from tests.processes import run
from tests.tools import KUBECTL

SEED = 1
GPU, GPU_LABEL = "nvidia.com/gpu", "nvidia.com/gpu.present"
# One process and two draw different noise, and add in a different order: the difference grows with the steps.
BRIEF: dict[str, Any] = {
    "model": {"dropout_rate": 0.0},
    "trainer": {"max_epochs": 2, "limit_train_batches": 100},
    "floors": {"recall": 0.5, "shift_invariance": 0.5, "calibration_error": 0.5},
}


def weights(registry: Registry, run_id: str, folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(registry.bundle(run_id, folder).directory / "model.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return found


def undisturbed(registry: Registry) -> str:
    """The run of the first version."""
    return str(registry.version(registry.versions[0]).run_id)


class Follower:
    """The log of a pod while it runs, which goes with the pod."""

    def __init__(self, pod: str) -> None:
        command = [str(KUBECTL), "logs", "--follow", "--namespace", NAMESPACE, pod]
        self.lines: list[str] = []
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        self.lines.extend(self._process.stdout)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def close(self, seconds: float = 0) -> None:
        """Read to the end, or as far as the time goes."""
        self._reader.join(seconds)
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(5)
        if self._process.stdout:
            self._process.stdout.close()


@contextmanager
def followed(pod: str) -> Iterator[Follower]:
    follower = Follower(pod)
    try:
        yield follower
    finally:
        follower.close()


def test_a_job_ends_with_a_version_that_is_the_challenger(registry: Registry) -> None:
    assert len(registry.versions) >= 2
    challenger = registry.challenger()
    assert int(challenger.version) == registry.versions[-1]
    for number in registry.versions[:2]:
        run_id = str(registry.version(number).run_id)
        assert registry.client.get_run(run_id).info.status == "FINISHED"
        assert len(registry.losses(run_id)["val_loss"]) == EPOCHS


def test_a_preempted_pod_is_followed_by_one_that_ends_as_if_nothing_had_been(
    cluster: Cluster, training: Training, registry: Registry, tmp_path: Path
) -> None:
    before, runs = set(registry.versions), registry.runs()
    training.apply(seed=SEED)
    first = cluster.wait("the training pod", lambda: next(iter(training.pods()), None), 60, NAMESPACE).metadata
    # The log of a container that was not started is refused.
    cluster.wait("the first epoch", lambda: f"epoch 1/{EPOCHS}" in training.log(), 120, NAMESPACE)
    with followed(first.name) as follower:
        time.sleep(0.7)  # in the second epoch, which takes about two seconds
        cluster.kubectl("delete", "pod", "--namespace", NAMESPACE, first.name, "--grace-period=15", "--wait=false")
        stopping = time.monotonic()
        cluster.wait("the pod to go", lambda: all(pod.metadata.uid != first.uid for pod in training.pods()), 30, NAMESPACE)
        # It stopped by itself, before it was killed.
        assert time.monotonic() - stopping < 15
        follower.close(5)
        stopped = re.search(r"stopped at step (\d+)", follower.text)
        assert stopped, follower.text
    steps = registry.losses(undisturbed(registry))["train_loss"][0][0] + 1
    assert int(stopped[1]) % steps, f"step {stopped[1]} is the end of an epoch of {steps}"
    output = training.complete()
    assert "starting from the beginning" not in output
    (number,) = set(registry.versions) - before
    run_id = str(registry.version(number).run_id)
    # One run for both pods: there is no other.
    assert registry.runs() - runs == {run_id}
    resumed, expected = registry.losses(run_id), registry.losses(undisturbed(registry))
    assert resumed == expected
    of_both = []
    for name, own in (("resumed", run_id), ("undisturbed", undisturbed(registry))):
        (tmp_path / name).mkdir()
        of_both.append(weights(registry, own, tmp_path / name))
    for name, tensor in of_both[1].items():
        assert torch.equal(of_both[0][name], tensor), name
    assert registry.client.get_run(run_id).info.status == "FINISHED"


@contextmanager
def faked_gpu(cluster: Cluster) -> Iterator[None]:
    """A node that says it has a GPU, where none does; what it says is put back."""
    nodes = cluster.core.list_node().items
    node = next((node for node in nodes if int(node.status.allocatable.get(GPU, 0))), nodes[0]).metadata.name
    before = {item.metadata.name: item for item in nodes}[node]
    has_gpu, label = GPU in before.status.capacity, (before.metadata.labels or {}).get(GPU_LABEL)
    if int(before.status.allocatable.get(GPU, 0)) == 0:
        number = {GPU: "1"}
        cluster.core.patch_node_status(node, {"status": {"capacity": number, "allocatable": number}})
    cluster.core.patch_node(node, {"metadata": {"labels": {GPU_LABEL: "true"}}})
    try:
        yield
    finally:
        cluster.core.patch_node(node, {"metadata": {"labels": {GPU_LABEL: label}}})
        restored = {
            field: {GPU: getattr(before.status, field).get(GPU) if has_gpu else None} for field in ("capacity", "allocatable")
        }
        cluster.core.patch_node_status(node, {"status": restored})


def test_a_gpu_that_is_not_there_fails_the_job_at_once_and_is_named(
    cluster: Cluster, training: Training, registry: Registry
) -> None:
    versions = registry.versions
    with faked_gpu(cluster):
        training.apply(overlay="gpu")
        condition = cluster.wait("the Job to fail", lambda: found if any(found := training.condition()) else None, 90, NAMESPACE)
        (pod,) = training.pods()
        training.remove()
    assert condition[0] == "Failed"
    assert "PodFailurePolicy" in condition[1]
    ended = pod.status.container_statuses[0].state.terminated
    assert ended.exit_code == 2
    assert "No supported gpu backend found" in ended.message
    assert registry.versions == versions


def test_two_machines_lose_what_one_does(cluster: Cluster, training: Training, registry: Registry, tmp_path: Path) -> None:
    before = set(registry.versions)
    training.apply(overlay="multinode", seed=SEED, **BRIEF)
    try:
        training.complete()
        training.complete(f"{JOB}-workers", seconds=60)
        assert len(training.pods()) == 2
    finally:
        training.remove()
        cluster.kubectl("delete", "service", "--namespace", NAMESPACE, JOB, "--ignore-not-found")
    (number,) = set(registry.versions) - before
    found = registry.losses(str(registry.version(number).run_id))
    config = tmp_path / "one.yaml"
    config.write_text(yaml.safe_dump({"seed_everything": SEED, **BRIEF}))
    options = ["--config", str(config), "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    code, output = run("model", "fit", *options, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert code == 0, output
    for name, values in found.items():
        one = logged(tmp_path, name)
        assert len(one) == 2
        assert [value for _, value in values] == pytest.approx(one, abs=1e-4), name


def logged(directory: Path, name: str) -> list[float]:
    """What a run on this machine logged, in order."""
    entries = [json.loads(line) for line in (directory / "outbox.jsonl").read_text().splitlines()]
    return [entry["values"][name] for entry in entries if entry["kind"] == "metrics" and name in entry["values"]]
