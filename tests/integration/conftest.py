"""A registry that has a bundle, published and as what a run made."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.delivery import connect
from model.demo import free_port
from model.registry import Floors, publish
from tests.mlflow_server import mlflow_server
from tests.processes import ROOT

LENIENT = Floors(recall=0, shift_invariance=0, calibration_error=1)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The bundle, its run and its server; it is digits, version 1."""

    uri: str
    bundle: Bundle
    run_id: str


def publish_to(uri: str, bundle: Bundle, directory: Path) -> Published:
    """A bundle of a new run, registered by the command that does it."""
    client = connect(uri)
    run_id = client.create_run(client.create_experiment("storage")).info.run_id
    own = replace(bundle, lineage=replace(bundle.lineage, run_id=run_id))
    own = own.save(directory, checkpoint=bundle.checkpoint_path, onnx=bundle.onnx_path)
    client.log_artifacts(run_id, str(directory), "bundle")
    publish(directory, "digits", str(ROOT / "data" / "mnist"), uri, LENIENT)
    return Published(uri=uri, bundle=Bundle.load(directory), run_id=run_id)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Published]:
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    with mlflow_server(folder, port):
        yield publish_to(f"http://127.0.0.1:{port}", bundle, folder / "bundle")
