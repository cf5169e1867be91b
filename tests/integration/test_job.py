"""What the training Job does, without a cluster: train and publish in one program, stop on SIGTERM, two nodes by torchrun."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from model.bundle import Bundle
from model.delivery import Run
from model.demo import free_port
from tests.processes import Process, run

SMOKE = ["model", "fit", "--config", "model/configs/smoke.yaml"]
LOOSE = ["--floors.recall", "0", "--floors.shift_invariance", "0", "--floors.calibration_error", "1"]
# Long enough to be stopped in the middle of its second epoch; without dropout, whose draws differ by process.
LONG = [*SMOKE, "--model.dropout_rate", "0", "--trainer.limit_train_batches", "100", "--trainer.max_epochs", "2"]
NODES = ["--config", "model/configs/cpu.yaml", "--config", "model/configs/multinode.yaml", "--ckpt_path", "last"]


def test_fit_publishes_what_it_trained_and_a_pod_that_follows_does_so_again(tmp_path: Path, tracking_uri: str) -> None:
    command = [*SMOKE, "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path), "--publish_as", "by_job"]
    code, output = run(*command, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 3, output
    assert "the floor is 0.93" in output
    # Nothing is left to train.
    code, output = run(*command, *LOOSE, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    own = Run.find(tmp_path)
    assert own
    client = MlflowClient(tracking_uri, tracking_uri)
    version = client.get_model_version_by_alias("by_job", "challenger")
    assert version.run_id == own.run_id
    assert f"published by_job version {version.version}, alias challenger" in output
    assert Bundle.load(tmp_path / "bundle").version == str(version.version)
    assert client.get_run(own.run_id).info.status == "FINISHED"


def test_sigterm_before_the_first_step_ends_with_143(tmp_path: Path) -> None:
    # Nobody listens there: it waits for MLflow.
    uri = f"http://127.0.0.1:{free_port()}"
    with Process(*SMOKE, "--trainer.default_root_dir", str(tmp_path), MLFLOW_TRACKING_URI=uri) as process:
        process.wait_for("waiting for MLflow")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143, process.output


class Node(Process):
    """A pod of the multinode Job: its torchrun, with one process."""

    def __init__(self, rank: int, port: int, directory: Path, tracking_uri: str) -> None:
        flags = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)]
        flags += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        super().__init__(
            "model.launch", *flags, "-m", *LONG, *NODES, "--trainer.default_root_dir", str(directory),
            MLFLOW_TRACKING_URI=tracking_uri, GLOO_SOCKET_IFNAME="lo",
        )  # fmt: skip


def losses(directory: Path) -> dict[str, list[float]]:
    """What was logged, by figure, in order."""
    logged: dict[str, list[float]] = {}
    for line in (directory / "outbox.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "metrics":
            for name, value in entry["values"].items():
                logged.setdefault(name, []).append(value)
    return {name: logged[name] for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")}


def test_two_nodes_of_which_one_has_the_volume_stop_resume_and_lose_what_one_process_does(
    tmp_path: Path, tracking_uri: str
) -> None:
    one, volume = tmp_path / "one", tmp_path / "volume"
    code, output = run(*LONG, "--trainer.default_root_dir", str(one), MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output

    # The pod without the volume is told to stop; the other one stops with it, at the same step.
    with ExitStack() as stack:
        port = free_port()
        first, second = (
            stack.enter_context(Node(rank, port, directory, tracking_uri))
            for rank, directory in enumerate((volume, tmp_path / "scratch 1"))
        )
        first.wait_for("train_loss")
        second.popen.send_signal(signal.SIGTERM)
        assert [first.wait(60), second.wait(60)] == [143, 143], f"{first.output}\n{second.output}"
    stopped = torch.load(volume / "checkpoints" / "last.ckpt", weights_only=True)
    assert 100 < stopped["global_step"] < 200
    before = Run.find(volume)

    with ExitStack() as stack:
        port = free_port()
        first, second = (
            stack.enter_context(Node(rank, port, directory, tracking_uri))
            for rank, directory in enumerate((volume, tmp_path / "scratch 2"))
        )
        assert [first.wait(), second.wait()] == [0, 0], f"{first.output}\n{second.output}"
    assert "starting from the beginning" not in first.output + second.output
    assert before == Run.find(volume)
    assert not (tmp_path / "scratch 1").exists()
    assert not (tmp_path / "scratch 2").exists()
    expected, found = losses(one), losses(volume)
    for name, values in expected.items():
        assert len(values) == 2
        assert found[name] == pytest.approx(values, abs=1e-4), name
    assert Bundle.load(volume / "bundle").lineage.run_id == Run(**json.loads((volume / "run.json").read_text())).run_id


def test_torchrun_ends_with_the_exit_code_of_its_process(tmp_path: Path) -> None:
    flags = ["--nnodes", "1", "--nproc-per-node", "1", "--node-rank", "0", "--master-addr", "127.0.0.1"]
    options = ["--trainer.default_root_dir", str(tmp_path), "--model.dropout_rate", "1.5"]
    code, output = run("model.launch", *flags, "--master-port", str(free_port()), "-m", *SMOKE, *options)
    assert code == 2, output
    assert "error: dropout_rate: expected a number in [0, 1), got 1.5" in output
    assert "Traceback" not in output
