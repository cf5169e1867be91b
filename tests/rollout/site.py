"""A release in a cluster: Helm, MLflow, servers and a gateway are the real ones, and only Kubernetes' API is in memory."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from model.bundle import Bundle
from model.demo import free_port
from model.manifest import Registration
from model.registry import MODEL_NAME
from tests.mlflow_server import mlflow_server
from tests.processes import ROOT, Process, Server
from tests.rollout.apiserver import SOURCE, Manifest, Store, api_server
from tests.rollout.gateway import Gateway
from tests.tools import BIN, HELM

NAMESPACE = "chiffre"
HOSTS = {tag: f"{tag}-digits-predictor.chiffre.localhost" for tag in ("prev", "latest")}
# Little enough for seconds, on a machine whose latency says nothing.
POLICY = (
    "--looks",
    "300,1000",
    "--latency_requests",
    "100",
    "--error_rate",
    "0.1",
    "--latency_ms",
    "5000",
    "--step_seconds",
    "0.1",
)


class Routes(dict[str, str]):
    """From a tag's host to the server of the model that the tag's revision has."""

    def __init__(self, store: Store, servers: dict[str, str]) -> None:
        super().__init__()
        self._store, self._servers = store, servers

    def _find(self, host: str) -> str | None:
        tag = host.partition("-")[0]
        for (plural, _, name), item in list(self._store.objects.items()):
            if plural == "services" and name in host:
                found = {target.get("tag"): target["revisionName"] for target in item["status"]["traffic"]}
                if tag in found:
                    revision = self._store.objects["revisions", NAMESPACE, found[tag]]
                    return self._servers[revision["metadata"]["annotations"][SOURCE]]
        return None

    def __contains__(self, host: object) -> bool:
        return self._find(str(host)) is not None

    def __missing__(self, host: str) -> str:
        found = self._find(host)
        assert found
        return found


@dataclass
class Site:
    """Where release ``digits`` serves version 1."""

    store: Store
    gateway: Gateway
    tracking_uri: str
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "GATEWAY": self.gateway.url,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def helm(self, *arguments: str) -> str:
        command = [str(HELM), *arguments, "--namespace", NAMESPACE]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, release: str = "digits", *values: str) -> None:
        image = ["--set-string", "image.repository=dev.local/chiffre-serve,image.tag=1"]
        self.helm("install", release, "helm/chiffre", "--set", "model.uri=mlflow://digits/1", *image, *values)

    def history(self, release: str = "digits") -> list[str]:
        return [entry["description"] for entry in json.loads(self.helm("history", release, "--output", "json"))]

    def events(self) -> list[Manifest]:
        return [item for (plural, *_), item in self.store.objects.items() if plural == "events"]

    def traffic(self, release: str = "digits") -> dict[str, int]:
        """Shares by model."""
        service = self.store.objects["services", NAMESPACE, f"{release}-predictor"]
        shares = {target["revisionName"]: target["percent"] for target in service["status"]["traffic"]}
        revisions = {name: self.store.objects["revisions", NAMESPACE, name] for name in shares}
        return {revisions[name]["metadata"]["annotations"][SOURCE]: percent for name, percent in shares.items() if percent}

    def reset(self) -> None:
        """A release that was just installed."""
        if [plural for plural, *_ in self.store.objects].count("secrets") == 1 and not self.store.never_ready:
            return
        with self.store.lock:
            self.store.objects.clear()
            self.store.never_ready.clear()
        self.install()
        self.client.set_registered_model_alias(MODEL_NAME, "champion", "1")

    def process(self, *arguments: str) -> Process:
        return Process("rollout", *arguments, **self.environment)


def enrol(client: MlflowClient, bundle: Bundle) -> Registration:
    """A registered version that has the bundle's files."""
    experiment = client.get_experiment_by_name("rollout")
    number = experiment.experiment_id if experiment else client.create_experiment("rollout")
    run = client.create_run(number)
    client.log_artifacts(run.info.run_id, str(bundle.directory), "bundle")
    source, tags = f"{run.info.artifact_uri}/bundle", {"bundle_digest": bundle.digest}
    found = client.create_model_version(MODEL_NAME, source, run.info.run_id, tags=tags)
    return Registration(name=MODEL_NAME, version=str(found.version))


@contextmanager
def open_site(bundles: list[Bundle], folder: Path) -> Iterator[Site]:
    """With ``bundles`` as versions 1, 2, ..., each served at once."""
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(mlflow_server(folder, port))
        tracking_uri = f"http://127.0.0.1:{port}"
        client = MlflowClient(tracking_uri)
        client.create_registered_model(MODEL_NAME)
        servers = {}
        for bundle in bundles:
            registration = enrol(client, bundle)
            bundle.register(registration)
            server = stack.enter_context(Server("--model_dir", str(bundle.directory)))
            servers[f"mlflow://digits/{registration.version}"] = server.url
        store = Store()
        store.hosts = HOSTS
        gateway = stack.enter_context(Gateway(Routes(store, servers)))
        kubeconfig = stack.enter_context(api_server(store, folder))
        yield Site(store=store, gateway=gateway, tracking_uri=tracking_uri, kubeconfig=kubeconfig)
