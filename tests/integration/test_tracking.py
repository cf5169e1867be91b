"""A real MLflow server, and what becomes of a run when it dies."""

import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from model.bundle import Bundle
from model.delivery import Run
from model.demo import free_port
from model.outbox import Outbox
from tests.conftest import FIT
from tests.mlflow_server import kill, mlflow_server
from tests.processes import ROOT, Process, run


def history(client: MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, metric))


def test_a_server_that_dies_in_mid_training_loses_nothing(tmp_path: Path, run_directory: Path, tracking_uri: str) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    root = tmp_path / "run"
    with mlflow_server(tmp_path, port) as server:
        options = ["--trainer.default_root_dir", str(root), "--trainer.logger.init_args.flush_timeout_seconds", "3"]
        with Process("model", *FIT, *options, MLFLOW_TRACKING_URI=uri) as training:
            training.wait_for("train_loss")
            kill(server)
            assert training.wait() == 0, training.output
    assert "nothing is lost" in training.output
    assert f"send them with: python -m model sync --directory {root}" in training.output
    assert Outbox(root).pending()

    code, output = run("model", "sync", "--directory", str(root))
    assert code == 1
    assert "did not take them" in output
    assert Outbox(root).pending()

    with mlflow_server(tmp_path, port):
        code, output = run("model", "sync", "--directory", str(root))
        assert code == 0, output
        assert Outbox(root).pending() == []
        client, own = MlflowClient(uri, uri), Run.find(root)
        assert own
        tracked = client.get_run(own.run_id)
        undisturbed, other = MlflowClient(tracking_uri, tracking_uri), Run.find(run_directory)
        assert other
        for metric in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy", "learning_rate"):
            assert history(client, own.run_id, metric) == history(undisturbed, other.run_id, metric), metric
        assert len(history(client, own.run_id, "val_accuracy")) == 3
        assert tracked.info.status == "FINISHED"
        assert {"bundle.json", "model.onnx", "model.ckpt"} == {
            Path(item.path).name for item in client.list_artifacts(own.run_id, "bundle")
        }
        code, output = run(
            "model", "publish", "--bundle", str(root / "bundle"), "--floors.recall", "0.9", "--floors.shift_invariance", "0.8",
            "--floors.calibration_error", "0.05", MLFLOW_TRACKING_URI=uri,
        )  # fmt: skip
        assert code == 0, output
        assert "published digits version 1, alias challenger" in output
        assert str(client.get_model_version_by_alias("digits", "challenger").version) == "1"


def test_a_run_is_tracked_with_its_parameters_and_figures(run_directory: Path, tracking_uri: str, bundle: Bundle) -> None:
    own = Run.find(run_directory)
    assert own
    tracked = MlflowClient(tracking_uri, tracking_uri).get_run(own.run_id)
    expected = {"epochs": "3", "batch_size": "128", "dropout_rate": "0.2", "optimizer": "adam", "seed": "42"}
    assert expected.items() <= tracked.data.params.items()
    assert tracked.data.params["data_digest"] == bundle.lineage.data_digest
    assert tracked.data.params["git_revision"]
    assert tracked.data.metrics["test_accuracy"] == bundle.metrics["test_accuracy"]
    assert tracked.info.status == "FINISHED"
    assert bundle.lineage.run_id == own.run_id


def test_a_resumed_run_keeps_its_id_and_each_epoch_once(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *FIT, "--trainer.default_root_dir", str(tmp_path)]
    with Process(*command, MLFLOW_TRACKING_URI=tracking_uri) as process:
        process.wait_for("train_loss")
        process.popen.send_signal(signal.SIGTERM)
        process.wait()
    before, client = Run.find(tmp_path), MlflowClient(tracking_uri, tracking_uri)
    assert before
    assert client.get_run(before.run_id).info.status == "KILLED"
    code, output = run(*command, "--ckpt_path", "last", MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert Run.find(tmp_path) == before
    assert client.get_run(before.run_id).info.status == "FINISHED"
    assert len(history(client, before.run_id, "val_accuracy")) == 3


def test_no_server_at_the_start_is_said_and_may_be_tried_again(tmp_path: Path) -> None:
    options = ["--trainer.default_root_dir", str(tmp_path), "--trainer.logger.init_args.connect_timeout_seconds", "1"]
    code, output = run("model", *FIT, *options, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "error: MLflow at http://127.0.0.1" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sync", "--directory", "nowhere"], 2, "directory: expected a run's directory, nowhere has no run.json"),
        (["publish", "--bundle", "nowhere"], 2, "nowhere: expected a bundle"),
        (["publish", "--no_such_option", "1"], 2, "no_such_option"),
    ],
)
def test_bad_arguments_of_publish_and_sync(arguments: list[str], code: int, message: str) -> None:
    found, output = run("model", *arguments)
    assert found == code, output
    assert message in output
    assert "Traceback" not in output


def test_publish_refuses_with_its_own_exit_code(bundle: Bundle, tracking_uri: str) -> None:
    command = ["model", "publish", "--bundle", str(bundle.directory), "--floors.shift_invariance", "0.999"]
    code, output = run(*command, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 3
    assert "one-pixel shift invariance is 0." in output
    assert str(ROOT) not in output
