"""The command line, run as its users run it."""

import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from model.__main__ import main
from model.bundle import Bundle
from model.delivery import Run
from model.idx import read_idx
from tests.conftest import FIT
from tests.processes import ROOT, Process, run

SMOKE = ["fit", "--config", "model/configs/smoke.yaml"]


def true_labels() -> list[int]:
    labels: list[int] = read_idx(ROOT / "data" / "mnist" / "t10k-labels-idx1-ubyte.gz").tolist()
    return labels


def load(directory: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(directory / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Weights, optimizer state, schedule, figures: bit for bit."""
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    for index, state in first["optimizer_states"][0]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, second["optimizer_states"][0]["state"][index][name]), name
    assert first["lr_schedulers"][0]["last_epoch"] == second["lr_schedulers"][0]["last_epoch"]
    assert first["train_totals"] == second["train_totals"]
    assert (first["epoch"], first["global_step"]) == (second["epoch"], second["global_step"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_mid_epoch_and_resumed_ends_bit_for_bit_like_undisturbed(
    number: signal.Signals, run_directory: Path, tracking_uri: str, tmp_path: Path
) -> None:
    command = ["model", *FIT, "--trainer.default_root_dir", str(tmp_path)]
    with Process(*command, MLFLOW_TRACKING_URI=tracking_uri) as process:
        process.wait_for("train_loss")
        process.popen.send_signal(number)
        code = process.wait()
    steps_an_epoch = 391
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number
        assert "--ckpt_path last" in process.output
        stopped = load(tmp_path)
        assert stopped["global_step"] % steps_an_epoch != 0
        assert steps_an_epoch < stopped["global_step"] < 2 * steps_an_epoch
    code, output = run(*command, "--ckpt_path", "last", MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert_equal(load(run_directory), load(tmp_path))
    assert_equal(load(run_directory, "best"), load(tmp_path, "best"))
    undisturbed, resumed = Bundle.load(run_directory / "bundle"), Bundle.load(tmp_path / "bundle")
    assert resumed.metrics == undisturbed.metrics
    assert resumed.lineage.run_id != undisturbed.lineage.run_id


def test_two_interrupts_end_it_at_once(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--trainer.limit_train_batches", "300", "--trainer.max_epochs", "50"]
    with Process(*command, "--trainer.default_root_dir", str(tmp_path), MLFLOW_TRACKING_URI=tracking_uri) as process:
        process.wait_for("train_loss")
        for _ in range(2):
            process.popen.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    assert load(tmp_path)["global_step"] >= 300


def test_test_validate_and_predict_use_the_best_checkpoint(run_directory: Path, bundle: Bundle) -> None:
    root = ["--trainer.default_root_dir", str(run_directory)]
    code, output = run("model", "test", *root)
    assert code == 0, output
    assert f"{bundle.metrics['test_accuracy']:.4f}" in output
    code, output = run("model", "validate", *root)
    assert code == 0, output
    assert f"{bundle.metrics['validation_accuracy']:.4f}" in output
    images = ROOT / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"
    code, output = run("model", "predict", *root, "--data.predict_images", str(images))
    assert code == 0, output
    rows = (run_directory / "predictions.csv").read_text().splitlines()
    assert rows[0] == "image,label,p0,p1,p2,p3,p4,p5,p6,p7,p8,p9"
    assert len(rows) == 10_001


def test_a_run_is_not_overwritten_unless_told(run_directory: Path) -> None:
    code, output = run("model", *FIT, "--trainer.default_root_dir", str(run_directory))
    assert code == 2
    assert "holds a run already" in output
    assert "--overwrite true" in output


def test_overwrite_leaves_nothing_of_the_old_run(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--trainer.default_root_dir", str(tmp_path)]
    code, output = run(*command, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    before = Bundle.load(tmp_path / "bundle")
    with Process(*command, "--overwrite", "true", "--trainer.max_epochs", "50", MLFLOW_TRACKING_URI=tracking_uri) as process:
        process.wait_for("train_loss")
        process.popen.kill()
        process.wait()
    run_id = Run.find(tmp_path)
    assert run_id
    assert run_id.run_id != before.lineage.run_id
    assert not (tmp_path / "bundle").exists()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    # Killed before its first checkpoint, a run that is told to go on begins anew under its id.
    code, output = run(*command, "--ckpt_path", "last", MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert "starting from the beginning" in output
    assert Bundle.load(tmp_path / "bundle").lineage.run_id == run_id.run_id


def test_two_processes_train_what_one_does(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--model.dropout_rate", "0", "--trainer.accelerator", "cpu"]
    for devices in ("1", "2"):
        root = str(tmp_path / devices)
        options = ["--trainer.devices", devices, "--trainer.strategy", "ddp", "--trainer.default_root_dir", root]
        code, output = run(*command, *options, MLFLOW_TRACKING_URI=tracking_uri)
        assert code == 0, output
    one, two = load(tmp_path / "1"), load(tmp_path / "2")
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, two["state_dict"][name], atol=1e-4), name
    assert one["train_totals"] == pytest.approx(two["train_totals"], rel=1e-3)
    assert Bundle.load(tmp_path / "2" / "bundle").lineage.run_id
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    code, output = run("model", "predict", *options, "--trainer.default_root_dir", str(tmp_path / "2"))
    assert code == 0, output
    rows = (tmp_path / "2" / "predictions.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [str(image) for image in range(10_000)]
    accuracy = sum(int(row.split(",")[1]) == label for row, label in zip(rows[1:], true_labels(), strict=True)) / 10_000
    assert accuracy == Bundle.load(tmp_path / "2" / "bundle").metrics["test_accuracy"]


def test_smoke_config_with_overrides(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--model.optimizer", "sgd", "--model.momentum", "0.9", "--model.nesterov", "true"]
    code, output = run(*command, "--trainer.default_root_dir", str(tmp_path), MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert "optimizer: sgd" in output
    assert (tmp_path / "config.yaml").read_text().count("momentum: 0.9") == 1
    assert Bundle.load(tmp_path / "bundle").network["hidden_sizes"] == [32]


def test_gradient_descent_takes_the_whole_set_in_each_step(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--model.optimizer", "gd", "--trainer.max_epochs", "3"]
    code, output = run(*command, "--trainer.default_root_dir", str(tmp_path), MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert "data.batch_size is 50,000" in output
    assert load(tmp_path)["global_step"] == 3


GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the GPU that is missing elsewhere")


@GPU
def test_a_gpu_that_is_not_there_exits_2_and_says_so(tracking_uri: str, tmp_path: Path) -> None:
    command = ["model", *SMOKE, "--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "gpu"]
    code, output = run(*command, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 2, output
    assert "error: No supported gpu backend found" in output
    assert "Traceback" not in output


BAD_CONFIGURATIONS = [
    pytest.param(["--trainer.accelerator", "cuda", "--trainer.devices", "2"], "is not available", marks=GPU),
    (["--model.dropout_rate", "1.5"], "dropout_rate: expected a number in [0, 1), got 1.5"),
    (["--model.optimizer", "lion"], "optimizer"),
    (["--model.nesterov", "true"], "nesterov: expected optimizer sgd"),
    (["--model.hidden_sizes", "[0]"], "hidden_sizes"),
    (["--model.learning_rate", "-1"], "learning_rate"),
    (["--model.weight_decay", "-0.1"], "weight_decay: expected a number of at least 0, got -0.1"),
    (["--data.batch_size", "0"], "batch_size"),
    (["--data.augmentation.scale", "-1"], "scale"),
    (["--model.no_such_option", "1"], "no_such_option"),
    (["--config", "nowhere.yaml"], "nowhere.yaml"),
    (["--ckpt_path", "nowhere.ckpt"], "ckpt_path: expected a checkpoint, nowhere.ckpt does not exist"),
    (["--data.data_dir", "nowhere"], "nowhere/SHA256SUMS: missing"),
]


@pytest.mark.parametrize(("options", "message"), BAD_CONFIGURATIONS)
def test_bad_configuration_exits_2_and_says_what(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["model", *SMOKE, "--trainer.default_root_dir", str(tmp_path), *options])
    try:
        code = main()
    except SystemExit as error:
        code = int(error.code or 0)
    shown = capsys.readouterr().err
    assert code == 2
    assert message in shown
    assert not (tmp_path / "run.json").exists()


def test_test_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    code, output = run("model", "test", "--trainer.default_root_dir", str(tmp_path))
    assert code == 2
    assert "best.ckpt does not exist" in output


def test_resume_with_another_batch_size_exits_2(run_directory: Path, tmp_path: Path, tracking_uri: str) -> None:
    shutil.copytree(run_directory, tmp_path / "run")
    options = ["--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", "last", "--data.batch_size", "64"]
    code, output = run("model", *FIT, "--trainer.max_epochs", "4", *options, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 2, output
    assert "data.batch_size: the checkpoint was trained with 128, got 64" in output
    assert "Traceback" not in output


def test_a_checkpoint_of_another_run_does_not_open_its_directory(run_directory: Path, tmp_path: Path, tracking_uri: str) -> None:
    shutil.copytree(run_directory, tmp_path / "run")
    foreign = str(run_directory / "checkpoints" / "last.ckpt")
    options = ["--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", foreign]
    code, output = run("model", *FIT, *options, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 2, output
    assert "holds a run already" in output


def test_a_moved_run_remembers_its_best_score(run_directory: Path, tmp_path: Path, tracking_uri: str) -> None:
    shutil.copytree(run_directory, tmp_path / "moved")
    best = load(tmp_path / "moved", "best")
    # A learning rate that only harms: what the added epoch brings is worse than the best.
    checkpoint = load(tmp_path / "moved")
    checkpoint["lr_schedulers"][0]["base_lrs"] = [1.0]
    torch.save(checkpoint, tmp_path / "moved" / "checkpoints" / "last.ckpt")
    options = ["--trainer.default_root_dir", str(tmp_path / "moved"), "--ckpt_path", "last", "--trainer.max_epochs", "4"]
    code, output = run("model", *FIT[:-2], *options, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 0, output
    assert load(tmp_path / "moved")["epoch"] == 3
    assert load(tmp_path / "moved", "best")["epoch"] == best["epoch"]


def test_training_that_diverged_says_so_and_its_run_has_failed(tmp_path: Path, tracking_uri: str) -> None:
    options = ["--model.optimizer", "sgd", "--model.learning_rate", "1e30", "--trainer.default_root_dir", str(tmp_path)]
    code, output = run("model", *SMOKE, *options, MLFLOW_TRACKING_URI=tracking_uri)
    assert code == 2, output
    assert "model.learning_rate: training diverged" in output
    own = Run.find(tmp_path)
    assert own
    assert MlflowClient(tracking_uri, tracking_uri).get_run(own.run_id).info.status == "FAILED"
